"""Fusion as mathematics: attention of two streams mixed by row masks and word maps, never as an n x n matrix.

A mask acts on query rows, so mixing two attention matrices and then multiplying with shared values equals
mixing two attention outputs. A word map acts on text columns, so it can be moved onto the values.
"""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from freemask.attention.math import attend
from freemask.types import QKV


def blend(
    mask: Float[Tensor, "..."], inside: Float[Tensor, "..."], outside: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """`inside` where the mask is 1, `outside` where it is 0."""
    return mask * inside + (1 - mask) * outside


def borrowed(
    own: QKV, lender: QKV, mask: Float[Tensor, "1 b 1 n 1"] | None
) -> Float[Tensor, "1 b heads n e"]:
    """The lender's attention; where the mask is 1, the edit's own.

    With the edit's values on both sides this is A = m * A_edit + (1 - m) * A_source, times V_edit.
    """
    theirs = attend(lender)
    return theirs if mask is None else blend(mask, attend(own), theirs)


def mixed(own: QKV, lender: QKV, mask: Float[Tensor, "1 b 1 n 1"] | None) -> QKV:
    """Queries and keys: the edit's where the mask is 1, the source's elsewhere (eq. 10)."""
    if mask is None:
        return lender
    v = own.v if lender.v is own.v else blend(mask, own.v, lender.v)
    return replace(own, q=blend(mask, own.q, lender.q), k=blend(mask, own.k, lender.k), v=v)


def mapped_words(
    own: QKV, source: QKV, matrix: Float[Tensor, "k l"], weight: Float[Tensor, " l"]
) -> Float[Tensor, "1 b heads n e"]:
    """Text attention whose column l is sum_k A_source[k] matrix[k, l] + weight[l] A_edit[l], times V_edit.

    The maps are never formed: the columns' weights are moved onto the values of two plain attentions.
    """
    theirs = attend(replace(source, v=matrix.to(own.v) @ own.v))
    return theirs + attend(replace(own, v=weight.to(own.v)[:, None] * own.v))
