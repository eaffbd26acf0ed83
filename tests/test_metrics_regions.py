"""Several edits of one clip, measured one by one. By hand on an encoder that reads colours."""

from dataclasses import replace

import pytest
import torch

from evaluation import metric
from evaluation.backbones import clip, weights
from evaluation.case import Case
from evaluation.metric import MetricWarning
from evaluation.metrics.edits_seen import EditsSeen
from evaluation.metrics.region_psnr import RegionPsnr
from evaluation.ops import closer
from freemask.errors import UserError
from freemask.types import EditTask, LocalEdit

RIGHT, KEPT, ALL = (f"{name}[colours]" for name in ("edits_right", "others_kept", "all_right"))
MEANS = {"red": (1, 0, 0), "blue": (0, 0, 1), "green": (0, 1, 0), "white": (1, 1, 1), "cream": (1, 1, 1)}
RED, BLUE, GREEN, WHITE = (MEANS[name] for name in ("red", "blue", "green", "white"))
RIVALS = [["red", "blue", "green", "white"]]


class Colours:
    """The feature of a picture is its mean colour; a prompt means the colours that it names."""

    def images(self, frames):
        return frames.mean((2, 3))

    def text(self, prompt):
        named = [MEANS[word] for word in prompt.lower().split() if word in MEANS]
        return torch.tensor(named, dtype=torch.float32).sum(0, keepdim=True)

    def truncates(self, prompt):
        return "long" in prompt


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    monkeypatch.setattr(clip, "resolve", lambda *setting: weights.Found("colours", "colours"))
    monkeypatch.setattr(clip, "load", lambda *setting: Colours())


def painted(*frames):
    """Frames of 4 x 12: three things side by side, each 4 wide, in these colours."""
    colours = torch.tensor(frames, dtype=torch.float32)  # f 3things 3
    return (
        colours.permute(0, 2, 1)[:, :, None, :].repeat_interleave(4, 2).repeat_interleave(4, 3).contiguous()
    )


def part(index, count):
    where = torch.zeros(count, 4, 12, dtype=torch.bool)
    where[..., 4 * index : 4 * index + 4] = True
    return where


def a_case(*frames, source="a red car and a blue car by a white ball", edits=None, oracle=True, regions=True):
    """The red car is to be blue and the blue one green; the ball stays white."""
    edits = edits or ({"red car": "blue car"}, {"blue car": "green car"})
    target = "a blue car and a green car by a white ball"
    local = tuple(LocalEdit(words, "attribute") for words in edits)
    words = {old: new for each in edits for old, new in each.items()}
    task = EditTask("t", "c", source, target, words, "attribute", edits=local, level="instance")
    count = len(frames)
    masks = {"white ball": part(2, count), "ball": part(2, count), "car": part(0, count) | part(1, count)}
    before, truth = (painted(*[each] * count) for each in ((RED, BLUE, WHITE), (BLUE, GREEN, WHITE)))
    known = tuple(part(index, count) for index in range(len(local))) if regions else ()
    return Case(before, painted(*frames), task, truth if oracle else None, masks=masks, regions=known)


def alone(case):
    """The same, said to be one edit."""
    return replace(case, task=replace(case.task, edits=()), regions=())


def test_psnr_is_the_mean_over_regions_and_not_over_pixels():
    near = (BLUE, (0, 0.9, 0), WHITE)
    assert RegionPsnr()(a_case(near, near)) == {
        "oracle_psnr.region": pytest.approx((100 + 24.6) / 2, abs=0.2)
    }
    assert RegionPsnr()(a_case((BLUE, GREEN, RED))) == {"oracle_psnr.region": 100}  # the ball is in no region
    assert RegionPsnr()(a_case(near, oracle=False)) == {}
    assert RegionPsnr()(a_case(near, edits=[{"red car": "blue car"}]))["oracle_psnr.region"] == 100


def test_the_right_thing_of_each_edit_and_what_stays():
    judge = EditsSeen(rivals=RIVALS)
    whole = (BLUE, GREEN, WHITE)
    assert judge(a_case(whole)) == {RIGHT: 1, KEPT: 1, ALL: 1}
    assert judge(a_case((RED, BLUE, WHITE))) == {RIGHT: 0, KEPT: 1, ALL: 0}  # nothing was done
    assert judge(a_case((GREEN, BLUE, WHITE))) == {RIGHT: 0, KEPT: 1, ALL: 0}  # the wrong one of two
    assert judge(a_case((BLUE, GREEN, RED))) == {RIGHT: 1, KEPT: 0, ALL: 0}
    assert judge(a_case(whole, whole, (BLUE, RED, WHITE), whole)) == {RIGHT: 7 / 8, KEPT: 1, ALL: 1}
    assert judge(a_case(whole, (BLUE, RED, WHITE))) == {RIGHT: 3 / 4, KEPT: 1, ALL: 0}  # half is not most


def test_one_edit_leaves_the_other_of_two_to_stay():
    one = a_case((BLUE, GREEN, WHITE), edits=[{"red car": "blue car"}])
    assert EditsSeen(rivals=RIVALS)(one) == {RIGHT: 1, KEPT: 1, ALL: 1}
    assert EditsSeen()(one) == {RIGHT: 1, ALL: 1}  # without rivals no other thing is asked for


def test_a_thing_is_asked_for_once_and_where_no_edit_may_change_it():
    judge = EditsSeen(rivals=[*RIVALS, ["ball", "cube"]])
    case = a_case((BLUE, RED, WHITE))
    (asked,) = judge._others(case)  # the white ball, and not the ball besides
    assert "a blue car and a green car by a red ball" in asked.prompts
    wide = replace(case, masks={"white ball": part(2, 1) | part(1, 1)})
    assert EditsSeen(rivals=RIVALS)(wide)[KEPT] == 1


@pytest.mark.parametrize("words", [{"car": "car"}, {"red car": ""}])
def test_edits_that_cannot_be_asked_for_are_told(words):
    judge = EditsSeen(rivals=RIVALS)
    with pytest.warns(MetricWarning, match="nothing of 1 of the edits"):
        assert judge(a_case((BLUE, GREEN, WHITE), edits=[words])) == {KEPT: 1}
    with pytest.warns(MetricWarning, match="same to CLIP"):
        assert KEPT not in EditsSeen(rivals=[["white", "cream"]])(a_case((BLUE, GREEN, WHITE)))


@pytest.mark.parametrize(
    "case",
    [
        a_case((BLUE, GREEN, WHITE), oracle=False),
        alone(a_case((BLUE, GREEN, WHITE))),
    ],
    ids=["no answer", "one edit"],
)
def test_what_cannot_be_asked_has_no_value(case):
    assert EditsSeen(rivals=RIVALS)(case) == {}


def test_several_places_of_one_edit_must_all_be_right():
    """Every red car turns blue: one of two is not enough."""
    edit = LocalEdit({"red car": "blue car"}, "attribute")
    prompts = ("a red car and a red car", "a blue car and a blue car")
    task = EditTask("t", "c", *prompts, edit.words, "attribute", edits=(edit,))
    before, truth = painted((RED, RED, RED)), painted((BLUE, BLUE, BLUE))
    where = (part(0, 1) | part(1, 1) | part(2, 1),)
    for done, right in (((BLUE, BLUE, BLUE), 1), ((BLUE, RED, BLUE), 0), ((RED, RED, RED), 0)):
        assert EditsSeen()(Case(before, painted(done), task, truth, regions=where))[RIGHT] == right


def test_what_the_judge_cannot_read_is_told():
    case = a_case((BLUE, GREEN, WHITE))
    task = replace(case.task, target=f"{case.task.target} long")
    with pytest.warns(MetricWarning, match="beginning"):
        EditsSeen()(Case(case.source, case.edited, task, case.oracle, regions=case.regions))


def test_regions_that_do_not_fit_are_refused_and_those_of_annotations_found():
    case = a_case((BLUE, GREEN, WHITE), regions=False)
    assert [region is None for _, region in case.each] == [
        False,
        False,
    ]  # `car` is annotated, as red and blue alike
    with pytest.raises(UserError, match="one for each of its 2 edits"):
        Case(case.source, case.edited, case.task, regions=(part(0, 1),))
    with pytest.raises(UserError, match="region of edit 2"):
        Case(case.source, case.edited, case.task, regions=(None, part(1, 2)))


@pytest.mark.parametrize("name", ["red car", "car"])
def test_what_several_edits_may_change_is_unknown_where_it_is_of_one(name):
    edits = ({"red car": "blue car"}, {"ball": "cube"})
    case = a_case((BLUE, GREEN, WHITE), regions=False, edits=edits)
    some = replace(case, masks={name: part(0, 1)})  # of the first edit
    assert [region is None for _, region in some.each] == [False, True] and some.editable is None
    both = replace(case, masks={name: part(0, 1), "ball": part(2, 1)})
    assert both.editable is not None and bool((both.editable == part(0, 1) | part(2, 1)).all())
    assert alone(some).editable is not None


def test_a_metric_by_its_name_takes_edits_and_regions():
    edits = [LocalEdit({"red car": "blue car"}, "attribute")]
    known = {"edits": edits, "regions": [part(0, 1)], "oracle": painted((BLUE, GREEN, WHITE))}
    assert metric("region_psnr")(painted((RED, BLUE, WHITE)), painted((BLUE, RED, RED)), **known) == 100


@pytest.mark.parametrize(
    ("box", "size"),
    [((0, 2, 0, 2), (8, 8)), ((5, 8, 12, 16), (8, 8)), ((0, 16, 4, 6), (16, 24)), ((7, 13, 2, 4), (12, 12))],
)
def test_a_closer_look_holds_what_is_marked(box, size):
    frame, where = torch.rand(3, 16, 24), torch.zeros(16, 24, dtype=torch.bool)
    frame[0, box[0] : box[1], box[2] : box[3]] = where[box[0] : box[1], box[2] : box[3]] = 2
    shown = closer(frame, where)
    assert shown.shape[1:] == size and (shown[0] == 2).sum() == (frame[0] == 2).sum()
