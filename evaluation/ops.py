"""The mathematics of the metrics: tensors in, tensors out."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

PSNR_CAP = 100.0
"""dB given to what has no error; one 8-bit step in one value of a 64x64 frame is 89 dB."""


def round8(frames: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The nearest of the 256 values that an image file can hold; frames in 0..1."""
    return (frames.float() * 255).round().clamp(0, 255) / 255


def decibels(error: Float[Tensor, " f"]) -> Float[Tensor, " f"]:
    """PSNR of mean squared errors, for a peak of 1."""
    return -10 * error.clamp_min(10 ** (-PSNR_CAP / 10)).log10()


def psnr(a: Float[Tensor, "f 3 h w"], b: Float[Tensor, "f 3 h w"]) -> Float[Tensor, " f"]:
    """One value for each frame."""
    return decibels((a.double() - b.double()).square().mean((1, 2, 3)))


def squares_where(
    a: Float[Tensor, "f 3 h w"],
    b: Float[Tensor, "f 3 h w"],
    where: Bool[Tensor, "f h w"],
    *,
    least: float = 0.0,
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Sum of squared errors over the pixels in `where` alone (the others are dropped, not zeroed and counted), and how
    many these are, for each frame in which `where` covers at least the share `least`, and at least one pixel."""
    pixels = where.flatten(1).sum(1).double()
    squares = (a.double() - b.double()).square().mean(1)
    total = torch.where(where, squares, torch.zeros_like(squares)).flatten(1).sum(1)
    kept = (pixels > 0) & (pixels >= least * where[0].numel())
    return total[kept], pixels[kept]


def psnr_pooled(total: Float[Tensor, " k"], pixels: Float[Tensor, " k"]) -> float:
    """Of all frames together: ruined frames are not made up for by untouched ones."""
    return float(decibels((total.sum() / pixels.sum())[None]))


def dilate(mask: Bool[Tensor, "f h w"], radius: int) -> Bool[Tensor, "f h w"]:
    """Grow the mask by a square of side 2 radius + 1 pixels."""
    if radius == 0:
        return mask
    return F.max_pool2d(mask.float()[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0].bool()


def closer(frame: Float[Tensor, "3 h w"], where: Bool[Tensor, "h w"]) -> Float[Tensor, "3 oh ow"]:
    """A square of the frame around what is marked, twice as wide as that and at least half as wide as the frame, for
    networks that see little in small things; the whole frame where that is no smaller."""
    height, width = where.shape
    rows, columns = (torch.where(where.any(axis))[0] for axis in (1, 0))
    wide = max(int(each[-1] - each[0]) + 1 for each in (rows, columns))
    side = max(min(height, width) // 2, 2 * wide)
    if side >= min(height, width):
        return frame
    top, left = (
        min(max(0, (int(each[0] + each[-1]) - side) // 2), size - side)
        for each, size in ((rows, height), (columns, width))
    )
    return frame[:, top : top + side, left : left + side]


def overlap(mask: Bool[Tensor, "f h w"], truth: Bool[Tensor, "f h w"]) -> float | None:
    """Intersection over union over the whole clip; None where there is neither."""
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else None


def cosine(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    a, b = a.double(), b.double()
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)


def perceptual_distance(
    a: Sequence[Tensor], b: Sequence[Tensor], heads: Sequence[Float[Tensor, " _"]] | None = None
) -> Float[Tensor, " f"]:
    """LPIPS (Zhang et al. 2018, eq. 1) of two lists of feature maps `f c h w`, one value a frame.

    With `heads` the layers' weighted channel sums are added up, as in the paper. Without, channels are
    summed unweighted and layers averaged, which keeps the value in 0..4.
    """
    values = []
    for layer, (x, y) in enumerate(zip(a, b, strict=True)):
        x, y = (m.double() / (m.double().square().sum(1, keepdim=True).sqrt() + 1e-10) for m in (x, y))
        squares = (x - y).square()
        if heads is not None:
            squares = squares * heads[layer].double()[None, :, None, None]
        values.append(squares.sum(1).mean((1, 2)))
    stack = torch.stack(values)
    return stack.sum(0) if heads is not None else stack.mean(0)


def resize_cubic(
    frames: Float[Tensor, "f 3 h w"], height: int, width: int
) -> Float[Tensor, "f 3 height width"]:
    """Antialiased bicubic resizing, cut to 0..1 and rounded to 8 bits as an image library would."""
    if frames.shape[-2:] == (height, width):
        return frames
    return round8(F.interpolate(frames, (height, width), mode="bicubic", antialias=True, align_corners=False))
