"""The attention layers of an LTXVideoTransformer3DModel: over all video tokens at once, and over the text."""

from typing import Any

from einops import rearrange
from torch import Tensor

from freemask.attention.bias import KeyMask
from freemask.attention.processor import Slot
from freemask.backbones.parts import refuse_more
from freemask.backbones.wan_attention import ROLES, Rotary, WanProcessor, install, normed, rotated
from freemask.types import QKV, Site


class LtxProcessor(WanProcessor):
    """Like Wan's layers, but for the order: positions turn the whole width, before the heads are split."""

    def projected(
        self, attn: Any, hidden: Tensor, context: Tensor | None, mask: Tensor | None, rotary: Rotary | None
    ) -> QKV:
        """`mask`: which text columns there are, `s 1 l`. The library adds -10000 to the others: no difference."""
        q, k, v = normed(attn, hidden, context)
        if rotary is not None:
            q, k = rotated(q, *rotary), rotated(k, *rotary)
        q, k, v = (rearrange(each, "s n (heads d) -> s 1 heads n d", heads=attn.heads) for each in (q, k, v))
        bias = None if mask is None else KeyMask(mask)
        return QKV(q=q, k=k, v=v, scale=q.shape[-1] ** -0.5, hidden=hidden[:, None], bias=bias)


def attention(network: Any, slot: Slot) -> dict[str, Site]:
    """Puts our processors in, and says where they sit, in the order of the forward pass. All blocks have one grid."""
    config = network.config
    cells = config.patch_size_t, config.patch_size, config.patch_size
    strange = {
        f"cells of {cells}": cells != (1, 1, 1),
        f"{config.in_channels} channels in, {config.out_channels} out": config.in_channels
        != config.out_channels,
    }
    refuse_more(strange, "LTX-Video: a token for each place of the latent")
    names = [
        f"transformer_blocks.{i}.{name}" for i in range(len(network.transformer_blocks)) for name in ROLES
    ]
    sites = {
        name: Site(name, ROLES[name.rpartition(".")[2]], 1, batch="1", tokens="(f h w)") for name in names
    }
    install(network, sites, slot, LtxProcessor)
    return sites
