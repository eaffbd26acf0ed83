"""LaVie's network: that of Stable Diffusion 1, with attention along frames between the text attention and the
feed-forward layer of every transformer block. It tells frames apart twice: by a rotation of queries and keys, and by a
bias for each distance in time."""

from collections.abc import Iterator
from dataclasses import replace
from functools import wraps
from math import log
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from freemask.attention.processor import SiteProcessor, Slot
from freemask.backbones.fresh import attention_like
from freemask.types import QKV

TURNED = 32  # channels of a head that are rotated, at most
PERIOD = 10_000
BUCKETS = 32  # kinds of distances: half of them for frames that come later
FARTHEST = 32  # frames; all that are farther count alike


class LaVieUNet(UNet2DConditionModel):
    @wraps(UNet2DConditionModel.__init__)  # the library reads the names of its settings from here
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for block in [*blocks(self)]:
            made = attention_like(block)
            made["attn_temporal"].add_module("distances", nn.Embedding(BUCKETS, block.attn1.heads))
            for name, layer in made.items():
                block.add_module(name, layer)


def blocks(unet: nn.Module) -> Iterator[Any]:
    """The transformer blocks."""
    return (each for each in unet.modules() if hasattr(each, "attn1") and hasattr(each, "attn2"))


class AlongFrames(SiteProcessor):
    """Queries and keys as they are after the rotation, so that those of another stream fit. The bias is in them too, as
    channels: what each query adds for each frame, and which frame a key is of."""

    def _project(self, attn: Any, hidden: Tensor, context: Tensor | None, streams: int) -> QKV:
        made = super()._project(attn, hidden, context, streams)
        frames = made.q.shape[-2]
        added = attn.distances.weight[buckets(frames).to(made.q.device)]
        added = rearrange(added, "i j heads -> heads i j") / made.scale
        which = torch.eye(frames, device=made.k.device, dtype=made.k.dtype)
        return replace(made, q=_beside(rotated(made.q), added), k=_beside(rotated(made.k), which))


def serve(unet: nn.Module, slot: Slot) -> None:
    """Hooks that run the layers along frames, which the library's blocks do not know of."""
    for block in blocks(unet):
        _serve(block, slot)


def _serve(block: Any, slot: Slot) -> None:
    entered: list[Tensor] = []

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        entered[:] = [args[0]]

    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The block itself adds what came in before text attention."""
        x = output + entered.pop()
        rows = rearrange(x, "(s f) n c -> (s n) f c", f=slot.call.frames)
        rows = block.attn_temporal(block.norm_temporal(rows))
        return output + rearrange(rows, "(s n) f c -> (s f) n c", n=x.shape[1])

    block.norm2.register_forward_pre_hook(enter)
    block.attn2.register_forward_hook(add)


def rotated(x: Float[Tensor, "*rows f d"]) -> Float[Tensor, "*rows f d"]:
    """Pairs of neighbouring channels, by angles that grow with the frame; the channels behind stay."""
    frames, turned = x.shape[-2], min(TURNED, x.shape[-1])
    angles = torch.arange(frames)[:, None] * frequencies(turned)
    cos, sin = (each.to(x) for each in (angles.cos(), angles.sin()))
    even, odd = x[..., :turned:2], x[..., 1:turned:2]
    pairs = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return torch.cat([pairs.flatten(-2), x[..., turned:]], dim=-1)


def frequencies(turned: int) -> Float[Tensor, " pairs"]:
    """Of each pair of channels: radians from a frame to the next."""
    return PERIOD ** (-torch.arange(0, turned, 2, dtype=torch.float64) / turned)


def buckets(frames: int) -> Int[Tensor, "f f"]:
    """For a frame that looks (row) at another (column), the kind of their distance."""
    return torch.tensor([[_bucket(j - i) for j in range(frames)] for i in range(frames)])


def _bucket(distance: int) -> int:
    """As in T5: small distances each have their own, larger ones share by their logarithm."""
    later = BUCKETS // 2 if distance > 0 else 0
    far, own = abs(distance), BUCKETS // 4
    if far < own:
        return later + far
    shared = int(log(far / own) / log(FARTHEST / own) * (BUCKETS // 2 - own))
    return later + min(own + shared, BUCKETS // 2 - 1)


def _beside(x: Float[Tensor, "s b heads f d"], more: Tensor) -> Tensor:
    return torch.cat([x, more.to(x).expand(*x.shape[:-1], more.shape[-1])], dim=-1)
