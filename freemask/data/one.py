"""One clip (video file, folder of frames or picture) with one edit given in place."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from jaxtyping import Bool, Float
from torch import Tensor

from freemask.data.captions import Captions, completed, wanted
from freemask.data.frames import Footage, FrameRange
from freemask.data.geometry import Geometry
from freemask.data.open import check_range, open_footage
from freemask.data.paths import existing
from freemask.data.regions import read_region, united, with_regions
from freemask.data.task_fill import slug
from freemask.data.tasks import check_task
from freemask.settings import Effect
from freemask.types import Clip, EditTask


class OneClip:
    """`edit` has the fields of a task list without `clip`. Left out, `id` is made of the file's name, and `words` and
    `kind` are read off the prompts; where the source prompt is `auto`, `captions` says what the clip shows."""

    def __init__(
        self,
        clip: Annotated[str | Path, Effect.PLACE],
        edit: Mapping[str, object],
        geometry: Geometry | None = None,
        frames: FrameRange | None = None,
        captions: Annotated[Captions | None, Effect.NONE] = None,
    ) -> None:
        self.path = existing(clip)
        self.geometry, self.frames = geometry or Geometry(), frames or FrameRange()
        check_range(self.path, self.frames)
        self.task = self._task(edit, captions)

    def _task(self, edit: Mapping[str, object], captions: Captions | None) -> EditTask:
        found: dict[str, str] = {}
        if captions is not None and wanted(edit):
            edit, found = completed(edit, captions, self._whole_footage())
        return task_of(self.path, edit, found)

    def _whole_footage(self) -> Footage:
        """As it is in its file: what is said of a clip does not depend on the model's size."""
        return open_footage(self.path, Geometry(), self.frames)

    def tasks(self) -> Sequence[EditTask]:
        return [self.task]

    def clip(self, task: EditTask) -> Clip:
        footage = self.footage()
        clip = Clip(id=slug(self.path.name), frames=footage.frames, fps=footage.fps)
        return with_regions(clip, task, footage, self.geometry)

    def oracle(self, task: EditTask) -> Float[Tensor, "f 3 h w"] | None:
        return None

    def region(self, task: EditTask) -> Bool[Tensor, "f h w"] | None:
        if task.edits and "region" not in task.assets:
            return united(self.regions(task))
        path = task.assets.get("region")
        return None if path is None else read_region(path, self.footage(), self.geometry)

    def regions(self, task: EditTask) -> Sequence[Bool[Tensor, "f h w"] | None]:
        """Of each edit by itself."""
        return [self.region(each) for each in task.each]

    def footage(self) -> Footage:
        return open_footage(self.path, self.geometry, self.frames)


def task_of(clip: Path, edit: Mapping[str, object], found: Mapping[str, str]) -> EditTask:
    """`clip` is a file's path or a name."""
    return check_task({"id": slug(clip.name), **edit, "clip": str(clip)}, found=found)
