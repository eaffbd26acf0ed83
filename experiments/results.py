"""What stays of a run besides its rows: the table, the page, and the last lines on the screen."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.render import csv, markdown, text
from evaluation.table import Summary, summarise
from experiments.page import page
from experiments.store import RunStore, write_text
from freemask.types import EditTask

SHOWN = 5


def finish(store: RunStore, wanted: Sequence[EditTask]) -> int:
    """Exit code 1 where nothing succeeded, otherwise 0: single failures are counted and named."""
    latest = store.latest()
    rows = [latest[task.id] for task in wanted if task.id in latest]
    if not rows:
        print(f"nothing is done yet in {store.folder}")
        return 1
    summary = _summary(rows)
    write_text(store.folder / "table.md", markdown(summary))
    write_text(store.folder / "table.csv", csv(summary))
    write_text(store.folder / "index.html", page(store.folder.name, summary, rows))
    failed = [row for row in rows if row["status"] == "failed"]
    print(text(summary))
    print(f"{len(rows) - len(failed)} done, {len(failed)} failed, {len(wanted) - len(rows)} left")
    for row in failed[:SHOWN]:
        print(f"  failed: {row['task']}: {row['message'].splitlines()[0]}")
    if failed:
        print("  retry=failed does failed tasks again")
    print(f"rows, videos and table: {store.folder}")
    print(f"page to look at:        {store.folder / 'index.html'}")
    return 0 if len(failed) < len(rows) else 1


def _summary(rows: Sequence[Mapping[str, Any]]) -> Summary:
    commits = sorted({str(row["commit"])[:12] for row in rows})
    if len(commits) > 1:
        print(f"note: these rows come from {len(commits)} commits ({', '.join(commits)}), in one table")
    return summarise(rows, mixed=("commit",))
