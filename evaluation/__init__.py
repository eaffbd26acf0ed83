"""Measuring edits: one clip in, named numbers out; tables are made later, from rows.

import evaluation

evaluation.metric("lpips")(source, edited)                             # frames `f 3 h w` in 0..1, or clips
evaluation.metric("clip_text", backbone="vit_b_32")(source, edited, target="a blue car")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.named import metric

__all__ = ["metric"]


def __getattr__(name: str) -> Any:
    """`metric` is imported when it is asked for: tables need no torch."""
    if name == "metric":  # the module of that name, which can be called
        return import_module("evaluation.metric")
    raise AttributeError(f"module 'evaluation' has no attribute '{name}'")
