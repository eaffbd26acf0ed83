"""What stays of a run besides its rows: the tables, the page, and the last lines on the screen."""

import json
from collections.abc import Sequence

from evaluation.tables import render
from evaluation.tables.comparison import Comparison, compare
from evaluation.tables.run import csv, differences_grid, means_grid
from experiments.report.page import leave_page
from experiments.runs.garbage import seldom_collected
from experiments.runs.rows import Row, write_text
from experiments.runs.run import Run

SHOWN = 5
WIDTH = 100


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


def _leave(run: Run, rows: Sequence[Row], reference: str | None) -> str:
    """Writes tables and page; returns what the screen shows of them."""
    columns = run.columns()
    _tell_commits(rows)
    folder, variants = run.folder, reference is not None
    by = "variant" if variants else "method"
    found = compare(rows, reference, columns=columns, by=by, mixed=("commit",))
    write_text(folder / "table.csv", csv(found.summary))
    write_text(folder / "table.md", _sections(found))
    leave_page(folder, rows, columns, reference)
    if variants:
        write_text(folder / "summary.json", json.dumps(found.record(), indent=1, allow_nan=False) + "\n")
    grids = [means_grid(found.summary)]
    if found.paired is not None and found.paired.differences:
        grids.append(differences_grid(found.paired))
    return "\n\n".join(render.text(grid, WIDTH) for grid in grids) + "\n"


def _sections(found: Comparison) -> str:
    """The means, the differences, and both again for each kind of edit."""
    grids = [means_grid(found.summary)]
    if found.paired is not None and found.paired.differences:
        grids.append(differences_grid(found.paired, title=f"Compared with {found.paired.reference}"))
    for kind, part in found.kinds.items():
        grids.append(means_grid(part.summary, title=kind, noted=False))
        if part.paired is not None and part.paired.differences:
            title = f"{kind}: compared with {part.paired.reference}"
            grids.append(differences_grid(part.paired, noted=False, title=title))
    return "\n\n".join(render.markdown(grid, 2) for grid in grids) + "\n"


def _tell_commits(rows: Sequence[Row]) -> None:
    commits = sorted({str(row.get("commit"))[:12] for row in rows})
    if len(commits) > 1:
        print(f"note: these rows come from {len(commits)} commits ({', '.join(commits)}), in one table")
