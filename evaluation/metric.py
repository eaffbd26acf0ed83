"""What a metric is: named columns, and a call on one case that returns their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from evaluation.case import Case


@dataclass(frozen=True)
class Column:
    """One number of a metric. The name carries the variant, as in `lpips[alex]`: other variant, other column.

    `needs` completes the sentence "does not apply without ...", for cases in which the metric leaves it out.
    A direction of None is for tables of rows that do not tell it; a metric always knows.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    description: str
    needs: str = ""

    @property
    def arrow(self) -> str:
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


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
