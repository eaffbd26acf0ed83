"""The world as a source of clips and tasks, each with its true answer; and as a folder in DAVIS layout."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.data.world.davis import write_clip
from freemask.data.world.known import named_masks, region_of, truth
from freemask.data.world.levels import LEVELS, LevelTask, make_level_task
from freemask.data.world.motion import flow_back
from freemask.data.world.render import render_frames
from freemask.data.world.spec import (
    BACKGROUNDS,
    CLASSES,
    COLORS,
    MOTIONS,
    PARTS,
    SPLITS,
    STYLES,
    Change,
    Scene,
    Wishes,
    sample_scene,
)
from freemask.errors import UserError, nearest
from freemask.settings import Effect
from freemask.types import KINDS, Clip, EditTask, LocalEdit, OpticalFlow

FPS = 8.0


def clip_of(scene: Scene, name: str) -> Clip:
    known = truth(scene)
    flow = OpticalFlow(known.flow, known.visible_next)
    return Clip(name, known.frames, named_masks(scene), FPS, flow=flow, depth=known.depth)


@dataclass(frozen=True)
class WorldTask:
    """An edit whose answer is known: a scene, what changes, and in which kind of edit."""

    scene: Scene
    change: Change
    kind: str
    level: str = ""

    @property
    def answer(self) -> Scene:
        return self.change.apply(self.scene)

    def words(self) -> dict[str, str]:
        """Which words locate the edit in the two prompts."""
        if self.change.what == "background":
            return {self.scene.background: self.change.to}
        if self.change.what == "part":
            part = PARTS[self.scene.things[self.change.thing].cls]
            return {part: part}
        return {self.scene.name_of(self.change.thing): self.answer.name_of(self.change.thing)}

    def region(self) -> Bool[Tensor, "f h w"] | None:
        """What the edit may change; None where it may change everything."""
        return None if self.change.what == "style" else region_of(self.scene, (self.change,))

    def masks(self) -> dict[str, Bool[Tensor, "f h w"]]:
        return named_masks(self.scene)

    def edits(self) -> tuple[LocalEdit, ...]:
        """It is not several."""
        return ()

    def regions(self) -> list[Bool[Tensor, "f h w"]]:
        return []


def _other(rng: np.random.Generator, choices: Sequence[str], *taken: str | None) -> str:
    return str(rng.choice([choice for choice in choices if choice not in taken]))


def make_task(seed: int, kind: str, *, number: int, frames: int, height: int, width: int) -> WorldTask:
    """The edit of a seed. Classes, colours, backgrounds and motions take turns with `number`."""
    rng = np.random.default_rng([seed, 17])
    part = kind == "attribute" and number % 3 == 2
    wishes = Wishes(
        cls=CLASSES[number % len(CLASSES)],
        color=list(COLORS)[(number // 2) % len(COLORS)],
        background=list(BACKGROUNDS)[(number // 3) % len(BACKGROUNDS)],
        motion=MOTIONS[number % len(MOTIONS)],
        style="plain" if kind == "style" else None,
        part=part,
    )
    scene = sample_scene(seed, wishes, frames=frames, height=height, width=width)
    first = scene.things[0]
    others = [thing.cls for thing in scene.things[1:]]
    colors = [thing.color for thing in scene.things]
    change = {
        "style": lambda: Change("style", _other(rng, list(STYLES), "plain")),
        "background": lambda: Change("background", _other(rng, list(BACKGROUNDS), scene.background)),
        "shape": lambda: Change("class", _other(rng, CLASSES, first.cls, *others)),
        "attribute": lambda: (
            Change("part", _other(rng, list(COLORS), first.part_color, first.color))
            if part
            else Change("color", _other(rng, list(COLORS), first.part_color, *colors))
        ),
    }[kind]()
    return WorldTask(scene, change, kind)


class World:
    """Tasks of the embedded world. `oracle` is the true answer of each edit. With `levels` (class, instance, part)
    each task is several edits of one clip, or one of several things, and `kinds` do not matter."""

    def __init__(  # noqa: PLR0913 - the list is the schema of a YAML file
        self,
        split: str = "heldout",
        clips: int = 8,
        kinds: Sequence[str] = ("attribute", "shape", "background", "style"),
        frames: int = 8,
        seed: int = 0,
        size: int | Sequence[int] = 64,
        levels: Annotated[Sequence[str] | None, Effect.SAID] = None,
    ) -> None:
        room, (height, width) = _checked(split, clips, frames, seed, size)
        for kind in kinds:
            if kind not in KINDS:
                raise UserError("There is no such kind of edit.", came=kind, todo=nearest(kind, KINDS))
        for level in levels or ():
            if level not in LEVELS:
                raise UserError("The world has no such level.", came=level, todo=nearest(level, LEVELS))
        turns = kinds if levels is None else levels
        if not turns:
            wrong, came = "The world needs at least one kind of edit.", f"kinds={kinds}, levels={levels}"
            raise UserError(wrong, came=came, expected="a list that is not empty")
        self._tasks: dict[str, WorldTask | LevelTask] = {}
        sizes = {"frames": frames, "height": height, "width": width}
        for number in range(seed, seed + clips):
            what, where = turns[(number - seed) % len(turns)], room.start + number
            if levels is None:
                made = make_task(where, what, number=number, **sizes)
            else:
                made = make_level_task(where, what, turn=number // len(turns), **sizes)
            self._tasks[f"world-{where}-{what}"] = made

    def tasks(self) -> list[EditTask]:
        return [
            EditTask(
                name,
                f"world-{each.scene.seed}",
                each.scene.caption,
                each.answer.caption,
                each.words(),
                each.kind,
                edits=each.edits(),
                level=each.level,
            )
            for name, each in self._tasks.items()
        ]

    def _find(self, task: EditTask) -> WorldTask | LevelTask:
        if task.id not in self._tasks:
            raise UserError("The world knows no such task.", came=task.id, todo=nearest(task.id, self._tasks))
        return self._tasks[task.id]

    def clip(self, task: EditTask) -> Clip:
        made = self._find(task)
        return replace(clip_of(made.scene, task.clip), masks=made.masks())

    def oracle(self, task: EditTask) -> Float[Tensor, "f 3 h w"] | None:
        return render_frames(self._find(task).answer)

    def region(self, task: EditTask) -> Bool[Tensor, "f h w"] | None:
        return self._find(task).region()

    def regions(self, task: EditTask) -> Sequence[Bool[Tensor, "f h w"]]:
        """What each of a task's several edits may change. A data source need not have this."""
        return self._find(task).regions()

    def flow(self, task: EditTask) -> tuple[Float[Tensor, "g 2 h w"], Bool[Tensor, "g h w"]]:
        """The source's exact motion, which metrics use: see `flow_back`. A data source need not have this."""
        scene = self._find(task).scene
        return flow_back(scene, truth(scene))

    def write_davis(self, folder: Path | str) -> Path:
        """Write clips and annotations as DAVIS does: one folder a clip, palette PNGs, one number a thing."""
        root = Path(folder)
        names = []
        for task in self._tasks.values():
            name = f"world-{task.scene.seed}"
            if name not in names:
                names.append(name)
                write_clip(root, name, task.scene)
        sets = root / "ImageSets" / "480p"
        sets.mkdir(parents=True, exist_ok=True)
        (sets / "val.txt").write_text("\n".join(names) + "\n")
        return root


def _checked(
    split: str, clips: int, frames: int, seed: int, size: int | Sequence[int]
) -> tuple[range, tuple[int, int]]:
    """The seeds of the split, and height and width."""
    if split not in SPLITS:
        raise UserError("The world has no such split.", came=split, todo=nearest(split, SPLITS))
    if clips < 1 or frames < 1:
        raise UserError(
            "The world needs at least one clip and one frame.",
            came=f"clips={clips}, frames={frames}",
            expected="positive numbers",
        )
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 16:
        raise UserError(
            "The world's frames are too small to show anything.", came=size, expected="16 or more"
        )
    room = SPLITS[split]
    if seed < 0 or seed + clips > len(room):
        raise UserError(
            f"These seeds leave the {split} split.",
            came=f"seed={seed}, clips={clips}",
            expected=f"< {len(room)}",
        )
    return room, (height, width)
