"""The world as a source of clips and tasks, each with its true answer; and as a folder in DAVIS layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from freemask.data.world.motion import flow_back
from freemask.data.world.render import Truth, render, render_frames
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
from freemask.types import KINDS, Clip, EditTask, OpticalFlow

FPS = 8.0


@lru_cache(maxsize=64)
def truth(scene: Scene) -> Truth:
    return render(scene)


def named_masks(scene: Scene) -> dict[str, Bool[Tensor, "f h w"]]:
    """Visible masks by the words of the caption: things, classes, coloured parts, and the background."""
    known = truth(scene)
    masks: dict[str, Tensor] = {}
    for index, thing in enumerate(scene.things):
        masks[scene.name_of(index)] = known.things[index]
        masks[thing.cls] = masks.get(thing.cls, torch.zeros_like(known.things[index])) | known.things[index]
        if thing.part_color:
            masks[PARTS[thing.cls]] = known.parts[index][PARTS[thing.cls]]
    masks[scene.background] = ~torch.stack(known.things).any(0)
    return masks


def clip_of(scene: Scene, name: str) -> Clip:
    known = truth(scene)
    flow = OpticalFlow(known.flow, known.visible_next)
    return Clip(name, known.frames, named_masks(scene), FPS, flow=flow)


@dataclass(frozen=True)
class WorldTask:
    """An edit whose answer is known: a scene, what changes, and in which kind of edit."""

    scene: Scene
    change: Change
    kind: str

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
        """What the edit may change, soft edges and glow included; None where it may change everything."""
        if self.change.what == "style":
            return None
        before, after = truth(self.scene), truth(self.answer)
        changed = ((before.frames * 255).round() != (after.frames * 255).round()).any(1)
        if self.change.what == "background":
            return changed | ~(torch.stack(before.things).any(0) & torch.stack(after.things).any(0))
        if self.change.what == "part":
            part = PARTS[self.scene.things[self.change.thing].cls]
            return changed | before.parts[self.change.thing][part]
        return changed | before.things[self.change.thing] | after.things[self.change.thing]


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
    """Tasks of the embedded world. `oracle` is the true answer of each edit."""

    def __init__(
        self,
        split: str = "heldout",
        clips: int = 8,
        kinds: Sequence[str] = ("attribute", "shape", "background", "style"),
        frames: int = 8,
        seed: int = 0,
        size: int | Sequence[int] = 64,
    ) -> None:
        if split not in SPLITS:
            raise UserError("The world has no such split.", came=split, todo=nearest(split, SPLITS))
        for kind in kinds:
            if kind not in KINDS:
                raise UserError("There is no such kind of edit.", came=kind, todo=nearest(kind, KINDS))
        if clips < 1 or frames < 1 or not kinds:
            raise UserError(
                "The world needs at least one clip, one frame and one kind of edit.",
                came=f"clips={clips}, frames={frames}, kinds={list(kinds)}",
                expected="positive numbers and a non-empty list",
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
        self._tasks = {}
        for number in range(clips):
            kind = kinds[number % len(kinds)]
            where = room.start + seed + number
            made = make_task(where, kind, number=seed + number, frames=frames, height=height, width=width)
            self._tasks[f"world-{where}-{kind}"] = made

    def tasks(self) -> list[EditTask]:
        return [
            EditTask(name, f"world-{t.scene.seed}", t.scene.caption, t.answer.caption, t.words(), t.kind)
            for name, t in self._tasks.items()
        ]

    def _find(self, task: EditTask) -> WorldTask:
        if task.id not in self._tasks:
            raise UserError("The world knows no such task.", came=task.id, todo=nearest(task.id, self._tasks))
        return self._tasks[task.id]

    def clip(self, task: EditTask) -> Clip:
        return clip_of(self._find(task).scene, task.clip)

    def oracle(self, task: EditTask) -> Float[Tensor, "f 3 h w"] | None:
        return render_frames(self._find(task).answer)

    def region(self, task: EditTask) -> Bool[Tensor, "f h w"] | None:
        return self._find(task).region()

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
                _write_clip(root, name, task.scene)
        sets = root / "ImageSets" / "480p"
        sets.mkdir(parents=True, exist_ok=True)
        (sets / "val.txt").write_text("\n".join(names) + "\n")
        return root


def _palette() -> list[int]:
    """The first colours of the Pascal VOC palette, which DAVIS uses."""
    colors = []
    for index in range(256):
        rgb, bits = [0, 0, 0], index
        for shift in range(7, -1, -1):
            for channel in range(3):
                rgb[channel] |= ((bits >> channel) & 1) << shift
            bits >>= 3
        colors += rgb
    return colors


def _write_clip(root: Path, name: str, scene: Scene) -> None:
    images, labels = root / "JPEGImages" / "480p" / name, root / "Annotations" / "480p" / name
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    known = truth(scene)
    for f, frame in enumerate(known.frames):
        pixels = (frame.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(images / f"{f:05d}.jpg", quality=97, subsampling=0)
        numbers = np.zeros(pixels.shape[:2], dtype=np.uint8)
        for index, mask in enumerate(known.things):
            numbers[mask[f].numpy()] = index + 1
        picture = Image.fromarray(numbers, mode="P")
        picture.putpalette(_palette())
        picture.save(labels / f"{f:05d}.png")
