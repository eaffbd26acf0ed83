"""Everything that a set of rows says: means line by line, differences to a reference, and both by sort of edit."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluation.column import Column
from evaluation.stats.paired import Difference, adjusted, difference
from evaluation.stats.values import Row, values_of
from evaluation.tables.summary import Summary, latest, summarise
from freemask.errors import UserError, nearest


@dataclass(frozen=True)
class Paired:
    """How far each line is from the reference on the tasks that both did."""

    reference: str
    columns: Sequence[Column]
    differences: Sequence[Difference]

    @property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(each.variant for each in self.differences))

    def value(self, variant: str, column: str) -> Difference | None:
        found = (each for each in self.differences if (each.variant, each.column) == (variant, column))
        return next(found, None)

    def record(self) -> list[dict[str, Any]]:
        """For JSON; what one clip cannot give is null."""
        return [_finite(vars(each)) | {"clear": each.clear} for each in self.differences]


@dataclass(frozen=True)
class Comparison:
    """`paired` is None without a reference, or where it has no rows yet; `kinds` is empty where there is one kind.
    Tasks that have a level count by it instead of by their kind."""

    summary: Summary
    paired: Paired | None = None
    kinds: Mapping[str, "Comparison"] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """For JSON: every mean and every difference in full precision."""
        by, lines = self.summary.by, self.summary.lines
        means = [
            {by: line.name, "column": name, **self.summary.value(line.name, name)}
            for line in lines
            for name in line.cells
        ]
        told = [{by: line.name, **vars(line)} for line in lines]
        return {
            "reference": self.paired.reference if self.paired else None,
            "columns": [asdict(column) for column in self.summary.columns],
            "lines": [
                _finite({k: v for k, v in each.items() if k not in ("name", "cells")}) for each in told
            ],
            "means": [_finite(each) for each in means],
            "differences": self.paired.record() if self.paired else [],
            "notes": list(self.summary.notes),
            "kinds": {kind: each.record() for kind, each in self.kinds.items()},
        }


def compare(
    rows: Iterable[Row],
    reference: str | None = None,
    *,
    columns: Mapping[str, Mapping[str, Any]] | None = None,
    by: str = "variant",
    mixed: Collection[str] = (),
) -> Comparison:
    """`columns` says by name what the columns are."""
    kept = latest(rows, by)

    def one(some: list[Row]) -> Comparison:
        summary = summarise(some, columns, by=by, mixed=mixed)
        known = reference is not None and any(str(row.get(by)) == reference for row in some)
        return Comparison(summary, paired(some, summary.columns, str(reference), by=by) if known else None)

    found = one(kept)
    kinds = sorted(set(map(sort_of, kept)))
    if reference is None or len(kinds) < 2:
        return found
    parts = {kind: one([row for row in kept if sort_of(row) == kind]) for kind in kinds}
    return Comparison(found.summary, found.paired, parts)


def sort_of(row: Row) -> str:
    """Which tasks are told apart in tables: by level, where there are levels, otherwise by kind."""
    return str(row.get("level") or row.get("kind"))


def paired(rows: Iterable[Row], columns: Sequence[Column], reference: str, *, by: str = "variant") -> Paired:
    """Only tasks that both finished count. P-values are corrected for all comparisons made here."""
    groups: dict[str, list[Row]] = {}
    for row in latest(rows, by):
        groups.setdefault(str(row.get(by)), []).append(row)
    if reference not in groups:
        raise UserError(f"there are no rows of '{reference}'", expected=nearest(reference, groups))
    found = []
    for column in columns:
        base = values_of(groups[reference], column.name)
        for name, group in groups.items():
            if name != reference:
                found.append(difference(name, column.name, base, values_of(group, column.name)))
    return Paired(reference, columns, adjusted([each for each in found if each]))


def _finite(line: Mapping[str, Any]) -> dict[str, Any]:
    """What is not a number becomes null."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in line.items()}
