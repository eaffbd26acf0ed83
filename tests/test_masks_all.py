"""Every mask strategy beside the others, without an edit: one inversion, scores, and what cannot work."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.cli.app import main
from experiments.jobs.strategies import strategies_of
from experiments.report.mask_sheet import tell_masks
from freemask.backbones.i2vgen import I2VGen
from freemask.backbones.unet3d import UNet3D
from freemask.errors import UserError
from freemask.fusion.settings import Fusion
from freemask.masks.look import Look, Seen, look
from freemask.masks.ops import iou
from freemask.masks.plan import Subject
from freemask.masks.strategies.agreement import Agreement
from freemask.masks.strategies.average import Average
from freemask.masks.strategies.none import NoMask
from freemask.masks.strategies.oracle import Oracle
from freemask.methods.invert_fuse import InvertFuse
from freemask.types import Clip, EditTask
from tests.given import Half

TASK = EditTask("t", "c", "a red car on grass", "a red boat on grass", {"car": "boat"}, "shape")


class Never(Half):
    def keeps(self, subject):
        raise UserError("it cannot work", came="no reason")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def backbone():
    return UNet3D.random(0, max_tokens=20)


def clip(**masks):
    frames = torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    return Clip("c", frames, masks)


def seen(backbone, footage, strategies, task=TASK, **more):
    subject = Subject.of(backbone, footage, task, backbone.noise_path.times(3))
    return look(backbone, subject, strategies, **more)


@pytest.fixture
def passes(backbone, monkeypatch):
    """How often the network ran."""
    ran, predict = [], type(backbone).predict

    def counted(self, *given, **more):
        ran.append(1)
        return predict(self, *given, **more)

    monkeypatch.setattr(type(backbone), "predict", counted)
    return ran


STRATEGIES = {"agreement": Agreement(), "average": Average(), "last": Average(phrase="last"), "half": Half()}


@pytest.mark.parametrize("kept", [None, "inversions"])
def test_one_inversion_serves_all_strategies(backbone, passes, kept):
    found = seen(backbone, clip(), {**STRATEGIES, "never": Never()}, inversions=kept)
    assert len(passes) == 3 and list(found.seen) == list(STRATEGIES)
    assert list(found.lacking) == ["never"] and "cannot work (no reason)" in found.lacking["never"]
    assert bool(list(Path().rglob("*.safetensors"))) == bool(kept)


def test_masks_are_those_of_the_edit_and_scores_those_of_the_annotation(backbone):
    truth = torch.zeros(2, 12, 20, dtype=torch.bool)
    truth[:, 3:9, 4:12] = True
    found = seen(backbone, clip(car=truth), {**STRATEGIES, "oracle": Oracle(), "none": NoMask()})
    assert found.measure == "IoU" and torch.equal(found.truth, truth)
    assert all(each.score == iou(each.mask >= 0.5, truth) for each in found.seen.values())
    assert found.seen["oracle"].score == pytest.approx(found.seen["oracle"].facts["oracle_iou"])
    assert found.seen["none"].heat is None and found.seen["average"].heat.shape == (2, 12, 20)
    method = InvertFuse(steps=3, guidance=2.0, mask=Average(), fusion=Fusion())
    made = method(backbone, clip(car=truth), TASK, torch.Generator().manual_seed(0))
    assert torch.equal(made.extras["mask"], found.seen["average"].mask)


def test_without_annotation_the_maps_judge(backbone):
    found = seen(backbone, clip(), {**STRATEGIES, "oracle": Oracle(), "none": NoMask()})
    assert found.measure == "agreement" and "annotated" in found.lacking["oracle"] and found.truth is None
    agreed = found.seen["agreement"].mask >= 0.5
    assert all(each.score == iou(each.mask >= 0.5, agreed) for each in found.seen.values())
    assert found.seen["none"].score == pytest.approx(float(agreed.float().mean())) and agreed.sum() > 0
    alone = seen(backbone, clip(), {"average": Average()})  # the judge sits unseen
    assert list(alone.seen) == ["average"] and alone.seen["average"].score == found.seen["average"].score


def test_a_network_that_is_shown_the_clip_is_shown_it_here_too():
    made = I2VGen.random(0, dtype="float64", max_tokens=20)
    assert list(seen(made, clip(), {"average": Average()}).seen) == ["average"]


def test_where_nothing_can_work_the_first_reason_is_the_error(backbone):
    truth = torch.ones(2, 12, 20, dtype=torch.bool)
    with pytest.raises(UserError, match="cannot work"):
        seen(backbone, clip(car=truth), {"never": Never()})
    with pytest.raises(UserError, match="annotated clip"):
        seen(backbone, clip(), {"oracle": Oracle()})


def test_strategies_take_what_was_typed_where_they_have_such_a_key():
    made = strategies_of(
        ["average", "none", "layer"], ["mask=mmc", "mask.phrase=last", "model=random", "masks=all"]
    )
    assert isinstance(made["none"], NoMask) and made["average"].phrase == made["layer"].phrase == "last"
    with pytest.raises(UserError, match="no mask"):
        strategies_of("averige", [])


def test_turned_masks_are_told(capsys):
    mask = torch.ones(1, 2, 2)
    found = {
        name: Seen(mask, mask, {"mask_around": "red car"}, partly=False) for name in ("agreement", "average")
    }
    tell_masks(Look({**found, "none": Seen(mask, None, {}, partly=False)}, {}, "IoU", mask > 0), [], {})
    assert capsys.readouterr().out.count("turned, to show all but red car") == 1


def test_the_command_lays_all_strategies_side_by_side(capsys):
    words = ["masks=all", "model=random", "method.steps=2", "data.size=16", "data.frames=2", "out=done"]
    assert main(["edit", *words, "paths.runs=out"]) == 0
    said = capsys.readouterr().out
    lines = {line.split()[0]: line for line in said.splitlines() if line.startswith("  ")}
    assert "no codebook" in lines["mmc"] and "IoU" in lines["mask"] and "mean of" in lines["average"]
    assert " 1.000 " in lines["segmentation"] and not Path("done/edited.mp4").exists()
    with np.load("done/masks.npz") as kept:
        assert {"average", "average heat", "none"} <= set(kept.files) and "mmc" not in kept.files
        assert kept["none"].shape == (2, 16, 16) and kept["none"].min() == 255
    with Image.open("done/masks.png") as picture:
        assert picture.width > 5 * 2 * 160


def test_words_beyond_the_model_are_told_here_too(capsys):
    words = ["masks=none", "method.steps=1", "data.size=16", "data.frames=1", "out=done", "paths.runs=out"]
    assert main(["edit", *words, "--source", "a red car moving left on grass", "--target", "a zorgon"]) == 0
    assert "not in this model's vocabulary: zorgon" in capsys.readouterr().out
