"""Gradients at less memory: what a block puts out inside is not kept for the way back, but made again."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from freemask.attention.processor import Slot


@contextmanager
def saved(network: nn.Module, slot: Slot) -> Iterator[None]:
    """While it is entered. No number changes, and without gradients nothing does. Of modules that are no network of
    diffusers, nothing is saved."""

    def block(module: nn.Module, *args: Any) -> Any:
        call = copy(slot.call)  # the call is over when its blocks run again
        return checkpoint(
            module, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), slot.opened(copy(call)))
        )

    able: list[Any] = [
        each for each in network.modules() if getattr(each, "_supports_gradient_checkpointing", False)
    ]
    able = [each for each in able if not each.is_gradient_checkpointing]
    for each in able:
        each.enable_gradient_checkpointing(block)
    try:
        yield
    finally:
        for each in able:
            each.disable_gradient_checkpointing()
