"""DAVIS 2016 and 2017, and whatever has their layout, with a task list.

    root/JPEGImages/<resolution>/<clip>/00000.jpg ...
    root/Annotations/<resolution>/<clip>/00000.png ...   palette PNG of object numbers, or 0 and 255 (2016)
    root/ImageSets/<year or resolution>/<set>.txt        used where `clips` names a set, such as 2017/val

Tasks name clips as `bear`, or with folders in front (`DAVIS/bear`). Masks carry the names that the task list
gives to objects (`objects: {1: bear}`; one name for several objects joins them), else object1, object2, ...;
a single unnamed object also answers to the task's source word, where there is exactly one. What an edit may
change: the objects that its source words name (shape, attribute), or everything but the objects
(background); of several edits, what any of them may. An edit's own `region` comes first. Unknown (None) for style, and
where the words name something that is not annotated.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.data.captions import Captions, Told
from freemask.data.davis_layout import DavisLayout
from freemask.data.files import fits, keep_clips
from freemask.data.folder import read_images
from freemask.data.frames import Footage, FrameRange
from freemask.data.geometry import Geometry
from freemask.data.images import read_ids
from freemask.data.regions import read_region, united, with_regions
from freemask.data.tasks import read_list
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Clip, EditTask
from freemask.words import holds


class Davis:
    """`tasks`: a list, or the name of one that comes along (davis20). `clips`: names or patterns of clips, or (as
    text) the name of an image set. `single_instance` leaves out the tasks of clips in which more than one object is
    annotated. `captions` says what a clip shows whose source prompt is `auto`."""

    def __init__(  # noqa: PLR0913 - the list is the schema of a YAML file
        self,
        root: Annotated[str | Path, Effect.PLACE],
        tasks: Annotated[str | Path, Effect.PLACE],
        *,
        clips: str | Sequence[str] | None = None,
        resolution: str = "480p",
        single_instance: bool = False,
        geometry: Geometry | None = None,
        frames: FrameRange | None = None,
        captions: Annotated[Captions | None, Effect.NONE] = None,
    ) -> None:
        self.layout = DavisLayout(root, resolution)
        self.geometry, self.frames = geometry or Geometry(), frames or FrameRange()
        listed = read_list(tasks, told=told_by(captions, self.layout, self.frames))
        self._names = listed.objects
        self._tasks = chosen(self.layout, listed.tasks, clips)
        for task in self._tasks:
            self.layout.frames(_folder(task))
        if single_instance:
            self._tasks = [task for task in self._tasks if len(self.layout.objects(_folder(task))) == 1]
        if not self._tasks:
            raise UserError(
                f"{tasks}: no task is left", came=f"clips={clips}, single_instance={single_instance}"
            )

    def tasks(self) -> Sequence[EditTask]:
        return self._tasks

    def clip(self, task: EditTask) -> Clip:
        name = _folder(task)
        footage = read_images(self.layout.frames(name), f"clip '{name}'", self.geometry, self.frames)
        masks = self._masks(task, footage.indices, footage.size)
        if len(masks) == len(task.words) == 1 and task.clip not in self._names and task.kind != "background":
            masks |= {word: mask for word in task.words for mask in masks.values()}
        clip = Clip(id=task.clip, frames=footage.frames, masks=masks, fps=footage.fps)
        return with_regions(clip, task, footage, self.geometry)

    def oracle(self, task: EditTask) -> Float[Tensor, "f 3 h w"] | None:
        return None

    def region(self, task: EditTask) -> Bool[Tensor, "f h w"] | None:
        if task.edits:
            return united(self.regions(task))
        if "region" in task.assets:
            frames = self.layout.frames(_folder(task))
            footage = read_images(frames, f"clip '{_folder(task)}'", self.geometry, self.frames)
            return read_region(task.assets["region"], footage, self.geometry)
        if task.kind == "style":
            return None
        indices = self._indices(task)
        masks = self._masks(task, indices, None)
        if task.kind == "background":
            return ~torch.stack(list(masks.values())).any(0)
        meant = self._meant(task, list(masks))
        return torch.stack([masks[name] for name in meant]).any(0) if meant else None

    def regions(self, task: EditTask) -> Sequence[Bool[Tensor, "f h w"] | None]:
        """Of each edit by itself."""
        return [self.region(each) for each in task.each]

    def _meant(self, task: EditTask, names: Sequence[str]) -> list[str]:
        if task.clip in self._names:
            return [name for name in names if any(holds(word, name) for word in task.words)]
        if len(names) == 1 and len(task.words) == 1:
            return list(names)
        raise UserError(
            f"task '{task.id}': which of the annotated objects do its words mean?",
            came=f"words {', '.join(task.words)}; objects {', '.join(names)}",
            expected="names for the objects in the task list, such as `objects: {1: car, 2: dog}`",
        )

    def _indices(self, task: EditTask) -> tuple[int, ...]:
        name, rate = _folder(task), self.frames.folder_fps
        timed = ((index / rate, None) for index in range(len(self.layout.frames(name))))
        return tuple(index for index, _ in self.frames.choose(timed, rate, f"clip '{name}'"))

    def _masks(
        self, task: EditTask, indices: Sequence[int], size: tuple[int, int] | None
    ) -> dict[str, Bool[Tensor, "f h w"]]:
        """By object name, in the geometry of the clip; `size` is that of the frames, where it is known."""
        name = _folder(task)
        known, named = self.layout.objects(name), self._names.get(task.clip, {})
        if set(named) - set(known):
            raise UserError(
                f"clip '{name}': the task list names objects that are not annotated",
                came=", ".join(f"{number}: {named[number]}" for number in sorted(set(named) - set(known))),
                expected=f"objects among {', '.join(map(str, known))}",
            )
        paths = self.layout.annotations(name)
        ids = torch.stack([torch.from_numpy(read_ids(paths[index])) for index in indices])
        if size is not None and tuple(ids.shape[1:]) != size:
            raise UserError(
                f"clip '{name}': annotations and frames differ in size",
                came=f"annotations {ids.shape[2]}x{ids.shape[1]}",
                expected=f"{size[1]}x{size[0]}",
            )
        masks: dict[str, Bool[Tensor, "f h w"]] = {}
        for number in known:
            mask, word = self.geometry.masks(ids == number), named.get(number, f"object{number}")
            masks[word] = masks[word] | mask if word in masks else mask
        return masks


def told_by(captions: Captions | None, layout: DavisLayout, frames: FrameRange) -> Told | None:
    """What is said of the clips as they are in their files: it does not depend on the model's size."""

    def footage(clip: str) -> Footage:
        name = PurePosixPath(clip).name
        return read_images(layout.frames(name), f"clip '{name}'", Geometry(), frames)

    return None if captions is None else Told(captions, footage)


def chosen(
    layout: DavisLayout, tasks: Sequence[EditTask], clips: str | Sequence[str] | None
) -> list[EditTask]:
    """The tasks of an image set where a text names one that is there, else of the clips that fit."""
    if isinstance(clips, str) and (
        layout.has_set(clips) or not any(fits(task.clip, clips) for task in tasks)
    ):
        names = set(layout.image_set(clips))
        return [task for task in tasks if _folder(task) in names]
    return keep_clips(tasks, clips)


def _folder(task: EditTask) -> str:
    return PurePosixPath(task.clip).name
