"""Temporal layers that have learnt nothing yet, as Tune-A-Video and FateZero put them into an image network."""

import zlib
from typing import Any

import torch
from torch import Tensor, nn

from freemask.backbones.inflate import LowRankConv
from freemask.errors import UserError

# Attention along frames behind each transformer block; low-rank convolutions along frames behind each convolution.
KINDS = ("none", "attention", "attention_and_convolutions")


def temporal(network: nn.Module, kind: str, *, seed: int, bias: bool, rank: int) -> dict[str, Tensor]:
    """By their names in the network. With `bias` False nothing changes before a step of training. True is what both
    released codes do: the weights of the last projection are zero, its bias is random. `rank` is that of the
    convolutions."""
    found: dict[str, Tensor] = {}
    for name, module in network.named_modules() if kind != "none" else ():
        if hasattr(module, "attn1") and hasattr(module, "attn2"):
            made = _attention(module, own(seed, name), bias)
        elif kind == "attention_and_convolutions" and isinstance(module, nn.Conv2d) and _wide(module):
            made = _convolution(module, own(seed, name), rank)
        else:
            continue
        found |= {f"{name}.{part}": value for part, value in made.items()}
    if kind != "none" and not found:
        raise UserError("There is no block in this network behind which attention along frames could be put.")
    return found


def own(seed: int, name: str) -> int:
    """A layer's own seed, the same wherever it stands among the others."""
    return (seed + zlib.crc32(name.encode())) % 2**63


def attention_like(block: Any, *, bias: bool = False) -> dict[str, nn.Module]:
    """Attention along frames and its norm, of the size of a block's own attention."""
    from diffusers.models.attention_processor import Attention

    like = block.attn1
    width, heads = like.query_dim, like.heads
    attention = Attention(width, heads=heads, dim_head=like.inner_dim // heads, bias=bias)
    return {"attn_temporal": attention, "norm_temporal": nn.LayerNorm(width)}


def _attention(block: Any, seed: int, bias: bool) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the library's own start
        made = attention_like(block)
    last: Any = made["attn_temporal"].get_submodule("to_out.0")
    nn.init.zeros_(last.weight)
    if not bias:
        nn.init.zeros_(last.bias)
    return {f"{part}.{key}": each for part, layer in made.items() for key, each in layer.state_dict().items()}


def _convolution(conv: nn.Conv2d, seed: int, rank: int) -> dict[str, Tensor]:
    width = conv.out_channels
    made = LowRankConv(width, rank if rank <= width else width // 2)
    rng = torch.Generator().manual_seed(seed)
    nn.init.normal_(made.down.weight, std=1 / made.down.out_channels, generator=rng)
    nn.init.zeros_(made.up.weight)
    return {f"conv_temporal.{key}": each for key, each in made.state_dict().items()}


def _wide(conv: nn.Conv2d) -> bool:
    return max(conv.kernel_size) > 1
