"""Paired comparison: how far each variant is from a reference on the tasks that both did."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.metric import Column
from evaluation.pairs import ENOUGH as ENOUGH
from evaluation.pairs import Difference, adjusted, difference, values_of
from evaluation.statistics import cluster_bootstrap as cluster_bootstrap
from evaluation.table import latest
from freemask.errors import UserError, nearest


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
            vars(each)
            | {key: _known(getattr(each, key)) for key in ("low", "high", "p", "p_adjusted")}
            | {"clear": each.clear}
            for each in self.differences
        ]


def paired(
    rows: Iterable[Mapping], columns: Sequence[Column], reference: str, *, by: str = "variant", seed: int = 0
) -> Paired:
    """Only tasks that both finished count. Intervals are percentile bootstraps over clips: the tasks of one clip
    are drawn together, for they are not independent. P-values are corrected for all comparisons made here."""
    groups: dict[str, list[Mapping]] = {}
    for row in latest(rows, by):
        groups.setdefault(str(row.get(by)), []).append(row)
    if reference not in groups:
        raise UserError(f"there are no rows of '{reference}'", expected=nearest(reference, groups))
    found = []
    for column in columns:
        base = values_of(groups[reference], column.name)
        for name, group in groups.items():
            if name != reference:
                found.append(difference(name, column.name, base, values_of(group, column.name), seed=seed))
    return Paired(reference, tuple(columns), tuple(adjusted([each for each in found if each])))


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
