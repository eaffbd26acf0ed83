"""The intervals and tests of all rows together, by the same functions as the tables; a filtered view draws its own."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluation.pairs import Values, adjusted, difference
from evaluation.statistics import bootstrap

# Of one variant: column -> (task, its clip, the value), row after row.
Measured = Mapping[str, Sequence[tuple[int, str, float]]]


def settled(variants: Sequence[Measured], reference: int) -> dict[str, Any]:
    """`means`: [low, high] by variant and column; `differences` to the reference likewise, with n, clips and p."""
    means = [
        {name: _pair(*bootstrap([each[2] for each in cells])) for name, cells in v.items()} for v in variants
    ]
    base = {name: _by_task(cells) for name, cells in variants[reference].items()} if variants else {}
    found = []
    for index, variant in enumerate(variants):
        for name, cells in variant.items():
            if index != reference and name in base:
                found.append(difference(str(index), name, base[name], _by_task(cells)))
    differences: list[dict[str, Any]] = [{} for _ in variants]
    for each in adjusted([each for each in found if each]):
        told = {"range": _pair(each.low, each.high), "p": _known(each.p_adjusted)}
        differences[int(each.variant)][each.column] = told
    return {"reference": reference, "means": means, "differences": differences}


def _by_task(cells: Iterable[tuple[int, str, float]]) -> Values:
    """Several seeds of one task are averaged."""
    found: dict[str, tuple[str, list[float]]] = {}
    for task, clip, value in cells:
        found.setdefault(str(task), (clip, []))[1].append(value)
    return {task: (clip, sum(values) / len(values)) for task, (clip, values) in found.items()}


def _pair(low: float, high: float) -> list[float] | None:
    return [float(f"{low:.6g}"), float(f"{high:.6g}")] if math.isfinite(low) else None


def _known(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None
