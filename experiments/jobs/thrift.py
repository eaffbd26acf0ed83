"""What is switched on when memory has run out, for one more try, and off again afterwards.

None of it changes what an edit is: settings that move pixels (model.vae_tiling) stay as they are, for a run's identity
says that they do."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from freemask.attention.shelf import SHELF
from freemask.types import Backbone, Method

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
    """The method to use meanwhile, and what was changed: `setting: from -> to`."""
    kept: Any = method
    with backbone.saving_memory() as changed:
        said = dict(changed)
        SHELF.clear(backbone)
        features = getattr(kept, "features", None) if hasattr(kept, "__dataclass_fields__") else None
        if features in ("auto", "cache"):
            method, said["method.features"] = replace(kept, features="recompute"), f"{features} -> recompute"
        yield method, said
