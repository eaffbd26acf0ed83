"""A frame made of the two beside it along the clip's own optical flow: each pixel is fetched from where it is there."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.interpolation.interleaved import Neighbours
from freemask.optical.ops import warped
from freemask.types import OpticalFlow

Way = tuple[
    Float[Tensor, "g 2 h w"], Bool[Tensor, "g h w"]
]  # where pixels are, and whether they are seen there


@dataclass(frozen=True)
class Carried:
    """`forth` leads from each frame to the next one, `back` from each but the first to the one before."""

    forth: Way
    back: Way

    @classmethod
    def of(cls, flow: OpticalFlow) -> "Carried":
        seen = torch.ones_like(flow.forth[:, 0], dtype=torch.bool) if flow.seen is None else flow.seen
        pairs = [turned(*each) for each in zip(flow.forth, seen, strict=True)]
        back, found = (torch.stack(each) for each in zip(*pairs, strict=True))
        return cls((flow.forth, seen), (back, found))

    def __call__(self, frames: Float[Tensor, "f 3 h w"], made_of: Neighbours) -> Float[Tensor, "k 3 h w"]:
        return torch.stack([self.one(frames, frame, pair) for frame, pair in made_of.items()])

    def one(
        self, frames: Float[Tensor, "f 3 h w"], frame: int, pair: tuple[int, int]
    ) -> Float[Tensor, "3 h w"]:
        """The mean of what is seen beside it; what neither of the two shows stays as it is."""
        (a, in_a), (b, in_b) = (self.fetched(frames, frame, other) for other in pair)
        counts = in_a.to(frames) + in_b.to(frames)
        mean = (a * in_a + b * in_b) / counts.clamp(min=1)
        return torch.where(counts > 0, mean, frames[frame])

    def fetched(self, frames: Float[Tensor, "f 3 h w"], frame: int, other: int) -> tuple[Tensor, Tensor]:
        if other == frame:
            return frames[frame], torch.ones_like(frames[frame, :1], dtype=torch.bool)
        (flow, seen), place = (self.forth, frame) if other > frame else (self.back, other)
        moved = warped(frames[other : other + 1], flow[place : place + 1])[0]
        return moved, seen[place][None]


def turned(
    flow: Float[Tensor, "2 h w"], seen: Bool[Tensor, "h w"]
) -> tuple[Float[Tensor, "2 h w"], Bool[Tensor, "h w"]]:
    """From where it leads back to where it began. Where nothing leads, nothing is seen."""
    height, width = seen.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    to_x, to_y = (x + flow[0]).round().long(), (y + flow[1]).round().long()
    lands = seen & (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    back, found = torch.zeros_like(flow), torch.zeros_like(seen)
    back[:, to_y[lands], to_x[lands]] = -flow[:, lands]
    found[to_y[lands], to_x[lands]] = True
    return back, found
