"""Warp-Err, Q-edit and mask IoU by hand; RAFT's file; the world's exact motion; features made once."""

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from evaluation import ops
from evaluation.backbones import clip, flow, weights
from evaluation.case import Case, annotated
from evaluation.metric import MetricWarning
from evaluation.metrics.clip_frame import ClipFrame
from evaluation.metrics.clip_text import ClipText
from evaluation.metrics.frame_accuracy import FrameAccuracy
from evaluation.metrics.mask_iou import MaskIou
from evaluation.metrics.q_edit import QEdit
from evaluation.metrics.warp_error import WarpError
from evaluation.suite import Suite
from freemask.data.world import World
from freemask.errors import UserError
from freemask.optical import raft
from freemask.optical.ops import seen_there, warped
from freemask.types import EditTask

CONF = Path(__file__).parents[1] / "conf"
TASK = EditTask("t", "c", "a red car", "a blue car", {"car": "car"}, "attribute")
EXACT = "warp_error[exact]"


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def shifted(dx, dy, frames=3, size=12):
    """A clip that moves (dx, dy) whole pixels a frame over a larger picture, and its exact flow."""
    picture = ops.round8(noise(3, 60, 60))
    clip = torch.stack(
        [
            picture[:, 20 - f * dy : 20 - f * dy + size, 20 - f * dx : 20 - f * dx + size]
            for f in range(frames)
        ]
    )
    back = torch.tensor([-dx, -dy]).float()[None, :, None, None].expand(frames - 1, 2, size, size)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    seen = (x - dx >= 0) & (x - dx < size) & (y - dy >= 0) & (y - dy < size)
    return clip, (back, seen.expand(frames - 1, size, size))


@pytest.fixture
def no_raft(monkeypatch):
    monkeypatch.setattr(flow, "present", lambda name: False)


# --- Warp-Err ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (2, 0), (0, -1), (-3, 2)])
def test_an_edit_that_moves_as_its_source_has_no_error(no_raft, dx, dy):
    clip, known = shifted(dx, dy)
    edited = 1 - clip  # other colours, the same motion
    assert WarpError()(Case(clip, edited, TASK, flow=known)) == {EXACT: pytest.approx(0, abs=1e-5)}
    turned = known[0] * -1, known[1]
    wrong = WarpError()(Case(clip, edited, TASK, flow=turned))[EXACT]
    assert wrong > 20 or (dx, dy) == (0, 0)


def test_only_pixels_that_were_hidden_count_as_occluded(no_raft):
    """The first column of each later frame is new: left out by default, and all of the error otherwise."""
    clip, known = shifted(1, 0, frames=2, size=4)
    spoilt = clip.clone()
    spoilt[1, :, :, 0] = 1 - clip[0, :, :, 0].round()  # what comes in is nothing that border pixels show
    case = Case(clip, spoilt, TASK, flow=known)
    assert WarpError()(case) == {EXACT: pytest.approx(0, abs=1e-5)}
    by_hand = (spoilt[1, :, :, 0] - clip[0, :, :, 0]).abs().mean() / 4
    found = WarpError(occluded=True)(case)
    assert found == {"warp_error[exact,occluded]": pytest.approx(100 * float(by_hand), rel=1e-5)}
    assert WarpError()(Case(clip, spoilt, TASK, flow=(known[0], torch.zeros_like(known[1])))) == {}


def test_norms_and_units_by_hand(no_raft):
    """Two pairs of frames, each a flat step: 0.2 and then 0.6 of 1."""
    grey = torch.tensor([0.0, 51 / 255, 204 / 255])[:, None, None, None].expand(3, 3, 4, 5).contiguous()
    still = torch.zeros(2, 2, 4, 5), torch.ones(2, 4, 5, dtype=torch.bool)
    case = Case(grey, grey, TASK, flow=still)
    assert WarpError()(case) == {EXACT: pytest.approx(100 * (0.2 + 0.6) / 2)}
    found = WarpError(norm="mse")(case)
    assert found == {"warp_error[exact,mse]": pytest.approx(1000 * (0.04 + 0.36) / 2)}
    assert [WarpError(norm=norm).columns[0].unit for norm in ("l1", "mse")] == ["x 1e-2", "x 1e-3"]


def test_pairs_count_alike_however_much_of_them_is_seen(no_raft):
    frames = torch.zeros(3, 3, 4, 4)
    frames[1] = 51 / 255  # steps of 0.2 and then 0.2 down
    frames[2, :, 0, 0] = 153 / 255  # one pixel steps 0.4 up, and only that one was seen before
    seen = torch.ones(2, 4, 4, dtype=torch.bool)
    seen[1] = False
    seen[1, 0, 0] = True
    value = WarpError()(Case(frames, frames, TASK, flow=(torch.zeros(2, 2, 4, 4), seen)))[EXACT]
    assert value == pytest.approx(100 * (0.2 + 0.4) / 2)


def test_half_a_pixel_is_interpolated():
    row = torch.tensor([0.0, 0.2, 0.6, 1.0]).expand(1, 3, 2, 4)
    half = torch.zeros(1, 2, 2, 4)
    half[:, 0] = 0.5
    found = warped(row, half)[0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0.1, 0.4, 0.8, 1.0]))
    down = torch.zeros(1, 2, 2, 4)
    down[:, 1] = 1
    tall = torch.stack([row[0, :, 0], row[0, :, 0] + 0.5], 1)[None]
    torch.testing.assert_close(warped(tall, down)[0, 0, 0], tall[0, 0, 1])


def test_a_flickering_edit_is_worse_and_a_steadier_one_better(no_raft):
    clip, known = shifted(1, 1, frames=5)
    level = torch.tensor([0.0, 0.1, 0.0, 0.1, 0.0])[:, None, None, None]
    values = [
        WarpError()(Case(clip, (0.8 * clip + amount * level), TASK, flow=known))[EXACT]
        for amount in (0.0, 0.5, 1.0)
    ]
    assert values[0] < values[1] < values[2]
    assert values[2] == pytest.approx(10, abs=0.3)  # a tenth up and down, rounded to 8 bits
    frozen = WarpError()(Case(clip, clip[:1].expand_as(clip).contiguous(), TASK, flow=known))[EXACT]
    assert frozen > 10  # it stands still while its source moves


def test_what_cannot_be_measured_is_left_out(no_raft):
    clip, known = shifted(1, 0)
    assert WarpError()(Case(clip, clip, TASK)) == {}
    one = Case(clip[:1], clip[:1], TASK, flow=(known[0][:0], known[1][:0]))
    assert WarpError()(one) == {} and QEdit("embedded")(one) == {}
    measured = Suite({"w": WarpError()})(Case(clip, clip, TASK))
    assert measured.metrics == {EXACT: None} and "exact motion" in measured.columns[EXACT].needs


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WarpError(flow="farneback"), "no optical flow 'farneback'"),
        (lambda: WarpError(norm="l2"), "no norm 'l2'"),
        (lambda: WarpError(weights="raft.pth"), "weights=PATH is for RAFT"),
        (lambda: WarpError("raft_large", weights="/nowhere/raft.pth"), "not on this machine"),
        (lambda: MaskIou(0), "threshold"),
        (lambda: MaskIou(2), "threshold"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(UserError, match=says):
        make()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flow", (torch.zeros(2, 2, 4, 4), torch.ones(2, 4, 4))),
        ("flow", (torch.zeros(1, 2, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))),
        ("flow", (torch.zeros(2, 2, 4, 4),)),
        ("mask", torch.ones(3, 4, 5)),
        ("mask", torch.full((3, 4, 4), 1.5)),
        ("mask", torch.full((3, 4, 4), float("nan"))),
        ("mask", torch.ones(3, 4, 4, dtype=torch.bool)),
    ],
)
def test_a_flow_or_mask_that_does_not_fit_is_refused(name, value):
    with pytest.raises(UserError, match=f"{name} of"):
        Case(torch.zeros(3, 3, 4, 4), torch.zeros(3, 3, 4, 4), TASK, **{name: value})


# --- flow by a network ---------------------------------------------------------------------------------


def test_occlusion_by_going_back_and_forth():
    """Motion of 2 to the right: what came in at the left, and pixels whose way back leads elsewhere, were not seen."""
    back = torch.zeros(1, 2, 3, 8)
    back[:, 0] = -2
    forth = -back
    seen = seen_there(back, forth)[0]
    assert seen.tolist() == [[False] * 2 + [True] * 6] * 3
    forth[
        0, 0, :, 4
    ] = -2  # the point at column 4 goes to the left, so the pixel at 6 does not come from there
    assert not seen_there(back, forth)[0, :, 6].any() and seen_there(back, forth)[0, :, 5].all()


@pytest.mark.parametrize(("height", "width"), [(128, 136), (40, 56), (131, 150)])
def test_frames_of_any_size_reach_the_network_and_come_back(height, width):
    """A stand-in that sees the same shift everywhere: sizes, order of frames and scale are what is tested."""
    asked = []

    def network(a, b):
        asked.append((a, b))
        ones = torch.ones(len(a), 2, *a.shape[-2:])
        ones[:, 0] *= 3
        return torch.stack([ones[0], -ones[1]])

    frames = noise(3, 3, height, width)
    back, seen = flow.between(network, frames)
    assert tuple(back.shape) == (2, 2, height, width) and tuple(seen.shape) == (2, height, width)
    (now, then), *_ = asked
    assert now.shape[-2] % 8 == now.shape[-1] % 8 == 0 and min(now.shape[-2:]) >= 128
    assert torch.equal(now[0], then[1]) and torch.equal(now[1], then[0])
    if height >= 128:
        torch.testing.assert_close(now[0, :, :height, :width], frames[1] * 2 - 1)
        torch.testing.assert_close(then[0, :, :height, :width], frames[0] * 2 - 1)
    scale = height / round(height * max(1, 128 / min(height, width)))
    torch.testing.assert_close(back[:, 1], torch.full((2, height, width), scale))
    torch.testing.assert_close(back[:, 0], torch.full((2, height, width), 3 * scale), rtol=1e-2, atol=0)
    assert seen[:, : height // 2, : width // 2].all()


def test_rafts_file_is_read_and_its_flow_used_once_for_a_case(tmp_path, monkeypatch):
    from torchvision.models.optical_flow import raft_large

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = raft_large(weights=None)
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    monkeypatch.setattr(raft, "UPDATES", 1)
    calls = Counter()
    between = flow.between
    monkeypatch.setattr(flow, "between", lambda *given: calls.update("b") or between(*given))
    frames = ops.round8(noise(2, 3, 128, 128))
    case = Case(frames, frames, TASK)
    metrics = [
        WarpError("raft_large", norm, True, str(tmp_path / "raft.pth"), "cpu") for norm in ("l1", "mse")
    ]
    (name, value), (_, other) = [next(iter(each(case).items())) for each in metrics]
    assert name.startswith("warp_error[raft_large:") and name.endswith(",occluded]")
    assert calls["b"] == 1 and math.isfinite(value) and value != other
    with torch.inference_mode():
        theirs = network.eval()(frames[1:] * 2 - 1, frames[:1] * 2 - 1, num_flow_updates=1)[-1]
    torch.testing.assert_close(flow.of(metrics[0].found[0], case, "cpu")[0], theirs, rtol=1e-3, atol=1e-3)
    (tmp_path / "torn.pth").write_bytes(b"not weights")
    torn = WarpError("raft_large", weights=str(tmp_path / "torn.pth"), device="cpu")
    with pytest.raises(UserError, match="cannot be read"):
        torn(case)


def test_auto_prefers_what_the_data_knows(tmp_path, monkeypatch):
    (tmp_path / "raft.pth").write_bytes(b"x")
    known = weights.Weights("raft_large", lambda: tmp_path / "raft.pth", "BSD", "fetch it")
    monkeypatch.setitem(weights.KNOWN, "raft_large", known)
    metric = WarpError()
    assert [column.name for column in metric.columns] == [EXACT, "warp_error[raft_large]"]
    frames, exact = shifted(1, 0)
    assert set(metric(Case(frames, frames, TASK, flow=exact))) == {EXACT}
    monkeypatch.setattr(flow, "load", lambda *given: lambda a, b: torch.zeros(len(a), 2, *a.shape[-2:]))
    assert set(metric(Case(frames, frames, TASK))) == {"warp_error[raft_large]"}


# --- the world's own motion ----------------------------------------------------------------------------


def test_the_world_knows_how_its_clips_move(no_raft):
    """Warped by its exact motion a clip nearly meets itself; by none, or by the motion of another clip, it does not."""
    world = World(clips=5, frames=4)
    own, still, other = [], [], []
    tasks = world.tasks()
    for task, next_task in zip(tasks, [*tasks[1:], tasks[0]], strict=True):
        frames, known = world.clip(task).frames, world.flow(task)
        assert 0.7 < known[1].float().mean() < 1
        own += WarpError()(Case(frames, frames, task, flow=known)).values()
        still += WarpError()(Case(frames, frames, task, flow=(known[0] * 0, known[1]))).values()
        other += WarpError()(Case(frames, frames, task, flow=world.flow(next_task))).values()
    assert max(own) < 2.5 and sum(own) < 0.5 * sum(still) and sum(own) < 0.5 * sum(other)


def test_the_worlds_flow_goes_back_and_forth():
    """Following the motion back from a pixel, and the forward flow from there, returns to it."""
    from freemask.data.world.source import truth

    world = World(clips=3, kinds=("shape",), frames=4)
    for task in world.tasks():
        back, seen = world.flow(task)
        known = truth(world._find(task).scene)
        returned = back + warped(known.flow, back)
        inside = seen & ~known.things[0][1:].logical_xor(known.things[0][:-1])
        assert seen.any() and float(returned.abs().amax(1)[inside].max()) < 1e-3
    single = World(clips=1, frames=1)
    back, seen = single.flow(single.tasks()[0])
    assert tuple(back.shape) == (0, 2, 64, 64) and tuple(seen.shape) == (0, 64, 64)


# --- Q-edit --------------------------------------------------------------------------------------------


class Colours:
    """An encoder whose feature is the mean colour; prompts mean the colours they name."""

    named = {"red": (1.0, 0.0, 0.0), "blue": (0.0, 0.0, 1.0)}

    def __init__(self):
        self.calls = Counter()

    def images(self, frames):
        self.calls["images"] += 1
        return frames.mean((2, 3))

    def text(self, prompt):
        self.calls[prompt] += 1
        return torch.tensor([self.named[word] for word in prompt.split()]).reshape(-1, 3).sum(0, keepdim=True)

    def truncates(self, prompt):
        return len(prompt.split()) > 3


@pytest.fixture
def colours(monkeypatch, no_raft):
    encoder = Colours()
    monkeypatch.setattr(clip, "resolve", lambda *setting: weights.Found("colours", "colours"))
    monkeypatch.setattr(clip, "load", lambda *setting: encoder)
    return encoder


def painted(*levels, target="blue"):
    """Frames of pure blue of these levels, standing still."""
    frames = torch.zeros(len(levels), 3, 4, 4)
    frames[:, 2] = torch.tensor(levels)[:, None, None] / 255
    still = torch.zeros(len(levels) - 1, 2, 4, 4), torch.ones(len(levels) - 1, 4, 4, dtype=torch.bool)
    return Case(frames, frames, EditTask("t", "c", "red", target, {}, "style"), flow=still)


def test_q_edit_by_hand(colours):
    """Blue to the letter is 100; one channel of three steps by 51 / 255: Warp-Err is 100 * 0.2 / 3."""
    assert QEdit()(painted(255, 204)) == {
        "q_edit_per_clip[colours,exact]": pytest.approx(100 / (100 * 0.2 / 3))
    }
    # Half red, half blue asked for: the cosine is 1 / sqrt(2).
    assert QEdit()(painted(255, 204, target="red blue")) == {
        "q_edit_per_clip[colours,exact]": pytest.approx(100 / 2**0.5 / (100 * 0.2 / 3))
    }


def test_q_edit_of_an_edit_without_any_error_is_no_number(colours):
    with pytest.warns(MetricWarning, match="Warp-Err of 't' is below"):
        assert QEdit()(painted(255, 255)) == {}


def test_q_edit_of_an_edit_with_hardly_any_error_is_no_number(colours):
    """One pixel of a clip that is flat otherwise would be worth half a million."""
    case = painted(255, 255)
    edited = case.edited.clone()
    edited[0, 0, 0, 0] = 1 / 255
    with pytest.warns(MetricWarning, match="is below"):
        assert QEdit()(Case(edited, edited, case.task, flow=case.flow)) == {}


def test_an_empty_target_is_told(colours):
    measured = Suite({"c": ClipText()})(painted(255, 204, target=" "))
    assert any("no target prompt" in each for each in measured.warnings)


def test_q_edit_flags_long_prompts(colours):
    measured = Suite({"q": QEdit()})(painted(255, 204, target="blue blue blue blue"))
    assert len(measured.warnings) == 1 and "only the beginning" in measured.warnings[0]


# --- features made once --------------------------------------------------------------------------------


def test_a_case_is_encoded_once_however_many_metrics_ask(colours):
    metrics = {"a": ClipText(), "b": ClipFrame(), "c": FrameAccuracy(), "d": QEdit()}
    together = Suite(metrics)(painted(255, 204, 102))
    assert colours.calls == {"images": 1, "blue": 1, "red": 1}
    alone = {}
    for name, metric in metrics.items():
        alone |= Suite({name: metric})(painted(255, 204, 102)).metrics
    assert alone == together.metrics and len(alone) == 4


def test_other_cases_and_other_backbones_do_not_share(colours, monkeypatch):
    first, second = painted(255, 204), painted(255, 204)
    for case in (first, second):
        ClipText()(case)
    assert colours.calls["images"] == 2
    monkeypatch.setattr(clip, "resolve", lambda *setting: weights.Found("other", "other"))
    ClipText()(first)
    assert colours.calls["images"] == 3


# --- mask IoU ------------------------------------------------------------------------------------------


def square(left, frames=2, size=6):
    mask = torch.zeros(frames, size, size, dtype=torch.bool)
    mask[:, :4, left : left + 3] = True
    return mask


@pytest.mark.parametrize(
    ("left", "value"), [(0, 1.0), (1, 2 / 4), (2, 1 / 5), (3, 0.0)], ids=["same", "one", "two", "apart"]
)
def test_iou_by_hand(left, value):
    """Boxes three columns wide, shifted: so many columns of so many are common."""
    frames = torch.zeros(2, 3, 6, 6)
    case = Case(frames, frames, TASK, masks={"car": square(0), "sky": square(3)}, mask=square(left).float())
    assert MaskIou()(case) == {"mask_iou": pytest.approx(value)}


def test_iou_is_over_the_whole_clip_and_cut_at_the_threshold():
    frames, truth = torch.zeros(2, 3, 6, 6), square(0)
    truth[1] = False  # the object is seen in the first frame only
    mask = torch.full((2, 6, 6), 0.3)
    mask[0, :4, :3] = 0.5  # 12 pixels right; stored as bytes and read again they stay above the threshold
    mask[1, 0, :4] = 0.9  # 4 pixels wrong
    case = Case(frames, frames, TASK, masks={"car": truth}, mask=mask)
    assert MaskIou()(case) == {"mask_iou": pytest.approx(12 / 16)}
    assert MaskIou(0.25)(case) == {"mask_iou[threshold=0.25]": pytest.approx(12 / 72)}
    at = Case(frames, frames, TASK, masks={"car": square(0)}, mask=0.7 * square(0))
    assert MaskIou(0.7)(at) == {"mask_iou[threshold=0.7]": 1.0}  # 0.7 is no whole number of 255ths
    stored = Case(frames, frames, TASK, masks={"car": truth}, mask=(mask * 255).round() / 255)
    assert MaskIou()(stored) == MaskIou()(case)


def test_iou_needs_a_mask_and_an_object():
    frames = torch.zeros(2, 3, 6, 6)
    style = EditTask("t", "c", "a red car", "art of a red car", {"car": "car"}, "style")
    given = {"masks": {"car": square(0)}, "mask": square(0).float()}
    assert MaskIou()(Case(frames, frames, TASK, masks=given["masks"])) == {}
    assert MaskIou()(Case(frames, frames, TASK, mask=given["mask"])) == {}
    assert MaskIou()(Case(frames, frames, style, **given)) == {}
    nowhere = {"masks": {"car": torch.zeros_like(square(0))}, "mask": given["mask"]}
    assert MaskIou()(Case(frames, frames, TASK, **nowhere)) == {}
    assert MaskIou()(Case(frames, frames, TASK, **given)) == {"mask_iou": 1.0}


def test_the_object_of_a_background_edit_is_the_background():
    masks = {"car": square(0), "grass": ~square(0)}
    ground = EditTask("t", "c", "a car on grass", "a car on snow", {"grass": "snow"}, "background")
    found = annotated(ground, masks)
    assert found is not None and torch.equal(found, masks["grass"])
    assert annotated(ground, {"car": square(0)}) is None


# --- suites --------------------------------------------------------------------------------------------


def test_suites_hold_the_new_numbers(no_raft):
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(str(CONF), version_base="1.3"):
        names = {
            suite: OmegaConf.to_container(compose(overrides=[f"+metric={suite}"]))["metric"]
            for suite in ("default", "paper", "st_modulator")
        }
    assert names["default"]["warp_error"]["flow"] == names["paper"]["warp_error"]["flow"] == "exact"
    columns = {
        column.name.partition("[")[0]
        for each in names["st_modulator"].values()
        for column in instantiate(each).columns
    }
    assert {"clip_text", "clip_frame", "warp_error", "q_edit_per_clip", "mask_iou"} <= columns
    whole = Suite({name: instantiate(each) for name, each in names["st_modulator"].items()})
    assert {EXACT, "warp_error[exact,mse]", "warp_error[exact,occluded]"} <= set(whole.columns)
