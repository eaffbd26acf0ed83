"""The embedded world: deterministic, varied, and right about its own truth."""

import numpy as np
import pytest
import torch
from PIL import Image

from freemask.data.world import World
from freemask.data.world.render import render, render_frames
from freemask.data.world.shapes import SHAPES
from freemask.data.world.source import clip_of
from freemask.data.world.spec import (
    BACKGROUNDS,
    CLASSES,
    COLORS,
    MOTIONS,
    PARTS,
    SPLITS,
    STYLES,
    Change,
    Wishes,
    sample_scene,
)
from freemask.errors import UserError


def scene_of(seed=10_000_000, **wishes):
    return sample_scene(seed, Wishes(**wishes))


def test_the_world_is_as_rich_as_promised():
    assert (
        len(CLASSES) >= 8
        and len(COLORS) >= 8
        and len(BACKGROUNDS) >= 6
        and len(MOTIONS) >= 5
        and len(STYLES) >= 4
    )
    assert all(
        PARTS[c] in {part.name for part in SHAPES[c]} and len({p.name for p in SHAPES[c]}) >= 2
        for c in CLASSES
    )
    scenes = [sample_scene(seed) for seed in range(2000)]
    double = [s for s in scenes if len(s.things) == 2]
    assert 0.26 < len(double) / len(scenes) < 0.34
    same = [s for s in double if s.things[0].cls == s.things[1].cls]
    assert 0.2 < len(same) / len(double) < 0.5


def test_splits_do_not_meet():
    assert set(SPLITS["train"]).isdisjoint(SPLITS["heldout"])


def test_a_seed_is_a_clip():
    scene = scene_of()
    assert torch.equal(render_frames(scene), render_frames(scene))
    assert not torch.equal(render_frames(scene), render_frames(scene_of(seed=10_000_001)))
    assert torch.equal(render_frames(scene, only=(3,))[0], render_frames(scene)[3])


@pytest.mark.parametrize("style", list(STYLES))
def test_frames_and_masks_are_well_formed(style):
    known = render(sample_scene(10_000_007, Wishes(style=style, things=2), frames=5, height=48, width=80))
    assert known.frames.shape == (5, 3, 48, 80) and known.frames.min() >= 0 and known.frames.max() <= 1
    assert not (known.things[0] & known.things[1]).any()
    for mask, parts in zip(known.things, known.parts, strict=True):
        assert mask.any()
        assert all(not (part & ~mask).any() for part in parts.values())


def test_masks_mark_exactly_what_a_colour_change_changes():
    scene = scene_of(style="plain", cls="ball", color="red", things=1)
    changed = (render_frames(scene) - render_frames(Change("color", "blue").apply(scene))).abs().amax(
        1
    ) > 0.02
    mask = render(scene).things[0]
    iou = (changed & mask).sum() / (changed | mask).sum()
    assert iou > 0.9


def test_the_front_thing_hides_the_other():
    scene = next(
        s
        for s in (sample_scene(seed, Wishes(things=2)) for seed in range(10_000_000, 10_000_400))
        if (render(s).things[0].any() and _alone(s, 0) & render(s).things[1]).any()
    )
    known = render(scene)
    hidden = _alone(scene, 0) & known.things[1]
    assert scene.front == 1 and known.order == (0, 1) and not (known.things[0] & hidden).any()
    ground = ~(known.things[0] | known.things[1])
    for where, near in ((ground, 0.0), (known.things[0], 0.5), (known.things[1], 1.0)):
        assert known.depth[where].unique().tolist() == [near]
    assert torch.equal(clip_of(scene, "c").depth, known.depth)


def test_more_things_are_as_many_steps_of_depth():
    import dataclasses

    scene = sample_scene(10_000_000, Wishes(things=2), frames=1)
    third = dataclasses.replace(scene.things[0], start=(0.85, 0.2), end=(0.85, 0.2), half=0.12)
    known = render(dataclasses.replace(scene, things=(*scene.things, third), front=0))
    assert known.order == (1, 2, 0)
    nears = [known.depth[known.things[index]].unique().tolist() for index in known.order]
    np.testing.assert_allclose(nears, [[1 / 3], [2 / 3], [1]], rtol=1e-6)


def _alone(scene, index):
    import dataclasses

    return render(dataclasses.replace(scene, things=(scene.things[index],), front=0)).things[0]


@pytest.mark.parametrize("motion", MOTIONS)
def test_flow_carries_each_frame_to_the_next(motion):
    """Looking up the next frame where the flow points gives the present frame back, where it is still seen."""
    known = render(scene_of(seed=10_000_011, motion=motion, style="plain", things=1))
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    for f in range(7):
        at = torch.stack([x + known.flow[f, 0], y + known.flow[f, 1]], -1) / 63 * 2 - 1
        there = torch.nn.functional.grid_sample(known.frames[f + 1][None], at[None], align_corners=True)[0]
        inner = known.things[0][f] & known.visible_next[f]
        still = (known.frames[f + 1] - known.frames[f]).abs().mean(0)[inner].mean()
        moved = (there - known.frames[f]).abs().mean(0)[inner].mean()
        assert moved < 0.05
        assert moved < still or still < 0.01


def test_scale_changes_and_nothing_moves_in_the_background():
    known = render(scene_of(motion="coming closer", things=1, style="plain"))
    area = known.things[0].flatten(1).sum(1)
    assert area[-1] > 1.5 * area[0]
    ground = ~known.things[0].any(0)
    assert (known.flow[:, :, ground] == 0).all()


@pytest.mark.parametrize(
    ("change", "word"),
    [(Change("class", "fish"), "fish"), (Change("color", "pink"), "pink"), (Change("background", "snow"), "snow"),
     (Change("style", "neon"), "neon"), (Change("part", "white"), "white wheels")],
)  # fmt: skip
def test_a_counterfactual_is_the_same_scene_with_one_thing_changed(change, word):
    scene = scene_of(cls="car", color="red", background="grass", style="plain", things=1, part=False)
    after = change.apply(scene)
    assert word in after.caption and word not in scene.caption
    assert after.things[0].start == scene.things[0].start and after.seed == scene.seed
    assert not torch.equal(render_frames(scene), render_frames(after))


@pytest.mark.parametrize("kind", ["attribute", "shape", "background", "style"])
def test_tasks_say_what_may_change_and_the_oracle_keeps_the_rest(kind):
    world = World(clips=6, kinds=(kind,))
    for task in world.tasks():
        clip, oracle, region = world.clip(task), world.oracle(task), world.region(task)
        assert task.source != task.target
        assert all(word in task.source and to in task.target for word, to in task.words.items())
        assert all(word in clip.masks for word in task.words)
        changed = ((clip.frames * 255).round() != (oracle * 255).round()).any(1)
        assert changed.any()
        if region is None:
            assert kind == "style"
        else:
            assert not (changed & ~region).any() and not region.all()
            if kind != "background":
                assert region.float().mean() < 0.6


def test_two_things_of_one_class_are_told_apart_by_colour():
    scene = next(
        s
        for s in (sample_scene(seed, Wishes(things=2)) for seed in range(10_000_000, 10_000_100))
        if s.things[0].cls == s.things[1].cls
    )
    assert scene.name_of(0) != scene.name_of(1)
    assert scene.name_of(0) == f"{scene.things[0].color} {scene.things[0].cls}"


def test_davis_layout(tmp_path):
    world = World(clips=2)
    root = world.write_davis(tmp_path / "DAVIS")
    for task in world.tasks():
        frames = sorted((root / "JPEGImages" / "480p" / task.clip).glob("*.jpg"))
        labels = [Image.open(p) for p in sorted((root / "Annotations" / "480p" / task.clip).glob("*.png"))]
        assert len(frames) == len(labels) == 8 and all(label.mode == "P" for label in labels)
        truth = world.clip(task)
        union = ~next(mask for word, mask in truth.masks.items() if word in BACKGROUNDS)
        assert np.array_equal(np.stack([np.asarray(label) > 0 for label in labels]), union.numpy())


@pytest.mark.parametrize(
    "bad", [{"split": "test"}, {"clips": 0}, {"kinds": ("shpe",)}, {"kinds": ()}, {"frames": 0}, {"size": 4}]
)
def test_nonsense_is_refused(bad):
    with pytest.raises(UserError):
        World(**bad)
    with pytest.raises(UserError, match="truck"):
        Wishes(cls="truk")
