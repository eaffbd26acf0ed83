"""The attention layers of a WanTransformer3DModel: over all video tokens at once, and over the text."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Slot
from freemask.backbones.parts import refuse_more
from freemask.types import QKV, Role, Site

ROLES: dict[str, Role] = {"attn1": "space_time", "attn2": "cross"}
Rotary = tuple[Tensor, Tensor]


class WanProcessor:
    """Stands in for the library's processor; the model calls it with positional arguments."""

    def __init__(self, site: Site, slot: Slot) -> None:
        self.site, self.slot = site, slot

    def __call__(
        self,
        attn: Any,
        hidden: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> Tensor:
        out = self.slot.call.attention(self.site, self.projected(attn, hidden, context, mask, rotary))
        out = rearrange(out, "s 1 heads n e -> s n (heads e)").to(hidden.dtype)
        return attn.to_out[1](attn.to_out[0](out))

    def projected(
        self, attn: Any, hidden: Tensor, context: Tensor | None, mask: Tensor | None, rotary: Rotary | None
    ) -> QKV:
        """Queries and keys are normalised over all heads together, before the heads are split."""
        if mask is not None:
            raise RuntimeError(f"{self.site.name} was given an attention mask, which taps would not see")
        q, k, v = (
            rearrange(each, "s n (heads d) -> s n heads d", heads=attn.heads)
            for each in normed(attn, hidden, context)
        )
        if rotary is not None:
            q, k = rotated(q, *rotary), rotated(k, *rotary)
        q, k, v = (rearrange(each, "s n heads d -> s 1 heads n d") for each in (q, k, v))
        return QKV(q=q, k=k, v=v, scale=q.shape[-1] ** -0.5, hidden=hidden[:, None])


def attention_sites(network: Any) -> dict[str, Site]:
    """Block by block, in the order of the forward pass. All blocks have one grid."""
    _check(network)
    stride = network.config.patch_size[1]
    names = [f"blocks.{i}.{name}" for i in range(len(network.blocks)) for name in ROLES]
    return {
        name: Site(name, ROLES[name.rpartition(".")[2]], stride, batch="1", tokens="(f h w)")
        for name in names
    }


def install(
    network: Any, sites: dict[str, Site], slot: Slot, kind: type[WanProcessor] = WanProcessor
) -> None:
    """Once, at construction: a processor per site."""
    missing = {name.removesuffix(".processor") for name in network.attn_processors} ^ set(sites)
    if missing:
        raise RuntimeError(f"attention layers without a known kind: {sorted(missing)}")
    network.set_attn_processor({f"{name}.processor": kind(site, slot) for name, site in sites.items()})


def normed(attn: Any, hidden: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of all heads in one row."""
    context = hidden if context is None else context
    return attn.norm_q(attn.to_q(hidden)), attn.norm_k(attn.to_k(context)), attn.to_v(context)


def rotated(
    x: Float[Tensor, "s n *d"], cos: Float[Tensor, "#s n *#d"], sin: Float[Tensor, "#s n *#d"]
) -> Float[Tensor, "s n *d"]:
    """Neighbouring channels as pairs, each turned by the angle of its token's place; tables hold every angle twice."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def _check(network: Any) -> None:
    """Refuse networks with more in them than video and text."""
    config, blocks = network.config, network.blocks
    layers = [getattr(block, name) for block in blocks for name in ROLES]
    strange = {
        "projections that were fused": any(getattr(layer, "fused_projections", False) for layer in layers),
        "attention to a picture (add_k_proj)": any(layer.add_k_proj is not None for layer in layers),
        f"{config.in_channels} channels in, {config.out_channels} out": config.in_channels
        != config.out_channels,
        f"cells of {config.patch_size[1]} x {config.patch_size[2]}": config.patch_size[1]
        != config.patch_size[2],
    }
    refuse_more(strange, "Wan2.1-T2V: a noisy clip, a time and a text, in square cells")
