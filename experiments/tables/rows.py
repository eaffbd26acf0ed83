"""Rows for a table, of runs with a hundred thousand of them: only what a table needs of each is kept."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from evaluation.papers import COST, COSTS
from experiments.runs.rows import ROWS, row_files, row_of
from freemask.errors import UserError, nearest

KEPT = (
    "task",
    "clip",
    "kind",
    "seed",
    "status",
    "variant",
    "method",
    "model",
    "run",
    "steps",
    "commit",
    "dirty",
)
DEPTH = ("", "*/", "*/*/")  # a plain run, a run of variants, a sweep of those


def folders(runs: Path, named: Sequence[str]) -> list[Path]:
    """Of runs asked for: names below paths.runs, or paths."""
    found = []
    for name in named:
        places = [runs / name, Path(name).expanduser()]
        place = next((each for each in places if stores(each)), None)
        if place is None:
            known = [each.name for each in runs.iterdir() if stores(each)] if runs.is_dir() else []
            raise UserError(
                "there is no run of that name",
                came=f"runs=[{name}]",
                expected=nearest(name, known) if known else f"a run in {runs}",
                todo="freemask run ... name=NAME, or give the path of its folder",
            )
        found.append(place)
    return found


def stores(run: Path) -> list[Path]:
    """The folders below a run that hold rows."""
    if not run.is_dir():
        return []
    return [rows.parent for depth in DEPTH for rows in sorted(run.glob(depth + ROWS)) if row_files(rows)]


def rows_of(run: Path) -> Iterator[dict[str, Any]]:
    for store in stores(run):
        yield from latest(store)


def planned(run: Path) -> int | None:
    """How many tasks the youngest plan of a run has; None where none is left."""
    plans = sorted(run.glob("plans/*.json"), key=lambda path: path.stat().st_mtime)
    try:
        return len(json.loads(plans[-1].read_text(encoding="utf-8"))["tasks"]) if plans else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def latest(store: Path) -> list[dict[str, Any]]:
    """The last row of each task and seed; torn lines are skipped."""
    last: dict[tuple, dict[str, Any]] = {}
    for path in row_files(store / ROWS):
        with path.open("rb") as file:
            for line in file:
                whole = row_of(line)
                if whole is None or not isinstance(whole.get("metrics"), dict):
                    continue  # torn, or the row of a calibration
                row = _kept(whole)
                key = (row["task"], row["seed"])
                if key not in last or row["finished"] >= last[key]["finished"]:
                    last[key] = row | {"store": str(store)}
    return [last[key] for key in sorted(last, key=str)]


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: _interned(row.get(key)) for key in KEPT}
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
