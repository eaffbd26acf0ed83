"""A clip that is in memory already, with one edit given in place."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from freemask.data.captions import Captions
from freemask.data.frames import Footage, FrameRange
from freemask.data.geometry import Geometry
from freemask.data.one import OneClip
from freemask.data.regions import with_regions
from freemask.data.task_fill import slug
from freemask.types import Clip, EditTask


class HeldClip(OneClip):
    """As `OneClip`, of frames that are there; annotations are cut and resized with them."""

    def __init__(
        self,
        clip: Clip,
        edit: Mapping[str, object],
        geometry: Geometry | None = None,
        frames: FrameRange | None = None,
        captions: Captions | None = None,
    ) -> None:
        self.held, self.path = clip, Path(slug(clip.id))
        self.geometry, self.frames = geometry or Geometry(), frames or FrameRange()
        self.task = self._task(edit, captions)

    def _whole_footage(self) -> Footage:
        return footage_of(self.held, Geometry(), self.frames)

    def clip(self, task: EditTask) -> Clip:
        return with_regions(taken(self.held, self.geometry, self.frames), task, self.footage(), self.geometry)

    def footage(self) -> Footage:
        return footage_of(self.held, self.geometry, self.frames)


def taken(clip: Clip, geometry: Geometry, frames: FrameRange) -> Clip:
    """The frames that are asked for, in the size that is asked for. Conditions stay as they are: the network refuses
    those that do not fit."""
    footage = footage_of(clip, geometry, frames)
    chosen = list(footage.indices)
    masks = {name: geometry.masks(mask[chosen]) for name, mask in clip.masks.items()}
    same = footage.frames.shape == clip.frames.shape
    flow = clip.flow if same else None  # of the clip as it is, and no other
    depth = None if clip.depth is None else geometry.frames(_grey(clip.depth[chosen]))[:, 0]
    return replace(clip, frames=footage.frames, masks=masks, fps=footage.fps, flow=flow, depth=depth)


def footage_of(clip: Clip, geometry: Geometry | None = None, frames: FrameRange | None = None) -> Footage:
    """The same, as if it had been read from a file."""
    geometry, frames = geometry or Geometry(), frames or FrameRange()
    timed = ((place / clip.fps, place) for place in range(len(clip.frames)))
    chosen = [place for _, place in frames.choose(timed, clip.fps, clip.id)]
    height, width = clip.frames.shape[-2:]
    rate = frames.rate(clip.fps, clip.id)
    made = geometry.frames(clip.frames[chosen])
    return Footage(made, tuple(chosen), (height, width), rate, total=len(clip.frames))


def _grey(values: Float[Tensor, "f h w"]) -> Float[Tensor, "f 3 h w"]:
    return values[:, None].expand(-1, 3, -1, -1)
