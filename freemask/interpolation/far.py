"""Motion between frames that are no neighbours, as a chain of the steps between them."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.interpolation.carried import Carried
from freemask.types import OpticalFlow

Way = tuple[
    Float[Tensor, "2 h w"], Bool[Tensor, "h w"]
]  # offsets of one frame's pixels, and what is seen there


STILL = 0.5  # of a pixel


@dataclass(frozen=True)
class Far:
    """Of a clip: where the pixels of any frame are in any other. They are seen there where nothing hides them on the
    way, or where they stand still and so does what is seen there."""

    steps: Carried

    @classmethod
    def of(cls, flow: OpticalFlow) -> "Far":
        return cls(Carried.of(flow))

    def way(self, frame: int, other: int) -> Way:
        """Offsets in pixels, and whether a pixel is seen there."""
        there, seen = self.chain(frame, other)
        back, _ = self.chain(other, frame)
        return there, seen | (_still(there) & _still(back))

    def chain(self, frame: int, other: int) -> Way:
        ahead = other > frame
        links = range(frame, other) if ahead else range(frame - 1, other - 1, -1)
        flows, visible = self.steps.forth if ahead else self.steps.back
        start = torch.zeros(2, *flows.shape[-2:])
        return followed(start, ((flows[link].cpu().float(), visible[link].cpu()) for link in links))


def _still(flow: Float[Tensor, "2 h w"]) -> Bool[Tensor, "h w"]:
    return (flow.abs() < STILL).all(0)


def followed(flow: Float[Tensor, "2 h w"], links: Iterable[Way]) -> Way:
    """Step by step, with the pixel nearest to where a point has come: a mean of several would mix things that move
    apart. From where it is hidden a point goes no further, for what is seen there is something else."""
    height, width = flow.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    going = torch.ones(height, width, dtype=torch.bool)
    for link, visible in links:
        going, column, row = _inside(going, x + flow[0], y + flow[1])
        flow = flow + link[:, row, column] * going
        going = going & visible[row, column]
    going, _, _ = _inside(going, x + flow[0], y + flow[1])
    return flow, going


def _inside(going: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Those of the points that are in the picture; for all, the nearest pixel."""
    height, width = going.shape
    column, row = x.round().long(), y.round().long()
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return going & within, column.clamp(0, width - 1), row.clamp(0, height - 1)
