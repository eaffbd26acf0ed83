"""How well a picture fits the image that a ControlNet was shown: edges by edges, things by their colours."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool2d

from evaluation.ops import overlap
from experiments.workshop.control import EDGES
from freemask.data.world.render import owner_map, render_frames
from freemask.data.world.spec import SPLITS, Scene, Wishes, sample_scene

CROSSING = 60  # pixels at least that either of two things may cover, depending on which is in front


def edges(made: Float[Tensor, "1 3 h w"], wanted: Float[Tensor, "1 3 h w"]) -> dict[str, float]:
    """`kept`: edges asked for that the picture has within a pixel; `asked`: the picture's own that were asked for."""
    found = EDGES.of(made)
    near_found, near_wanted = (max_pool2d(each, 3, 1, 1) for each in (found, wanted))
    kept = float((wanted * near_found).sum() / wanted.sum().clamp(min=1))
    return {"kept": kept, "asked": float((found * near_wanted).sum() / found.sum().clamp(min=1))}


def things(
    made: Float[Tensor, "1 3 h w"], wanted: Float[Tensor, "1 3 h w"], scene: Scene
) -> dict[str, float]:
    """`iou` of where the picture shows things and where the image of depth has them; `order`: of the pixels that show
    one thing or the other, depending on which is in front, the share that shows the right one (NaN: there are none)."""
    whose = owners(made[0], scene)
    contest = whose[contested(scene) & (whose > 0)]
    order = float((contest == scene.front + 1).float().mean()) if len(contest) else float("nan")
    return {"iou": overlap(whose[None] > 0, wanted[:, 0] > 0) or 0.0, "order": order}


def owners(picture: Float[Tensor, "3 h w"], scene: Scene) -> Int[Tensor, "h w"]:
    """Whose colour each pixel has, 0 for the ground: that of the nearest colour in the scene's true last frame, which
    shows the things and the ground elsewhere than the first. No network is asked."""
    last = (scene.frames - 1,)
    known, whose = render_frames(scene, last)[0].flatten(1).T, owner_map(scene, last).flatten()
    found = torch.cdist(picture.flatten(1).T.contiguous(), known).argmin(1)
    return whose[found].reshape(picture.shape[1:])


def crossing_scenes(count: int, first: int, split: str = "heldout") -> list[Scene]:
    """Scenes of two things that cover each other in the first frame."""
    found, seeds = [], iter(SPLITS[split][first:])
    while len(found) < count:
        scene = sample_scene(next(seeds), Wishes(things=2))
        if int(contested(scene).sum()) >= CROSSING:
            found.append(scene)
    return found


def contested(scene: Scene) -> Bool[Tensor, "h w"]:
    """Pixels of the first frame that show the one thing or the other, depending on which is in front."""
    if len(scene.things) != 2:
        return torch.zeros(scene.height, scene.width, dtype=torch.bool)
    one, other = (owner_map(turned(scene, front), (0,))[0] for front in (0, 1))
    return (one != other) & (one > 0) & (other > 0)


def turned(scene: Scene, front: int) -> Scene:
    """The same things in the same places, with another one in front."""
    return replace(scene, front=front)
