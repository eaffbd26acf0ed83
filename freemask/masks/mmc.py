"""Mask Matching Cost: how far the masks of a layer, or of a time, are from the truth (eqs. 3 to 6 of FreeMask).

d is the overlap of a mask with the truth (eq. 2: `freemask.masks.ops.iou`), known for every clip, layer and time.
The cost of a mask is 1 / d: 1 is perfect. The paper does not say what 1 / d is where a mask misses the object
altogether, nor how clips are put together. Here d counts as `floor` at least, so that no single mask costs more
than 1 / floor, and the costs (not the overlaps) are averaged over clips. Where many masks miss, the floor decides: so
their share is told, and what would be best with another floor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from freemask.errors import UserError
from freemask.statistics import mean

FLOOR = 0.01
OTHER = 0.1  # the floor beside it


class Estimate(NamedTuple):
    """A mean with its 95 % interval over clips; of one clip, the mean itself."""

    mean: float | int
    low: float | int
    high: float | int


@dataclass(frozen=True)
class AtFloor:
    """What comes out with one floor: the share of masks that count as it, and the best layer and time."""

    floor: float | int
    share: float
    best_layer: int
    best_time: int


@dataclass(frozen=True)
class Matching:
    """Overlap and cost by layer and time, each the mean over clips; costs by layer and by time; the best of each."""

    iou: Float[Tensor, "layers times"]
    cost: Float[Tensor, "layers times"]
    lmmc: Sequence[Estimate]
    tmmc: Sequence[Estimate]
    best_layer: int
    best_time: int
    floors: Sequence[AtFloor]


def cost(d: Float[Tensor, "..."], floor: float | int = FLOOR) -> Float[Tensor, "..."]:
    """1 / d, and at most 1 / floor."""
    check_floor(floor)
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
) -> Matching:
    """From the overlaps of n items. `clips` names each item's clip: intervals are over clips, not items."""
    d = d.double()
    groups = list(map(str, range(len(d)))) if clips is None else list(clips)
    if not len(d) or len(groups) != len(d):
        raise ValueError(f"{len(d)} items with {len(groups)} clips")
    costs = cost(d, floor)
    by_layer = estimates(lmmc(costs), groups)
    by_time = estimates(tmmc(costs), groups)
    return Matching(
        iou=d.mean(dim=0),
        cost=costs.mean(dim=0),
        lmmc=by_layer,
        tmmc=by_time,
        best_layer=best([each.mean for each in by_layer]),
        best_time=best([each.mean for each in by_time]),
        floors=[at_floor(d, each) for each in (floor, FLOOR if floor == OTHER else OTHER)],
    )


def at_floor(d: Float[Tensor, "n layers times"], floor: float | int) -> AtFloor:
    costs = cost(d.double(), floor).mean(dim=0)
    share = float((d <= floor).double().mean())
    return AtFloor(floor, share, best(lmmc(costs).tolist()), best(tmmc(costs).tolist()))


def estimates(values: Float[Tensor, "n k"], groups: Sequence[str]) -> list[Estimate]:
    """Mean over n items and its interval over groups, for each of k columns."""
    found = []
    for column in values.T.tolist():
        each = mean(column, groups)
        alone = each.clips < 2
        found.append(Estimate(each.value, *((each.value,) * 2 if alone else (each.low, each.high))))
    return found
