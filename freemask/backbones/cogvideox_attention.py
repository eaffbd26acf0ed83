"""The attention layers of a CogVideoXTransformer3DModel: text and video tokens at once, the text first."""

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from freemask.attention.processor import Slot
from freemask.backbones.parts import refuse_more
from freemask.backbones.wan_attention import rotated
from freemask.types import QKV, Site

Rotary = tuple[Tensor, Tensor]


class CogVideoXProcessor:
    """Stands in for the library's processor."""

    def __init__(self, site: Site, slot: Slot) -> None:
        self.site, self.slot = site, slot

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> tuple[Tensor, Tensor]:
        if attention_mask is not None:
            raise RuntimeError(f"{self.site.name} was given an attention mask, which taps would not see")
        text = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        qkv = _projected(attn, tokens, text, image_rotary_emb)
        out = self.slot.call.attention(self.site, qkv, text)
        out = rearrange(out, "s 1 heads n e -> s n (heads e)").to(tokens.dtype)
        out = attn.to_out[1](attn.to_out[0](out))
        return out[:, text:], out[:, :text]


def install(network: Any, slot: Slot) -> Mapping[str, Site]:
    """A processor per block, once; the sites, in the order of the forward pass. All blocks have one grid."""
    _check(network)
    names = [f"transformer_blocks.{i}.attn1" for i in range(len(network.transformer_blocks))]
    stride = network.config.patch_size
    sites = {name: Site(name, "joint", stride, batch="1", tokens="(f h w)", text="first") for name in names}
    network.set_attn_processor(
        {f"{name}.processor": CogVideoXProcessor(site, slot) for name, site in sites.items()}
    )
    return sites


def _projected(attn: Any, tokens: Tensor, text: int, rotary: Rotary | None) -> QKV:
    """Text and video share projections; places turn those of the video alone."""
    projected = attn.to_q(tokens), attn.to_k(tokens), attn.to_v(tokens)
    q, k, v = (rearrange(each, "s n (heads d) -> s n heads d", heads=attn.heads) for each in projected)
    q = q if attn.norm_q is None else attn.norm_q(q)
    k = k if attn.norm_k is None else attn.norm_k(k)
    if rotary is not None:
        cos, sin = (each[None, :, None] for each in rotary)
        q, k = (torch.cat([x[:, :text], rotated(x[:, text:], cos, sin)], dim=1) for x in (q, k))
    q, k, v = (rearrange(each, "s n heads d -> s 1 heads n d") for each in (q, k, v))
    return QKV(q=q, k=k, v=v, scale=q.shape[-1] ** -0.5, hidden=tokens[:, None])


def _check(network: Any) -> None:
    """Refuse networks with more in them than video and text, and those of version 1.5."""
    config = network.config
    layers = [block.attn1 for block in network.transformer_blocks]
    strange = {
        f"cells of {config.patch_size_t} latent frames (version 1.5)": config.patch_size_t is not None,
        "an offset beside the time (ofs)": bool(config.ofs_embed_dim),
        "positions that were learned": config.use_learned_positional_embeddings,
        "projections that were fused": any(getattr(layer, "fused_projections", False) for layer in layers),
        f"{config.in_channels} channels in, {config.out_channels} out": config.in_channels
        != config.out_channels,
    }
    refuse_more(strange, "CogVideoX-2b or CogVideoX-5b: a noisy clip, a time and a text")
