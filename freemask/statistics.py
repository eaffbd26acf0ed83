"""What a number made of several clips is worth: its 95 % interval, and p of its being zero. Pure; no torch.

Every number here is a sum over clips in the first order: a mean over tasks, one mean over another, or the difference
of two such. Its error is therefore that of the clips' contributions (the cluster sandwich for a mean, the delta method
for a quotient). Interval and p are of Student's t, once as it is and once corrected for the skewness of the
contributions (Hall 1992, J. R. Stat. Soc. B 54: 221), and the more cautious of the two holds. Clips with more tasks
than others weigh more, so that as many equal clips would be fewer: that number, less one, are the degrees of freedom.
`python -m evaluation.stats.simulation` measures what this comes to.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
SHAPE = 6  # clips; fewer tell nothing of how skewed they are
MOST = 200  # degrees of freedom, of which more are counted as so many; the interval is 0.6 % wider for it


class Interval(NamedTuple):
    """A number with its 95 % interval (nan for fewer than two clips), the number of tasks and clips that it is of, and
    the two-sided p of its being zero."""

    value: float
    low: float
    high: float
    n: int
    clips: int
    p: float


def mean(values: Sequence[float], clips: Sequence[object]) -> Interval:
    """Of one value for each task; `clips` says which clip each task is of."""
    sums, counts = by_clip(np.asarray(values, dtype=np.float64)[:, None], clips)
    value = float(sums.sum() / counts.sum())
    return interval(value, (sums[:, 0] - value * counts) / counts.sum(), counts)


def quotient(above: Sequence[float], below: Sequence[float], clips: Sequence[object]) -> Interval | None:
    """The mean of `above` over the mean of `below`; None where nothing is below."""
    sums, counts = by_clip(np.stack([above, below], axis=1, dtype=np.float64), clips)
    found = _quotient(sums)
    return None if found is None else interval(*found, counts)


def quotient_apart(
    one: tuple[Sequence[float], Sequence[float]],
    two: tuple[Sequence[float], Sequence[float]],
    clips: Sequence[object],
) -> Interval | None:
    """The quotient of `one` (above, below) minus that of `two`, over the same tasks."""
    sums, counts = by_clip(np.stack([*one, *two], axis=1, dtype=np.float64), clips)
    here, there = _quotient(sums[:, :2]), _quotient(sums[:, 2:])
    if here is None or there is None:
        return None
    return interval(here[0] - there[0], here[1] - there[1], counts)


def spearman(one: Sequence[float | int], other: Sequence[float | int]) -> float:
    """How far two lists are in the same order: 1, and -1 where one is the other's reverse. Equal values share the mean
    of their ranks; 0 where all of a list are equal."""
    ranks = [_ranks(np.asarray(each, dtype=np.float64)) for each in (one, other)]
    apart = [each - each.mean() for each in ranks]
    length = math.sqrt(float((apart[0] ** 2).sum() * (apart[1] ** 2).sum()))
    return float((apart[0] * apart[1]).sum()) / length if length else 0.0


def by_clip(values: np.ndarray, clips: Sequence[object]) -> tuple[np.ndarray, np.ndarray]:
    """Of values tasks x k, the sums clips x k and how many tasks each clip has."""
    places: dict[object, int] = {}
    place = np.array([places.setdefault(clip, len(places)) for clip in clips])
    sums = np.stack([np.bincount(place, weights=column) for column in values.T], axis=1)
    return sums, np.bincount(place)


def interval(value: float, parts: np.ndarray, counts: np.ndarray) -> Interval:
    """Of a number to which each clip contributes `parts` more than expected, which add up to nothing."""
    n, clips = int(counts.sum()), len(counts)
    if clips < 2:
        return Interval(value, math.nan, math.nan, n, clips, math.nan)
    degrees = freedom(counts)
    error = math.sqrt(float(np.square(parts).sum()) * clips / (clips - 1))
    skew, student = _skewness(parts), quantile(degrees)
    down = max(student, _widened(student, skew)) * error
    up = max(student, -_widened(-student, skew)) * error
    return Interval(value, value - down, value + up, n, clips, _chance(value, error, skew, clips, degrees))


def freedom(counts: np.ndarray) -> int:
    """One less than the number of equally large clips that would be worth as much."""
    worth = float(counts.sum()) ** 2 / float(np.square(counts, dtype=np.float64).sum())
    return min(MOST, max(1, math.floor(worth + 1e-9) - 1))


@cache
def quantile(degrees: int) -> float:
    """What Student's t exceeds in 2.5 of 100 cases."""
    from scipy.special import stdtrit  # slow to load, and an edit does without it

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def _quotient(sums: np.ndarray) -> tuple[float, np.ndarray] | None:
    above, below = sums.sum(0)
    if below == 0:
        return None
    value = float(above / below)
    return value, (sums[:, 0] - value * sums[:, 1]) / below


def _chance(value: float, error: float, skew: float, clips: int, degrees: int) -> float:
    """Never less than what turning the signs of whole clips could tell at best: so few clips tell no more."""
    from scipy.special import stdtr

    least = 2.0 ** (1 - clips)
    if value == 0:
        return 1.0
    if error == 0:
        return least
    t = value / error
    if math.isnan(t):
        return math.nan
    corrected = t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6
    nearest = min(abs(t), max(0.0, corrected * math.copysign(1, t)))
    return max(least, float(2 * stdtr(degrees, -nearest)))


def _skewness(parts: np.ndarray) -> float:
    """Over the root of the number of clips, as Hall's polynomial takes it."""
    clips, square = len(parts), float(np.square(parts).mean())
    if clips < SHAPE or square == 0:
        return 0.0
    skew = float((parts**3).mean()) / square**1.5
    return skew * math.sqrt(clips - 1) / (clips - 2)


def _widened(student: float, skew: float) -> float:
    """The t whose corrected value is `student`."""
    inner = student - skew / 6
    root = math.cbrt(1 + skew * inner)
    return 3 * inner / (root**2 + root + 1)


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 0 on."""
    below = (values[None] < values[:, None]).sum(axis=1)
    return below + ((values[None] == values[:, None]).sum(axis=1) - 1) / 2
