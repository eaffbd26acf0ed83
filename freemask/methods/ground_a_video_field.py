"""Ground-A-Video's boxes and noise: pure functions of masks, flow and latents."""

from collections.abc import Sequence
from math import ceil, floor

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from freemask.types import OpticalFlow

TINY = 1e-6


def box_of(mask: Bool[Tensor, "f h w"]) -> Float[Tensor, "f 5"]:
    """In each frame x0 y0 x1 y1 in 0..1, and 1; nothing but zeros where the mask is empty."""
    frames, height, width = mask.shape
    found = torch.zeros(frames, 5)
    for frame, there in enumerate(mask.cpu()):
        rows, columns = there.any(1).nonzero()[:, 0], there.any(0).nonzero()[:, 0]
        if len(rows):
            corners = [
                columns[0] / width,
                rows[0] / height,
                (columns[-1] + 1) / width,
                (rows[-1] + 1) / height,
            ]
            found[frame] = torch.tensor([*corners, 1.0])
    return found


def inside(
    boxes: Float[Tensor, "f n 5"], height: int, width: int, *, whole: bool = True
) -> Float[Tensor, "f h w"]:
    """1 in the cells that some box of a frame touches; not `whole`: but for those in which it ends, as released."""
    found = torch.zeros(len(boxes), height, width)
    for frame, each in enumerate(boxes.tolist()):
        for *corners, there in each:
            if there:
                columns, rows = (
                    slice(floor(corners[axis] * side + TINY), _end(corners[axis + 2] * side, whole))
                    for axis, side in ((0, width), (1, height))
                )
                found[frame, rows, columns] = 1
    return found


def _end(at: float, whole: bool) -> int:
    return ceil(at - TINY) if whole else floor(at + TINY)


def moves(flow: OpticalFlow, height: int, width: int, threshold: float | int) -> Bool[Tensor, "g h w"]:
    """Of each frame but the last, on a smaller grid: where its pixels go further than this share of the way that the
    fastest of them goes."""
    length = flow.forth.float().square().sum(1).sqrt()
    share = length / length.amax((1, 2), keepdim=True).clamp_min(TINY)
    small = interpolate(share[:, None], (height, width), mode="bilinear", align_corners=False)
    return small[:, 0] > threshold


def smoothed(noise: Float[Tensor, "f c h w"], moving: Bool[Tensor, "g h w"]) -> Float[Tensor, "f c h w"]:
    """What stands still has the noise of the frame before, and so that of the first frame for as long as it does."""
    found = [noise[0]]
    for own, there in zip(noise[1:], moving.to(noise.device), strict=True):
        found.append(torch.where(there, own, found[-1]))
    return torch.stack(found)


def opened(gates: Sequence[float | int], i: int, steps: int) -> float:
    """How far gates are open at a step: for the first share of the steps wide, then less and less, then not at all."""
    wide, closing = int(gates[0] * steps + TINY), int(gates[1] * steps + TINY)
    if i < wide:
        return 1.0
    return (closing - 1 - (i - wide)) / closing if i < wide + closing else 0.0
