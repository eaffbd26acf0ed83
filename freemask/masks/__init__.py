"""Masks: from word heat to what an edit may change, and the choice of which heat to trust.

The package can be called, as it has the name of a function of the library:

    freemask.masks(clip, source, words, *overrides, target=None, model=None, progress="bar", **settings)

finds where a model sees words of a clip: `freemask.masks(clip, "a red car", "car").heat`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *given: Any, **named: Any) -> Any:
        """Where a model sees words of the source prompt: heat and masks, without an edit (`freemask` says more)."""
        return import_module("experiments.front").masks(*given, **named)


sys.modules[__name__].__class__ = _Callable
