"""Video-P2P: against a slow one, and the authors' own."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.alignment import word_map
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.diffusion import null_text as module
from freemask.diffusion.guidance import at
from freemask.diffusion.loops import Callbacks, sample
from freemask.errors import UserError
from freemask.masks.plan import Subject, Wanted
from freemask.masks.strategies.segmentation import Segmentation
from freemask.methods import in_turn as turns_of
from freemask.methods.common import Stopwatch
from freemask.methods.null_text_p2p import UNTUNED, NullTextP2P
from freemask.types import Clip, Edit, EditTask, Grid, LocalEdit, silent
from tests.given import Half
from tests.official import compare as command
from tests.official.case import Case
from tests.official.ledger import FORCED
from tests.written_p2p import Limits, null_text
from tests.written_video_p2p import VideoControl, VideoNetwork, edited

SOURCE = "a red car on grass"
STEPS, INNER, GUIDANCE, FRAMES = 5, 2, 2.0, 2
LIMITS = Limits(INNER, 0.01, 0.01)
CLOSE = 1e-9
SHAPE = EditTask("t", "c", SOURCE, "a red boat on grass", {"car": "boat"}, "shape")
ADDED = EditTask("t", "c", SOURCE, "a wild red car on grass", {"car": "wild red car"}, "attribute")
STYLE = EditTask("t", "c", SOURCE, "watercolor of a red car on grass", {}, "style")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A network with temporal layers, whose frames look at the first one."""
    rng, weights = torch.Generator().manual_seed(3), {}
    for name, part in tiny.parts(0, torch.float64, "epsilon", 20, image=True).unet.named_modules():
        if name.endswith("transformer_blocks.0"):
            width = part.attn1.query_dim
            shapes = {
                f"attn_temporal.{key}.weight": (width, width) for key in ("to_q", "to_k", "to_v", "to_out.0")
            }
            shapes |= {"attn_temporal.to_out.0.bias": (width,), "norm_temporal.weight": (width,)}
            shapes |= {"norm_temporal.bias": (width,)}
            weights |= {f"{name}.{key}": torch.randn(shape, generator=rng) for key, shape in shapes.items()}
    file = tmp_path_factory.mktemp("tuned") / "temporal.safetensors"
    save_file(weights, file)
    return network(temporal=file)


def network(**more):
    usual = {"dtype": "float64", "attention": ["first"], "least_channels": 0}
    return Inflated2D.random(0, max_tokens=20, **(usual | more))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Found texts are kept here, for they do not depend on what is edited."""
    return tmp_path_factory.mktemp("inversions")


@pytest.fixture(autouse=True)
def loose(monkeypatch):
    monkeypatch.setattr(module, "ENOUGH", LIMITS.enough)
    monkeypatch.setattr(module, "MORE", LIMITS.more)


def latents():
    return torch.randn(FRAMES, 4, 12, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def video_p2p(*overrides, steps=STEPS) -> NullTextP2P:
    lines = ["method=video_p2p", "model=random_image", f"method.steps={steps}", "method.inversions=null"]
    lines += [f"method.guidance={GUIDANCE}", f"method.inner={INNER}", *overrides]
    return build(plain(config_of("edit", lines))["method"], "method")


def begun(method, backbone, task):
    """The reconstruction, and the edit before its first step."""
    clip, watch = Clip("c", torch.zeros(FRAMES, 3, 24, 32)), Stopwatch(backbone.device)
    subject = Subject.of(backbone, clip, task, backbone.noise_path.times(method.steps))
    nulls = method.nulls(backbone, latents(), subject, watch, silent)
    return nulls, method.editing(backbone, subject, nulls, watch, silent)


def steps_of(editing, nulls, see=lambda t: None):
    """Latents after each step, blended."""
    found = []

    def after(x, i, t):
        changed = editing.after(x, i, t)
        found.append(x if changed is None else changed)
        see(t)
        return changed

    noise = nulls.path.latents[-1]
    sample(editing.backbone, noise, editing.predict, editing.subject.times, on=Callbacks(after=after))
    return found


def apart(ours, theirs) -> float:
    return float((ours - theirs).abs().max())


# --- against the written-out one -------------------------------------------------------------------------------

# task, overrides; words of the mask, weights, threshold; steps of text and temporal attention
EDITS = {
    "replace": (
        SHAPE,
        ["fusion.reweight={boat: 3}", "fusion.windows.shape={cross: .5, temporal: .4}"],
        ((("car",), ("boat",)), {"boat": 3}, 0.98),
        (3, 2),
    ),
    "refine, several weights": (
        ADDED,
        ["fusion.reweight={wild: 5, grass: 2}", "fusion.windows.attribute={cross: .2, temporal: .8}"],
        ((("car",), ("wild", "red", "car")), {"wild": 5, "grass": 2}, 0.995),
        (1, 4),
    ),
    "fast": (
        SHAPE,
        [
            "method.source_guidance=1",
            "fusion.control=refine",
            "fusion.windows.shape={cross: .7, temporal: 1}",
        ],
        ((("car",), ("boat",)), {}, 0.98),
        (4, 5),
    ),
    "whole frames": (STYLE, ["fusion.windows.style={cross: 1, temporal: 0}"], (None, {}, 0.3), (5, 0)),
}


def control(backbone, name) -> VideoControl:
    task, overrides, (words, weights, threshold), (cross_end, temporal_end) = EDITS[name]
    source, target = backbone.embed(task.source), backbone.embed(task.target)
    kind = "refine" if "fusion.control=refine" in overrides else "replace"
    table = word_map(source, target, control=kind, official=True)
    factors = torch.ones(len(table.own))
    for word, weight in weights.items():
        factors[list(target.columns[word])] = weight
    columns = words and tuple(
        [column for word in each for column in text.columns[word]]
        for each, text in zip(words, (source, target), strict=True)
    )
    tables = (each.double() for each in (table.matrix, table.own, factors))
    return VideoControl(*tables, cross_end, temporal_end, columns, int(0.2 * STEPS), threshold, most=48)


@pytest.fixture(scope="module")
def written(tuned):
    """The network, the levels of the inversion, and the texts by step."""
    net = VideoNetwork(tuned, tuned.noise_path, STEPS, GUIDANCE)
    source, empty = (tuned.embed(prompt).tokens[None] for prompt in (SOURCE, ""))
    with torch.no_grad():
        levels = net.inverted(latents(), source)
    texts, _, counts = null_text(net, levels, source, empty, LIMITS)
    assert set(counts) == {1, INNER}
    return net, levels[-1], [text[0] for text in texts]


@pytest.mark.parametrize("name", EDITS)
def test_every_step_and_mask_is_that_of_the_written_out_edit(tuned, written, store, name):
    task, overrides, (words, _, threshold), _ = EDITS[name]
    masks = [] if words is None else ["mask.strides=[4]", f"mask.threshold=[{threshold},{threshold}]"]
    method = dataclasses.replace(video_p2p(*overrides, *masks), inversions=str(store))
    nulls, editing = begun(method, tuned, task)
    seen, known, (net, noise, found) = [], control(tuned, name), written
    ours = steps_of(editing, nulls, lambda t: seen.append(masks_of(editing, t)))
    texts = {"source": SOURCE, "target": task.target, "empty": ""}
    texts = {stream: tuned.embed(prompt).tokens for stream, prompt in texts.items()}
    theirs = edited(net, noise, texts, None if name == "fast" else found, known)
    for i, (source, target) in enumerate(theirs):
        assert apart(nulls.path.latents[STEPS - 1 - i], source) < CLOSE, i
        assert apart(ours[i], target) < CLOSE, i
    assert len(known.masks) == (STEPS - 1 if words else 0)
    for (soft, mask), *wanted in zip(seen[1:], known.softs, known.masks, strict=bool(words)):
        assert apart(soft, wanted[0].amax(0)) < CLOSE and torch.equal(mask, wanted[1].float())
        assert 0 < float(mask.mean()) < 1


def masks_of(editing, t):
    """Values and the mask that latents are blended with."""
    wanted = Wanted("latent", t, Grid(FRAMES, 12, 16))
    return None if editing.masks is None else (editing.masks.soft(wanted), editing.masks(wanted))


# --- what it promises ------------------------------------------------------------------------------------------


def test_the_windows_of_the_authors_code_at_fifty_steps(tuned):
    subject = Subject.of(tuned, Clip("c", torch.zeros(2, 3, 24, 32)), SHAPE, tuned.noise_path.times(50))
    for override, cross in (("fusion.reweight={boat: 2}", 10), ("fusion.windows.shape.cross=.4", 20)):
        policies = video_p2p(override, steps=50).fusion.policies(subject, masks=True)
        steps = {
            part: [i for i in range(50) if policy.awake(i)] for part, policy in policies.attention.items()
        }
        assert steps == {"temporal": [*range(25)], "cross": [*range(cross)]}
        assert policies.latent.window == (10, 50) and not policies.latent.late
        # a word is weighed in the same steps in which the source's map stands in
        act = policies.attention["cross"]
        taken, own = act._weights(cross, len(act.words.own))
        assert not taken.any() and torch.equal(own, torch.ones_like(own))


@pytest.mark.parametrize("decoupled", [True, False])
def test_found_texts_guide_the_reconstruction_and_the_edit_only_if_coupled(tuned, store, decoupled):
    method = dataclasses.replace(video_p2p("mask=none"), decoupled=decoupled, inversions=str(store))
    nulls, editing = begun(method, tuned, SHAPE)
    for t in editing.subject.times:
        text, found = (at(each, t).parts["text"] for each in (editing.uncond, nulls.uncond))
        assert torch.equal(text, tuned.embed("").tokens if decoupled else found)
        assert not torch.equal(found, tuned.embed("").tokens)


def test_the_fast_mode_asks_the_network_once_a_step_and_looks_for_nothing(tuned):
    nulls, _ = begun(video_p2p("method.source_guidance=1", "mask=none"), tuned, SHAPE)
    assert nulls.path.passes == STEPS
    assert all(torch.equal(each.parts["text"], tuned.embed("").tokens) for each in nulls.uncond.values())


def test_masks_of_any_strategy_hold_the_reconstruction_outside(tuned, store):
    method = dataclasses.replace(video_p2p(), mask=Half(), inversions=str(store))
    nulls, editing = begun(method, tuned, SHAPE)
    edited_clip, own = steps_of(editing, nulls)[-1], nulls.path.latents[0]
    assert torch.equal(edited_clip[..., 8:], own[..., 8:])
    assert apart(edited_clip[..., :8], own[..., :8]) > 1e-3


def test_a_model_that_is_not_tuned_is_pointed_out(tuned):
    method, clip = video_p2p("method.source_guidance=1", steps=1), Clip("c", torch.rand(2, 3, 16, 24))
    for backbone, said in ((tuned, []), (network(), [UNTUNED])):
        edit = method(backbone, clip, SHAPE, torch.Generator())
        assert [each for each in edit.warnings if "fusion" in each and "mask" not in each] == said
    off = dataclasses.replace(method, fusion=dataclasses.replace(method.fusion, temporal="off"))
    assert UNTUNED not in off(network(), clip, SHAPE, torch.Generator()).warnings


def test_a_word_that_is_passed_over_is_pointed_out(tuned):
    method = video_p2p("method.source_guidance=1", "fusion.reweight={boat: 2, Boat: 3}", steps=1)
    edit = method(tuned, Clip("c", torch.rand(2, 3, 16, 24)), SHAPE, torch.Generator())
    assert [each for each in edit.warnings if "passes over" in each and ": Boat (" in each]


def test_choosing_the_method_brings_a_model_whose_frames_look_at_the_first():
    config = plain(config_of("edit", ["method=video_p2p"]))
    told = config["model"]["path"], config["model"]["attention"], config["model"]["least_channels"]
    assert told == ("embedded_image", ["first"], 0) and config["model"]["shared_norm"]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="source_guidance"):
        NullTextP2P(source_guidance=-1)
    with pytest.raises(UserError, match="learns less"):
        NullTextP2P(steps=101)
    assert NullTextP2P(steps=101, source_guidance=1).steps == 101


# --- the authors' own ------------------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("name", ["vp2p_base", "vp2p_full"])
def test_the_authors_cases(shared, name):
    ledger = command.compare(Case.read(shared / "parity" / "golden" / f"{name}.json"))
    assert ledger.passed, ledger.table()
    assert ("edit: attention after", FORCED) in ledger.found
    assert (("edit: soft masks", FORCED) in ledger.found) == (name == "vp2p_full")


# --- several edits -----------------------------------------------------------------------------------------------


TWO = EditTask(
    "t", "c", "a red car and an orange Ball at night", "an orange truck and a ball on snow",
    {"red car": "orange truck", "orange ball": "ball", "night": "snow"}, "shape",
    edits=(
        LocalEdit({"red car": "orange truck"}, "shape"),
        LocalEdit({"orange ball": "ball"}, "attribute"),
        LocalEdit({"night": "snow"}, "background"),
    ),
)  # fmt: skip


def test_edits_in_turn_begin_with_what_the_last_has_made():
    prompts = [(each.source, each.target, each.kind, each.edits) for each in turns_of.steps_of(TWO)]
    first, second = "an orange truck and an orange Ball at night", "an orange truck and a ball at night"
    assert prompts == [
        (TWO.source, first, "shape", ()),
        (first, second, "attribute", ()),
        (second, TWO.target, "background", ()),
    ]
    assert turns_of.with_words("A dog on the dogged grass", {"dog": ""}) == "on the dogged grass"
    swapped = turns_of.with_words("a car behind an Apple car", {"car": "truck", "apple car": "car"})
    assert swapped == "a truck behind a car"
    seen = []

    def edit(clip, task):
        seen.append(float(clip.frames[0, 0, 0, 0]))
        frames, mask = clip.frames / 2, torch.zeros(len(clip.frames), 2, 2)
        mask[:, len(seen) % 2] = 1
        return Edit(frames, {"mask": mask}, {"sampling": 2.0}, [f"of {task.kind}"], {"lost": len(seen)})

    made = turns_of.in_turn(edit, Clip("c", torch.ones(2, 3, 2, 2)), TWO)
    assert seen == [1, 0.5, 0.25] and float(made.frames.max()) == 0.125
    assert set(made.extras) == {"after edit 1", "after edit 2", "mask"} and made.extras["mask"].min() == 1
    assert float(made.extras["after edit 2"].max()) == 0.25 and made.seconds == {"sampling": 6.0}
    assert made.warnings == ["edit 1: of shape", "edit 2: of attribute", "edit 3: of background"]
    assert made.facts == {"lost": "1 | 2 | 3", "edits_in_turn": 3}


def test_video_p2p_does_several_edits_at_once_or_in_turn():
    frames = torch.rand(FRAMES, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    masks = {name: torch.zeros(FRAMES, 8, 8, dtype=torch.bool) for name in ("red car", "orange ball")}
    masks["red car"][..., :4], masks["orange ball"][..., 4:] = True, True
    task = dataclasses.replace(TWO, target="an orange truck and a ball at night", edits=TWO.edits[:2])
    clip, rng = Clip("c", frames, masks), torch.Generator()
    wide = Inflated2D.random(0, dtype="float64", max_tokens=40, attention=["first"], least_channels=0)
    usual = {"steps": 2, "inner": 1, "shared": True, "mask": Segmentation()}
    at_once, turns = (NullTextP2P(**usual, in_turn=each)(wide, clip, task, rng) for each in (None, True))
    assert "edits_in_turn" not in at_once.facts and turns.facts["edits_in_turn"] == 2
    assert float((at_once.frames - turns.frames).abs().max()) > 1e-3
    method = NullTextP2P(**usual)
    first, second = turns_of.steps_of(task)
    half = method(wide, clip, first, rng)
    torch.testing.assert_close(turns.extras["after edit 1"], half.frames)
    whole = method(wide, dataclasses.replace(clip, frames=half.frames), second, rng)
    torch.testing.assert_close(turns.frames, whole.frames)
