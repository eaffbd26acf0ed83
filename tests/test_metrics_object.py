"""Is the new thing seen, or the old one still? By hand on an encoder of colours."""

import pytest
import torch

from evaluation.backbones import clip, weights
from evaluation.case import Case
from evaluation.metric import MetricWarning
from evaluation.metrics.object_seen import ObjectSeen, instead
from freemask.types import EditTask

SEEN, KEPT = "object_seen[colours]", "object_kept[colours]"
MEANS = {"red": (1, 0, 0), "blue": (0, 0, 1), "green": (0, 1, 0), "azure": (0, 0, 1)}
RED, BLUE, GREEN = (MEANS[name] for name in ("red", "blue", "green"))


class Colours:
    """The feature of a picture is its mean colour; a prompt means the colours that it names."""

    def images(self, frames):
        return frames.mean((2, 3))

    def text(self, prompt):
        named = [MEANS[word] for word in prompt.lower().split() if word in MEANS]
        return torch.tensor(named, dtype=torch.float32).sum(0, keepdim=True)

    def truncates(self, prompt):
        return len(prompt.split()) > 5


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    monkeypatch.setattr(clip, "resolve", lambda *setting: weights.Found("colours", "colours"))
    monkeypatch.setattr(clip, "load", lambda *setting: Colours())


def a_case(*inside, outside=(0, 0, 0), old="red", new="blue", target=None, region=True):
    """Frames whose left half is the region; `outside` is the edit's other half, which must not count."""
    source = torch.zeros(len(inside), 3, 4, 6)
    edited = torch.tensor(outside, dtype=torch.float32)[None, :, None, None].expand_as(source).clone()
    edited[..., :3] = torch.tensor(inside, dtype=torch.float32)[:, :, None, None]
    where = torch.zeros(len(inside), 4, 6, dtype=torch.bool)
    where[..., :3] = True
    task = EditTask("t", "c", f"a {old} ball", target or f"a {new} ball", {old: new}, "attribute")
    return Case(source, edited, task, region=where if region else None)


def test_frames_are_counted_by_what_their_region_shows():
    case = a_case(BLUE, RED, BLUE, BLUE, outside=RED)  # the rest of the edit is red, and no matter
    assert ObjectSeen()(case) == {SEEN: 3 / 4, KEPT: 1 / 4}
    assert ObjectSeen()(a_case(RED)) == {SEEN: 0, KEPT: 1}


def test_something_else_is_neither_where_rivals_are_asked_about():
    case = a_case((0, 0.9, 0.3), BLUE)
    assert ObjectSeen()(case) == {SEEN: 1, KEPT: 0}
    assert ObjectSeen(rivals=[["cat"], ["red", "blue", "green"]])(case) == {SEEN: 1 / 2, KEPT: 0}
    assert ObjectSeen(rivals=[["green", "red"]])(case) == {SEEN: 1, KEPT: 0}  # not of the target's kind


@pytest.mark.parametrize(
    "case",
    [
        a_case(BLUE, region=False),
        a_case(BLUE, old="blue"),
        a_case(BLUE, new=""),
        a_case(BLUE, target="a blue ball, all blue"),
        a_case(BLUE, target="a bluebird"),
    ],
    ids=["no region", "the same word", "removal", "twice", "within a word"],
)
def test_what_cannot_be_asked_has_no_value(case):
    assert ObjectSeen()(case) == {}


def test_words_that_are_the_same_to_the_judge_and_long_prompts_are_told():
    with pytest.warns(MetricWarning, match="same to CLIP"):
        assert ObjectSeen()(a_case(BLUE, old="azure")) == {}
    with pytest.warns(MetricWarning, match="beginning"):
        assert ObjectSeen()(a_case(BLUE, target="a blue ball, rolling on grass")) == {SEEN: 1, KEPT: 0}


def test_articles_follow_the_word():
    assert instead("an orange car on an island", "orange", "red") == "a red car on an island"
    assert instead("one red car", "red", "orange") == "one orange car"
    assert instead("An Orange car", "orange", "red") == "a red car"


def test_case_does_not_matter():
    rivals = [["RED", "blue", "green"]]
    case = a_case(BLUE, GREEN, old="Red", new="Blue", target="a blue ball")
    assert ObjectSeen(rivals=rivals)(case) == {SEEN: 1 / 2, KEPT: 0}
