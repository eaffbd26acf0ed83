"""How far to trust a map of word heat, by the map alone, and what many maps agree on: pure functions of heat."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.masks.ops import resize


def decided(heat: Float[Tensor, "f h w"]) -> float:
    """How decided a map is, from 0 (even) to 1 (each cell gives the word all of its attention or none).

    Heat is a share of attention, so that its variance over cells is at most mean * (1 - mean); this is the part of
    that which it has.
    """
    heat = heat.float()
    mean = heat.mean()
    most = mean * (1 - mean)
    return float(heat.var(correction=0) / most) if most > 0 else 0.0


def agreed(heats: Sequence[Float[Tensor, "f _h _w"]]) -> Float[Tensor, "f h w"]:
    """The mean of maps of any grids on the finest one, each weighed by how decided it is; even maps have no say."""
    height, width = (max(heat.shape[axis] for heat in heats) for axis in (1, 2))
    total = torch.zeros(len(heats[0]), height, width, device=heats[0].device)
    weights = 0.0
    for heat in heats:  # one after the other: a clip has as many maps as layers times steps
        if weight := decided(heat):  # a map that is not a number has none, either
            total += weight * resize(heat.float(), height, width, "bilinear")
            weights += weight
    return total / weights if weights else total
