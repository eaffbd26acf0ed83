"""Rows for a table, of runs with a hundred thousand of them: only what a table needs of each is kept."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from evaluation.tables.papers import COST, COSTS
from experiments.runs.record import RECORD
from experiments.runs.rows import ROWS, columns, last_of, read, row_files
from experiments.runs.run import Run, below, find
from freemask.errors import UserError

KEPT = (
    "task",
    "clip",
    "kind",
    "seed",
    "status",
    "variant",
    "method",
    "choices",
    "device",
    "dtype",
    "frames",
    "model",
    "run",
    "steps",
    "commit",
    "dirty",
)


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


def stores(run: Path) -> list[Path]:
    """The folders at and below a run, or a sweep, that hold rows of edits."""
    found = [Run.open(each) for each in below(run, (RECORD, ROWS))]
    edits = [each for each in found if each.record.job in ("edit", "outside")]
    return [store.folder for each in edits for store in each.stores.values() if row_files(store.folder)]


def rows_of(run: Path) -> Iterator[dict[str, Any]]:
    for store in stores(run):
        yield from latest(store)


def columns_of(run: Path) -> dict[str, Any]:
    return {name: each for store in stores(run) for name, each in columns(store).items()}


def planned(run: Path) -> int | None:
    """How many tasks the run's youngest plan has, what was measured again aside; None where none is left."""
    found = Run.open(run)
    plans = [plan for plan in found.plans() if plan.get("job") == found.record.job]
    return len(plans[-1]["items"]) if plans else None


def latest(store: Path) -> list[dict[str, Any]]:
    """The last row of each task, and only what a table needs of it."""
    slim = ({**_kept(row), "store": str(store)} for row in read(store))
    return list(last_of(slim).values())  # pyright: ignore[reportReturnType, reportArgumentType]


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: _interned(row.get(key)) for key in KEPT}
    frames = row.get("frames")
    kept["frames"] = frames[0] if isinstance(frames, list) and frames else None
    return kept | {"finished": str(row.get("finished") or ""), "metrics": _metrics(row)}


def _metrics(row: Mapping[str, Any]) -> dict[str, float | None]:
    """And what the edit cost, as columns of their own."""
    seconds = [each for each in _numbers(row.get("seconds")).values() if each is not None]
    costs = {"seconds": sum(seconds) if seconds else None}
    costs |= _numbers({key: row.get(key) for key in COSTS if key != "seconds"})
    return _numbers(row.get("metrics")) | {sys.intern(COST + key): value for key, value in costs.items()}


def _numbers(given: Any) -> dict[str, float | None]:
    """What is no finite number counts as no value."""
    if not isinstance(given, dict):
        return {}
    return {
        sys.intern(name): value if type(value) in (int, float) and isfinite(value) else None
        for name, value in given.items()
    }


def _interned(value: Any) -> Any:
    return sys.intern(value) if type(value) is str else value
