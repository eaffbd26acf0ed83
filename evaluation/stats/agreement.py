"""How far several people agree: Krippendorff's alpha, for any number of them and with answers missing. Pure.

1 is full agreement, 0 what chance would give, below 0 people who disagree on purpose. As in K. Krippendorff,
"Computing Krippendorff's Alpha-Reliability" (2011): by coincidences of values within a unit."""

import math
from collections.abc import Callable, Sequence

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of values (v), and how often each came -> v v


def alpha(units: Sequence[Sequence[float | int]], metric: str) -> float:
    """`units`: for each thing that was judged, the values that people gave it, whoever they were; a unit of fewer than
    two says nothing. `metric`: nominal (equal or not), ordinal (ranks), interval (differences of numbers). nan where no
    unit has two values, or all values are the same."""
    known = [list(unit) for unit in units if len(unit) > 1]
    values = sorted({value for unit in known for value in unit})
    if len(values) < 2:
        return math.nan
    place = {value: k for k, value in enumerate(values)}
    together = np.zeros((len(values), len(values)))
    for unit in known:
        counts = np.bincount([place[value] for value in unit], minlength=len(values)).astype(float)
        together += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    often = together.sum(1)
    apart = DISTANCES[metric](np.array(values, dtype=float), often)
    expected = (np.outer(often, often) * apart).sum() / (often.sum() - 1)
    return 1 - float((together * apart).sum() / expected)


def _nominal(values: np.ndarray, often: np.ndarray) -> np.ndarray:
    return (values[:, None] != values[None]).astype(float)


def _ordinal(values: np.ndarray, often: np.ndarray) -> np.ndarray:
    """How many values lie between two, half of those at the ends counted; squared."""
    middle = np.cumsum(often) - often / 2
    return np.square(middle[:, None] - middle[None])


def _interval(values: np.ndarray, often: np.ndarray) -> np.ndarray:
    return np.square(values[:, None] - values[None])


DISTANCES: dict[str, Distance] = {"nominal": _nominal, "ordinal": _ordinal, "interval": _interval}
