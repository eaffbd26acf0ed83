"""Attention as pure mathematics: outputs, probabilities (for tests), and the mass that falls on chosen words."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from freemask.types import QKV

# Up to this many tokens on both sides (temporal layers), plain products beat the fused kernel on CPU.
SMALL = 24


def attend(qkv: QKV, rows: int = 0) -> Float[Tensor, "s b heads n e"]:
    """softmax(q k^T scale) v. `rows` > 0 works through the batch in pieces of that many rows, to save memory."""
    if _share_keys(qkv):
        return _of_shared_keys(qkv, rows)
    streams = qkv.q.shape[0]
    q, k, v = (rearrange(x, "s b heads n d -> (s b) heads n d") for x in (qkv.q, qkv.k, qkv.v))
    kernel = _plain if _is_small(q, k) else _fused
    if rows > 0:
        pieces = zip(q.split(rows), k.split(rows), v.split(rows), strict=True)
        out = torch.cat([kernel(*piece, qkv.scale) for piece in pieces])
    else:
        out = kernel(q, k, v, qkv.scale)
    return rearrange(out, "(s b) heads n e -> s b heads n e", s=streams)


def probabilities(qkv: QKV) -> Float[Tensor, "s b heads n m"]:
    """The attention matrix itself: quadratic memory, for tests and for short (temporal) sequences."""
    return torch.softmax(qkv.q @ qkv.k.transpose(-1, -2) * qkv.scale, dim=-1)


def word_mass(qkv: QKV, groups: Sequence[Sequence[int]]) -> Float[Tensor, "s b heads n g"]:
    """How much of each query's attention falls on each group of key columns, without forming the matrix.

    The values are replaced by indicators of the groups: attention then sums exactly the wanted columns.
    """
    tokens, width = qkv.k.shape[-2:]
    precise = qkv.q.dtype if qkv.q.dtype in (torch.float32, torch.float64) else torch.float32
    # Fused kernels want values as wide as keys; unused columns stay zero.
    indicator = torch.zeros(tokens, max(width, len(groups)), dtype=precise, device=qkv.q.device)
    for place, columns in enumerate(groups):
        indicator[list(columns), place] = 1
    values = indicator.expand(*qkv.k.shape[:-2], *indicator.shape)
    mass = attend(QKV(q=qkv.q.to(precise), k=qkv.k.to(precise), v=values, scale=qkv.scale))
    return mass[..., : len(groups)]


def _share_keys(qkv: QKV) -> bool:
    """Whether keys and values are the same memory for the whole batch, as where all frames look at one."""
    return qkv.q.shape[1] > 1 and qkv.k.stride(1) == 0 and qkv.v.stride(1) == 0


def _of_shared_keys(qkv: QKV, rows: int) -> Float[Tensor, "s b heads n e"]:
    """The whole batch as one long row of queries, so that the keys are not copied for each row."""
    batch = qkv.q.shape[1]
    q = rearrange(qkv.q, "s b heads n d -> s 1 heads (b n) d")
    out = attend(QKV(q=q, k=qkv.k[:, :1], v=qkv.v[:, :1], scale=qkv.scale), rows)
    return rearrange(out, "s 1 heads (b n) e -> s b heads n e", b=batch)


def _is_small(q: Tensor, k: Tensor) -> bool:
    return q.device.type == "cpu" and max(q.shape[-2], k.shape[-2]) <= SMALL


def _plain(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return torch.softmax((q * scale) @ k.transpose(-1, -2), dim=-1) @ v


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return scaled_dot_product_attention(q, k, v, scale=scale)
