"""Mask Matching Cost: how far the masks of a layer, or of a time, are from the truth (eqs. 3 to 6 of FreeMask).

d is the overlap of a mask with the truth (eq. 2: `freemask.masks.ops.iou`), known for every clip, layer and time.
The cost of a mask is 1 / d: 1 is perfect. The paper does not say what 1 / d is where a mask misses the object
altogether, nor how clips are put together. Here d counts as `floor` at least, so that no single mask costs more
than 1 / floor, and the costs (not the overlaps) are averaged over clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.errors import UserError

FLOOR = 0.01
DRAWS = 1000


class Estimate(NamedTuple):
    """A mean with its 95 % percentile bootstrap interval over clips; of one clip, the mean itself."""

    mean: float | int
    low: float | int
    high: float | int


@dataclass(frozen=True)
class Matching:
    """Overlap and cost by layer and time, each the mean over clips; costs by layer and by time; the best of each."""

    iou: Float[Tensor, "layers times"]
    cost: Float[Tensor, "layers times"]
    lmmc: Sequence[Estimate]
    tmmc: Sequence[Estimate]
    best_layer: int
    best_time: int


def cost(d: Float[Tensor, "..."], floor: float | int = FLOOR) -> Float[Tensor, "..."]:
    """1 / d, and at most 1 / floor."""
    if not 0 < floor <= 1:
        raise UserError(
            "the floor of the overlap is not possible", came=f"floor={floor}", expected="above 0, to 1"
        )
    if not bool(((d >= 0) & (d <= 1)).all()):
        raise ValueError("an overlap lies between 0 and 1")
    return 1 / d.clamp(min=floor)


def check_floor(floor: float | int) -> None:
    if not 0 < floor <= 1:
        raise UserError(
            "the floor of the overlap is not possible", came=f"floor={floor}", expected="above 0, to 1"
        )


def lmmc(costs: Float[Tensor, "*clips layers times"]) -> Float[Tensor, "*clips layers"]:
    return costs.mean(dim=-1)  # eq. 3: D_l = 1/T sum_t 1 / d_t^l


def tmmc(costs: Float[Tensor, "*clips layers times"]) -> Float[Tensor, "*clips times"]:
    return costs.mean(dim=-2)  # eq. 5: D_t = 1/L sum_l 1 / d_t^l


def best(values: Sequence[float | int]) -> int:
    """The place of the smallest cost, the first of equals."""
    return min(
        range(len(values)), key=values.__getitem__
    )  # eq. 4: l* = argmin_l D_l; eq. 6: t* = argmin_t D_t


def match(
    d: Float[Tensor, "n layers times"],
    clips: Sequence[str] | None = None,
    *,
    floor: float | int = FLOOR,
    seed: int = 0,
) -> Matching:
    """From the overlaps of n items. `clips` names each item's clip: intervals are drawn over clips, not items."""
    d = d.double()
    groups = list(map(str, range(len(d)))) if clips is None else list(clips)
    if not len(d) or len(groups) != len(d):
        raise ValueError(f"{len(d)} items with {len(groups)} clips")
    costs = cost(d, floor)
    by_layer = bootstrap(lmmc(costs), groups, seed=seed)
    by_time = bootstrap(tmmc(costs), groups, seed=seed)
    return Matching(
        iou=d.mean(dim=0),
        cost=costs.mean(dim=0),
        lmmc=by_layer,
        tmmc=by_time,
        best_layer=best([each.mean for each in by_layer]),
        best_time=best([each.mean for each in by_time]),
    )


def bootstrap(
    values: Float[Tensor, "n k"], groups: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> list[Estimate]:
    """Mean over n items and its interval, for each of k columns; the items of a group are drawn together."""
    names = list(dict.fromkeys(groups))
    member = torch.tensor([[float(name == group) for group in groups] for name in names], dtype=values.dtype)
    sums, counts = member @ values, member.sum(dim=1)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(names), (draws, len(names)), generator=generator)
    means = sums[drawn].sum(dim=1) / counts[drawn].sum(dim=1, keepdim=True)
    ends = torch.tensor([0.025, 0.975], dtype=values.dtype)
    low, high = torch.quantile(means, ends, dim=0)
    mean = values.mean(dim=0)
    return [Estimate(*map(float, each)) for each in zip(mean, low, high, strict=True)]
