"""One line against another on the tasks that both finished: mean difference, interval, p. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan

from evaluation.stats.many import CLEAR, holm
from evaluation.stats.values import Parts, Values
from freemask.statistics import Interval, mean, quotient_apart

# Numbers that differ by less than networks in float32 do from machine to machine do not differ.
SAME = 1e-6


@dataclass(frozen=True)
class Difference:
    """The mean of variant minus reference over `n` common tasks on `clips` clips, with its 95 % interval.

    `p`: two-sided, of no difference; `p_adjusted`: corrected (Holm) for every comparison of the table it stands in.
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
        """Whether the corrected p is small enough for a mark."""
        return self.p_adjusted <= CLEAR


def difference(variant: str, column: str, base: Values, other: Values) -> Difference | None:
    """None where no task is common."""
    tasks = [task for task in other if task in base]
    if not tasks:
        return None
    apart = [_near(other[task][1], base[task][1]) - base[task][1] for task in tasks]
    return _told(variant, column, mean(apart, [base[task][0] for task in tasks]))


def quotient_difference(variant: str, column: str, base: Parts, other: Parts) -> Difference | None:
    """Of columns that are one mean over another; None where no task is common, or nothing is below."""
    tasks = [task for task in other.above if task in base.above]
    if not tasks:
        return None
    there, clips = base.of(tasks), [base.above[task][0] for task in tasks]
    above, below = (
        [_near(*pair) for pair in zip(*each, strict=True)]
        for each in zip(other.of(tasks), there, strict=True)
    )
    found = quotient_apart((above, below), there, clips)
    return None if found is None else _told(variant, column, found)


def adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """With p-values corrected for the number of these comparisons."""
    found = holm([each.p for each in differences])
    return [replace(each, p_adjusted=p) for each, p in zip(differences, found, strict=True)]


def _near(one: float, two: float) -> float:
    """The first number, or the second where the two are the same but for rounding."""
    return two if abs(one - two) <= SAME * max(abs(one), abs(two)) else one


def _told(variant: str, column: str, found: Interval) -> Difference:
    return Difference(variant, column, found.value, *found[1:])
