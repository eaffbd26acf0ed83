"""What stays of a run besides its rows: the tables, the page, and the last lines on the screen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.comparison import Comparison, compare
from evaluation.paired import ENOUGH
from evaluation.render import (
    csv,
    footnote,
    markdown,
    markdown_differences,
    markdown_table,
    text,
    text_differences,
)
from experiments.report.page import leave_page
from experiments.runs.garbage import seldom_collected
from experiments.runs.rows import RowIndex, write_text
from experiments.runs.store import RunStore
from freemask.types import EditTask

SHOWN = 5
PAIRED = (
    "Difference to '{}' over the tasks that both finished: mean [95% bootstrap interval over clips]. Marked, and "
    f"called better or worse, where the interval leaves out 0 and there are at least {ENOUGH} clips."
)


@dataclass(frozen=True)
class Results:
    """The stores of a run by the names of its variants; a plain run has one store without a name."""

    folder: Path
    stores: Mapping[str | None, RunStore]
    reference: str | None = None

    @seldom_collected()
    def rows(self, wanted: Sequence[EditTask]) -> list[dict[str, Any]]:
        """The last row of each task, variant after variant; files as seen from the run's folder."""
        found = []
        for name, store in self.stores.items():
            latest = store.latest()
            for row in (latest[task.id] for task in wanted if task.id in latest):
                prefix = "" if name is None else f"{name}/"
                found.append(
                    row | {"files": {key: prefix + each for key, each in row.get("files", {}).items()}}
                )
        return found

    def left(self, wanted: Sequence[EditTask]) -> int:
        """How many edits have no row yet."""
        found = 0
        for store in self.stores.values():
            index = RowIndex(store.folder)
            index.refresh()
            found += sum(task.id not in index.last for task in wanted)
        return found


@seldom_collected()
def finish(results: Results, wanted: Sequence[EditTask], rows: Sequence[Mapping[str, Any]]) -> int:
    """Exit code 1 where nothing succeeded, otherwise 0: single failures are counted and named."""
    folder = results.folder
    if not rows:
        print(f"nothing is done yet in {folder}")
        return 1
    print(_leave(results, rows))
    failed = [row for row in rows if row["status"] == "failed"]
    left = len(wanted) * len(results.stores) - len(rows)
    print(f"{len(rows) - len(failed)} done, {len(failed)} failed, {left} left")
    for row in failed[:SHOWN]:
        print(f"  failed: {_who(row)}{row['task']}: {row['message'].splitlines()[0]}")
    if failed:
        print("  retry=failed does failed tasks again")
    print(f"rows, videos and table: {folder}")
    print(f"page to look at:        {folder / 'index.html'}")
    return 0 if len(failed) < len(rows) else 1


def _leave(results: Results, rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes tables and page; returns what the screen shows of them."""
    _tell_commits(rows)
    folder, variants = results.folder, results.reference is not None
    found = compare(rows, results.reference, by="variant" if variants else "method", mixed=("commit",))
    write_text(folder / "table.csv", csv(found.summary))
    if not variants:
        write_text(folder / "table.md", markdown(found.summary))
        leave_page(folder, rows)
        return text(found.summary)
    write_text(folder / "table.md", _sections(found))
    leave_page(folder, rows, results.reference)
    write_text(folder / "summary.json", json.dumps(found.record(), indent=1, allow_nan=False) + "\n")
    if found.paired is None or not found.paired.differences:
        return text(found.summary)
    return (
        f"{text(found.summary)}\n{text_differences(found.paired)}\n{PAIRED.format(found.paired.reference)}\n"
    )


def _sections(found: Comparison) -> str:
    parts = [markdown_table(found.summary), footnote(found.summary)]
    if found.paired is not None and found.paired.differences:
        said = PAIRED.format(found.paired.reference)
        parts += [f"## Compared with {found.paired.reference}", markdown_differences(found.paired), said]
    for kind, part in found.kinds.items():
        parts += [f"## {kind}", markdown_table(part.summary)]
        if part.paired is not None and part.paired.differences:
            parts.append(markdown_differences(part.paired))
    return "\n\n".join(parts) + "\n"


def _who(row: Mapping[str, Any]) -> str:
    return f"{row['variant']}: " if "variant" in row else ""


def _tell_commits(rows: Sequence[Mapping[str, Any]]) -> None:
    commits = sorted({str(row["commit"])[:12] for row in rows})
    if len(commits) > 1:
        print(f"note: these rows come from {len(commits)} commits ({', '.join(commits)}), in one table")
