"""Several edits of one scene, at three levels: all things of a class, one of two, parts of things. Each edit knows its
words, its region and what is annotated for it, and the scene the answer to all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from freemask.data.task_edits import strongest
from freemask.data.world.arrange import arranged
from freemask.data.world.known import named_masks, region_of, truth
from freemask.data.world.spec import BACKGROUNDS, CLASSES, COLORS, PARTS, STYLES, Change, Scene, Thing
from freemask.types import Kind, LocalEdit

LEVELS = ("class", "instance", "part")
STYLE_SHARES = (0.55, 0.15, 0.15, 0.15)  # as scenes are drawn
KIND_OF: Mapping[str, Kind] = {
    "class": "shape",
    "color": "attribute",
    "part": "attribute",
    "background": "background",
}


@dataclass(frozen=True)
class SceneEdit:
    """One edit: the same change of one thing, or of all that its words name."""

    changes: tuple[Change, ...]

    @property
    def kind(self) -> Kind:
        return KIND_OF[self.changes[0].what]

    def applied(self, scene: Scene) -> Scene:
        return reduce(lambda changed, change: change.apply(changed), self.changes, scene)

    def words(self, scene: Scene, *, classes: bool) -> dict[str, str]:
        """`classes`: things are named by their class alone, for all of it change."""
        before, after, first = scene, self.applied(scene), self.changes[0]
        if first.what == "background":
            return {before.background: after.background}
        old, new = (each.things[first.thing] for each in (before, after))
        if first.what == "part":
            return {f"{old.part_color} {PARTS[old.cls]}": f"{new.part_color} {PARTS[new.cls]}"}
        if classes and first.what == "class":
            return {old.cls: new.cls}
        return {named(old): named(new)}


@dataclass(frozen=True)
class LevelTask:
    scene: Scene
    level: str
    parts: tuple[SceneEdit, ...]

    @property
    def answer(self) -> Scene:
        return reduce(lambda changed, edit: edit.applied(changed), self.parts, self.scene)

    @property
    def kind(self) -> Kind:
        return strongest({edit.kind for edit in self.parts})

    def edits(self) -> tuple[LocalEdit, ...]:
        classes = self.level == "class"
        return tuple(LocalEdit(edit.words(self.scene, classes=classes), edit.kind) for edit in self.parts)

    def words(self) -> dict[str, str]:
        return {old: new for edit in self.edits() for old, new in edit.words.items()}

    def regions(self) -> list[Bool[Tensor, "f h w"]]:
        """What each edit alone may change. A part that another edit recolours is not its thing's then."""
        return [region_of(self.scene, edit.changes) & ~self._others_part(edit) for edit in self.parts]

    def region(self) -> Bool[Tensor, "f h w"]:
        both = region_of(self.scene, tuple(change for edit in self.parts for change in edit.changes))
        return torch.stack([both, *self.regions()]).any(dim=0)

    def masks(self) -> dict[str, Bool[Tensor, "f h w"]]:
        """Annotations by every phrase that an edit or a thing is named by, beside those of every clip."""
        known, things = truth(self.scene), self.scene.things
        masks = named_masks(self.scene)
        for thing in things:
            same = [
                mask for mask, other in zip(known.things, things, strict=True) if named(other) == named(thing)
            ]
            masks[named(thing)] = torch.stack(same).any(dim=0)
        for index, thing in enumerate(things):
            if thing.part_color:
                masks[f"{thing.part_color} {PARTS[thing.cls]}"] = known.parts[index][PARTS[thing.cls]]
        for edit, local in zip(self.parts, self.edits(), strict=True):
            masks |= {old: masks[old] & ~self._others_part(edit) for old in local.words}
        return masks

    def _others_part(self, edit: SceneEdit) -> Bool[Tensor, "f h w"]:
        """The parts of this edit's things that are other edits' matter."""
        known = truth(self.scene)
        found = torch.zeros_like(known.things[0])
        mine = {change.thing for change in edit.changes if change.what == "color"}
        for change in (each for other in self.parts if other is not edit for each in other.changes):
            if change.what == "part" and change.thing in mine:
                found = found | known.parts[change.thing][PARTS[self.scene.things[change.thing].cls]]
        return found


def named(thing: Thing) -> str:
    """As the caption singles it out."""
    return f"{thing.color} {thing.cls}"


def make_level_task(seed: int, level: str, *, turn: int, frames: int, height: int, width: int) -> LevelTask:
    """The edits of a seed. Classes, backgrounds and what is edited take turns with `turn`, the number of the task among
    those of its level."""
    rng = np.random.default_rng([seed, 23])
    looks, edits = {"class": _classes, "instance": _instances, "part": _parts}[level](rng, turn)
    background = list(BACKGROUNDS)[turn % len(BACKGROUNDS)]
    if level == "instance" and turn % 4 == 3:
        edits.append([Change("background", _other(rng, BACKGROUNDS, background))])
    things = arranged(rng, looks, crossing=turn % 8 == 6, frames=frames, size=(height, width))
    style = str(rng.choice(list(STYLES), p=STYLE_SHARES))
    front = int(rng.integers(len(things)))
    scene = Scene(seed, things, background, style, front, frames, height, width)
    return LevelTask(scene, level, tuple(SceneEdit(tuple(changes)) for changes in edits))


Look = tuple[str, str, str | None]  # class, colour, colour of the accented part
Drawn = tuple[list[Look], list[list[Change]]]


def _classes(rng: np.random.Generator, turn: int) -> Drawn:
    """All of a class become another class or, being of one colour, another colour; a third thing may stand by."""
    cls = _turned(CLASSES, turn)
    red, blue, green, new = _several(rng, COLORS, 4)
    if turn % 4 == 2:
        return [(cls, red, None), (cls, red, None)], [[Change("color", new, thing) for thing in (0, 1)]]
    other, fish = _several(rng, [each for each in CLASSES if each != cls], 2)
    looks: list[Look] = [(cls, red, None), (cls, blue, None)]
    looks += [(other, green, None)] if turn % 4 == 1 else []
    return looks, [[Change("class", fish, thing) for thing in (0, 1)]]


def _instances(rng: np.random.Generator, turn: int) -> Drawn:
    """Two of a class, told apart by colour: both change, in different ways, or one does and the other stays."""
    cls = _turned(CLASSES, turn)
    red, blue, new = _several(rng, COLORS, 3)
    fish, star = _several(rng, [each for each in CLASSES if each != cls], 2)
    looks: list[Look] = [(cls, red, None), (cls, blue, None)]
    first = int(rng.integers(2))
    shape, color = Change("class", fish, first), Change("color", new, 1 - first)
    if turn % 3 == 0:
        return looks, [[Change("class", fish, 0)], [Change("class", star, 1)]]
    if turn % 3 == 1:
        return looks, [[color if turn % 2 else shape]]
    return looks, [[change] for change in sorted((shape, color), key=lambda each: each.thing)]


def _parts(rng: np.random.Generator, turn: int) -> Drawn:
    """The accented part of one of two things, of both, or a part and the colour of its own thing."""
    classes = [_turned(CLASSES, turn)] * 2 if turn % 2 else [_turned(CLASSES, turn), ""]
    classes[1] = classes[1] or _other(rng, CLASSES, classes[0])
    red, blue, pink, white, new, newer = _several(rng, COLORS, 6)
    which = int(rng.integers(2))
    if turn % 3 == 0:
        looks: list[Look] = [(classes[0], red, pink), (classes[1], blue, white)]
        return looks, [[Change("part", new, 0)], [Change("part", newer, 1)]]
    looks = [(cls, color, None) for cls, color in zip(classes, (red, blue), strict=True)]
    looks[which] = (*looks[which][:2], pink)
    edits = [[Change("part", new, which)]]
    return looks, edits if turn % 3 == 1 else [[Change("color", newer, which)], *edits]


def _turned(choices: Sequence[str], turn: int) -> str:
    """Each in turn, and not always with the same variation."""
    return choices[(3 * turn + turn // len(choices)) % len(choices)]


def _several(
    rng: np.random.Generator, choices: Sequence[str] | Mapping[str, object], count: int
) -> list[str]:
    return [str(each) for each in rng.choice(list(choices), size=count, replace=False)]


def _other(rng: np.random.Generator, choices: Sequence[str] | Mapping[str, object], taken: str) -> str:
    return str(rng.choice([each for each in choices if each != taken]))
