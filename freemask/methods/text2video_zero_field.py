"""Text2Video-Zero's motion of latents: a first frame, moved further in each frame after it, and a steady background."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d

SIDE = 512  # of the authors' pictures, in whose pixels motion is told
GROWN = 2  # cells on each side that a mask is grown by in their latents of 64 x 64
CELLS = 64


def moved(
    x: Float[Tensor, "1 c h w"], frames: Sequence[int], motion: Sequence[float | int], multiple: int
) -> Float[Tensor, "f c h w"]:
    """What each of these frames shows of the first one, with every content moved up and to the left by so much per
    frame. The nearest cell is taken, and beyond the border the mirrored picture. Positions are those of pixels,
    without the half of one between a pixel's corner and its middle, as in the released code."""
    height, width = x.shape[-2:]
    found = []
    for frame in frames:
        right, down = (frame * each / SIDE for each in motion)
        places = []
        for cells, shift in ((height, down), (width, right)):
            at = torch.arange(cells, dtype=torch.float64) + shift * cells - 0.5 / multiple
            places.append((2 * at + 1) / cells - 1)
        y, x_ = torch.meshgrid(*places, indexing="ij")
        grid = torch.stack([x_, y], dim=-1)[None].to(x.device)
        options = {"mode": "nearest", "padding_mode": "reflection", "align_corners": False}
        found.append(grid_sample(x.double(), grid, **options).to(x))
    return torch.cat(found)


def grown(mask: Float[Tensor, "f h w"]) -> Float[Tensor, "f h w"]:
    """A mask on the grid of latents, a little larger."""
    by = max(1, round(GROWN * mask.shape[-1] / CELLS))
    return max_pool2d(mask[:, None], 2 * by + 1, stride=1, padding=by)[:, 0]


def smoothed(
    x: Float[Tensor, "f c h w"],
    moving: Float[Tensor, "f c h w"],
    objects: Float[Tensor, "f h w"],
    moving_object: Float[Tensor, "f h w"],
    share: float | int,
) -> Float[Tensor, "f c h w"]:
    """Where neither a frame's own object nor the first frame's, moved there, stands: so much of the first frame's
    background, moved there too."""
    behind = share * ((1 - objects) * (1 - moving_object))[:, None]
    return behind * moving + (1 - behind) * x
