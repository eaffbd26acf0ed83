"""The intervals, differences and p of all rows together, by the same functions as the tables. A filtered view counts
its own by the same formula, for which it gets Student's quantiles (`assets/numbers.js`)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.stats.many import CLEAR
from evaluation.stats.paired import SAME, adjusted, difference
from evaluation.stats.values import averaged, mean_of
from freemask.statistics import MOST, SHAPE, quantile

# Of one variant: column -> (task, its clip, the value), row after row.
Measured = Mapping[str, Sequence[tuple[int, str, float]]]


def settled(variants: Sequence[Measured], reference: int) -> dict[str, Any]:
    """`means` by variant and column; `differences` to the reference likewise, with corrected p; and what the page needs
    to do the same for fewer rows."""
    values = [{name: averaged(cells) for name, cells in each.items()} for each in variants]
    means = []
    for each in values:
        found = {name: mean_of(tasks) for name, tasks in each.items()}
        means.append({name: _told(m.value, m.low, m.high) for name, m in found.items() if m is not None})
    apart = [
        difference(str(index), name, values[reference][name], tasks)
        for index, each in enumerate(values)
        for name, tasks in each.items()
        if index != reference and name in values[reference]
    ]
    differences: list[dict[str, Any]] = [{} for _ in variants]
    for each in adjusted([each for each in apart if each]):
        told = _told(each.mean, each.low, each.high)
        told |= {"n": each.n, "clips": each.clips, "p": _known(each.p_adjusted), "clear": each.clear}
        differences[int(each.variant)][each.column] = told
    student = [_known(quantile(degrees)) for degrees in range(1, MOST + 1)]
    rules = {"student": student, "shape": SHAPE, "clear": CLEAR, "same": SAME}
    return {"reference": reference, "means": means, "differences": differences, "rules": rules}


def _told(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": _known(mean), "range": [_known(low), _known(high)] if math.isfinite(low) else None}


def _known(value: float) -> float | None:
    return float(f"{value:.8g}") if math.isfinite(value) else None
