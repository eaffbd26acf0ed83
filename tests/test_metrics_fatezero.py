"""FateZero's numbers, Frame-Acc and Tem-Con: by hand on an encoder of colours, from scratch on the embedded CLIP."""

import math
import random
import warnings
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from evaluation.backbones import clip, weights
from evaluation.case import Case
from evaluation.metric import MetricWarning
from evaluation.metrics.clip_frame import ClipFrame
from evaluation.metrics.frame_accuracy import FrameAccuracy
from evaluation.suite import Suite
from freemask.errors import UserError
from freemask.types import EditTask

CONF = Path(__file__).parents[1] / "conf" / "metric"
NAME, PAIRS = "frame_accuracy[colours]", "clip_frame[colours]"
RED, BLUE, GREEN, PURPLE, ROSE = (1, 0, 0), (0, 0, 1), (0, 1, 0), (0.4, 0, 0.4), (0.6, 0, 0.4)


class Colours:
    """An encoder whose feature is the mean colour, of no unit length. A prompt means the colours it names."""

    named = {"red": RED, "blue": BLUE, "green": GREEN}

    def images(self, frames):
        return frames.mean((2, 3))

    def text(self, prompt):
        colours = torch.tensor([self.named[word] for word in prompt.split()], dtype=torch.float32)
        return 10 * colours.sum(0, keepdim=True)

    def truncates(self, prompt):
        return len(prompt.split()) > 3


@pytest.fixture
def colours(monkeypatch):
    monkeypatch.setattr(clip, "resolve", lambda *setting: weights.Found("colours", "colours"))
    monkeypatch.setattr(clip, "load", lambda *setting: Colours())


def a_case(*frames, source="red", target="blue"):
    edited = torch.tensor(frames, dtype=torch.float32)[:, :, None, None].expand(-1, -1, 4, 6).contiguous()
    return Case(torch.zeros_like(edited), edited, EditTask("t", "c", source, target, {}, "style"))


@pytest.mark.parametrize(
    ("frames", "value"),
    [
        ((BLUE, BLUE, BLUE), 1.0),
        ((RED, RED, ROSE), 0.0),
        ((RED, BLUE, ROSE, RED), 1 / 4),
        ((PURPLE,), 1.0),  # as near to either
        ((GREEN,), 1.0),  # like neither
        ((RED, PURPLE, BLUE, GREEN, RED), 3 / 5),
        ((RED,), 0.0),
    ],
)
def test_frame_accuracy_by_hand(colours, frames, value):
    assert FrameAccuracy()(a_case(*frames)) == {NAME: pytest.approx(value)}


def test_the_order_of_frames_does_not_matter_and_prompts_do(colours):
    frames = [RED, BLUE, PURPLE, ROSE, GREEN, RED, RED]
    for seed in range(3):
        mixed = random.Random(seed).sample(frames, len(frames))
        assert FrameAccuracy()(a_case(*mixed))[NAME] == pytest.approx(3 / 7)
    turned = FrameAccuracy()(a_case(*frames, source="blue", target="red"))[NAME]
    assert turned == pytest.approx(6 / 7)  # both ties count both ways


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("red", "red", "the same"),
        ("red blue", "blue red", "the same"),
        ("", "red", "no source"),
        ("red", "  ", "no target"),
    ],
)
def test_prompts_that_cannot_be_told_apart_give_no_value_but_a_note(colours, source, target, says):
    case = a_case(BLUE, RED, source=source, target=target)
    with pytest.warns(MetricWarning, match=says):
        assert FrameAccuracy()(case) == {}
    measured = Suite({"accuracy": FrameAccuracy()})(case)
    assert measured.metrics == {NAME: None} and not measured.errors
    assert len(measured.warnings) == 1 and says in measured.warnings[0]


def test_a_prompt_that_is_cut_is_flagged(colours):
    with pytest.warns(MetricWarning, match="beginning of the source prompt"):
        found = FrameAccuracy()(a_case(BLUE, source="red red red red"))
    assert found == {NAME: 1.0}


def test_tem_con_by_hand(colours):
    half = 1 / math.sqrt(2)
    assert ClipFrame()(a_case(RED, RED, BLUE, PURPLE))[PAIRS] == pytest.approx((1 + 0 + half) / 3)
    assert ClipFrame()(a_case(RED, BLUE, RED, PURPLE))[PAIRS] == pytest.approx((0 + 0 + half) / 3)
    assert ClipFrame()(a_case(BLUE, (0, 0, 0.2)))[PAIRS] == pytest.approx(1)


def test_one_frame_has_no_pair_but_an_accuracy(colours):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured = Suite({"pairs": ClipFrame(), "accuracy": FrameAccuracy()})(a_case(BLUE))
    assert measured.metrics == {PAIRS: None, NAME: 1.0}
    assert not measured.errors and not measured.warnings
    assert measured.columns[PAIRS].needs == "a second frame"


def test_columns_carry_the_backbone_and_missing_weights_are_refused(monkeypatch):
    (column,) = FrameAccuracy("embedded").columns
    assert column.name == "frame_accuracy[embedded]" and column.higher_is_better and column.needs
    monkeypatch.setitem(
        weights.KNOWN, "vit_b_32", weights.Weights("vit_b_32", lambda: None, "MIT", "fetch it")
    )
    with pytest.raises(UserError, match="not on this machine"):
        FrameAccuracy("vit_b_32")


def test_case_of_letters_is_nothing_to_the_embedded_clip():
    case = a_case(BLUE, source="a red car", target="A red CAR")
    with pytest.warns(MetricWarning, match="the same"):
        assert FrameAccuracy("embedded", device="cpu")(case) == {}


def from_scratch(frames, source, target):
    """(Frame-Acc, Tem-Con) with the library's own reading of the weights, on pictures, written out."""
    import open_clip
    from PIL import Image

    place = f"local-dir:{weights.find('embedded').path}"
    model, transform = open_clip.create_model_from_pretrained(place)
    tokenizer = open_clip.get_tokenizer(place, local_files_only=True)
    values = (frames * 255).round().byte().permute(0, 2, 3, 1).numpy()
    pictures = torch.stack([transform(Image.fromarray(each)) for each in values])
    with torch.inference_mode():
        images = model.eval().encode_image(pictures)
        texts = model.encode_text(tokenizer([source, target]))
    chances = torch.softmax(100 * torch.cosine_similarity(images[:, None], texts[None], dim=-1), dim=-1)
    right = [bool(chance[1] >= chance[0]) for chance in chances]
    pairs = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in zip(images, images[1:], strict=False)]
    return sum(right) / len(right), sum(pairs) / len(pairs)


def test_both_agree_with_a_computation_from_scratch():
    """Three frames of the true answer among five of the source: neither 0 nor 1 is a right answer."""
    from freemask.data.world import World

    world = World(split="heldout", clips=4, kinds=("attribute", "shape"), frames=8)
    shares = []
    for task in world.tasks():
        frames, oracle = world.clip(task).frames, world.oracle(task)
        assert oracle is not None
        edited = torch.cat([frames[:3], oracle[3:6], frames[6:]])
        case = Case(frames, edited, task)
        metrics = {kind.__name__: kind("embedded", device="cpu") for kind in (FrameAccuracy, ClipFrame)}
        found = Suite(metrics)(case).metrics
        accuracy, pairs = from_scratch(case.edited, task.source, task.target)
        assert found["frame_accuracy[embedded]"] == accuracy
        assert found["clip_frame[embedded]"] == pytest.approx(pairs, abs=1e-5)
        shares.append(accuracy)
    assert 3 / 8 in shares


def test_the_suite_holds_both_numbers_and_all_of_the_default():
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        suite, default = (
            OmegaConf.to_container(compose(overrides=[f"+metric={name}"]))["metric"]
            for name in ("fatezero", "default")
        )
    assert {"clip_frame", "frame_accuracy"} <= set(suite)
    assert {name: suite[name] for name in default} == default
