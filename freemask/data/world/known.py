"""What is known of a scene: its frames and masks, the words for them, and what a change may change."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Bool
from torch import Tensor

from freemask.data.world.render import Truth, render
from freemask.data.world.spec import PARTS, Change, Scene


@lru_cache(maxsize=64)
def truth(scene: Scene) -> Truth:
    return render(scene)


def named_masks(scene: Scene) -> dict[str, Bool[Tensor, "f h w"]]:
    """Visible masks by the words of the caption: things, classes, coloured parts, and the background."""
    known = truth(scene)
    masks: dict[str, Tensor] = {}
    nowhere = torch.zeros_like(known.things[0])
    for index, thing in enumerate(scene.things):
        masks[scene.name_of(index)] = known.things[index]
        masks[thing.cls] = masks.get(thing.cls, nowhere) | known.things[index]
        if thing.part_color:
            part = PARTS[thing.cls]
            masks[part] = masks.get(part, nowhere) | known.parts[index][part]
    masks[scene.background] = ~torch.stack(known.things).any(0)
    return masks


def region_of(scene: Scene, changes: Sequence[Change]) -> Bool[Tensor, "f h w"]:
    """What changes of the scene may change, soft edges and glow included."""
    answer = scene
    for change in changes:
        answer = change.apply(answer)
    before, after = truth(scene), truth(answer)
    region = ((before.frames * 255).round() != (after.frames * 255).round()).any(1)
    for change in changes:
        if change.what == "background":
            region = region | ~(torch.stack(before.things).any(0) & torch.stack(after.things).any(0))
        elif change.what == "part":
            part = PARTS[scene.things[change.thing].cls]
            region = region | before.parts[change.thing][part]
        else:
            region = region | before.things[change.thing] | after.things[change.thing]
    return region
