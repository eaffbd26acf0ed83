"""What many comparisons cost, and ranks. Pure."""

import math
from collections.abc import Sequence

CLEAR = 0.05  # a corrected p of so much at most is marked


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number after Holm; nan stays nan and does not count."""
    known = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    found, least = [float("nan")] * len(values), 0.0
    for done, (value, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - done) * value))
        found[place] = least
    return found


def ranks(values: Sequence[float | None], higher_is_better: bool) -> list[float | None]:
    """1 is best; equal values share the mean of their places; what has no value has no rank."""
    known = [value for value in values if value is not None]
    ahead = [None if value is None else better_than(value, known, higher_is_better) for value in values]
    return [
        None if value is None or before is None else before + (known.count(value) + 1) / 2
        for value, before in zip(values, ahead, strict=True)
    ]


def better_than(value: float, values: Sequence[float], higher_is_better: bool) -> int:
    """How many of the values are better: none for every one of several that are equally best."""
    return sum(bool(other > value) if higher_is_better else bool(other < value) for other in values)
