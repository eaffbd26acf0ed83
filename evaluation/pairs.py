"""One variant against another on the tasks that both finished: mean difference, interval, p-value. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np

from evaluation.statistics import cluster_bootstrap, holm, sign_flip

ENOUGH = 6  # clips: of fewer, even differences that all point one way are no evidence at the 5% level
# task -> (its clip, its value)
Values = dict[str, tuple[str, float]]


@dataclass(frozen=True)
class Difference:
    """The mean of variant minus reference over `n` common tasks on `clips` clips, with its 95% interval.

    `p`: two-sided, by turning the signs of whole clips; `p_adjusted`: corrected (Holm) for every comparison of the
    table it stands in.
    """

    variant: str
    column: str
    mean: float
    low: float
    high: float
    n: int
    clips: int
    p: float = nan
    p_adjusted: float = nan

    @property
    def clear(self) -> bool:
        """Whether there are clips enough and the interval leaves out 0."""
        return self.clips >= ENOUGH and (self.low > 0 or self.high < 0)


def values_of(rows: Iterable[Mapping], column: str) -> Values:
    """Of one variant's finished rows, by task; several seeds of one task are averaged."""
    found: dict[str, list[float]] = {}
    clips: dict[str, str] = {}
    for row in rows:
        value = (row.get("metrics") or {}).get(column)
        if row.get("status") == "done" and value is not None:
            found.setdefault(row["task"], []).append(float(value))
            clips[row["task"]] = str(row.get("clip"))
    return {task: (clips[task], sum(values) / len(values)) for task, values in found.items()}


def difference(variant: str, column: str, base: Values, other: Values, *, seed: int = 0) -> Difference | None:
    """None where no task is common. The tasks of one clip are drawn together, for they are not independent."""
    clips: dict[str, list[float]] = {}
    for task, (_, value) in other.items():
        if task in base:
            clips.setdefault(base[task][0], []).append(value - base[task][1])
    if not clips:
        return None
    low, high = cluster_bootstrap(clips, seed=seed)
    apart = [value for values in clips.values() for value in values]
    p = sign_flip(clips, seed=seed)
    return Difference(variant, column, float(np.mean(apart)), low, high, len(apart), len(clips), p)


def adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """With p-values corrected for the number of these comparisons."""
    found = holm([each.p for each in differences])
    return [replace(each, p_adjusted=p) for each, p in zip(differences, found, strict=True)]
