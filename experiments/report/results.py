"""What stays of a run besides its rows: the tables, the page, and the last lines on the screen."""

import json
from collections.abc import Mapping, Sequence
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
from experiments.runs.rows import Row, write_text
from experiments.runs.run import Run

SHOWN = 5
PAIRED = (
    "Difference to '{}' over the tasks that both finished: mean [95% bootstrap interval over clips]. Marked, and "
    f"called better or worse, where the interval leaves out 0 and there are at least {ENOUGH} clips."
)


@seldom_collected()
def finish(run: Run, rows: Sequence[Row], left: int, reference: str | None) -> int:
    """Exit code 1 where nothing succeeded, otherwise 0: single failures are counted and named."""
    if not rows:
        print(f"nothing is done yet in {run.folder}")
        return 1
    print(_leave(run, rows, reference))
    failed = [row for row in rows if row["status"] == "failed"]
    print(f"{len(rows) - len(failed)} done, {len(failed)} failed, {left} left")
    for row in failed[:SHOWN]:
        variant = f"{row['variant']}: " if "variant" in row else ""
        print(f"  failed: {variant}{row['task']}: {row.get('message', '').splitlines()[0]}")
    if failed:
        print("  retry=failed does failed tasks again")
    print(f"rows, videos and table: {run.folder}")
    print(f"page to look at:        {run.folder / 'index.html'}")
    return 0 if len(failed) < len(rows) else 1


def _leave(run: Run, given: Sequence[Row], reference: str | None) -> str:
    """Writes tables and page; returns what the screen shows of them."""
    columns = run.columns()
    rows: list[Any] = [{**row, "columns": columns} for row in given]
    _tell_commits(rows)
    folder, variants = run.folder, reference is not None
    found = compare(rows, reference, by="variant" if variants else "method", mixed=("commit",))
    write_text(folder / "table.csv", csv(found.summary))
    leave_page(folder, rows, columns, reference)
    if not variants:
        write_text(folder / "table.md", markdown(found.summary))
        return text(found.summary)
    write_text(folder / "table.md", _sections(found))
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


def _tell_commits(rows: Sequence[Mapping[str, Any]]) -> None:
    commits = sorted({str(row["commit"])[:12] for row in rows})
    if len(commits) > 1:
        print(f"note: these rows come from {len(commits)} commits ({', '.join(commits)}), in one table")
