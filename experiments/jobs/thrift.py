"""What is switched on when memory has run out, for one more try, and off again afterwards.

None of it changes what an edit is: settings that move pixels (model.vae_tiling) stay as they are, for a run's identity
says that they do."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from freemask.types import Backbone, Method

ROWS = 8  # of the attention batch at once
# PyTorch's CPU allocator raises a plain RuntimeError; so does a GPU whose libraries get no workspace.
SIGNS = ("you tried to allocate", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
TODO = "fewer frames or a smaller size; model.vae_tiling=true saves more, and changes pixels at the seams"


def ran_out(error: BaseException) -> bool:
    """Whether it was memory that was lacking: on the host, or on the GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def free() -> None:
    """Gives back what a failed try left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def thrifty(backbone: Backbone, method: Method) -> Iterator[tuple[Method, dict[str, str]]]:
    """The method to use meanwhile, and what was changed: `setting: from -> to`. A model that is not ours may have
    none of these settings."""
    changed: dict[str, str] = {}
    before: list[tuple[Any, str, int]] = []

    def lower(owner: Any, attribute: str, value: int, setting: str) -> None:
        now = getattr(owner, attribute, None)
        if isinstance(now, int) and (now > value or now == 0):
            before.append((owner, attribute, now))
            setattr(owner, attribute, value)
            changed[setting] = f"{now} -> {value}"

    lower(backbone, "attention_slicing", ROWS, "model.attention_slicing")
    lower(getattr(backbone, "codec", None), "batch", 1, "model.vae_batch")
    kept: Any = method
    if hasattr(kept, "__dataclass_fields__") and getattr(kept, "features", None) == "cache":
        method, changed["method.features"] = replace(kept, features="recompute"), "cache -> recompute"
    try:
        yield method, changed
    finally:
        for owner, attribute, value in before:
            setattr(owner, attribute, value)
