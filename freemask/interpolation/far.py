"""Motion between frames that are no neighbours, as a chain of the steps between them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.interpolation.carried import Carried
from freemask.types import OpticalFlow

Way = tuple[
    Float[Tensor, "2 h w"], Bool[Tensor, "h w"]
]  # offsets of one frame's pixels, and what is seen there


@dataclass(frozen=True)
class Far:
    """Of a clip: where the pixels of any frame are in any other. What is hidden on the way counts as hidden."""

    steps: Carried

    @classmethod
    def of(cls, flow: OpticalFlow) -> "Far":
        return cls(Carried.of(flow))

    def way(self, frame: int, other: int) -> Way:
        """Offsets in pixels, and whether a pixel is seen there."""
        _, height, width = self.steps.forth[0].shape[1:]
        flow, seen = torch.zeros(2, height, width), torch.ones(height, width, dtype=torch.bool)
        ahead = other > frame
        links = range(frame, other) if ahead else range(frame - 1, other - 1, -1)
        flows, visible = self.steps.forth if ahead else self.steps.back
        for link in links:
            flow, seen = further(flow, seen, flows[link].cpu().float(), visible[link].cpu())
        return flow, seen


def further(
    flow: Float[Tensor, "2 h w"],
    seen: Bool[Tensor, "h w"],
    link: Float[Tensor, "2 h w"],
    visible: Bool[Tensor, "h w"],
) -> Way:
    """One step more: that of the pixel nearest to where a point has come. A mean of several would mix things that move
    apart."""
    height, width = seen.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    column, row = (x + flow[0]).round().long(), (y + flow[1]).round().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    return flow + link[:, row, column], seen & inside & visible[row, column]
