"""Clips under one root folder, of any kind, with a task list: the generic source of one's own data."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Annotated

from jaxtyping import Bool, Float
from torch import Tensor

from freemask.data.captions import Captions, Told
from freemask.data.frames import Footage, FrameRange
from freemask.data.geometry import Geometry
from freemask.data.names import within
from freemask.data.open import open_footage
from freemask.data.paths import existing_folder
from freemask.data.regions import read_region, united, with_regions
from freemask.data.tasks import read_list
from freemask.errors import UserError, nearest
from freemask.settings import Effect
from freemask.types import Clip, EditTask


class Files:
    """`clips` keeps the tasks whose clip fits one of these patterns (`videos/*`). `regions` is a folder with
    masks named by task (`<id>.png`, or a folder `<id>`, a mask per frame); a task's own `region` wins. `captions` says
    what a clip shows whose source prompt is `auto`: the prompt itself counts, not who said it."""

    def __init__(  # noqa: PLR0913 - the list is the schema of a YAML file
        self,
        root: Annotated[str | Path, Effect.PLACE],
        tasks: Annotated[str | Path, Effect.PLACE],
        *,
        clips: Sequence[str] | None = None,
        regions: Annotated[str | Path | None, Effect.PLACE] = None,
        geometry: Geometry | None = None,
        frames: FrameRange | None = None,
        captions: Annotated[Captions | None, Effect.NONE] = None,
    ) -> None:
        self.root = existing_folder(root)
        self.geometry, self.frames = geometry or Geometry(), frames or FrameRange()
        self.told = told_by(captions, self.root, self.frames)
        self._whole = existing_folder(regions) if regions else None
        self._tasks = keep_clips(self._read(tasks), clips)
        self._last: tuple[str, Footage] | None = None
        named = sorted({task.clip for task in self._tasks})
        missing = [clip for clip in named if not within(self.root, clip).exists()]
        if missing:
            names = [str(path.relative_to(self.root)) for path in self.root.glob("*")]
            names += [str(path.relative_to(self.root)) for path in self.root.glob("*/*")]
            raise UserError(
                f"{self.root}: {len(missing)} clip(s) of the task list are not there",
                came=", ".join(missing[:10]),
                expected=nearest(missing[0], names[:1000])[:300],
                todo="clips are named by their path below the root; `clips` keeps a part of the list",
            )

    def tasks(self) -> Sequence[EditTask]:
        return self._tasks

    def clip(self, task: EditTask) -> Clip:
        footage = self.footage(task)
        clip = Clip(id=task.clip, frames=footage.frames, fps=footage.fps)
        return with_regions(clip, task, footage, self.geometry)

    def oracle(self, task: EditTask) -> Float[Tensor, "f 3 h w"] | None:
        return None

    def region(self, task: EditTask) -> Bool[Tensor, "f h w"] | None:
        path = self._region_path(task)
        if path is None and task.edits:
            return united(self.regions(task))
        return read_region(path, self.footage(task), self.geometry) if path else None

    def regions(self, task: EditTask) -> Sequence[Bool[Tensor, "f h w"] | None]:
        """Of each edit by itself; a task's folder in `regions` is that of the whole."""
        named = (each.assets.get("region") for each in task.each)
        return [read_region(path, self.footage(task), self.geometry) if path else None for path in named]

    def _read(self, tasks: str | Path) -> list[EditTask]:
        return list(read_list(tasks, told=self.told).tasks)

    def _region_path(self, task: EditTask) -> Path | None:
        if "region" in task.assets:
            return Path(task.assets["region"])
        named = [self._whole / task.id, self._whole / f"{task.id}.png"] if self._whole else []
        return next((path for path in named if path.exists()), None)

    def footage(self, task: EditTask) -> Footage:
        """The last clip is remembered: its tasks follow each other, and each is asked for clip and region."""
        if self._last is None or self._last[0] != task.clip:
            self._last = task.clip, open_footage(self.root / task.clip, self.geometry, self.frames)
        return self._last[1]


def told_by(captions: Captions | None, root: Path, frames: FrameRange) -> Told | None:
    """What is said of the clips as they are in their files: it does not depend on the model's size."""
    if captions is None:
        return None
    return Told(captions, lambda clip: open_footage(within(root, clip), Geometry(), frames))


def keep_clips(tasks: Sequence[EditTask], patterns: Sequence[str] | None) -> list[EditTask]:
    """Tasks whose clip fits a pattern; a pattern that fits none is an error."""
    if patterns is None:
        return list(tasks)
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    names = {task.clip for task in tasks}
    for pattern in patterns:
        if not any(fits(name, pattern) for name in names):
            raise UserError("no clip of the task list fits", came=pattern, expected=nearest(pattern, names))
    return [task for task in tasks if any(fits(task.clip, pattern) for pattern in patterns)]


def fits(clip: str, pattern: str) -> bool:
    """A pattern may leave out the folders in front of a clip's name."""
    return fnmatchcase(clip, pattern) or fnmatchcase(PurePosixPath(clip).name, pattern)
