"""Optical flow as mathematics: tensors in, tensors out."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def warped(
    frames: Float[Tensor, "g c h w"], flow: Float[Tensor, "g 2 h w"], mode: str = "bilinear"
) -> Float[Tensor, "g c h w"]:
    """Each pixel fetched (bilinear, or the nearest) from where `flow`, in pixels (x, y), says that it came from."""
    height, width = frames.shape[-2:]
    sides = (torch.arange(side, device=flow.device).double() for side in (height, width))
    y, x = torch.meshgrid(*sides, indexing="ij")
    sizes = torch.tensor([width, height], dtype=torch.float64, device=flow.device)
    # Centres of pixels at (i + 0.5) / size, as align_corners=False has it; right for sides of one pixel too.
    places = torch.stack([x, y], -1) + flow.double().movedim(1, -1)
    grid = (2 * places + 1) / sizes - 1
    found = F.grid_sample(frames.double(), grid, mode=mode, padding_mode="border", align_corners=False)
    return found.to(frames.dtype)


def seen_there(there: Float[Tensor, "g 2 h w"], back: Float[Tensor, "g 2 h w"]) -> Bool[Tensor, "g h w"]:
    """Whether a pixel is seen in the other frame, to which `there` leads and from which `back` leads: it lands inside,
    and returns to where it was (Sundaram et al. 2010: |t + b|^2 <= 0.01 (|t|^2 + |b|^2) + 0.5)."""
    height, width = there.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    to_x, to_y = x + there[:, 0], y + there[:, 1]
    inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    returned = warped(back, there)
    both = there.square().sum(1) + returned.square().sum(1)
    return inside & ((there + returned).square().sum(1) <= 0.01 * both + 0.5)
