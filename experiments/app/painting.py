"""A mask that somebody paints: what a brush and an eraser did to one frame, for it or for all, and the folder of
pictures that `mask=segmentation` reads."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from experiments.app.settings import said_of
from experiments.jobs.pictures import enlarged
from freemask.data.task_fill import slug
from freemask.data.write import to_bytes, write_frames

VIEW = 448  # pixels to which small frames are enlarged for painting
COLOUR, ALPHA = (255, 217, 0), 150
SEEN = 30  # of 255: what covers less is no paint
EDGE = 0.5  # a pixel belongs to the mask where so much of it is painted


@dataclass(frozen=True, eq=False)
class Painted:
    frames: Float[Tensor, "f 3 h w"]
    masks: Bool[Tensor, "f h w"]
    fps: float | int = 8

    @classmethod
    def begun(
        cls, frames: Float[Tensor, "f 3 h w"], mask: Tensor | None = None, fps: float | int = 8
    ) -> "Painted":
        empty = torch.zeros(len(frames), *frames.shape[-2:], dtype=torch.bool)
        return cls(frames.detach().float().cpu(), empty if mask is None else mask.cpu() >= EDGE, fps)

    @property
    def scale(self) -> int:
        return max(1, VIEW // self.frames.shape[-2])

    def canvas(self, frame: int) -> dict[str, Any]:
        """What is painted on: the frame, and the mask as a layer of colour."""
        picture = to_bytes(enlarged(self.frames[frame : frame + 1], VIEW))[0]
        large = np.kron(self.masks[frame].numpy(), np.ones((self.scale, self.scale), bool))
        layer = np.zeros((*large.shape, 4), np.uint8)
        layer[large] = (*COLOUR, ALPHA)
        return {"background": picture, "layers": [layer], "composite": None}

    def taken(self, frame: int, layer: UInt8[np.ndarray, "h w 4"], everywhere: bool = False) -> "Painted":
        """After painting on a frame. `everywhere`: what was added there and taken away, also in the others."""
        paint = torch.from_numpy(np.ascontiguousarray(layer[..., 3] > SEEN)).float()[None]
        if self.scale > 1:
            paint = avg_pool2d(paint, self.scale)
        new, old, masks = paint[0] >= EDGE, self.masks[frame], self.masks.clone()
        if everywhere:
            masks = (masks | (new & ~old)) & ~(old & ~new)
        masks[frame] = new
        return replace(self, masks=masks)

    def leave(self, place: Path, clip: str) -> Path:
        """A folder named after the clip and what was painted: another painting lies in another one."""
        told = repr(tuple(self.masks.shape)).encode() + np.packbits(self.masks.numpy()).tobytes()
        folder = place / f"{slug(clip)}-{hashlib.sha256(told).hexdigest()[:8]}"
        write_frames(folder, self.masks[:, None].float().expand(-1, 3, -1, -1))
        return folder


def words(folder: Path) -> tuple[str, ...]:
    """For the command."""
    return ("mask=segmentation", said_of("mask.folder", folder))
