"""How the layers of a network lie in memory and are run. Numbers differ by rounding alone.

Kernels of a GPU compute convolutions with channels last, and turn maps around before and after each where they come in
another order. A compiled block of convolutions is a few kernels instead of one for every norm, activation and addition.
On a processor neither pays: see docs/models.md.
"""

from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from freemask.attention.processor import Slot
from freemask.backbones.quick import QuickGEGLU, hooked
from freemask.errors import UserError, nearest

LAYOUTS = {"plain": torch.contiguous_format, "channels_last": torch.channels_last}
# No attention in them: taps are heard outside of what is compiled.
BLOCKS: tuple[type[nn.Module], ...] = (ResnetBlock2D, TemporalConvLayer, QuickGEGLU)
BACKEND = "inductor"
Hooks = tuple[tuple[str, ...], ...]
SHAPES = 1024  # that one kind of block may be compiled for, layers of all widths together


@dataclass(frozen=True)
class Speed:
    """`compiled`: the blocks without attention; the first call of each kind of block takes its time then. `backend` is
    torch's word for who compiles."""

    layout: str = "plain"
    compiled: bool = False
    backend: str = BACKEND

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            todo = nearest(self.layout, LAYOUTS)
            raise UserError("Unknown layout.", came=self.layout, expected=", ".join(LAYOUTS), todo=todo)
        if self.backend == BACKEND:
            return
        known = torch.compiler.list_backends(exclude_tags=())  # imports them all, which takes seconds
        if self.backend not in known:
            todo = nearest(self.backend, known)
            raise UserError("Unknown backend.", came=self.backend, expected=", ".join(known), todo=todo)

    def __str__(self) -> str:
        return self.layout + (f", compiled by {self.backend}" if self.compiled else "")

    def give(self, network: nn.Module, slot: Slot) -> None:
        """Once, to a network whose calls are in that slot."""
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.data = layer.weight.data.contiguous(memory_format=LAYOUTS[self.layout])
        if not self.compiled:
            return
        torch._dynamo.config.recompile_limit = max(SHAPES, torch._dynamo.config.recompile_limit)
        torch._dynamo.config.accumulated_recompile_limit = max(
            SHAPES, torch._dynamo.config.accumulated_recompile_limit
        )
        forms: dict[tuple[type[nn.Module], Hooks], type[nn.Module]] = {}
        for layer in network.modules():
            kind, hooks = type(layer), _hooks(layer)
            if kind in BLOCKS:
                form = forms.get((kind, hooks)) or _compiled(kind, self.backend)
                layer.__class__ = forms[kind, hooks] = form
                vars(layer)["slot"] = slot


def _hooks(block: nn.Module) -> Hooks:
    """Blocks of one kind share what was compiled, which has their hooks in it and does not look whether others have
    the same."""
    return tuple(
        (
            name,
            *(
                getattr(hook, "__qualname__", "")
                for hook in (*each._forward_pre_hooks.values(), *each._forward_hooks.values())
            ),
        )
        for name, each in block.named_modules()
        if each is not block and hooked(each)
    )


def _compiled(kind: type[nn.Module], backend: str) -> type[nn.Module]:
    """A form of its own at each call: torch keeps what was compiled with the code that it was made of."""
    plain: Any = kind.forward
    own = FunctionType(
        plain.__code__.replace(), plain.__globals__, plain.__name__, plain.__defaults__, plain.__closure__
    )
    own.__kwdefaults__ = plain.__kwdefaults__
    quick = torch.compile(own, backend=backend, dynamic=False)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        if self.slot.call.stepwise:
            return plain(self, *args, **kwargs)
        try:
            return quick(self, *args, **kwargs)
        except TorchDynamoException as error:
            raise UserError(
                f"This machine cannot compile blocks with '{backend}'.",
                came=str(error).strip().partition("\n")[0],
                expected="a C++ compiler for a processor, Triton for a GPU",
                todo="speed=plain runs them as they are",
            ) from error

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
