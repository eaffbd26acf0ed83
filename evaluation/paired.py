"""Paired comparison: how far each variant is from a reference on the tasks that both did."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.metric import Column
from evaluation.table import latest
from freemask.errors import UserError, nearest

ENOUGH = 6  # clips: of fewer, even differences that all point one way are no evidence at the 5% level
# task -> (its clip, its value)
Values = dict[str, tuple[str, float]]


@dataclass(frozen=True)
class Difference:
    """The mean of variant minus reference over `n` common tasks on `clips` clips, with its 95% interval."""

    variant: str
    column: str
    mean: float
    low: float
    high: float
    n: int
    clips: int

    @property
    def clear(self) -> bool:
        """Whether there are clips enough and the interval leaves out 0."""
        return self.clips >= ENOUGH and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Paired:
    reference: str
    columns: tuple[Column, ...]
    differences: tuple[Difference, ...]

    @property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(each.variant for each in self.differences))

    def value(self, variant: str, column: str) -> Difference | None:
        found = [each for each in self.differences if (each.variant, each.column) == (variant, column)]
        return found[0] if found else None

    def record(self) -> list[dict[str, Any]]:
        """For JSON; an interval that one clip cannot give is null."""
        return [
            vars(each) | {"low": _known(each.low), "high": _known(each.high), "clear": each.clear}
            for each in self.differences
        ]


def paired(
    rows: Iterable[Mapping], columns: Sequence[Column], reference: str, *, by: str = "variant", seed: int = 0
) -> Paired:
    """Only tasks that both finished count. Intervals are percentile bootstraps over clips: the tasks of one clip
    are drawn together, for they are not independent."""
    kept = latest(rows, by)
    names = list(dict.fromkeys(str(row.get(by)) for row in kept))
    if reference not in names:
        raise UserError(f"there are no rows of '{reference}'", expected=nearest(reference, names))
    found = []
    for column in columns:
        base = _values(kept, by, reference, column.name)
        for name in names:
            other = _values(kept, by, name, column.name) if name != reference else {}
            common = [(base[task][0], other[task][1] - base[task][1]) for task in other if task in base]
            if common:
                found.append(_difference(name, column.name, common, seed))
    return Paired(reference, tuple(columns), tuple(found))


def cluster_bootstrap(
    groups: Mapping[str, Sequence[float]], *, level: float = 0.95, seed: int = 0, draws: int = 2000
) -> tuple[float, float]:
    """Interval of the mean over all values, whole groups being drawn; (nan, nan) for fewer than two groups."""
    if len(groups) < 2:
        return float("nan"), float("nan")
    sums = np.array([sum(values) for values in groups.values()], dtype=np.float64)
    counts = np.array([len(values) for values in groups.values()])
    picks = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _values(rows: Sequence[Mapping], by: str, name: str, column: str) -> Values:
    """Of one variant, by task; several seeds of one task are averaged."""
    found: dict[str, list[float]] = {}
    clips: dict[str, str] = {}
    for row in rows:
        value = (row.get("metrics") or {}).get(column)
        if str(row.get(by)) == name and row.get("status") == "done" and value is not None:
            found.setdefault(row["task"], []).append(float(value))
            clips[row["task"]] = str(row.get("clip"))
    return {task: (clips[task], float(np.mean(values))) for task, values in found.items()}


def _difference(variant: str, column: str, common: Sequence[tuple[str, float]], seed: int) -> Difference:
    clips: dict[str, list[float]] = {}
    for clip, value in common:
        clips.setdefault(clip, []).append(value)
    low, high = cluster_bootstrap(clips, seed=seed)
    mean = float(np.mean([value for _, value in common]))
    return Difference(variant, column, mean, low, high, len(common), len(clips))


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
