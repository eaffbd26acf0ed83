"""Rows for a paper's table: the last ones of the edits in some runs, with what an edit cost as columns of their own."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.tables.papers import COST, COSTS
from evaluation.tables.summary import seconds_of
from experiments.runs.rows import Row, latest, numbers, row_files
from experiments.runs.run import Run, edits, find
from freemask.errors import UserError


def folders(runs: Path, named: Sequence[str]) -> list[Path]:
    """Of runs asked for: names below paths.runs, or paths."""
    found = [find(name, runs) for name in named]
    for name, folder in zip(named, found, strict=True):
        if not stores(folder):
            raise UserError(
                "there is no run of that name",
                came=f"runs=[{name}], which holds no rows",
                expected="a run with rows",
                todo="freemask run ... name=NAME, or give the path of its folder",
            )
    return found


def stores(place: Path) -> list[Path]:
    """The folders at and below a run, or a sweep, that hold rows of edits."""
    return [store.folder for run in edits(place) for store in run.stores.values() if row_files(store.folder)]


def rows_of(place: Path) -> Iterator[dict[str, Any]]:
    for store in stores(place):
        for row in latest(store).values():
            metrics = numbers(row.get("metrics")) | _costs(row)
            yield {**row, "metrics": metrics, "store": str(store)}


def _costs(row: Row) -> dict[str, float]:
    told = {"seconds": numbers(row.get("seconds")), "facts": numbers(row.get("facts"))}
    costs = {key: row.get(key) for key in COSTS} | {"seconds": seconds_of(told)}
    return {COST + key: value for key, value in numbers(costs).items()}


def planned(run: Path) -> int | None:
    """How many tasks the run's youngest plan has, what was measured again aside; None where none is left."""
    found = Run.open(run)
    plans = [plan for plan in found.plans() if plan.get("job") == found.record.job]
    return len(plans[-1]["items"]) if plans else None
