"""What stays of a run besides its rows: the tables, the page, and the last lines on the screen."""

import json
from collections.abc import Sequence

from evaluation.tables import render
from evaluation.tables.comparison import Comparison, compare
from evaluation.tables.grid import Grid
from evaluation.tables.run import csv, differences_grid, means_grid
from experiments.report.page import leave_page
from experiments.runs.rows import Row, write_text
from experiments.runs.run import Run

SHOWN = 5
WIDTH = 100


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
    columns, folder, variants = run.columns(), run.folder, reference is not None
    found = compare(
        rows, reference, columns=columns, by="variant" if variants else "method", mixed=("commit",)
    )
    grids = _grids(found)
    sections = [*grids, *(grid for kind, part in found.kinds.items() for grid in _grids(part, kind))]
    write_text(folder / "table.csv", csv(found.summary))
    write_text(folder / "table.md", "\n\n".join(render.markdown(grid, 2) for grid in sections) + "\n")
    for notice in leave_page(folder, rows, columns, reference):
        print(f"note: {notice}")
    if variants:
        write_text(folder / "summary.json", json.dumps(found.record(), indent=1, allow_nan=False) + "\n")
    return "\n\n".join(render.text(grid, WIDTH) for grid in grids) + "\n"


def _grids(found: Comparison, kind: str = "") -> list[Grid]:
    """The means, and the differences to the reference; of one kind of edit without the remarks below them."""
    grids, paired = [means_grid(found.summary, title=kind, noted=not kind)], found.paired
    if paired is not None and paired.differences:
        title = f"{kind}: compared with {paired.reference}" if kind else f"Compared with {paired.reference}"
        grids.append(differences_grid(paired, noted=not kind, title=title))
    return grids
