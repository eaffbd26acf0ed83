"""Tasks of the world with several edits: at three levels, by the rules of lists, with the truth about each edit."""

from collections import Counter
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.config.identity import counted, digest_of
from freemask.data.tasks import check_task
from freemask.data.world import World
from freemask.data.world.arrange import arranged, gap
from freemask.data.world.spec import Scene
from freemask.errors import UserError
from freemask.masks.words import annotated
from freemask.types import EditTask
from freemask.words import places

LEVELS = ("class", "instance", "part")


@cache
def world() -> World:
    return World(clips=76, levels=LEVELS, frames=2, size=48)


def tasks(level: str) -> list[EditTask]:
    return [task for task in world().tasks() if task.level == level]


def differ(a: Tensor, b: Tensor) -> Tensor:
    return ((a * 255).round() != (b * 255).round()).any(1)


def test_76_pairs_take_turns_over_the_levels_and_are_always_the_same() -> None:
    found = world().tasks()
    assert Counter(task.level for task in found) == {"class": 26, "instance": 25, "part": 25}
    assert [task.id for task in found[:4]] == [f"world-1000000{n}-{(*LEVELS, 'class')[n]}" for n in range(4)]
    assert digest_of(World(clips=76, levels=LEVELS, frames=2, size=48).tasks()) == digest_of(found)
    assert {task.clip for task in World(clips=5, levels=["part"], split="train").tasks()} == {
        f"world-{n}" for n in range(5)
    }


def test_without_levels_nothing_changes() -> None:
    assert digest_of(World(clips=60).tasks()) == "3634e7f7af0dacad"
    node = {"_target_": "freemask.data.world.World", "clips": 4}
    assert counted({**node, "levels": None}) == counted(node) != counted({**node, "levels": ["part"]})


def test_they_fulfil_the_rules_of_lists() -> None:
    for task in world().tasks():
        fields = {name: getattr(task, name) for name in ("id", "clip", "source", "target", "level")}
        checked = check_task({**fields, "edits": [asdict(edit) for edit in task.edits]})
        assert checked.plain() | {"edits": []} == task.plain() | {"edits": []}
        assert [edit.words for edit in checked.edits] == [edit.words for edit in task.edits]
        assert checked.kind == task.kind


@pytest.mark.parametrize("level", LEVELS)
def test_each_edit_has_its_region_and_its_annotation(level: str) -> None:
    for task in tasks(level)[:13]:
        clip, oracle, region = world().clip(task), world().oracle(task), world().region(task)
        regions = world().regions(task)
        assert oracle is not None and region is not None and len(regions) == len(task.edits)
        changed = differ(clip.frames, oracle)
        assert not (changed & ~region).any() and all((changed & each).any() for each in regions)
        for one, own in zip(task.each, regions, strict=True):
            meant = annotated(one, clip)
            assert meant.any() and not (meant & ~own).any() and not (own & ~region).any()
        back, seen = world().flow(task)
        assert back.shape == (1, 2, 48, 48) and seen.shape == (1, 48, 48)


def test_classes_change_wherever_the_caption_names_them() -> None:
    for task in tasks("class"):
        ((old, new),) = task.words.items()
        assert len(places(task.source, old)) == 2 * len(old.split()) == len(places(task.target, new))
        assert not places(task.target, old) and not places(task.source, new)
    assert sum(task.source.count(" and ") == 2 for task in tasks("class")) == 7  # a third thing stands by


def test_of_two_instances_one_may_have_to_stay() -> None:
    alone = [task for task in tasks("instance") if sum(edit.kind != "background" for edit in task.edits) == 1]
    assert len(alone) == 8 and sum(len(task.edits) == 3 for task in tasks("instance")) == 4
    for task in alone[:4]:
        clip, oracle, first = world().clip(task), world().oracle(task), next(iter(task.edits[0].words))
        (other,) = [
            name for name in clip.masks if name.endswith(first.split()[-1]) and name not in task.words
        ][1:]
        stays = clip.masks[other] & ~world().regions(task)[0]
        assert oracle is not None and other in task.target and stays.any()
        inside = stays & ~differ(clip.frames, oracle)
        assert inside.sum() > 0.8 * stays.sum()  # but for its edges on another ground


def test_a_part_and_its_own_thing_share_no_region_but_edges() -> None:
    own = [
        task for task in tasks("part") if len(task.edits) == 2 and "with" not in task.source.split(" and ")[0]
    ]
    for task in own[:3]:
        clip = world().clip(task)
        thing, part = (annotated(one, clip) for one in task.each)
        assert thing.any() and part.any() and not (thing & part).any()


def test_most_regions_do_not_meet() -> None:
    meeting = 0
    for task in world().tasks():
        things = [
            region
            for region, edit in zip(world().regions(task), task.edits, strict=True)
            if edit.kind != "background"
        ]
        both = torch.stack(things).sum(0) > 1
        meeting += bool(both.sum() > 0.1 * min(each.sum() for each in things))
    assert 1 <= meeting <= 12


@pytest.mark.parametrize("crossing", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_things_keep_apart_or_cross(count: int, crossing: bool) -> None:
    looks = [("car", "red", None), ("cat", "blue", None), ("boat", "pink", "white")][:count]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        things = arranged(rng, looks, crossing=crossing, frames=8, size=(64, 96))
        assert [(each.cls, each.color, each.part_color) for each in things] == looks
        assert (gap(Scene(0, things, "grass", height=64, width=96)) < 0) == crossing


@pytest.mark.parametrize("bad", [{"levels": ["klass"]}, {"levels": []}])
def test_other_levels_are_refused(bad: dict) -> None:
    with pytest.raises(UserError):
        World(**bad)
