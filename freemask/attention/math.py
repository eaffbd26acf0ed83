"""Attention as pure mathematics: outputs, probabilities (for tests), and the mass that falls on chosen words."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from freemask.types import QKV

# Up to this many tokens on both sides (temporal layers), plain products beat the fused kernel on CPU.
SMALL = 24
PIECE = 2**22  # numbers of a bias that are made at once: 1024 rows of 4096 keys


def attend(qkv: QKV) -> Float[Tensor, "s b heads n e"]:
    """softmax(q k^T scale + bias) v, through the batch in pieces of `qkv.rows` where that is above 0; times `share`."""
    if qkv.share is not None:
        return qkv.share * attend(replace(qkv, share=None))
    if qkv.bias is not None:
        return _with_bias(qkv)
    if shares_keys(qkv):
        return _of_shared_keys(qkv)
    streams = qkv.q.shape[0]
    q, k, v = (x.flatten(0, 1) for x in (qkv.q, qkv.k, qkv.v))  # (s b) heads n d
    kernel = _plain if _is_small(q, k) else _fused
    if qkv.rows > 0:
        pieces = zip(q.split(qkv.rows), k.split(qkv.rows), v.split(qkv.rows), strict=True)
        out = torch.cat([kernel(*piece, qkv.scale) for piece in pieces])
    else:
        out = kernel(q, k, v, qkv.scale)
    return out.unflatten(0, (streams, -1))


def probabilities(qkv: QKV) -> Float[Tensor, "s b heads n m"]:
    """The attention matrix itself: quadratic memory, for tests and for short (temporal) sequences."""
    logits = qkv.q @ qkv.k.transpose(-1, -2) * qkv.scale
    share = 1 if qkv.share is None else qkv.share
    if qkv.bias is None:
        return torch.softmax(logits, dim=-1) * share
    logits = logits + qkv.bias.rows(slice(None)).to(logits)
    blind = logits.isneginf().all(
        dim=-1, keepdim=True
    )  # as the kernels do: a query without keys gets nothing
    return torch.softmax(logits, dim=-1).masked_fill(blind, 0) * share


def word_mass(qkv: QKV, groups: Sequence[Sequence[int]]) -> Float[Tensor, "s b heads n g"]:
    """How much of each query's attention falls on each group of key columns, without forming the matrix."""
    return attend(marked(qkv, groups))[..., : len(groups)]


def marked(qkv: QKV, groups: Sequence[Sequence[int]]) -> QKV:
    """With indicators of the groups of key columns as values: attention then sums exactly the wanted columns."""
    tokens, width = qkv.k.shape[-2:]
    precise = qkv.q.dtype if qkv.q.dtype in (torch.float32, torch.float64) else torch.float32
    # Fused kernels want values as wide as keys; unused columns stay zero.
    indicator = torch.zeros(tokens, max(width, len(groups)), dtype=precise, device=qkv.q.device)
    for place, columns in enumerate(groups):
        indicator[list(columns), place] = 1
    values = indicator.expand(*qkv.k.shape[:-2], *indicator.shape)
    return replace(qkv, q=qkv.q.to(precise), k=qkv.k.to(precise), v=values)


def shares_keys(qkv: QKV) -> bool:
    """Whether keys and values are the same memory for the whole batch, as where all frames look at one."""
    return qkv.q.shape[1] > 1 and qkv.k.stride(1) == 0 and qkv.v.stride(1) == 0


def _of_shared_keys(qkv: QKV) -> Float[Tensor, "s b heads n e"]:
    """The whole batch as one long row of queries, so that the keys are not copied for each row."""
    batch = qkv.q.shape[1]
    q = rearrange(qkv.q, "s b heads n d -> s 1 heads (b n) d")
    out = attend(replace(qkv, q=q, k=qkv.k[:, :1], v=qkv.v[:, :1], hidden=None))
    return rearrange(out, "s 1 heads (b n) e -> s b heads n e", b=batch)


def _with_bias(qkv: QKV) -> Float[Tensor, "s b heads n e"]:
    """Some query rows at a time, so that no more than PIECE numbers of the bias exist at once. Where one row is for all
    queries, as of a mask of keys, there is nothing to cut."""
    assert qkv.bias is not None
    streams, batch, heads, queries = qkv.q.shape[:4]
    k, v = (rearrange(x, "s b heads m d -> (s b) heads m d") for x in (qkv.k, qkv.v))
    form = qkv.bias.rows(slice(0, 0)).shape  # no query, or the one row for all
    alike = form[:2] == (1, 1)  # not copied for every row of the batch
    per_row = form[2] * form[4] * (1 if alike else streams * batch)
    step = queries if form[3] else max(1, min(queries, PIECE // max(1, per_row)))
    out = []
    for start in range(0, queries, step):
        part = slice(start, start + step)
        q = rearrange(qkv.q[:, :, :, part], "s b heads n d -> (s b) heads n d")
        bias = qkv.bias.rows(part).to(q)
        if bias.shape[:2] != (1, 1):
            bias = bias.expand(streams, batch, *bias.shape[2:])
        bias = rearrange(bias, "s b heads n m -> (s b) heads n m")
        out.append(scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=qkv.scale))
    return rearrange(torch.cat(out, dim=2), "(s b) heads n e -> s b heads n e", s=streams)


def _is_small(q: Tensor, k: Tensor) -> bool:
    return q.device.type == "cpu" and max(q.shape[-2], k.shape[-2]) <= SMALL


def _plain(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    logits = (q * scale) @ k.transpose(-1, -2)
    if torch.finfo(logits.dtype).bits < 32:
        return torch.softmax(logits, dim=-1) @ v
    # The library's softmax goes through short rows one by one: each of its steps over all at once is quicker.
    weights = (logits - logits.detach().amax(dim=-1, keepdim=True)).exp()
    return (weights @ v) / weights.sum(dim=-1, keepdim=True)


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return scaled_dot_product_attention(q, k, v, scale=scale)
