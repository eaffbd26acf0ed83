"""Everything that a set of rows says: means by variant, differences to a reference, and both by kind of edit."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from evaluation.paired import Paired, paired
from evaluation.table import Summary, latest, summarise


@dataclass(frozen=True)
class Comparison:
    """`paired` is None without a reference, or where it has no rows yet; `kinds` is empty where there is one kind."""

    summary: Summary
    paired: Paired | None = None
    kinds: Mapping[str, "Comparison"] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """For JSON: every mean and every difference in full precision."""
        lines = self.summary.methods.rename(columns={"method": self.summary.by})
        means = self.summary.values.rename(columns={"method": self.summary.by})
        return {
            "reference": self.paired.reference if self.paired else None,
            "columns": [asdict(column) for column in self.summary.columns],
            "lines": [_finite(line) for line in lines.to_dict("records")],
            "means": [_finite(line) for line in means.to_dict("records")],
            "differences": self.paired.record() if self.paired else [],
            "kinds": {kind: each.record() for kind, each in self.kinds.items()},
        }


def compare(
    rows: Iterable[Mapping], reference: str | None = None, *, by: str = "variant", mixed: Collection[str] = ()
) -> Comparison:
    kept = latest(rows, by)
    found = _one(kept, reference, by, mixed)
    kinds = sorted({str(row.get("kind")) for row in kept})
    if reference is None or len(kinds) < 2:
        return found
    parts = {
        kind: _one([row for row in kept if str(row.get("kind")) == kind], reference, by, mixed)
        for kind in kinds
    }
    return Comparison(found.summary, found.paired, parts)


def _one(rows: list[Mapping], reference: str | None, by: str, mixed: Collection[str]) -> Comparison:
    summary = summarise(rows, by=by, mixed=mixed)
    known = reference is not None and any(str(row.get(by)) == reference for row in rows)
    return Comparison(summary, paired(rows, summary.columns, str(reference), by=by) if known else None)


def _finite(line: Mapping) -> dict[str, Any]:
    """Plain Python values; what is not a number becomes null."""
    out: dict[str, Any] = {}
    for key, value in line.items():
        plain = value.item() if isinstance(value, np.generic) else value
        out[str(key)] = None if isinstance(plain, float) and not np.isfinite(plain) else plain
    return out
