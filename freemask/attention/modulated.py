"""Attention that is drawn towards pairs of the same region and away from all others (Kim et al., 2023, and VideoGrain):
the logits s of a query become (1 - x) s + x a for keys of its own region and (1 - x) s + x b for others, where a and b
are its greatest and its least logit and x is how strongly it is drawn.

A constant of a query falls out of the softmax, so this equals (1 - x) s + x (a - b) r, where r is 1 for pairs of one
region and else 0: a few more channels of queries and keys. No matrix of queries by keys is formed, and any kernel of
attention will do.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from freemask.attention.math import PIECE, attend, shares_keys
from freemask.types import QKV

WIDE = 8  # fused kernels want head widths that are a multiple of it


def modulated(
    qkv: QKV,
    queries: Float[Tensor, "b n r"],
    keys: Float[Tensor, "b m r"],
    drawn: Float[Tensor, "b n"],
) -> Float[Tensor, "s b heads n e"]:
    """`queries` and `keys` say which regions each belongs to (1 or 0); a pair is of one region where they share any.
    `drawn` is how strongly each query is drawn, 0 to 1. Keys that the whole batch shares are given once."""
    if shares_keys(qkv):
        return _of_shared(qkv, queries, keys, drawn)
    q, k = drawn_pair(qkv, queries, keys, drawn)
    width = -(-max(q.shape[-1], qkv.v.shape[-1]) // WIDE) * WIDE
    wide = (pad(each, (0, width - each.shape[-1])) for each in (q, k, qkv.v))
    q, k, v = wide
    return attend(replace(qkv, q=q, k=k, v=v, hidden=None))[..., : qkv.v.shape[-1]]


def drawn_pair(
    qkv: QKV,
    queries: Float[Tensor, "b n r"],
    keys: Float[Tensor, "b m r"],
    drawn: Float[Tensor, "b n"],
) -> tuple[Float[Tensor, "s b heads n d"], Float[Tensor, "s b heads m d"]]:
    """Queries and keys whose plain attention is the one that is drawn to regions."""
    own, kinds = factors(queries, keys)
    most, least = extremes(qkv)
    pull = drawn[:, None, :, None].to(qkv.q)
    more = pull * (most - least) / qkv.scale * own[:, None].to(qkv.q)
    q = torch.cat([(1 - pull) * qkv.q, more], dim=-1)
    return q, torch.cat([qkv.k, kinds[:, None].to(qkv.k).expand(*qkv.k.shape[:-1], -1)], dim=-1)


class Drawn(NamedTuple):
    """What `modulated` is told beside queries, keys and values."""

    queries: Float[Tensor, "b n r"]
    keys: Float[Tensor, "b m r"]
    drawn: Float[Tensor, "b n"]


def weights(
    qkv: QKV, frame: int, cells: Sequence[int], drawn: Drawn | None = None
) -> Float[Tensor, "s heads n m"]:
    """What these cells of one frame look at, as it is or drawn to regions: rows of these queries alone are made."""
    one, rows = slice(frame, frame + 1), list(cells)
    part = replace(qkv, q=qkv.q[:, one, :, rows], k=qkv.k[:, one], v=qkv.v[:, one], hidden=None)
    q, k = part.q, part.k
    if drawn is not None:
        q, k = drawn_pair(part, drawn.queries[one, rows], drawn.keys[one], drawn.drawn[one, rows])
    return torch.softmax((q * qkv.scale) @ k.transpose(-1, -2), dim=-1)[:, 0]


def factors(
    queries: Float[Tensor, "b n r"], keys: Float[Tensor, "b m r"]
) -> tuple[Float[Tensor, "b n p"], Float[Tensor, "b m p"]]:
    """Two factors of the pairs that share a region: keys by the kinds of them that occur (each set of regions is one),
    and queries by the kinds with which they share any."""
    kinds, which = torch.unique(keys.flatten(0, 1), dim=0, return_inverse=True)
    of_keys = torch.nn.functional.one_hot(which, len(kinds)).reshape(*keys.shape[:2], -1).to(keys)
    return (queries @ kinds.T > 0).to(queries), of_keys


def shared(queries: Float[Tensor, "b n r"], keys: Float[Tensor, "b m r"]) -> Float[Tensor, "b n"]:
    """With how many of the keys each query shares a region."""
    own, kinds = factors(queries, keys)
    return torch.einsum("b n p, b p -> b n", own, kinds.sum(1))


def extremes(qkv: QKV) -> tuple[Float[Tensor, "s b heads n 1"], Float[Tensor, "s b heads n 1"]]:
    """The greatest and the least logit of each query, some queries at a time."""
    step = max(1, PIECE // max(1, qkv.k.shape[:3].numel() * qkv.k.shape[3]))
    keys = qkv.k.transpose(-1, -2)
    found = [(part @ keys).aminmax(dim=-1, keepdim=True) for part in (qkv.q * qkv.scale).split(step, dim=3)]
    return torch.cat([each.max for each in found], dim=3), torch.cat([each.min for each in found], dim=3)


def _of_shared(qkv: QKV, queries: Tensor, keys: Tensor, drawn: Tensor) -> Tensor:
    """The whole batch as one long row of queries, so that keys and what is added to them are there once."""
    batch = qkv.q.shape[1]
    q = rearrange(qkv.q, "s b heads n d -> s 1 heads (b n) d")
    one = replace(qkv, q=q, k=qkv.k[:, :1], v=qkv.v[:, :1], hidden=None)
    rows = rearrange(queries, "b n r -> 1 (b n) r"), keys[:1], rearrange(drawn, "b n -> 1 (b n)")
    return rearrange(modulated(one, *rows), "s 1 heads (b n) e -> s b heads n e", b=batch)
