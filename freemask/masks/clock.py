"""Frames, latent frames and cells of attention along time: which frames a cell stands for, and masks from one to the
other. In models that compress time, the first frame has a latent of its own and each later one stands for several."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Clock:
    """Of a clip of so many frames. `compression` is the number of frames in a latent frame."""

    frames: int
    compression: int = 1

    @property
    def latents(self) -> int:
        """How many latent frames there are."""
        return 1 + -(-(self.frames - 1) // self.compression)

    def spans(self, cells: int) -> list[range]:
        """The frames that each of so many cells stands for. Latent frames that share a cell (patches along time) share
        its frames."""
        if cells == self.frames:
            return [range(i, i + 1) for i in range(self.frames)]
        latents = [range(1)]
        latents += [
            range(first, min(first + self.compression, self.frames))
            for first in range(1, self.frames, self.compression)
        ]
        share = -(-len(latents) // cells)
        if -(-len(latents) // share) != cells:
            raise ValueError(f"{cells} cells do not fit {self.frames} frames in {len(latents)} latent frames")
        groups = [latents[i : i + share] for i in range(0, len(latents), share)]
        return [range(group[0].start, group[-1].stop) for group in groups]

    def lift(
        self, mask: Float[Tensor, "_f h w"] | Bool[Tensor, "_f h w"], cells: int
    ) -> Float[Tensor, "f h w"] | Bool[Tensor, "f h w"]:
        """To so many cells along time. A cell of several frames may change where one of them may."""
        if len(mask) == cells:
            return mask
        owner = torch.empty(self.frames, dtype=torch.long)
        for place, span in enumerate(self.spans(len(mask))):
            owner[span.start : span.stop] = place
        frames = mask[owner.to(mask.device)]
        return torch.stack([frames[span.start : span.stop].amax(dim=0) for span in self.spans(cells)])
