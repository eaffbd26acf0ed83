"""FreeMask as a whole: what must hold whatever the network, for every clip size and mask."""

import dataclasses
import gc
import weakref

import pytest
import torch

from freemask.backbones.unet3d import UNet3D
from freemask.errors import UserError
from freemask.fusion.settings import PARTS, Fusion
from freemask.masks.plan import Keeps, MaskPlan, MaskStrategy, everywhere
from freemask.masks.strategies.none import NoMask
from freemask.methods import lent
from freemask.methods.common import of_kind
from freemask.methods.ddim import Ddim
from freemask.methods.invert_fuse import InvertFuse, sampled
from freemask.types import Clip, EditTask, Method, silent
from tests.quiet import quiet

TASK = EditTask("t", "c", "a red car on grass", "a red boat on grass", {"car": "boat"}, "shape")
STEPS = 2
ALL_THE_WAY = {"shape": {"temporal": 1, "cross": 1, "self": 1, "latent": [0, 1]}}
ATTENTION = {"latent": "off"}


def only(**parts):
    """A fusion of these parts, and of no other."""
    return {**dict.fromkeys(PARTS, "off"), **parts}


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The same mask at every time: a value, or the left half."""

    value: float | None = None

    def keeps(self, subject):
        return Keeps()

    def plan(self, subject, source, target):
        if self.value is not None:
            return everywhere(self.value)

        def left(wanted):
            mask = torch.zeros(tuple(wanted.grid))
            mask[..., : wanted.grid.width // 2] = 1
            return mask

        return MaskPlan(left, {"side": "left"})


@pytest.fixture(scope="module")
def backbone():
    return UNet3D.random(0, max_tokens=20)


def clip(frames=2, height=12, width=20):
    return Clip("c", torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(0)))


def run(method, backbone, task=TASK, footage=None):
    return method(backbone, footage or clip(), task, torch.Generator().manual_seed(0))


NONE = NoMask()


def freemask(mask=NONE, steps=STEPS, guidance=2.0, **settings):
    return InvertFuse(steps=steps, guidance=guidance, mask=mask, fusion=Fusion(**settings))


@pytest.fixture(scope="module")
def plain(backbone):
    """The same edit without fusion and masks."""
    return run(Ddim(steps=STEPS, guidance=2.0), backbone).frames


def near(a, b, limit=2e-5):
    """In pixels of 0..1: batches of two and of three streams round differently."""
    return float((a - b).abs().max()) < limit


@pytest.mark.parametrize("frames", [1, 17])
def test_a_mask_of_ones_is_the_plain_edit(backbone, frames):
    footage = clip(frames, 8, 12)
    made = run(freemask(Fixed(1.0), windows=ALL_THE_WAY), backbone, footage=footage)
    assert near(made.frames, run(Ddim(steps=STEPS, guidance=2.0), backbone, footage=footage).frames)
    assert made.frames.shape == (frames, 3, 8, 12) and made.facts["mask_share"] == 1
    assert any("every pixel" in said for said in made.warnings)


@pytest.mark.parametrize("guidance", [1, 7.5])
def test_an_empty_mask_with_blended_latents_gives_the_source_back(backbone, guidance):
    made = run(freemask(Fixed(0.0), guidance=guidance, windows=ALL_THE_WAY), backbone)
    assert torch.equal(made.frames, backbone.decode(backbone.encode(clip().frames)))
    assert any("empty in 2 of 2 frames" in said for said in made.warnings)
    assert made.facts["mask_empty_frames"] == 2


@pytest.mark.parametrize("mask", [NoMask(), Fixed(1.0)])
def test_plain_latents_to_the_last_step_give_the_source_back_whatever_the_mask(backbone, mask):
    made = run(freemask(mask, **only(latent="plain"), windows=ALL_THE_WAY), backbone)
    assert torch.equal(made.frames, backbone.decode(backbone.encode(clip().frames)))


def test_half_a_mask_keeps_the_other_half(backbone):
    """Blended to the last step, the latents outside the mask are the clip's own."""
    method = freemask(Fixed(), windows=ALL_THE_WAY)
    with method.begin(backbone, clip(), TASK) as session:
        x = session.inversion.latents[-1]
        for i, t in enumerate(reversed(session.subject.times)):
            below = [-1, *session.subject.times][len(session.subject.times) - 1 - i]
            x = backbone.noise_path.step(x, session.predict(x, t), now=t, call=t, to=below)
            x = session.after(x, i, t)
        half, own = x.shape[-1] // 2, session.inversion.latents[0]
        assert torch.equal(x[..., half:], own[..., half:])
        assert float((x[..., :half] - own[..., :half]).abs().max()) > 1e-3


def test_the_source_prompt_at_guidance_one_reconstructs():
    same = dataclasses.replace(TASK, target=TASK.source, words={"car": "car"})
    with quiet(UNet3D.random(0, dtype="float64", max_tokens=20)) as backbone:
        made = run(freemask(Fixed(), steps=3, guidance=1, **ATTENTION), backbone, same)
        own = backbone.decode(backbone.encode(clip().frames))
    assert float((made.frames - own).norm() / own.norm()) < 0.01


def test_with_every_query_key_and_value_from_the_source_the_prompt_has_no_say(backbone):
    free = {"windows": ALL_THE_WAY, **dict.fromkeys(PARTS[:3], "plain"), "latent": "off", "skip": ()}
    other = dataclasses.replace(TASK, target="a blue fish", words={"car": "fish"})
    held = [run(freemask(guidance=1, values="source", **free), backbone, task) for task in (TASK, other)]
    assert torch.equal(held[0].frames, held[1].frames)
    loose = [run(freemask(guidance=1, **free), backbone, task) for task in (TASK, other)]
    assert not near(loose[0].frames, loose[1].frames, 1e-3)


@pytest.mark.parametrize(
    ("variant", "places"), [("paper", ["device", "host", "disk"]), ("official", ["disk"])]
)
def test_cached_and_recomputed_features_give_the_same_edit(backbone, plain, variant, places):
    method = freemask(Fixed(), variant=variant, **ATTENTION, windows=ALL_THE_WAY)
    again = run(dataclasses.replace(method, features="recompute"), backbone)
    assert "features_gb" not in again.facts and not near(again.frames, plain, 1e-3)
    small = run(method, backbone)
    assert near(again.frames, small.frames) and small.facts["features"] == "cache"
    for place in places:
        kept = run(dataclasses.replace(method, features="cache", cache_on=place), backbone)
        assert near(again.frames, kept.frames) and kept.facts["features_gb"] > 0


def test_a_cache_of_whole_numbers_is_smaller_and_edits_nearly_the_same(backbone):
    method = dataclasses.replace(freemask(Fixed(), **ATTENTION, windows=ALL_THE_WAY), features="cache")
    whole = run(method, backbone)
    packed = run(dataclasses.replace(method, cache_as="int8"), backbone)
    assert 0 < packed.facts["features_gb"] < 0.6 * whole.facts["features_gb"]
    assert 0 < float((packed.frames - whole.frames).abs().max()) < 0.02


def test_a_cache_that_is_too_small_says_so(backbone):
    method = dataclasses.replace(freemask(Fixed()), features="cache", budget_gb=1e-6)
    with pytest.raises(UserError, match="do not fit"):
        run(method, backbone)


def test_a_stored_inversion_changes_nothing_and_serves_every_method(backbone, plain, tmp_path):
    kept = dataclasses.replace(freemask(Fixed()), inversions=str(tmp_path))
    fresh, first, second = (run(each, backbone) for each in (freemask(Fixed()), kept, kept))
    assert torch.equal(fresh.frames, first.frames) and torch.equal(first.frames, second.frames)
    assert (first.facts["inversion_passes"], second.facts["inversion_passes"]) == (STEPS, 0)
    files = len(list(tmp_path.rglob("*.safetensors")))
    stored = run(Ddim(steps=STEPS, guidance=2.0, inversions=str(tmp_path)), backbone)
    assert torch.equal(stored.frames, plain)
    assert len(list(tmp_path.rglob("*.safetensors"))) == files > 0


class Counting:
    """A network that counts what it is asked."""

    def __init__(self, backbone):
        self.backbone, self.calls = backbone, []

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def predict(self, x, t, given, *, taps=None):
        self.calls.append("".join(stream[0] for stream in given))
        return self.backbone.predict(x, t, given, taps=taps)


def test_small_features_serve_the_next_edit_of_the_clip_and_change_no_bit_of_it(backbone, tmp_path):
    """The inversion is stored as a rule, and its features are not: the network runs over it again, or need not."""
    method = dataclasses.replace(freemask(Fixed(), **ATTENTION), inversions=str(tmp_path))
    less, more = (dataclasses.replace(method, fusion=Fusion(**only(**parts))) for parts in LESS_AND_MORE)
    edits = ["u" + "c"] * STEPS
    runs = {}

    def asked(name, one, network, footage=None):
        network.calls.clear()
        runs[name] = run(one, network, footage=footage)
        assert runs[name].facts["features"] == "cache"
        return network.calls

    first = Counting(backbone)
    assert asked("made", method, first) == ["s"] * STEPS + edits
    assert asked("kept", method, first) == edits  # neither inverted nor walked over
    assert asked("walked", method, Counting(backbone)) == ["s"] * STEPS + edits  # another process
    assert torch.equal(runs["made"].frames, runs["kept"].frames)
    assert torch.equal(runs["made"].frames, runs["walked"].frames)
    assert asked("less", less, first) == edits  # all that it wants is there
    assert asked("other", less, first, clip(2, 8, 12)) == ["s"] * STEPS + edits
    assert asked("less again", less, first) == ["s"] * STEPS + edits  # one clip's at a time
    assert asked("more", more, first) == ["s"] * STEPS + edits
    assert torch.equal(runs["less"].frames, runs["less again"].frames)


LESS_AND_MORE = ({"self": "plain"}, {"self": "plain", "temporal": "plain"})


def test_an_edit_keeps_its_features_while_another_clip_s_are_put_on_the_shelf(backbone):
    method = freemask(**ATTENTION)
    with method.begin(backbone, clip(), TASK) as one:
        with method.begin(backbone, clip(2, 8, 12), TASK) as other:
            assert one.cache is not None and other.cache is not None and one.cache is not other.cache
        made = sampled(one, silent)
    assert torch.equal(made.frames, run(method, backbone).frames)


def test_features_go_with_their_edit_once_another_clip_s_are_put_on_the_shelf(backbone):
    """At once: nothing that holds them waits for a look for cycles."""
    gc.disable()
    try:
        with freemask(**ATTENTION).begin(backbone, clip(), TASK) as editing:
            features = weakref.ref(editing.cache)
            sampled(editing, silent)
        del editing
        assert features() is not None
        run(freemask(**ATTENTION), backbone, footage=clip(2, 8, 12))
        assert features() is None
    finally:
        gc.enable()


def test_features_that_are_not_small_are_made_again(backbone, monkeypatch):
    monkeypatch.setattr(lent, "AUTO_GB", 1e-6)
    network, method = Counting(backbone), freemask(**only(temporal="plain"), windows=ALL_THE_WAY)
    made = run(method, network)
    assert made.facts["features"] == "recompute" and network.calls == ["s"] * STEPS + ["suc"] * STEPS
    assert torch.equal(made.frames, run(dataclasses.replace(method, features="recompute"), backbone).frames)


def test_no_fusion_and_no_mask_is_ddim(backbone, plain):
    made = run(InvertFuse(steps=STEPS, guidance=2.0), backbone)
    assert near(made.frames, plain)
    assert not made.extras and isinstance(InvertFuse(), Method)


def test_masks_and_facts_come_with_the_edit(backbone):
    made = run(freemask(Fixed()), backbone)
    assert made.extras["mask"].shape == (2, 12, 20)
    assert made.extras["mask"][..., :10].min() == 1 and made.extras["mask"][..., 10:].max() == 0
    assert made.facts["side"] == "left" and made.facts["keeps_object"] is False
    assert list(made.seconds) == ["encode", "inversion", "masks", "sampling", "decoding"]


def test_the_source_branch_runs_only_while_it_is_needed(backbone):
    """Four steps, text attention for two of them: three streams there, two afterwards."""
    network = Counting(backbone)
    method = dataclasses.replace(freemask(steps=4, **only(cross="plain")), features="recompute")
    run(method, network)
    assert network.calls == ["s"] * 4 + ["suc"] * 2 + ["uc"] * 2


def test_too_long_a_prompt_and_bad_settings_are_refused(backbone):
    long = dataclasses.replace(TASK, target="a red boat " * 10)
    with pytest.raises(UserError, match="too long"):
        run(freemask(Fixed()), backbone, long)
    for settings in (
        {"features": "both"},
        {"cache_on": "moon"},
        {"cache_as": "int8"},
        {"steps": 0},
        {"guidance": -1},
    ):
        with pytest.raises(UserError):
            InvertFuse(**settings)


@pytest.mark.parametrize(("what", "kind"), [("mask", MaskStrategy), ("fusion", Fusion)])
def test_a_mask_or_fusion_that_is_none_is_refused(what, kind):
    """A raw piece of a configuration would otherwise mean: no mask, no fusion."""
    with pytest.raises(UserError, match=f"'{what}' was never made"):
        of_kind(what, {"threshold": 0.5}, kind)
    of_kind(what, getattr(InvertFuse(), what), kind)
    made = InvertFuse()
    object.__setattr__(
        made, what, {"threshold": 0.5}
    )  # past the checks of types that tests have and users have not
    with pytest.raises(UserError, match=f"'{what}' was never made"):
        made.__post_init__()


def test_one_switch_for_delta_serves_masks_and_fusion(backbone):
    """Eq. 7: the mask's time and the masks that vanish go together."""
    for keeps in (True, False):
        method = dataclasses.replace(freemask(Fixed()), keep_object=keeps)
        with method.begin(backbone, clip(), TASK) as editing:
            assert editing.subject.keeps_object is keeps and bool(editing.policies.vanish) is keeps
        assert run(method, backbone).facts["keeps_object"] is keeps


def test_a_finer_inversion_than_sampling(backbone):
    """The source beside the edit is that of the finer path, at the times of sampling; the same from a cache."""
    method = dataclasses.replace(freemask(Fixed(), **ATTENTION), inversion_steps=4)
    with method.begin(backbone, clip(), TASK) as editing:
        assert len(editing.inversion.times) == 4 and len(editing.subject.times) == STEPS
        t = editing.subject.times[0]
        assert torch.equal(editing.lender.input_at(t), editing.inversion.latents[0])
    made = run(method, backbone)
    assert near(made.frames, run(dataclasses.replace(method, features="cache"), backbone).frames)
    assert not near(made.frames, run(freemask(Fixed(), **ATTENTION), backbone).frames, 1e-3)
    with pytest.raises(UserError, match="inversion_steps=2 or 4"):
        run(dataclasses.replace(method, inversion_steps=3), backbone)
