"""Edges of frames after Canny, by OpenCV: what ControlNets of edges were trained on."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from freemask.errors import UserError
from freemask.types import Clip


@dataclass(frozen=True)
class Edges:
    """1 on an edge and 0 elsewhere, three times. The thresholds are for gradients of bytes: an edge begins where one is
    above `high`, and goes on while it is above `low`."""

    low: float | int = 100
    high: float | int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise UserError(
                "The thresholds of edges are out of order.",
                came=f"low {self.low}, high {self.high}",
                expected="0 <= low <= high, such as 100 and 200",
            )

    def check(self, clip: Clip) -> None:
        """Every clip has them."""

    def __call__(self, clip: Clip, device: str = "cpu") -> Float[Tensor, "f 3 h w"]:
        return self.of(clip.frames)

    def of(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f 3 h w"]:
        import cv2

        pictures = (frames.cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        found = np.stack([cv2.Canny(each, self.low, self.high) > 0 for each in pictures])
        return torch.from_numpy(found).to(frames)[:, None].expand(-1, 3, -1, -1).contiguous()
