"""The one place where the size and the crop of frames and masks are decided.

Size: nothing asked keeps the source's size; `short_side` scales the shorter side to it and keeps the aspect
ratio; `height` or `width` alone does the same for that side; both together fix the size. The other side is
rounded to the nearest `multiple`. Crop: `none` shows the whole picture (and stretches it where the asked
size has another shape), `center` cuts the edges instead of stretching, `square` cuts a centred square first.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from freemask.errors import UserError, nearest

CROPS = ("none", "center", "square")


class Fit(NamedTuple):
    """What happens to one picture: the box cut out of it, then the size the box is brought to."""

    top: int
    left: int
    box_height: int
    box_width: int
    height: int
    width: int


@dataclass(frozen=True)
class Geometry:
    short_side: int | None = None
    height: int | None = None
    width: int | None = None
    crop: str = "none"
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise UserError("unknown crop", came=self.crop, expected=nearest(str(self.crop), CROPS))
        if not _positive(self.multiple):
            raise UserError("`multiple` must be a whole number above 0", came=self.multiple)
        for name in ("short_side", "height", "width"):
            self._check_side(name, getattr(self, name))
        if self.short_side is not None and (self.height is not None or self.width is not None):
            raise UserError(
                "a size is asked for twice",
                came=f"short_side={self.short_side}, height={self.height}, width={self.width}",
                expected="short_side, or height and width",
            )
        if self.crop == "square" and None not in (self.height, self.width) and self.height != self.width:
            raise UserError(
                "crop=square with a size that is not square",
                came=f"height={self.height}, width={self.width}",
                todo="use crop=center to cut to that size",
            )

    def _check_side(self, name: str, side: int | None) -> None:
        if side is None:
            return
        if not _positive(side):
            raise UserError(f"`{name}` must be a whole number above 0", came=repr(side))
        if side % self.multiple:
            below = side // self.multiple * self.multiple
            above = below + self.multiple
            raise UserError(
                f"`{name}` does not fit the model's grid",
                came=side,
                expected=f"a multiple of {self.multiple}, such as {f'{below} or ' if below else ''}{above}",
            )

    def fitted(self, *, multiple: int, native: tuple[int, int]) -> "Geometry":
        """For a model: sizes on its grid and, where no size is asked, its native short side."""
        asked = any(side is not None for side in (self.short_side, self.height, self.width))
        return dataclasses.replace(
            self,
            multiple=math.lcm(self.multiple, multiple),
            short_side=self.short_side if asked else min(native),
        )

    def fit(self, height: int, width: int) -> Fit:
        """Plan for a source of this size."""
        if self.crop == "square":
            side = min(height, width)
            goal = self.short_side or self.height or self.width or _round(side, self.multiple)
            return Fit((height - side) // 2, (width - side) // 2, side, side, goal, goal)
        high, wide = self._goal(height, width)
        if self.crop == "none":
            return Fit(0, 0, height, width, high, wide)
        if (high, wide) == self._uncut(height, width):
            box_height, box_width = high, wide
        else:
            scale = min(height / high, width / wide)
            box_height = min(height, max(1, round(high * scale)))
            box_width = min(width, max(1, round(wide * scale)))
        return Fit((height - box_height) // 2, (width - box_width) // 2, box_height, box_width, high, wide)

    def _uncut(self, height: int, width: int) -> tuple[int, int] | None:
        """With no size asked, `center` cuts to the grid and leaves every pixel as it is."""
        if any(side is not None for side in (self.short_side, self.height, self.width)):
            return None
        high, wide = _floor(height, self.multiple), _floor(width, self.multiple)
        return (high, wide) if high <= height and wide <= width else None

    def _goal(self, height: int, width: int) -> tuple[int, int]:
        uncut = self._uncut(height, width) if self.crop == "center" else None
        if uncut:
            return uncut
        if self.height is not None and self.width is not None:
            return self.height, self.width
        snap = _floor if self.crop == "center" else _round
        if self.height is not None:
            return self.height, snap(width * self.height / height, self.multiple)
        if self.width is not None:
            return snap(height * self.width / width, self.multiple), self.width
        if self.short_side is None:
            return snap(height, self.multiple), snap(width, self.multiple)
        scale = self.short_side / min(height, width)
        long_side = max(self.short_side, snap(max(height, width) * scale, self.multiple))
        return (self.short_side, long_side) if height <= width else (long_side, self.short_side)

    def frames(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f 3 oh ow"]:
        """Cut and resize, bilinear with antialiasing; untouched where nothing changes."""
        fit = self.fit(frames.shape[-2], frames.shape[-1])
        cut = frames[..., fit.top : fit.top + fit.box_height, fit.left : fit.left + fit.box_width]
        if cut.shape[-2:] == (fit.height, fit.width):
            return cut.contiguous()
        resized = interpolate(
            cut, (fit.height, fit.width), mode="bilinear", antialias=True, align_corners=False
        )
        return resized.clamp(0, 1)

    def masks(self, masks: Bool[Tensor, "f h w"]) -> Bool[Tensor, "f oh ow"]:
        """Exactly the same cut and size, each pixel taken from the nearest one of the source."""
        fit = self.fit(masks.shape[-2], masks.shape[-1])
        cut = masks[:, fit.top : fit.top + fit.box_height, fit.left : fit.left + fit.box_width]
        if cut.shape[-2:] == (fit.height, fit.width):
            return cut.contiguous()
        resized = interpolate(cut[:, None].to(torch.float32), (fit.height, fit.width), mode="nearest-exact")
        return resized[:, 0] > 0.5


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _round(side: float | int, multiple: int) -> int:
    return max(1, math.floor(side / multiple + 0.5)) * multiple


def _floor(side: float | int, multiple: int) -> int:
    return max(1, math.floor(side / multiple + 1e-6)) * multiple
