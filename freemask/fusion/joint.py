"""Fusion in layers of joint attention, where one softmax runs over text and video, and one layer is self, temporal and
text attention at once.

The rows of text stay the edit's own. Each row of video is cut in two: what it takes from the video, and from the text.
Self or temporal attention says of the first whose map it is, text attention of the second, as in layers that have
nothing else; what no part acts on is the edit's own. The two may come from different softmaxes, and words may be taken
away or made stronger: a row is divided by the mass that it has in the end, so that it stays a mean of values. A word
made stronger takes its share from the rest of the row.

No n x n matrix is formed: a column of values that is 1 at the text tells its mass, and with it the attention within
the text, which is cheap, is brought to its size.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from freemask.attention.layout import text_tokens, video_tokens
from freemask.attention.math import attend
from freemask.fusion import ops
from freemask.fusion.policies import Policy, RowMask, Self, Temporal
from freemask.types import QKV, Where

WIDER = 8  # fused kernels want rows of values that are a multiple of this, and keys as wide as values


class Parted(NamedTuple):
    """Of every query: what it takes from the video, and the share of the text in its attention."""

    video: Float[Tensor, "1 1 heads n e"]
    text: Float[Tensor, "1 1 heads n 1"]


def fused(
    own: QKV, source: QKV, where: Where, acting: Mapping[str, tuple[Policy, RowMask]], i: int
) -> Float[Tensor, "1 1 heads n e"]:
    """`acting`: the policies of this layer at step i, by part, with their masks."""
    width, tokens = own.v.shape[-1], own.k.shape[-2]
    text, video = text_tokens(where, tokens), video_tokens(where, tokens)
    of_own, of_source = _parted(own, text), _parted(source, text)
    seen, mass = of_own.video, 1 - of_own.text
    for policy, mask in (acting[part] for part in ("self", "temporal") if part in acting):
        seen, mass = _video(policy, mask, (own, source), (of_own, of_source), video)
    read = _within(own, text, of_own.text)
    plain = made = attend(read)
    if "cross" in acting:
        policy, mask = acting["cross"]
        made = policy(read, _within(source, text, of_source.text), mask, i)
    found = (seen + made[..., :width]) / (mass + made[..., width : width + 1])
    found[..., text, :] = (of_own.video + plain[..., :width])[..., text, :]
    return found


def _parted(qkv: QKV, text: slice) -> Parted:
    """In one call."""
    column, width = torch.zeros_like(qkv.v[..., :1]), qkv.v.shape[-1]
    column[..., text, :] = 1
    seen = attend(_widened(replace(qkv, v=qkv.v * (1 - column)), column))
    return Parted(seen[..., :width], seen[..., width : width + 1])


def _video(
    policy: Policy, mask: RowMask, streams: tuple[QKV, QKV], parted: tuple[Parted, Parted], video: slice
) -> tuple[Tensor, Tensor]:
    """What the rows take from the video, and its mass."""
    (own, source), (of_own, of_source) = streams, parted
    assert isinstance(policy, Self | Temporal)
    mask = policy.edits(mask)
    if mask is None:
        return of_source.video, 1 - of_source.text
    mass = 1 - ops.blend(mask, of_own.text, of_source.text)
    if isinstance(policy, Self):
        return ops.blend(mask, of_own.video, of_source.video), mass
    return mass * attend(_keys(ops.mixed(own, source, mask), video)), mass


def _within(qkv: QKV, text: slice, share: Tensor) -> QKV:
    """Attention to the text alone, of this share; its mass is one more column."""
    part = _keys(qkv, text)
    return replace(_widened(part, torch.ones_like(part.v[..., :1])), share=share)


def _keys(qkv: QKV, part: slice) -> QKV:
    bias = None if qkv.bias is None else qkv.bias.columns(part)
    return replace(qkv, k=qkv.k[..., part, :], v=qkv.v[..., part, :], bias=bias, hidden=None)


def _widened(qkv: QKV, column: Float[Tensor, "1 1 heads m 1"]) -> QKV:
    """One more column of values; what is added to queries and keys changes no logit."""
    more = torch.cat([qkv.v, column], dim=-1)
    q, k = (pad(each, (0, WIDER)) for each in (qkv.q, qkv.k))
    return replace(qkv, q=q, k=k, v=pad(more, (0, WIDER - 1)))
