"""Where the tokens of a frame come from: which key frames lie beside it, how much each of them counts, and in each the
place that looks most alike."""

from bisect import bisect_left
from collections.abc import Sequence
from math import exp

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

PIECE = 2**22  # similarities that are made at once: 1024 rows of 4096 tokens
Near = tuple[tuple[int, float], ...]  # places in the row of key frames, with weights that add up to 1


def chunks(frames: int, size: int) -> list[range]:
    """The last one may be shorter."""
    return [range(start, min(start + size, frames)) for start in range(0, frames, size)]


def by_chunk(frame: int, size: int) -> Near:
    """As released: the key frame of the frame's own chunk and that of the chunk before, by how far the middles of the
    two chunks are, wherever in them the key frames lie."""
    own = frame // size
    here, before = (abs(frame - (place * size + size // 2)) for place in (own, own - 1))
    return blended(own, here, own - 1, before) if own else ((0, 1.0),)


def by_distance(frame: int, keys: Sequence[int]) -> Near:
    """As the paper tells it: the key frame at or after the frame and the one before, by how far they are; at the ends
    of a clip there is one."""
    after = bisect_left(keys, frame)
    if after in (0, len(keys)):
        return ((min(after, len(keys) - 1), 1.0),)
    return blended(after, keys[after] - frame, after - 1, frame - keys[after - 1])


def blended(first: int, near: int, second: int, far: int) -> Near:
    """By a sigmoid of a share: the first counts between 0.5 and 0.73, and nothing ever counts alone."""
    weight = 1 / (1 + exp(-far / (near + far)))
    return ((first, weight), (second, 1 - weight))


def directions(tokens: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n c"]:
    """Of length 1, in single precision at least: in half precision many places would look equally alike."""
    precise = tokens if tokens.dtype == torch.float64 else tokens.float()
    return normalize(precise, dim=-1)


def nearest(tokens: Float[Tensor, "n c"], among: Float[Tensor, "m c"]) -> Int[Tensor, " n"]:
    """For each direction the place of the one that is most alike, the first of equals. Some rows at a time, so that
    the matrix of all similarities never exists."""
    rows = max(1, PIECE // len(among))
    return torch.cat([(part @ among.T).argmax(dim=1) for part in tokens.split(rows)])


def carried(
    kept: Float[Tensor, "s k heads m e"], near: Near, found: Sequence[Int[Tensor, " n"]]
) -> Float[Tensor, "s heads n e"]:
    """What the key frames have at the places that were found in them, blended."""
    first, *more = (
        kept[:, place].index_select(2, index) * weight
        for (place, weight), index in zip(near, found, strict=True)
    )
    return sum(more, start=first)
