"""Several metrics on one case: one metric's failure does not lose the others' numbers."""

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from evaluation.case import Case
from evaluation.metric import Column, Metric, MetricWarning
from freemask.errors import UserError


@dataclass(frozen=True)
class Measured:
    """`metrics`: None where a column does not apply; it is absent where its metric failed (see `errors`).

    `seconds` and `errors` are keyed by the metric's name in the suite, `metrics` by the column's name.
    """

    metrics: Mapping[str, float | None]
    seconds: Mapping[str, float]
    errors: Mapping[str, str]
    warnings: tuple[str, ...]
    columns: Mapping[str, Column] = field(default_factory=dict)

    def row(self) -> dict[str, object]:
        """What belongs into the row of this case; all of it can be written as JSON."""
        return {
            "metrics": dict(self.metrics),
            "metric_seconds": dict(self.seconds),
            "metric_errors": dict(self.errors),
            "metric_warnings": list(self.warnings),
            "columns": {name: asdict(column) for name, column in self.columns.items()},
        }


class Suite:
    """`metrics` is one metric, or several by name."""

    def __init__(self, metrics: Metric | Mapping[str, Metric]) -> None:
        if not isinstance(metrics, Mapping):
            metrics = {type(metrics).__name__: metrics}
        self.metrics = dict(metrics)
        self.columns: dict[str, Column] = {}
        for name, metric in self.metrics.items():
            for column in metric.columns:
                if column.name in self.columns:
                    raise UserError(
                        f"two metrics of the suite fill the column '{column.name}'",
                        came=", ".join(self.metrics),
                        expected="every column once",
                        todo=f"leave out '{name}' or give it another variant",
                    )
                self.columns[column.name] = column

    def __call__(self, case: Case) -> Measured:
        values: dict[str, float | None] = {}
        seconds: dict[str, float] = {}
        errors: dict[str, str] = {}
        notes: list[str] = []
        for name, metric in self.metrics.items():
            start = time.perf_counter()
            try:
                values.update(_measure(metric, case, notes))
            except Exception as error:
                errors[name] = f"{type(error).__name__}: {error}"
            seconds[name] = time.perf_counter() - start
        return Measured(values, seconds, errors, tuple(dict.fromkeys(notes)), self.columns)


def _measure(metric: Metric, case: Case, notes: list[str]) -> dict[str, float | None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MetricWarning)
        found = metric(case)
    for warning in caught:
        if issubclass(warning.category, MetricWarning):
            notes.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    names = [column.name for column in metric.columns]
    if unknown := set(found) - set(names):
        raise ValueError(f"columns that the metric does not state: {', '.join(sorted(unknown))}")
    if wrong := {name: value for name, value in found.items() if not math.isfinite(value)}:
        raise ValueError(f"not a number: {wrong}")
    return {name: found.get(name) for name in names}
