"""Pictures that can be read alone: what a mask's picture means, which edit a sheet shows, all strategies in one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.jobs import captions
from experiments.jobs.lettering import font_for
from experiments.jobs.outcome import Outcome
from experiments.jobs.pictures import EDGE, GAP, LINE, contact_sheet, outlined, veiled
from freemask.backbones.unet3d import UNet3D
from freemask.fusion.settings import Fusion
from freemask.masks.plan import MaskPlan
from freemask.methods.invert_fuse import InvertFuse
from freemask.types import Clip, EditTask
from tests.given import Half

TASK = EditTask("t", "c", "a red car on grass", "a red boat on grass", {"car": "boat"}, "shape")
STYLE = dataclasses.replace(TASK, target="painting of a red car on grass", words={"car": "car"}, kind="style")
ROW = {
    "task": "bear-shape",
    "clip": "bear",
    "kind": "shape",
    "words": {"bear": "lion", "dog": ""},
    "method": "freemask",
    "choices": {"method": "freemask", "model": "zeroscope", "mask": "mmc", "fusion": "paper"},
    "steps": 50,
    "seed": 3,
    "facts": {"mask_layer": "up.1", "mask_time": 421},
}


def _pixels(path):
    with Image.open(path) as picture:
        return np.array(picture)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def backbone():
    return UNet3D.random(0, max_tokens=20)


def clip(**masks):
    frames = torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    return Clip("c", frames, masks)


def edited(backbone, task, mask=None, **fusion):
    method = InvertFuse(steps=5, guidance=2.0, mask=mask or Half(), fusion=Fusion(**fusion))
    return method(backbone, clip(), task, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("task", "fusion", "acts"),
    [
        (TASK, {}, "temporal, cross, self, latents in steps 2-3 of 5"),
        (TASK, {"latent": "off", "cross": "plain"}, "temporal, self"),
        (
            STYLE,
            {},
            "inverse self",
        ),  # temporal and text masks vanish where the object stays, latents are left alone
        (STYLE, {"inverse": []}, "self"),
        (STYLE, {"self": "off"}, "nothing"),
    ],
)
def test_an_edit_says_what_its_mask_acts_on(backbone, task, fusion, acts):
    made = edited(backbone, task, **fusion)
    assert made.facts["mask_acts_on"] == acts
    shown = Outcome({}, task=task, clip=clip(), edit=made).clips()
    draw, name = (veiled, "mask") if "latents" in acts else (outlined, "mask (attention)")
    assert list(shown) == ["source", name, "edited"]
    assert torch.equal(shown[name], draw(clip().frames, made.extras["mask"]))


def test_an_empty_mask_that_is_turned_round_lets_everything_change(backbone):
    empty = type(
        "Empty", (Half,), {"plan": lambda *_: MaskPlan(lambda wanted: torch.zeros(tuple(wanted.grid)))}
    )
    (shape,), (style,) = (edited(backbone, task, empty()).warnings for task in (TASK, STYLE))
    assert "lets nothing change" in shape and "keeps nothing" in style


def test_captions_mean_what_is_shown():
    held, attention = "cross, latents in steps 2-3 of 5", "inverse self"
    said = captions.of_mask(TASK, {"mask_acts_on": held})
    assert "'car'" in said and "veiled" in said and "steps 2-3 of 5" in said
    said = captions.of_mask(STYLE, {"mask_acts_on": attention})
    assert attention in said and "no pixels" in said and "veiled" not in said
    around = {"mask_around": "red car", "mask_acts_on": held}
    assert captions.of_mask(TASK, around).startswith("all but red car; clear")
    assert captions.sought(TASK, around) == ["all but red car"] and captions.sought(TASK, {}) != []
    assert captions.sought(TASK, {"mask_around": "red car, dog"}) == ["all but red car and dog"]
    assert "veiled" in captions.of_mask(TASK, {})  # a method that says nothing of it
    vague = dataclasses.replace(TASK, words={}, source="of it", target="of that")
    assert captions.of_mask(vague, {"mask_acts_on": held}).startswith("clear")


def test_a_sheet_names_its_edit():
    said = " ".join(captions.about(ROW))
    for part in (
        "bear-shape",
        "kind: shape",
        "bear -> lion",
        "dog -> (gone)",
        "freemask",
        "zeroscope",
        "mmc",
    ):
        assert part in said
    assert all(part in said for part in ("up.1", "421", "50 steps", "seed 3"))
    others = {"task": "a", "clip": "b", "method": "theirs", "choices": {}, "steps": None, "seed": None}
    assert captions.about({**others, "variant": "v"}) == ["a · variant v", "method: theirs", "clip: b"]


def test_an_outline_leaves_the_rest_as_it_is():
    frames, mask = clip().frames, torch.zeros(2, 12, 20)
    mask[:, 4:8, 4:8] = 1
    shown = outlined(frames, mask)
    assert torch.equal(shown[..., :3, :], frames[..., :3, :])
    assert torch.allclose(shown[0, :, 3, 4], torch.tensor(EDGE)) and not torch.equal(
        shown[0, :, 5, 5], frames[0, :, 5, 5]
    )


def test_rows_lie_where_the_page_looks_for_them_whatever_is_said_below():
    """`thumbs.js` cuts frames out of sheets, of older versions too: what is new stands below."""
    clips = {"source": torch.full((2, 3, 160, 90), 0.2), "edited": torch.full((2, 3, 160, 90), 0.8)}
    heights = {}
    for name, words in {"without": "", "with": "a long prompt " * 9}.items():
        contact_sheet(Path(f"{name}.png"), clips, {"source": words}, [words] if words else [])
        picture = _pixels(f"{name}.png")
        heights[name] = len(picture)
        for row, value in enumerate((51, 204)):
            y, x = GAP + row * (LINE + 160 + GAP) + LINE, GAP + 90 + GAP
            assert (picture[y : y + 160, x : x + 90] == value).all()
        assert (picture[2 * (LINE + 160 + GAP) + GAP :] < 128).any() == bool(words)
    lines = heights["with"] - heights["without"]
    assert heights["without"] == GAP + 2 * (LINE + 160 + GAP) and lines % LINE == 0 and lines > 4 * LINE


@pytest.mark.parametrize("text", ["straße", "красная машина", "κόκκινο"])
def test_letters_of_other_alphabets_are_letters(text):
    """A letter that a font lacks is drawn as the same box as any other one."""
    font = font_for(text)
    shapes = [font.getmask(letter).getbbox() and bytes(font.getmask(letter)) for letter in set(text) - {" "}]
    assert len(set(shapes)) == len(shapes)
    assert font_for("red car").getname() != font.getname()
