"""Rows -> per-method means with intervals. Tables come only from rows, and always show n and failures."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from evaluation.metric import Column
from evaluation.statistics import bootstrap as bootstrap
from freemask.errors import UserError


@dataclass(frozen=True)
class Summary:
    """`methods`: one line per method (n, failures, seconds, peaks). `values`: one line per method and column
    (mean, low, high, n, best); n counts the rows in which that metric has a value. `by` is the rows' key that
    told the methods apart.
    """

    methods: pd.DataFrame
    values: pd.DataFrame
    columns: tuple[Column, ...]
    by: str = "method"

    def value(self, method: str, column: str) -> Mapping[str, Any]:
        found = self.values[(self.values.method == method) & (self.values.column == column)]
        return found.iloc[0].to_dict() if len(found) else {}


def summarise(
    rows: Iterable[Mapping],
    columns: Sequence[Column] = (),
    *,
    by: str = "method",
    mixed: Collection[str] = (),
    seed: int = 0,
) -> Summary:
    """Average over tasks, per `by`. Of several rows of one method, task and seed, the last one counts.

    Intervals are 95% percentile bootstraps over rows. Rows of different commits, or of one method with
    different steps, are refused unless `mixed` names the key. Columns describe themselves in the rows;
    `columns` adds to that. Failed rows count as failures and enter no mean.
    """
    kept = latest(rows, by)
    if not kept:
        raise UserError(
            "there are no rows to make a table of", expected="at least one row", todo="freemask run"
        )
    _refuse_mixtures(kept, by, mixed)
    known = {column.name: column for column in columns}
    for row in kept:
        for name, facts in (row.get("columns") or {}).items():
            known.setdefault(name, Column(**facts))
    groups: dict[str, list[Mapping]] = {}
    for row in kept:
        groups.setdefault(str(row.get(by)), []).append(row)
    lines = [_cells(name, group, seed) for name, group in groups.items()]
    values = pd.DataFrame(
        [cell for cells in lines for cell in cells], columns=["method", "column", "mean", "low", "high", "n"]
    )
    used = [name for name in known if name in set(values.column)]
    used += [name for name in dict.fromkeys(values.column) if name not in known]
    shown = tuple(known.get(name, Column(name, "", None, "")) for name in used)
    values["best"] = _best(values, {column.name: column.higher_is_better for column in shown})
    return Summary(pd.DataFrame([_line(name, group) for name, group in groups.items()]), values, shown, by)


def latest(rows: Iterable[Mapping], by: str = "method") -> list[Mapping]:
    found: dict[tuple, Mapping] = {}
    for row in rows:
        key = (row.get(by), row.get("task"), row.get("seed"))
        found.pop(key, None)
        found[key] = row
    return list(found.values())


def _refuse_mixtures(rows: Sequence[Mapping], by: str, mixed: Collection[str]) -> None:
    scopes: dict[tuple[str, str], set] = {}
    for row in rows:
        scopes.setdefault(("commit", ""), set()).add(row.get("commit"))
        scopes.setdefault(("steps", f" of {by} '{row.get(by)}'"), set()).add(row.get("steps"))
    for (key, scope), found in scopes.items():
        if len(found) > 1 and key not in mixed:
            raise UserError(
                f"these rows{scope} cannot be averaged: they differ in {key}",
                came=", ".join(sorted(str(value) for value in found)),
                expected=f"one {key}",
                todo=f"choose the rows of one {key}, or allow it with mixed=[{key}]",
            )


def _cells(method: str, rows: Sequence[Mapping], seed: int) -> list[dict]:
    numbers: dict[str, list[float]] = {}
    for row in rows:
        for name, value in (row.get("metrics") or {}).items():
            if row.get("status") == "done" and value is not None:
                numbers.setdefault(name, []).append(float(value))
    cells = []
    for name, values in numbers.items():
        low, high = bootstrap(values, seed=seed)
        cells.append(
            {
                "method": method,
                "column": name,
                "mean": float(np.mean(values)),
                "low": low,
                "high": high,
                "n": len(values),
            }
        )
    return cells


def _line(method: str, rows: Sequence[Mapping]) -> dict:
    done = [row for row in rows if row.get("status") == "done"]
    seconds = [sum(each.values()) for row in done if (each := row.get("seconds"))]

    def peak(key: str) -> float | None:
        found = [row[key] for row in done if row.get(key) is not None]
        return float(max(found)) if found else None

    return {
        "method": method,
        "n": len(done),
        "failures": len(rows) - len(done),
        "metric_failures": sum(len(row.get("metric_errors") or {}) for row in done),
        "seconds": float(np.mean(seconds)) if seconds else None,
        "peak_rss_gb": peak("peak_rss_gb"),
        "peak_gpu_gb": peak("peak_gpu_gb"),
    }


def _best(values: pd.DataFrame, higher: Mapping[str, bool | None]) -> list[bool]:
    """Best mean of its column, where at least two methods have one and the direction is known."""
    marks = []
    for name, mean in zip(values["column"], values["mean"], strict=True):
        peers = values["mean"][values["column"] == name]
        if higher[name] is None or len(peers) < 2:
            marks.append(False)
            continue
        marks.append(bool(mean == (peers.max() if higher[name] else peers.min())))
    return marks
