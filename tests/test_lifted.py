"""One edited picture lifted into all frames of a clip: layered atlases with a key frame, and CoDeF."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.cli.app import main
from experiments.config.compose import config_of
from experiments.doctor.forecast import forecast
from experiments.runs.store import RunStore
from freemask.backbones.inflated2d import Inflated2D
from freemask.errors import UserError
from freemask.fields.atlas_fit import AtlasRecipe
from freemask.fields.atlases import LAYERS, Layered
from freemask.fields.canonical import read
from freemask.fields.canonical_fit import CanonicalRecipe
from freemask.fields.fit import fitted
from freemask.masks.strategies.segmentation import Segmentation
from freemask.methods import codef
from freemask.methods.codef import Codef
from freemask.methods.ddim import Ddim
from freemask.methods.first_frame import Edited, Picture, Plain, Unedited
from freemask.methods.nla import Nla
from freemask.types import Clip, EditTask, LocalEdit, OpticalFlow, silent

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"car": "car"}, "attribute")
STYLE = replace(TASK, kind="style", target="oil painting of a red car on grass")
HEIGHT, WIDTH = 8, 12


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def backbone():
    return Inflated2D.random(0, max_tokens=20, attention="frame", shared_norm=False)


def clip(frames=3):
    rng = torch.Generator().manual_seed(0)
    left = (torch.arange(WIDTH) < 5).repeat(frames, HEIGHT, 1)
    made = torch.rand(frames, 3, HEIGHT, WIDTH, generator=rng)
    flow = OpticalFlow(torch.ones(frames - 1, 2, HEIGHT, WIDTH))
    return Clip("c", made, {"car": left, "grass": ~left}, flow=flow)


@dataclass(frozen=True)
class Painted(Plain):
    """Draws the same picture, and remembers what it was shown."""

    picture: Any
    seen: list = field(default_factory=list)

    def __call__(self, backbone, clip, task, rng, progress=None):
        self.seen.append(clip)
        return self.picture


def painting(seed=1):
    return torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def layered(shift, opacity):
    """Both layers have every pixel where it is, moved by so many pixels."""
    y, x = torch.meshgrid(torch.arange(HEIGHT).float(), torch.arange(WIDTH).float(), indexing="ij")
    places = torch.stack([x.flatten() - shift, y.flatten()], dim=1)
    nothing = torch.zeros(len(places), 3)
    return Layered(dict.fromkeys(LAYERS, places), opacity.flatten(), dict.fromkeys(LAYERS, nothing))


LEFT = (torch.arange(WIDTH) < 5).expand(HEIGHT, WIDTH).float()


def test_the_key_frame_is_the_edited_picture_and_it_moves_as_the_mapping_does():
    nla, own, edited = Nla(), painting(2), painting()
    reads = nla.reads(layered(0, LEFT), Picture(edited), LAYERS)
    frame, changed = nla.lifted(layered(0, LEFT), reads, own)
    assert torch.allclose(frame, edited, atol=1e-6) and changed.min() == 1
    moved = torch.roll(LEFT, 2, 1)
    moved[:, :2] = 1
    frame, changed = nla.lifted(layered(2, moved), reads, own)
    assert torch.allclose(frame[..., 2:], edited[..., :-2], atol=1e-6) and changed[:, 2:].min() == 1
    assert torch.equal(frame[..., :2], own[..., :2]) and not changed[:, :2].any()  # nothing was edited there


def test_an_edit_reaches_the_layers_that_it_is_about():
    nla, own, edited = Nla(), painting(2), painting()
    assert [nla.reached(replace(TASK, kind=kind)) for kind in ("attribute", "shape", "background")] == [
        ["foreground"],
        ["foreground"],
        ["background"],
    ]
    assert nla.reached(STYLE) == LAYERS == Nla(layers="both").reached(TASK)
    assert list(Nla(layers="background").reached(STYLE)) == ["background"]
    place = layered(0, LEFT)
    frame, changed = nla.lifted(place, nla.reads(place, Picture(edited), ["foreground"]), own)
    assert torch.allclose(frame[..., :5], edited[..., :5], atol=1e-6)
    assert torch.equal(frame[..., 5:], own[..., 5:]) and torch.equal(changed, LEFT)


def test_the_foreground_is_what_stands_before_the_background_whatever_is_edited(backbone):
    nla, car = Nla(mask=Segmentation()), LocalEdit({"car": "car"}, "attribute")
    grass = LocalEdit({"grass": "snow"}, "background")
    snow = replace(TASK, target="a red car on snow", words=grass.words, kind="background")
    both = replace(TASK, target="a blue car on snow", words=car.words | grass.words, edits=(car, grass))
    for task in (TASK, snow, both, replace(snow, edits=(grass,))):
        rough, _ = nla.rough(backbone, clip(), task, silent)
        assert torch.equal(rough, clip().masks["car"].float()), task.kind


def test_pixels_that_do_not_count_as_edited_stay_the_clips():
    own, edited, place = painting(2), painting(), layered(0, LEFT)
    mask = torch.zeros(HEIGHT, WIDTH)
    mask[2:5] = 1
    picture = Picture(edited, mask=mask)
    frame, changed = Nla(alpha="mask").lifted(place, Nla(alpha="mask").reads(place, picture, LAYERS), own)
    assert torch.allclose(frame, edited * mask + own * (1 - mask), atol=1e-6) and torch.equal(changed, mask)
    frame, _ = Nla(alpha="ones").lifted(place, Nla(alpha="ones").reads(place, picture, LAYERS), own)
    assert torch.allclose(frame, edited, atol=1e-6)


def test_as_released_an_edit_fades_where_both_layers_are_seen():
    """Each layer has the share s of colour and of alpha, which is then laid over the clip's own."""
    own, edited, share = painting(2), painting(), 0.75
    place, made = layered(0, torch.full((HEIGHT, WIDTH), share)), {}
    for variant in ("paper", "official"):
        nla = Nla(variant=variant)
        made[variant], _ = nla.lifted(place, nla.reads(place, Picture(edited), LAYERS), own)
    expected = sum(s * (s * (s * edited) + (1 - s) * own) for s in (share, 1 - share))
    assert torch.allclose(made["official"], expected, atol=1e-6)
    assert torch.allclose(
        made["paper"], share * edited + (1 - share) * own, atol=1e-6
    )  # of the one that is seen


ATLAS = AtlasRecipe(iterations=3, points=9, pretrain=1, width=8)
CANONICAL = CanonicalRecipe(iterations=3, points=30, widths=[8, 8])


def seeded():
    return torch.Generator().manual_seed(0)


def test_a_fit_serves_every_prompt_of_a_clip_and_no_other_clip(backbone, tmp_path):
    for make, fit in ((Nla, ATLAS), (Codef, CANONICAL)):
        method = make(
            first_frame=Painted(Picture(painting())), fit=replace(fit, kept=str(tmp_path / make.__name__))
        )
        first = method(backbone, clip(), TASK, seeded())
        second = method(backbone, clip(), STYLE, seeded())
        assert not first.facts["fit_kept"] and second.facts["fit_kept"]
        assert first.facts["fit_device"] == second.facts["fit_device"] == "cpu"
        assert second.facts["fit_seconds"] == pytest.approx(first.facts["fit_seconds"], abs=0.2)
        assert first.facts["fit_psnr"] == second.facts["fit_psnr"] and first.facts["fit_iterations"] == 3
        assert any("dB only" in each for each in first.warnings)
        assert not method(backbone, clip(2), TASK, seeded()).facts["fit_kept"]


def test_the_key_frame_is_shown_alone_and_the_true_answer_is_that_frames(backbone):
    painter, source = Painted(Picture(painting())), clip()
    edit = Nla(first_frame=painter, key="last", fit=ATLAS)(backbone, source, TASK, seeded())
    (seen,) = painter.seen
    assert torch.equal(seen.frames, source.frames[2:]) and len(seen.masks["car"]) == 1 and seen.flow is None
    assert edit.facts["key_frame"] == 2 and edit.facts["layers"] == "foreground"

    class Knowing(Unedited):
        def knowing(self, answer):
            return Painted(Picture(answer[0]))

    answer = torch.stack([painting(seed) for seed in range(3)])
    for method in (
        Nla(first_frame=Knowing(), key=1),
        Codef(first_frame=Knowing(), fit=replace(CANONICAL, reference=1)),
    ):
        assert torch.equal(method.knowing(answer).first_frame.picture.frame, answer[1])


def test_a_layers_picture_may_be_edited_itself(backbone):
    """Unedited, it gives what the fields show of that layer; a plain one fills the layer."""
    source = clip()
    method = Nla(first_frame=Unedited(), edits="atlas", fit=replace(ATLAS, iterations=40), layers="both")
    edit = method(backbone, source, TASK, seeded())
    assert not {"picture key frame edited"} & set(edit.extras) and "picture background edited" in edit.extras
    assert torch.equal(edit.extras["picture foreground edited"], edit.extras["picture foreground"])
    shown = -10 * torch.log10((edit.frames - source.frames).square().mean())
    assert float(shown) == pytest.approx(edit.facts["fit_psnr"], abs=0.5) and edit.extras["mask"].min() > 0.99
    blue = torch.zeros(3, HEIGHT, WIDTH)
    blue[2] = 1
    painter = Painted(Picture(blue))
    edit = replace(method, first_frame=painter, layers="foreground")(backbone, source, TASK, seeded())
    mask = edit.extras["mask"][:, None]
    assert torch.allclose(edit.frames, mask * blue + (1 - mask) * source.frames, atol=1e-5)
    assert not painter.seen[0].masks and painter.seen[0].frames.shape == (1, 3, HEIGHT, WIDTH)


def test_all_frames_read_the_edited_canonical_picture(backbone):
    painter, source = Painted(Picture(painting())), clip()
    edit = Codef(first_frame=painter, fit=CANONICAL)(backbone, source, TASK, seeded())
    canonical = edit.extras["picture canonical"]
    assert torch.equal(painter.seen[0].frames[0], canonical) and painter.seen[0].masks["car"].shape[0] == 1
    assert torch.equal(edit.extras["picture canonical edited"], painting())
    nearly_still = edit.frames - painting()  # three steps of a fit move next to nothing
    assert float(nearly_still.abs().mean()) < 0.1
    wide = Codef(first_frame=Painted(Picture(torch.rand(3, 16, 20))), margin=3, fit=CANONICAL)
    edit = wide(backbone, source, TASK, seeded())
    assert edit.extras["picture canonical"].shape == (3, HEIGHT + 8, WIDTH + 8)  # the model takes pairs
    inner = edit.extras["picture canonical"][:, 4:-4, 4:-4]
    assert torch.allclose(inner, canonical, atol=1e-5)


def test_a_picture_is_read_in_between_its_pixels_and_goes_on_as_it_ends():
    picture = torch.arange(12.0).reshape(1, 3, 4).expand(3, 3, 4)
    where = torch.tensor([[[0.0, 0], [2.5, 1]], [[-4, 2], [9, 9]]])
    assert torch.allclose(read(picture, where)[0], torch.tensor([[0, 6.5], [8, 11]]), atol=1e-5)
    assert torch.allclose(read(picture, where + 1, 0)[0], read(picture, where, 1)[0], atol=1e-5)


def test_parts_have_fields_of_their_own_and_the_rest_is_not_edited(backbone):
    painter, source = Painted(Picture(painting())), clip()
    method = Codef(first_frame=painter, fit=CANONICAL, mask=Segmentation())
    edit = method(backbone, source, TASK, seeded())
    assert edit.facts["canonical_parts"] == 2 and len(painter.seen) == 1
    pictures = {name for name in edit.extras if name.startswith("picture")}
    assert pictures == {f"picture canonical {name}" for name in ("inside", "inside edited", "outside")}
    inside = source.masks["car"][0]
    assert float((edit.frames - painting())[:, :, inside].abs().mean()) < 0.1
    assert float((edit.frames - painting())[:, :, ~inside].abs().mean()) > 0.1
    held = replace(method, composite="pixels")(backbone, source, TASK, seeded())
    assert torch.equal(held.frames[:, :, ~inside], source.frames[:, :, ~inside])
    styled = method(backbone, source, STYLE, seeded())  # a style is of the whole frame
    assert styled.facts["canonical_parts"] == 1


def test_as_released_colours_lose_a_little_and_the_last_two_frames_have_no_flow(backbone, monkeypatch):
    works = []
    monkeypatch.setattr(codef, "fitted", lambda work, *more: works.append(work) or fitted(work, *more))
    for variant in ("paper", "official"):
        method = Codef(first_frame=Unedited(), fit=CANONICAL, variant=variant)
        edit = method(backbone, clip(), TASK, seeded())
    paper, official = works
    assert torch.equal(paper.footage.frames, clip().frames) and paper.pairs == 1
    assert torch.equal(official.footage.frames, clip().frames * (255 / 256)) and official.pairs == 2
    assert official.name != paper.name
    assert any("canonical picture is not edited" in each for each in edit.warnings)


def test_of_one_frame_there_is_the_edited_picture(backbone):
    for method in (
        Nla(first_frame=Painted(Picture(painting()))),
        Codef(first_frame=Painted(Picture(painting()))),
    ):
        edit = method(backbone, clip(1), TASK, seeded())
        assert torch.equal(edit.frames[0], painting()) and "one frame has nothing" in edit.warnings[-1]


def test_the_models_own_editor_says_where_its_mask_was(backbone):
    @dataclass(frozen=True)
    class Masked:
        acts: str

        def __call__(self, backbone, clip, task, rng, progress=None):
            edit = Ddim(steps=1)(backbone, clip, task, rng)
            mask = torch.zeros(1, HEIGHT, WIDTH)
            mask[:, 2] = 0.6
            return replace(edit, extras={"mask": mask}, facts={"mask_acts_on": self.acts})

    found = Edited(None, Masked("latents in steps 1-1 of 1"))(backbone, clip(1), TASK, seeded())
    assert found.mask is not None and found.mask[2].min() == 1 and not found.mask[3:].any()
    assert found.facts["first_frame_model"] == backbone.identity
    assert Edited(None, Masked("self"))(backbone, clip(1), TASK, seeded()).mask is None


def test_doctor_tells_how_long_a_fit_takes():
    for words, work, minutes in (
        ([], 1.13, "0.47 minutes on one core"),
        (["height=432", "width=768", "frames=70"], 155_202, "2.6e+02 minutes on a large GPU"),
        (["method.fit.iterations=4000"], 2.27, "0.94 minutes on one core"),
    ):
        found = forecast(config_of("doctor", ["method=nla", *words]))
        assert found["fit_tflop"] == pytest.approx(work, rel=0.01) and minutes in found["fit_time"]
    assert "fit_tflop" not in forecast(config_of("doctor", ["method=ddim"]))


def test_a_rough_mask_that_is_empty_is_told(backbone):
    source = clip()
    source.masks["car"][1] = False
    edit = Nla(first_frame=Painted(Picture(painting())), fit=ATLAS)(backbone, source, TASK, seeded())
    assert any("empty in 1 of 3 frames" in each for each in edit.warnings)


def bare():
    return replace(clip(), masks={"grass": clip().masks["grass"]}, flow=None)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Nla().check(TASK, lambda: replace(bare(), flow=clip().flow)), "rough masks"),
        (lambda: Nla(key=5).check(TASK, clip), "'key' is no frame of this clip"),
        (lambda: Nla(key="frist"), "'key' is no frame"),
        (lambda: Nla(steps=0), "steps"),
        (lambda: Codef(margin=-1), "margin"),
        (lambda: Codef(fit=replace(CANONICAL, reference=7)).check(TASK, clip), "no frame of this clip"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_an_editor_that_needs_a_controlnet_is_refused_before_fields_are_fitted(tmp_path, capsys):
    said = ["edit", "method=codef", "model.control=null", "method.fit.iterations=3", f"paths.runs={tmp_path}"]
    assert main(said) == 2
    told = capsys.readouterr().err
    assert "has no ControlNet" in told and "model.control=null" in told
    assert not list(tmp_path.rglob("*.safetensors"))


EDIT = [
    *(
        "edit",
        "source=a red car on grass",
        "target=a blue car on grass",
        "words=car:car",
        "model=random_image",
    ),
    *("metric=pixels", "size=16", "method.steps=1", "paths.runs=runs", "flow=file", "flow.path=flow.npy"),
    *("method=codef", "method.fit.iterations=3", "model.control=null", "first_frame=sdedit"),
    *("first_frame.model=null", "first_frame.method.steps=1"),
]


def test_the_canonical_picture_lies_beside_the_edit_and_may_be_edited_by_hand(capsys):
    rng = np.random.default_rng(0)
    Path("clip").mkdir()
    for place in range(3):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(f"clip/{place}.png")
    np.save("flow.npy", np.zeros((2, 2, 16, 16), np.float32))
    assert main([*EDIT, "clip=clip", "out=made"]) == 0
    (row,) = RunStore(Path("made")).latest().values()
    assert row["files"]["canonical"] == "canonical.png" and Path("made/canonical-edited.png").is_file()
    assert (
        "made/canonical.png" in capsys.readouterr().out
        and len(list(Path("runs/fits").glob("??/*.safetensors"))) == 1
    )
    Image.new("RGB", (16, 16), (0, 0, 255)).save("by-hand.png")
    by_hand = [each for each in EDIT if not each.startswith("first_frame")]
    assert main([*by_hand, "clip=clip", "out=blue", "first_frame=file", "first_frame.path=by-hand.png"]) == 0
    (row,) = RunStore(Path("blue")).latest().values()
    assert row["facts"]["fit_kept"] and row["facts"]["first_frame"] == "file by-hand.png"
    assert (np.array(Image.open("blue/frames/00001.png")) == [0, 0, 255]).all()
