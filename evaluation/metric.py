"""What a metric is: named columns, and a call on one case that returns their numbers.

`evaluation.metric("lpips")` makes one of its name: the module can be called, as it has the function's name.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

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


class _Callable(ModuleType):
    def __call__(self, name: str, **settings: Any) -> Any:
        """A metric by its name (`evaluation.named.metric`)."""
        return import_module("evaluation.named").metric(name, **settings)


sys.modules[__name__].__class__ = _Callable
