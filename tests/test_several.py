"""The one rule of several edits: which of them have masks, and when pixels outside these are held, method by method."""

from dataclasses import replace

import pytest
import torch

from freemask.backbones.inflated2d import Inflated2D
from freemask.fusion.settings import Fusion
from freemask.masks.plan import Keeps, MaskPlan, Subject
from freemask.masks.several import local_part, of_whole_frame, subjects
from freemask.methods.invert_fuse import InvertFuse, settled
from freemask.methods.masked import OF_OBJECTS
from freemask.methods.null_text_p2p import NullTextP2P
from freemask.methods.tokenflow import TokenFlow
from freemask.methods.videograin import VideoGrain
from freemask.types import KINDS, Clip, EditTask, LocalEdit
from tests.given import seeded

CAR, DOG = LocalEdit({"car": "bus"}, "shape"), LocalEdit({"dog": "cat"}, "shape")
STYLE, WORDS = LocalEdit({}, "style"), LocalEdit({"grass": "grass"}, "style")
TASK = EditTask(
    "t", "c", "a car and a dog on grass", "oil of a bus and a cat on grass", {"car": "bus"}, "shape",
    edits=(CAR, DOG),
)  # fmt: skip
STYLED = replace(TASK, edits=(CAR, STYLE))


class Strip:
    """The left quarter for the car, the one beside it for everything else."""

    def keeps(self, subject):
        return Keeps()

    def plan(self, subject, source, target):
        first = 0 if "car" in subject.task.words else 1

        def mask(wanted):
            made, width = torch.zeros(tuple(wanted.grid)), max(1, wanted.grid.width // 4)
            made[..., first * width : (first + 1) * width] = 1
            return made

        return MaskPlan(mask)


@pytest.fixture(scope="module")
def backbone():
    return Inflated2D.random(0, dtype="float64", max_tokens=60, attention="all", least_channels=0)


@pytest.fixture(scope="module")
def clip():
    return Clip("c", torch.rand(3, 3, 8, 32, generator=seeded(0)))


FUSED = Fusion(temporal="off")
METHODS = {
    "freemask": InvertFuse(steps=4, mask=Strip(), fusion=FUSED, composite="pixels"),
    "fatezero": InvertFuse(
        steps=4, mask=Strip(), fusion=replace(FUSED, masked_for=["shape"]), composite="pixels"
    ),
    "tokenflow": TokenFlow(steps=4, inversion_steps=4, mask=Strip(), composite="pixels"),
    "videograin": VideoGrain(steps=4, mask=Strip(), along=[], composite="pixels"),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("other", [STYLE, WORDS], ids=["without words", "with words"])
def test_a_style_beside_a_shape_frees_the_whole_frame_in_every_method(backbone, clip, name, other):
    held = METHODS[name](backbone, clip, TASK, seeded(0))
    outside = held.frames[..., 16:] - clip.frames[..., 16:]
    assert float(outside.abs().max()) == 0 and "latents" in held.facts["mask_acts_on"]
    free = METHODS[name](backbone, clip, replace(TASK, edits=(CAR, other)), seeded(0))
    outside = free.frames[..., 16:] - clip.frames[..., 16:]
    assert float(outside.flatten(1).abs().amax(1).min()) > 0.01
    assert "latents" not in free.facts.get("mask_acts_on", "") and "latents" not in str(free.warnings)


def test_the_masks_of_the_others_still_act_on_attention(backbone, clip):
    styled = METHODS["fatezero"](backbone, clip, STYLED, seeded(0))
    assert styled.facts["mask_acts_on"] == "cross, self"
    alone = METHODS["fatezero"](backbone, clip, replace(TASK, edits=(CAR,)), seeded(0))
    torch.testing.assert_close(styled.extras["mask"].amax(0) > 0, alone.extras["mask"].amax(0) > 0)


def test_null_text_editing_goes_by_the_same_rule(backbone, clip):
    made = NullTextP2P(steps=4, inner=1, shared=True, mask=Strip(), fusion=FUSED)(
        backbone, clip, STYLED, seeded(0)
    )
    assert made.facts["mask_acts_on"] == "cross, self"


def test_which_edits_have_masks():
    assert local_part(TASK, KINDS) == TASK and not of_whole_frame(TASK, KINDS)
    assert local_part(STYLED, KINDS) == replace(TASK, edits=(CAR,)) and of_whole_frame(STYLED, KINDS)
    worded = replace(TASK, edits=(CAR, WORDS))
    assert not of_whole_frame(worded, KINDS) and of_whole_frame(worded, OF_OBJECTS)
    assert local_part(replace(TASK, edits=(STYLE,)), KINDS) is None
    single = replace(TASK, edits=())
    assert local_part(single, ["shape"]) is single and not of_whole_frame(single, ["shape"])
    assert local_part(single, ["style"]) is None and of_whole_frame(single, ["style"])


def test_a_fusion_holds_what_its_windows_hold(backbone, clip):
    assert Fusion().held_for == ["attribute", "shape", "background"]
    windows = {"style": {"latent": [0.2, 0.5]}, "shape": {"latent": [0.5, 0.5]}}
    assert Fusion(windows=windows).held_for == ["style", "attribute", "background"]
    subject = Subject.of(backbone, clip, replace(TASK, edits=(CAR, WORDS)), [1, 501])
    for fusion, whole in (
        (Fusion(temporal="off"), True),
        (Fusion(temporal="off", windows={"style": windows["style"]}), False),
    ):
        local, policies, _ = settled(fusion, Strip(), subject)
        assert local is not None and len(local.task.edits) == 2
        assert policies.whole_frame is whole and (policies.latent is None) is whole


def test_an_edit_without_words_is_none_of_the_subjects(backbone, clip):
    subject = Subject.of(backbone, clip, STYLED, [1, 501])
    assert [each.task.words for each in subjects(subject)] == [{"car": "bus"}]
    only = Subject.of(backbone, clip, replace(TASK, edits=(STYLE,)), [1, 501])
    assert [each.task.kind for each in subjects(only)] == ["style"]
