"""What a mean of people's answers is worth, where both the people and the clips are samples. Pure.

Every answer is of one person about one clip. The variance of their mean is that between people, plus that between
clips, less that of single answers, which both have counted (Cameron, Gelbach and Miller 2011, J. Bus. Econ. Stat. 29:
238), and never less than either alone. The interval is Student's t with one degree of freedom less than there are
people or clips, whichever are fewer; where some have more answers than others, as many equal ones would be fewer."""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from freemask.statistics import by_clip, freedom, quantile


class Crossed(NamedTuple):
    """A mean with its 95 % interval and the two-sided p of its being zero: nan with fewer than two people or clips."""

    value: float
    low: float
    high: float
    n: int
    people: int
    clips: int
    p: float


def crossed(values: Sequence[float | int], people: Sequence[Hashable], clips: Sequence[Hashable]) -> Crossed:
    """Of one number for each answer, with who gave it and about which clip."""
    known = np.asarray(values, dtype=np.float64)
    value = float(known.mean())
    apart = (known - value)[:, None] / len(known)
    (who, counts), (what, about), (both, _) = (
        by_clip(apart, labels) for labels in (people, clips, list(zip(people, clips, strict=True)))
    )
    if min(len(who), len(what)) < 2:
        return Crossed(value, math.nan, math.nan, len(known), len(who), len(what), math.nan)
    one, other, single = map(_variance, (who, what, both))
    error = math.sqrt(max(one, other, one + other - single))
    degrees = min(freedom(counts), freedom(about))
    wide = quantile(degrees) * error
    chance = _chance(value, error, degrees, min(len(who), len(what)))
    return Crossed(value, value - wide, value + wide, len(known), len(who), len(what), chance)


def _variance(parts: np.ndarray) -> float:
    many = len(parts)
    return float(np.square(parts).sum()) * many / (many - 1)


def _chance(value: float, error: float, degrees: int, fewer: int) -> float:
    """As `freemask.statistics` has it: never less than turning the signs of so few could tell."""
    from scipy.special import stdtr

    if value == 0:
        return 1.0
    least = 2.0 ** (1 - fewer)
    return least if error == 0 else max(least, float(2 * stdtr(degrees, -abs(value) / error)))
