"""What a grid allows: how well a mask made of a layer's cells can match the truth at all."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.masks.clock import Clock
from freemask.masks.ops import resize


def ceiling(
    truth: Bool[Tensor, "f h w"], grid: Sequence[int], clock: Clock, *, two_class: bool = False
) -> float:
    """The highest overlap (`ops.iou`, or `ops.two_class_iou`) with the truth of any choice of cells that are lifted as
    they are. `grid` is frames, height and width, the first in latent frames or cells of several."""
    found = overlaps(*shares(truth, grid, clock), two_class=two_class)
    return float(found.max())


def shares(
    truth: Bool[Tensor, "f h w"], grid: Sequence[int], clock: Clock
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """How many pixels of the truth each cell covers, and how many pixels at all."""
    frames, height, width = truth.shape
    cells = torch.arange(torch.Size(grid).numel(), dtype=torch.float64).reshape(*grid)
    owner = clock.lift(resize(cells, height, width), frames).long().flatten()
    inside = torch.bincount(owner, weights=truth.cpu().flatten().double(), minlength=cells.numel())
    return inside, torch.bincount(owner, minlength=cells.numel()).double()


def overlaps(
    inside: Float[Tensor, " n"], pixels: Float[Tensor, " n"], *, two_class: bool
) -> Float[Tensor, " n"]:
    """Of the fullest cell, the two fullest, and so on: whatever overlap is wanted, its best mask is one of these."""
    order = (inside / pixels.clamp_min(1)).argsort(descending=True)
    hit, missed = inside[order].cumsum(0), (pixels - inside)[order].cumsum(0)
    object_, rest = inside.sum(), (pixels - inside).sum()
    found = hit / (object_ + missed)
    if not two_class:
        return found
    left = rest + object_ - hit  # of pixels that are rest in either mask
    return torch.where(left > 0, (found + (rest - missed) / left.clamp_min(1)) / 2, found)
