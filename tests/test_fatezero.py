"""FateZero as a whole: presets, reconstruction attention, pictures, removal, and masks of a codebook's making."""

import dataclasses
import gc

import pytest
import torch

from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.backbones.inflated2d import Inflated2D
from freemask.data.tasks import check_task
from freemask.diffusion.loops import Callbacks, sample
from freemask.errors import UserError
from freemask.masks.plan import Wanted
from freemask.methods.ddim import Ddim
from freemask.methods.invert_fuse import InvertFuse
from freemask.types import Clip, EditTask, Grid
from tests.given import given
from tests.quiet import quiet

SHAPE = EditTask("t", "c", "a red car on grass", "a red boat on grass", {"car": "boat"}, "shape")
STYLE = EditTask("t", "c", "a red car on grass", "watercolor of a red car on grass", {}, "style")
GONE = EditTask("t", "c", "a red car on grass", "grass", {"red car": ""}, "shape")


@pytest.fixture(scope="module")
def backbone():
    return Inflated2D.random(0, max_tokens=20, attention="middle", least_channels=16)


STEPS = 2


def fatezero(*overrides, steps=STEPS):
    lines = [
        "method=fatezero",
        "model=random_image",
        f"method.steps={steps}",
        "method.guidance=2.0",
        "method.inversions=null",
    ]
    config = plain(config_of("edit", [*lines, *overrides]))
    return build(config["method"], "method")


@pytest.fixture(scope="module")
def usual(backbone):
    """FateZero as the command line makes it, and two edits without it: its self-attention off, and no fusion at all."""
    own, plain = fatezero("fusion.self=off"), Ddim(steps=STEPS, guidance=2.0)
    return {"masked": run(fatezero(), backbone), "own": run(own, backbone), "plain": run(plain, backbone)}


def clip(frames=2, height=12, width=20):
    return Clip("c", torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(0)))


def run(method, backbone, task=SHAPE, footage=None):
    return method(backbone, footage or clip(), task, torch.Generator().manual_seed(0))


def gap(a, b):
    return float((a.frames - b.frames).abs().max())


def test_choosing_the_method_brings_its_model_masks_and_fusion_unless_others_are_named():
    config = plain(config_of("edit", ["method=fatezero"]))
    assert config["model"]["path"] == "embedded_image"
    assert config["method"]["mask"]["cells"] == 16 and config["method"]["fusion"]["masked_for"] == ["shape"]
    other = plain(config_of("edit", ["mask=mmc", "method=fatezero", "model=zeroscope", "fusion=paper"]))
    assert other["model"]["path"] == "cerspense/zeroscope_v2_576w"
    assert other["method"]["mask"]["use_layer"] and other["method"]["fusion"]["temporal"] == "masked"


def test_masks_are_for_shape_edits_unless_asked_for(backbone, usual):
    assert usual["masked"].extras["mask"].shape == (2, 12, 20)
    style = run(fatezero(), backbone, STYLE)
    assert not style.extras and "mask_share" not in style.facts
    words = dataclasses.replace(STYLE, words={"car": "car"})
    assert run(fatezero("fusion.masked_for=[style]"), backbone, words).extras


def test_thresholds_that_let_nothing_or_everything_through(backbone, usual):
    """Two: the source's self-attention everywhere, as without masks. Zero: the edit's own everywhere."""
    unmasked = run(fatezero("fusion.self=plain"), backbone)
    nothing = run(fatezero("mask.threshold=[2,2]"), backbone)
    everything = run(fatezero("mask.threshold=[0,0]"), backbone)
    assert gap(nothing, unmasked) < 2e-5 and gap(everything, usual["own"]) < 2e-5
    assert gap(unmasked, usual["own"]) > 1e-3


def test_one_frame_is_a_picture_whatever_frames_look_at():
    """Without another frame to look at, attention is a frame's own: keys twice or three times change nothing."""
    alone, *among = (
        run(
            fatezero(), Inflated2D.random(0, max_tokens=20, attention=look, least_channels=0), footage=clip(1)
        )
        for look in ("frame", "middle", "first_and_previous", [-1, 0, 1])
    )
    assert alone.frames.shape == (1, 3, 12, 20)
    assert all(gap(alone, each) < 2e-5 for each in among)


def test_a_reconstruction_at_guidance_one_is_almost_the_inversion():
    """Along a path that a quiet network hardly bends, both passes see the same latents; with guidance they differ."""
    lines = "method.attention=reconstruction", "method.reconstruction_guidance=1"
    with quiet(Inflated2D.random(0, dtype="float64", max_tokens=20, least_channels=16), 0.0005) as backbone:
        inverted, again = (run(fatezero(*more, steps=3), backbone) for more in ((), lines))
    assert again.facts["attention"] == "reconstruction" and "attention" not in inverted.facts
    assert 0 < gap(inverted, again) < 1e-3


def test_a_reconstruction_lends_its_own_attention_and_its_own_masks(backbone):
    again = fatezero("method.attention=reconstruction")
    with again.begin(backbone, clip(), SHAPE) as editing:
        steps = len(editing.subject.times)
        x = editing.inversion.latents[-1]
        assert torch.equal(editing.lender.latents[-1], x) and len(editing.lender.latents) == steps + 1
        # one step of it, written out: guided by the source prompt, from the inversion's noise
        t, below = editing.subject.times[-1], editing.subject.times[-2]
        text = torch.stack([backbone.embed("").tokens, editing.subject.source.tokens])
        out = backbone.predict(torch.stack([x, x]), t, given(text, ("uncond", "cond")))
        made = backbone.noise_path.step(x, out[0] + 2.0 * (out[1] - out[0]), now=t, call=t, to=below)
        assert torch.allclose(editing.lender.latents[-2], made, atol=1e-5)
        assert torch.equal(editing.lender.input_at(t), x)
        assert torch.equal(editing.lender.input_at(below), editing.lender.latents[-2])
    heats = []
    for method in (again, fatezero()):
        with method.begin(backbone, clip(), SHAPE) as editing:
            heats.append(editing.masks.soft(Wanted("self", t, Grid(2, 6, 10))))
    assert float((heats[0] - heats[1]).abs().max()) > 1e-4


@pytest.mark.parametrize(("attention", "place"), [("inversion", "device"), ("reconstruction", "disk")])
def test_kept_features_give_the_same_edit(backbone, usual, attention, place):
    lines = [f"method.attention={attention}", "fusion.latent=masked", "mask.threshold=[0.9,0.9]"]
    again = run(fatezero(*lines), backbone)
    kept = run(fatezero(*lines, "method.features=cache", f"method.cache_on={place}"), backbone)
    assert gap(again, kept) < 2e-5 and kept.facts["features_gb"] > 0
    assert gap(kept, usual["plain"]) > 1e-3


def test_an_object_that_the_target_leaves_out(backbone):
    made = run(fatezero("fusion.latent=masked", "mask.threshold=[0.9,0.9]"), backbone, GONE)
    assert 0 < made.facts["mask_share"] < 1
    task = check_task(
        {
            "id": "t",
            "clip": "c",
            **{key: getattr(GONE, key) for key in ("source", "target")},
            "kind": "shape",
            "words": {"red car": ""},
        }
    )
    assert task.words == {"red car": ""}
    with pytest.raises(UserError, match="nothing stands before the arrow"):
        check_task(
            {"id": "t", "clip": "c", "source": "a", "target": "b", "kind": "shape", "words": {"": "b"}}
        )


@pytest.mark.parametrize(
    "setting", [{"attention": "memory"}, {"reconstruction_guidance": -1}, {"attention": "cache"}]
)
def test_settings_that_are_none(setting):
    with pytest.raises(UserError):
        InvertFuse(**setting)


def test_kinds_that_are_none():
    with pytest.raises(UserError, match="masked_for"):
        fatezero("fusion.masked_for=[shapes]")


@torch.no_grad()
def test_what_lives_grows_with_the_steps_by_latents_and_word_heat_alone(backbone):
    """Counted tensor by tensor at the last step: no map, no query, no mask of an earlier step is among them."""
    frames, (height, width) = 2, (12, 20)
    strides = [site.stride for site in backbone.sites.values() if site.role == "cross"]
    cells = [-(-height // 2 // stride) * -(-width // 2 // stride) for stride in strides]
    alive = [
        _alive(fatezero("fusion.latent=masked", "method.features=recompute", steps=steps), backbone)
        for steps in (2, 5)
    ]
    assert len(cells) == 16
    latents, heat = (
        frames * 4 * (height // 2) * (width // 2) * 4,
        2 * frames * sum(cells) * 4,
    )  # source's and edit's
    slack = 200  # bytes: a schedule's table and the like
    assert abs((alive[1] - alive[0]) / 3 - (latents + heat)) < slack


def _alive(method, backbone):
    found = []
    with method.begin(backbone, clip(), SHAPE) as editing:

        def after(x, i, t):
            made = editing.after(x, i, t)
            if i == len(editing.subject.times) - 1:
                gc.collect()
                tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
                stores = {
                    each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors
                }
                found.append(sum(stores.values()))
            return made

        sample(
            backbone,
            editing.inversion.latents[-1],
            editing.predict,
            editing.subject.times,
            on=Callbacks(after=after),
        )
    return found[0]
