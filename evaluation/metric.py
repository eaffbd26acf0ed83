"""What a metric is: named columns, and a call on one case that returns their numbers."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from evaluation.case import Case
from evaluation.column import Column as Column


class MetricWarning(UserWarning):
    """The number stands, but its reader should know something. The suite collects these into the row."""


@runtime_checkable
class Metric(Protocol):
    """One clip, one row; never an average over clips.

    A column that does not apply to the case (no oracle, no region, one frame) is left out of the answer.
    What went wrong is raised. NaN and infinity are never returned. Missing weights are refused when the
    metric is made, and `columns` never raises.
    """

    @property
    def columns(self) -> Sequence[Column]: ...

    def __call__(self, case: Case) -> dict[str, float]: ...
