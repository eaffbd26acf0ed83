"""Null-text inversion, and prompt-to-prompt on it frame by frame: against written-out ones, and the authors' own."""

import dataclasses

import pytest
import torch

from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.alignment import word_map
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.diffusion import null_text as module
from freemask.diffusion.inversions import Inversion
from freemask.diffusion.loops import Callbacks, invert, sample
from freemask.diffusion.null_text import Nulls, NullText, null_text
from freemask.errors import UserError
from freemask.masks.plan import Subject, Wanted
from freemask.methods.common import Stopwatch
from freemask.methods.null_text_p2p import TOGETHER, NullTextP2P
from freemask.types import Clip, EditTask, Grid, silent
from tests.official import compare as command
from tests.official.case import Case
from tests.official.ledger import FORCED
from tests.written_p2p import Control, Limits, Network, edited
from tests.written_p2p import null_text as written_null_text

SOURCE = "a red car on grass"
STEPS, INNER, GUIDANCE, FRAMES = 5, 2, 2.0, 2
LIMITS = Limits(INNER, 0.06, 0.1)  # on a random network: one frame stops at once where the other goes on
CLOSE = 1e-9


def random_network(**more):
    usual = {"dtype": "float64", "attention": "frame", "shared_norm": False}
    return Inflated2D.random(0, max_tokens=20, **(usual | more))


@pytest.fixture(scope="module")
def backbone():
    return random_network()


@pytest.fixture
def loose(monkeypatch):
    monkeypatch.setattr(module, "ENOUGH", LIMITS.enough)
    monkeypatch.setattr(module, "MORE", LIMITS.more)


def latents(frames=FRAMES):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(frames, 4, 16, 16, generator=rng, dtype=torch.float64)


@pytest.fixture(scope="module")
def net(backbone):
    unet = tiny.parts(0, torch.float64, "epsilon", 20, image=True).unet.eval().requires_grad_(False)
    return Network(unet, backbone.noise_path, STEPS, GUIDANCE)


@pytest.fixture(scope="module")
def written(net, backbone):
    """Of each frame as a picture of its own."""
    source, empty = (backbone.embed(prompt).tokens[None] for prompt in (SOURCE, ""))
    levels = [net.inverted(frame[None], source) for frame in latents()]
    return levels, [written_null_text(net, each, source, empty, LIMITS) for each in levels]


def made(backbone, options, x=None, steps=STEPS):
    x, source = latents() if x is None else x, backbone.embed(SOURCE)
    with torch.no_grad():
        known = Inversion(invert(backbone, x, source, steps), backbone.noise_path.times(steps))
    return null_text(backbone, known, source, options)


def texts_of(nulls: Nulls) -> list:
    """By step."""
    return [nulls.uncond[t].parts["text"] for t in reversed(nulls.path.times)]


def apart(ours, theirs) -> float:
    return float((ours - theirs).abs().max())


# --- against the written-out ones ------------------------------------------------------------------------------


def test_each_frame_has_the_texts_and_the_way_of_a_picture_of_its_own(backbone, written, loose):
    nulls = made(backbone, NullText(GUIDANCE, INNER))
    counts = [found[2] for found in written[1]]
    assert counts[0] != counts[1] and all(set(each) == {1, INNER} for each in counts), counts
    for frame, (texts, path, _) in enumerate(written[1]):
        for i, text in enumerate(texts_of(nulls)):
            assert apart(text[frame], texts[i][0]) < CLOSE
        for ours, theirs in zip(reversed(nulls.path.latents), path, strict=True):
            assert apart(ours[frame], theirs[0]) < CLOSE


def test_one_text_for_all_frames(backbone, net, loose):
    source, empty = (backbone.embed(prompt).tokens[None] for prompt in (SOURCE, ""))
    levels = net.inverted(latents(), source.expand(FRAMES, -1, -1))
    texts, path, counts = written_null_text(net, levels, source, empty, LIMITS)
    nulls = made(backbone, NullText(GUIDANCE, INNER, shared=True))
    assert set(counts) == {1, INNER}
    assert all(apart(ours, theirs[0]) < CLOSE for ours, theirs in zip(texts_of(nulls), texts, strict=True))
    assert apart(nulls.path.latents[0], path[-1]) < CLOSE


def p2p(*overrides, steps=STEPS) -> NullTextP2P:
    lines = ["method=null_text_p2p", "model=random_image", f"method.steps={steps}", "method.inversions=null"]
    lines += [f"method.guidance={GUIDANCE}", f"method.inner={INNER}", *overrides]
    return build(plain(config_of("edit", lines))["method"], "method")


SHAPE = EditTask("t", "c", SOURCE, "a red boat on grass", {"car": "boat"}, "shape")
ADDED = EditTask("t", "c", SOURCE, "a wild red car on grass", {"car": "wild red car"}, "attribute")
EDITS = {
    "replace": (SHAPE, ["fusion.reweight={boat: 3}", "task.kind=shape"], (("car",), ("boat",)), {"boat": 3}),
    "refine": (
        ADDED,
        [
            "fusion.control=refine",
            "fusion.reweight={wild: 5}",
            "fusion.windows.attribute={cross: .5, self: .3}",
        ],
        (("car",), ("wild", "red", "car")),
        {"wild": 5},
    ),
}


def control(backbone, name, threshold) -> Control:
    task, _, words, weights = EDITS[name]
    source, target = backbone.embed(task.source), backbone.embed(task.target)
    table = word_map(source, target, control="replace" if name == "replace" else "refine", official=True)
    factors = torch.ones(len(table.own))
    for word, weight in weights.items():
        factors[list(target.columns[word])] = weight
    columns = [
        [column for word in each for column in text.columns[word]]
        for each, text in zip(words, (source, target), strict=True)
    ]
    return Control(
        *(each.double() for each in (table.matrix, table.own, factors)),
        cross_end=int(0.5 * (STEPS + 1)),
        self_end=int((0.5 if name == "replace" else 0.3) * STEPS),
        queries=64,
        blend=(columns[0], columns[1]),
        blend_begin=int(0.2 * STEPS),
        threshold=threshold,
    )


@pytest.mark.parametrize(("name", "threshold"), [("replace", 0.95), ("refine", 0.98)])
def test_every_step_and_mask_is_that_of_the_written_out_edit(backbone, net, written, loose, name, threshold):
    task, overrides, *_ = EDITS[name]
    small = ["fusion.most_queries=64", "mask.strides=[4]", f"mask.threshold=[{threshold},{threshold}]"]
    method = p2p(*overrides, *small)
    clip, watch = Clip("c", torch.zeros(FRAMES, 3, 32, 32)), Stopwatch(backbone.device)
    subject = Subject.of(backbone, clip, task, backbone.noise_path.times(STEPS))
    nulls = method.nulls(backbone, latents(), subject, watch, silent)
    editing = method.editing(backbone, subject, nulls, watch, silent)
    steps, masks = [], []

    def after(x, i, t):
        changed = editing.after(x, i, t)
        steps.append(x if changed is None else changed)
        masks.append(editing.masks(Wanted("latent", t, Grid(FRAMES, 16, 16))))
        return changed

    sample(backbone, nulls.path.latents[-1], editing.predict, subject.times, on=Callbacks(after=after))
    texts = torch.stack([subject.source.tokens, subject.target.tokens])
    shares = []
    for frame, (levels, (found, *_)) in enumerate(zip(*written, strict=True)):
        known = control(backbone, name, threshold)
        theirs = edited(net, levels[-1], found, texts, known)
        for i, (ours, (source, target)) in enumerate(zip(steps, theirs, strict=True)):
            assert apart(ours[frame], target) < CLOSE, (frame, i)
            assert apart(nulls.path.latents[STEPS - 1 - i][frame], source) < CLOSE, (frame, i)
        for ours, mask in zip(masks[1:], known.masks, strict=True):
            assert torch.equal(ours[frame], mask.float())
            shares.append(float(mask.mean()))
    assert 0 < min(shares) < 1 and len(set(shares)) > 1, shares


# --- what it promises ------------------------------------------------------------------------------------------


def test_frames_do_not_touch_each_other(backbone, loose):
    together = made(backbone, NullText(GUIDANCE, INNER), latents(3), steps=3)
    for frame in range(3):
        alone = made(backbone, NullText(GUIDANCE, INNER), latents(3)[frame : frame + 1], steps=3)
        assert apart(together.path.latents[0][frame], alone.path.latents[0][0]) < CLOSE


def test_the_texts_lead_nearer_to_the_inversion(backbone):
    def missed(inner):
        back = made(backbone, NullText(GUIDANCE, inner), steps=2).path.latents[0]
        return float((back - latents()).square().mean())

    assert missed(8) < 0.95 * missed(0)


def test_it_works_where_gradients_are_off_and_leaves_no_trace_where_weights_have_them(backbone):
    expected = made(backbone, NullText(GUIDANCE, 1), steps=2).path.latents[0]
    with torch.no_grad():
        assert torch.equal(made(backbone, NullText(GUIDANCE, 1), steps=2).path.latents[0], expected)
        assert not torch.is_grad_enabled()
    with backbone.tuned(["*.to_q.weight"]) as tuning:
        found = made(backbone, NullText(GUIDANCE, 1), steps=2)
        assert all(weight.grad is None and weight.requires_grad for weight in tuning.weights.values())
        assert not any(each.requires_grad for each in [*found.path.latents, *texts_of(found)])
    assert torch.equal(found.path.latents[0], expected)


def test_a_network_in_half_precision_has_texts_in_single():
    for shared in (False, True):
        half = random_network(dtype="bfloat16")
        found = made(half, NullText(GUIDANCE, INNER, shared), latents().float(), steps=2)
        assert all(text.dtype == torch.float32 and text.isfinite().all() for text in texts_of(found))
        assert not torch.equal(*texts_of(found))


def test_progress_and_how_often_the_network_was_asked(backbone):
    told, source = [], backbone.embed(SOURCE)
    known = Inversion(invert(backbone, latents(), source, 2), backbone.noise_path.times(2))
    found = null_text(
        backbone, known, source, NullText(GUIDANCE, 3), progress=lambda *each: told.append(each)
    )
    assert told == [("null text", done, 2) for done in range(3)]
    assert found.path.passes == 2 * (1 + 3 + 1)


def test_at_guidance_one_nothing_is_looked_for(backbone):
    found = made(backbone, NullText(1, INNER), steps=2)
    assert torch.equal(texts_of(found)[-1][0], backbone.embed("").tokens)


def test_numbers_that_a_precision_cannot_hold_are_refused(backbone):
    broken = latents()
    broken[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="precision"):
        made(backbone, NullText(GUIDANCE, 1), broken, steps=2)


# --- the method ------------------------------------------------------------------------------------------------


def clip(frames=2, height=16, width=24):
    rng = torch.Generator().manual_seed(0)
    return Clip("c", torch.rand(frames, 3, height, width, generator=rng))


def run(method, backbone, task=SHAPE, footage=None):
    return method(backbone, footage or clip(), task, torch.Generator().manual_seed(0))


class Counting:
    def __init__(self, inner):
        self.inner, self.calls = inner, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def predict(self, *args, **kwargs):
        self.calls += 1
        return self.inner.predict(*args, **kwargs)


def test_found_texts_are_kept_for_other_prompts_but_not_for_other_settings(backbone, tmp_path):
    method = dataclasses.replace(p2p(steps=2), inversions=str(tmp_path))
    counting = Counting(backbone)
    first = run(method, counting)
    searched, counting.calls = counting.calls, 0
    again = run(method, counting)
    assert torch.equal(first.frames, again.frames) and "null text" not in again.seconds
    assert counting.calls < searched and again.facts["null_text_error"] == first.facts["null_text_error"]
    assert "null text" not in run(method, backbone, ADDED).seconds
    for more in ({"inner": 1}, {"guidance": 3.0}):
        assert "null text" in run(dataclasses.replace(method, **more), backbone).seconds


def test_styles_are_blended_nowhere_and_objects_where_the_words_are(backbone):
    style = EditTask("t", "c", SOURCE, "watercolor of a red car on grass", {}, "style")
    assert "mask" not in run(p2p(steps=2), backbone, style).extras
    assert run(p2p(steps=2), backbone).extras["mask"].shape == (2, 16, 24)
    assert "mask" not in run(p2p("mask=none", steps=2), backbone).extras


def test_choosing_the_method_brings_a_model_that_sees_each_frame_alone():
    config = plain(config_of("edit", ["method=null_text_p2p"]))
    assert config["model"]["path"] == "embedded_image"
    assert (config["model"]["attention"], config["model"]["shared_norm"]) == ("frame", False)
    config = plain(config_of("edit", ["method=null_text_p2p", "model=sd15", "model.attention=middle"]))
    assert (config["model"]["attention"], config["model"]["shared_norm"]) == ("middle", False)


def test_frames_that_see_each_other_are_pointed_out(backbone):
    method = p2p(steps=1)
    assert TOGETHER not in run(method, backbone).warnings
    assert TOGETHER in run(method, random_network(attention="middle", least_channels=0)).warnings


@pytest.mark.parametrize("wrong", [{"steps": 101}, {"steps": 0}, {"inner": -1}, {"guidance": -1}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError):
        NullTextP2P(**wrong)


def test_a_word_that_is_not_there_is_refused_before_the_long_part(backbone):
    counting = Counting(backbone)
    with pytest.raises(UserError, match="truck"):
        run(p2p(steps=2), counting, dataclasses.replace(SHAPE, words={"truck": "boat"}))
    assert counting.calls == 0


# --- the authors' own ------------------------------------------------------------------------------------------


def golden(shared, name):
    return Case.read(shared / "parity" / "golden" / f"{name}.json")


@pytest.mark.parity
def test_the_first_step_of_the_authors_null_text_inversion(shared):
    ledger = command.compare(golden(shared, "vp2p_full"), steps=1)
    assert ledger.passed, ledger.table()
    for group in ("errors", "first gradient", "texts", "change of texts", "latents", "first guess"):
        assert (f"null text: {group}", FORCED) in ledger.found
