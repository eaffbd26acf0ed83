"""A clip that is in memory already, with one edit given in place."""

from collections.abc import Mapping
from pathlib import Path

from freemask.data.frames import FrameRange
from freemask.data.geometry import Geometry
from freemask.data.one import OneClip, task_of
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
    ) -> None:
        self.held, self.path = clip, Path(slug(clip.id))
        self.geometry, self.frames = geometry or Geometry(), frames or FrameRange()
        self.task = task_of(self.path, edit)

    def clip(self, task: EditTask) -> Clip:
        return taken(self.held, self.geometry, self.frames)

    def region(self, task: EditTask) -> None:
        return None


def taken(clip: Clip, geometry: Geometry, frames: FrameRange) -> Clip:
    """The frames that are asked for, in the size that is asked for."""
    timed = ((place / clip.fps, place) for place in range(len(clip.frames)))
    chosen = [place for _, place in frames.choose(timed, clip.fps, clip.id)]
    masks = {name: geometry.masks(mask[chosen]) for name, mask in clip.masks.items()}
    made = geometry.frames(clip.frames[chosen])
    flow = clip.flow if made.shape == clip.frames.shape else None  # of the clip as it is, and no other
    return Clip(clip.id, made, masks, frames.rate(clip.fps, clip.id), flow=flow)
