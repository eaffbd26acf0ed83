"""Columns that are one mean over another, as Q-edit in ST-Modulator's tables: CLIP-T over Warp-Err. Pure."""

from collections.abc import Iterable, Mapping
from math import nan
from typing import NamedTuple

import numpy as np

from evaluation.pairs import Difference, Values, values_of
from evaluation.statistics import resampled, swapped

# task -> (its clip, above, below): the numbers of one edit that has both
Parts = dict[str, tuple[str, float, float]]


class Quotient(NamedTuple):
    value: float
    low: float
    high: float
    n: int


def parts_of(rows: Iterable[Mapping], above: tuple[str, float], below: tuple[str, float]) -> Parts:
    """`above` and `below` are a column's name and what its numbers are multiplied with."""
    held = list(rows)
    top, bottom = _scaled(values_of(held, above[0]), above[1]), _scaled(values_of(held, below[0]), below[1])
    return {task: (clip, value, bottom[task][1]) for task, (clip, value) in top.items() if task in bottom}


def quotient(parts: Parts, *, seed: int = 0) -> Quotient | None:
    """The mean above over the mean below; whole clips are drawn for the interval. None where nothing is below."""
    if not parts or sum(below for _, _, below in parts.values()) == 0:
        return None
    sums = _by_clip(parts)
    total = sums.sum(0)
    return Quotient(float(_over(total[None])[0]), *resampled(sums, _over, seed=seed), len(parts))


def quotient_difference(
    variant: str, column: str, base: Parts, other: Parts, *, seed: int = 0
) -> Difference | None:
    """On the tasks that both have; the p-value exchanges the two variants' results of whole clips."""
    common = {
        task: (clip, *other[task][1:], above, below)
        for task, (clip, above, below) in base.items()
        if task in other
    }
    sums = _by_clip(common)
    total = sums.sum(0) if common else np.zeros(4)
    if total[1] == 0 or total[3] == 0:
        return None
    low, high = resampled(sums, _apart, seed=seed)
    p = swapped(sums[:, :2], sums[:, 2:], _apart, seed=seed) if len(sums) > 1 else nan
    return Difference(variant, column, float(_apart(total[None])[0]), low, high, len(common), len(sums), p)


def _scaled(values: Values, scale: float) -> Values:
    return {task: (clip, value * scale) for task, (clip, value) in values.items()}


def _by_clip(parts: Mapping[str, tuple]) -> np.ndarray:
    """A line of sums for each clip."""
    clips: dict[str, np.ndarray] = {}
    for clip, *numbers in parts.values():
        clips[clip] = clips.get(clip, 0) + np.asarray(numbers, dtype=np.float64)
    return np.array(list(clips.values()))


def _over(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[:, 0] / sums[:, 1]


def _apart(sums: np.ndarray) -> np.ndarray:
    return _over(sums[:, :2]) - _over(sums[:, 2:])
