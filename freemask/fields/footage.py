"""A clip as points: what fields are fitted to."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from freemask.types import OpticalFlow

MOST = 2**63  # what a generator takes


@dataclass(frozen=True)
class Footage:
    """`flow` leads from every pixel to the next frame, in pixels (x, y), `trusted` says where it does; the last frame
    has none. `marked` is a rough mask. Points are numbers of pixels, counted through frames, rows and columns."""

    frames: Float[Tensor, "f 3 h w"]
    flow: Float[Tensor, "f 2 h w"]
    trusted: Bool[Tensor, "f h w"]
    marked: Float[Tensor, "f h w"] | None = None

    @classmethod
    def of(
        cls,
        frames: Float[Tensor, "f 3 h w"],
        flow: OpticalFlow | None,
        marked: Float[Tensor, "f h w"] | None = None,
        device: torch.device | str = "cpu",
    ) -> "Footage":
        """Flow that leads out of the picture, or to what is hidden, is not trusted."""
        count, _, height, width = frames.shape
        offsets = frames.new_zeros(count, 2, height, width)
        trusted = torch.zeros(count, height, width, dtype=torch.bool)
        if flow is not None and count > 1:
            offsets[:-1] = flow.forth
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            to_x, to_y = x + flow.forth[:, 0], y + flow.forth[:, 1]
            trusted[:-1] = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
            if flow.seen is not None:
                trusted[:-1] &= flow.seen
        parts = (frames.float(), offsets.float(), trusted, None if marked is None else marked.float())
        return cls(*(None if each is None else each.to(device) for each in parts))  # type: ignore[arg-type]

    @property
    def size(self) -> tuple[int, int, int]:
        """Frames, height, width."""
        height, width = self.frames.shape[-2:]
        return len(self.frames), height, width

    @cached_property
    def colours(self) -> Float[Tensor, "n 3"]:
        return self.frames.movedim(1, -1).reshape(-1, 3)

    @cached_property
    def offsets(self) -> Float[Tensor, "n 2"]:
        return self.flow.movedim(1, -1).reshape(-1, 2)

    def places(self, points: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        """Column, row and frame of each."""
        _, height, width = self.size
        parts = (points % width, points // width % height, points // (width * height))
        return torch.stack(parts, dim=1).float()

    def ahead(self, points: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        """Where they are in the next frame."""
        after = self.places(points)
        return torch.cat([after[:, :2] + self.offsets[points], after[:, 2:] + 1], dim=1)

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(repr(self.size).encode())
        for each in (self.frames, self.flow, self.trusted, self.marked):
            if each is not None:
                digest.update(each.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]


def rng_of(seed: int, step: int) -> torch.Generator:
    """Each step has its own random numbers, so that a fit that goes on draws what it would have drawn."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % MOST)
