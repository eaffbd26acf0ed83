"""The attention layers of HunyuanVideo's transformers: video and text tokens at once, the text last. In the first
blocks text has projections of its own (dual), later ones share them (single); version 1.5 has the former alone."""

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from freemask.attention.bias import KeyMask
from freemask.attention.processor import Slot
from freemask.backbones.wan_attention import rotated
from freemask.types import QKV, Site

Rotary = tuple[Tensor, Tensor]
Split = tuple[Tensor, Tensor, Tensor]


class HunyuanProcessor:
    """Stands in for the library's processor. The mask says which columns of the text are words."""

    def __init__(self, site: Site, slot: Slot) -> None:
        self.site, self.slot = site, slot

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor,
        image_rotary_emb: Rotary,
    ) -> tuple[Tensor, Tensor]:
        text = encoder_hidden_states.shape[1]
        qkv = _projected(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
        qkv = QKV(
            *(rearrange(each, "s n heads d -> s 1 heads n d") for each in qkv),
            scale=qkv[0].shape[-1] ** -0.5,
            hidden=torch.cat([hidden_states, encoder_hidden_states], dim=1)[:, None],
            bias=KeyMask(_allowed(attention_mask, hidden_states.shape[1])),
        )
        out = self.slot.call.attention(self.site, qkv, text)
        out = rearrange(out, "s 1 heads n e -> s n (heads e)").to(hidden_states.dtype)
        video, words = out[:, :-text], out[:, -text:]
        if attn.to_out is None:  # a single block has one projection behind attention and all else
            return video, words
        return attn.to_out[1](attn.to_out[0](video)), attn.to_add_out(words)


def install(network: Any, slot: Slot) -> Mapping[str, Site]:
    """A processor per block, once; the sites, in the order of the forward pass. The text's refiner keeps its own."""
    names = [
        f"{kind}.{i}.attn"
        for kind in ("transformer_blocks", "single_transformer_blocks")
        for i in range(len(getattr(network, kind, ())))
    ]
    stride = network.config.patch_size
    sites = {name: Site(name, "joint", stride, batch="1", tokens="(f h w)", text="last") for name in names}
    ours = {f"{name}.processor": HunyuanProcessor(site, slot) for name, site in sites.items()}
    network.set_attn_processor({**network.attn_processors, **ours})
    return sites


def _allowed(mask: Tensor, video: int) -> Bool[Tensor, "s 1 m"]:
    """Which keys are looked at; version 1.5 says it of the text alone, and would make a matrix of it."""
    return mask[:, 0] if mask.ndim == 4 else pad(mask.bool(), (video, 0), value=True)[:, None]


def _projected(attn: Any, video: Tensor, text: Tensor, rotary: Rotary) -> Split:
    """Places turn queries and keys of the video alone."""
    cos, sin = (each[None, :, None] for each in rotary)
    q, k, v = _of(video, attn.heads, (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k))
    if attn.add_q_proj is None:
        layers, norms = (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k)
    else:
        layers = attn.add_q_proj, attn.add_k_proj, attn.add_v_proj
        norms = attn.norm_added_q, attn.norm_added_k
    words = _of(text, attn.heads, layers, norms)
    turned = rotated(q, cos, sin), rotated(k, cos, sin), v
    q, k, v = (torch.cat(pair, dim=1) for pair in zip(turned, words, strict=True))
    return q, k, v


def _of(tokens: Float[Tensor, "s n c"], heads: int, layers: tuple, norms: tuple) -> Split:
    q, k, v = (rearrange(layer(tokens), "s n (heads d) -> s n heads d", heads=heads) for layer in layers)
    return norms[0](q), norms[1](k), v
