"""VideoGrain: attention drawn to regions against its formula written out, regions and their words, whole edits."""

from dataclasses import replace

import pytest
import torch

from freemask.attention import math, modulated
from freemask.attention.along import Along
from freemask.attention.record import Recording
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.errors import UserError
from freemask.masks.plan import Keeps, MaskPlan, Subject, Wanted
from freemask.masks.several import keeps_of, plan_of, plans_of, subjects
from freemask.masks.strategies.average import Average
from freemask.masks.strategies.none import NoMask
from freemask.masks.strategies.segmentation import Segmentation
from freemask.methods.common import Stopwatch
from freemask.methods.ddim import Ddim
from freemask.methods.regional import Layout, Phrases, phrases_of, spliced
from freemask.methods.videograin import VideoGrain
from freemask.optical.sources import Exact
from freemask.types import QKV, Clip, EditTask, Grid, LocalEdit
from tests.given import Half, seeded
from tests.test_bias import Largest
from tests.test_trajectories import flow_of

TWO = (LocalEdit({"red car": "green truck"}, "shape"), LocalEdit({"blue car": "pink fish"}, "shape"))
TASK = EditTask(
    "t", "c", "a red car and a blue car", "a green truck and a pink fish",
    {"red car": "green truck", "blue car": "pink fish"}, "shape", edits=TWO,
)  # fmt: skip
FRAMES = 3


class Sides:
    """The left part of a frame for the first edit, the right part for the second: so much of the width each."""

    def __init__(self, share=0.5, empty=()):
        self.share, self.empty = share, empty

    def keeps(self, subject):
        return Keeps()

    def plan(self, subject, source, target):
        left = "red car" in subject.task.words

        def mask(wanted):
            made, width = torch.zeros(tuple(wanted.grid)), round(self.share * wanted.grid.width)
            made[..., :width] = 1
            made = made if left else made.flip(-1)
            made[list(self.empty)] = 0
            return made

        return MaskPlan(mask, {"side": "left" if left else "right", "both": 1})


def clip(frames=FRAMES):
    return Clip("c", torch.rand(frames, 3, 8, 12, generator=seeded(0)), flow=flow_of(frames, 8, 12, seed=0))


@pytest.fixture(scope="module")
def backbone():
    return Inflated2D.random(0, dtype="float64", max_tokens=40, attention="all", least_channels=0)


def edit(backbone, task=TASK, source=None, **settings):
    settings = {"steps": 2, "drawn": 0.5, "mask": Sides(), **settings}
    return VideoGrain(**settings)(backbone, clip() if source is None else source, task, seeded(0))


# --- attention -------------------------------------------------------------------------------------------------


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written_out(qkv, queries, keys, drawn):
    """Equations 1 to 4 of the paper: what is added to each logit of a pair, then the softmax."""
    logits = torch.einsum("s b h n d, s b h m d -> s b h n m", qkv.q, qkv.k)
    same = torch.einsum("b n r, b m r -> b n m", queries, keys)[None, :, None] > 0
    up = logits.amax(-1, keepdim=True) - logits
    down = logits - logits.amin(-1, keepdim=True)
    moved = logits + drawn[None, :, None, :, None] * torch.where(same, up, -down)
    return torch.softmax(moved * qkv.scale, dim=-1) @ qkv.v


@pytest.mark.parametrize("overlapping", [False, True])
def test_drawn_attention_is_the_papers_formula(overlapping):
    qkv = QKV(random(2, 3, 2, 7, 4), random(2, 3, 2, 9, 4, seed=1), random(2, 3, 2, 9, 5, seed=2), 0.5)
    chance = 0.5 if overlapping else 0.0
    queries, keys = ((torch.rand(3, n, 3, generator=seeded(n)) < chance).double() for n in (7, 9))
    for rows in (queries, keys):  # some cells have a region of their own, the last one none
        rows[:, torch.arange(len(rows[0]) - 1), torch.arange(len(rows[0]) - 1) % 3] = 1
        rows[:, -1] = 0
    drawn = torch.rand(3, 7, generator=seeded(1), dtype=torch.float64)
    found = modulated.modulated(qkv, queries, keys, drawn)
    torch.testing.assert_close(found, written_out(qkv, queries, keys, drawn), atol=1e-12, rtol=0)
    assert float((found - math.attend(qkv)).abs().max()) > 0.1
    undrawn = modulated.modulated(qkv, queries, keys, torch.zeros_like(drawn))
    torch.testing.assert_close(undrawn, math.attend(qkv), atol=1e-12, rtol=0)


def test_keys_that_all_frames_share_are_there_once_and_no_matrix_of_pairs():
    frames, tokens, heads = 4, 64, 2
    q = random(1, frames, heads, tokens, 4)
    k, v = (
        random(1, 1, heads, frames * tokens, 4, seed=each).expand(-1, frames, -1, -1, -1) for each in (1, 2)
    )
    rows = torch.nn.functional.one_hot(torch.arange(frames * tokens) % 3, 3).double()
    queries, keys = rows.reshape(frames, tokens, 3), rows[None].expand(frames, -1, -1)
    drawn = torch.full((frames, tokens), 0.4, dtype=torch.float64)
    qkv = QKV(q, k, v, 0.5)
    with Largest() as most, pytest.MonkeyPatch.context() as patch:
        for module in (math, modulated):
            patch.setattr(module, "PIECE", 2**12)
        found = modulated.modulated(qkv, queries, keys, drawn)
    torch.testing.assert_close(found, written_out(qkv, queries, keys, drawn), atol=1e-12, rtol=0)
    pairs = (frames * tokens) ** 2 * heads
    assert most.numbers < pairs / 8, most.by


def test_weights_of_chosen_queries_are_those_that_attention_uses():
    qkv = QKV(*(random(2, 3, 2, tokens, 4, seed=tokens) for tokens in (5, 7, 7)), 0.7)
    queries, keys = ((torch.rand(3, n, 3, generator=seeded(n)) < 0.5).double() for n in (5, 7))
    drawn = torch.rand(3, 5, generator=seeded(5), dtype=torch.float64)
    for how in (None, modulated.Drawn(queries, keys, drawn)):
        whole = math.attend(qkv) if how is None else modulated.modulated(qkv, *how)
        for frame, cells in ((0, [2]), (2, [4, 0])):
            found = modulated.weights(qkv, frame, cells, how)
            assert tuple(found.shape) == (2, 2, len(cells), 7)
            torch.testing.assert_close(found @ qkv.v[:, frame], whole[:, frame, :, cells], atol=1e-12, rtol=0)


# --- regions ---------------------------------------------------------------------------------------------------


def layout(regions, *, official):
    """Of tensors `r f h w`."""
    plans = [MaskPlan(lambda wanted, each=each: each) for each in regions]
    return Layout(plans, [Phrases((), ())] * len(plans), official)


def test_how_large_a_region_is():
    regions = (torch.rand(2, FRAMES, 3, 4, generator=seeded(3)) > 0.6).float()
    grid = Grid(FRAMES, 3, 4)
    for official in (False, True):
        made = layout(regions, official=official)
        cells = made.within(1, grid).reshape(-1, 2 + (not official))
        pairs = cells @ cells.T
        count = pairs if official else (pairs > 0).float()
        of_clip = count.sum(1) / len(cells) / (FRAMES if official else 1)
        torch.testing.assert_close(made.share_of_clip(made.within(1, grid)).flatten(), of_clip)
        for frame, cells in enumerate(made.members("cross", 1, grid)):
            pairs = cells @ cells.T
            count = pairs if official else (pairs > 0).float()
            found = made.share_of_frame(made.members("cross", 1, grid))[frame]
            torch.testing.assert_close(found, count.sum(1) / len(cells))


def test_what_is_in_no_region_is_one_too_but_not_in_the_released_code():
    nothing = torch.zeros(1, FRAMES, 3, 4)
    grid = Grid(FRAMES, 3, 4)
    assert layout(nothing, official=False).within(1, grid)[..., -1].min() == 1
    assert layout(nothing, official=True).within(1, grid).max() == 0


def test_each_regions_words_are_found_and_read_by_themselves(backbone):
    target = backbone.embed(TASK.target)
    first, second = phrases_of(TASK.each, target, described=True, first=False)
    assert first.said == ("green truck",) and second.said == ("pink fish",)
    assert not set(first.columns) & set(second.columns)
    made, alone = spliced(target, [first, second], backbone), backbone.embed("pink fish")
    own = [column for column, (start, end) in enumerate(alone.spans) if start < end]
    torch.testing.assert_close(made.tokens[second.columns], alone.tokens[own])
    others = sorted(set(range(len(made.tokens))) - {*first.columns, *second.columns})
    torch.testing.assert_close(made.tokens[others], target.tokens[others])


@pytest.mark.parametrize(
    "settings, alone", [({}, False), ({"variant": "official"}, True), ({"alone": True}, True)]
)
def test_words_are_read_by_themselves_where_that_is_asked_for(backbone, settings, alone):
    method = VideoGrain(steps=2, mask=Sides(), along=[], **settings)
    subject = Subject.of(backbone, clip(), TASK, backbone.noise_path.times(2))
    grain = method.begin(backbone, subject, Along({}), seeded(0), watch=Stopwatch(backbone.device))
    assert torch.equal(grain.given["cond"].parts["text"], subject.target.tokens) != alone


@pytest.mark.parametrize("first, places", [(False, 2), (True, 1)])
def test_words_that_stand_twice_mean_every_place_or_the_first(backbone, first, places):
    task = EditTask(
        "t", "c", "a red car and a blue car", "a red truck and a blue truck", {"car": "truck"}, "shape"
    )
    (found,) = phrases_of([task], backbone.embed(task.target), described=True, first=first)
    assert len(found.places) == places


def test_two_edits_cannot_claim_the_same_words(backbone):
    edits = tuple(
        replace(each, words={old: "truck"}) for each, old in zip(TWO, ("red car", "blue car"), strict=True)
    )
    with pytest.raises(UserError, match="claim the same words"):
        phrases_of(replace(TASK, edits=edits).each, backbone.embed(TASK.target), described=False, first=False)


# --- masks of several edits --------------------------------------------------------------------------------------


def test_a_mask_for_each_edit_and_for_all_what_any_may_change(backbone):
    subject = Subject.of(backbone, clip(), TASK, [1, 501])
    wanted = Wanted("self", 1, Grid(FRAMES, 2, 4))
    left, right = plans_of(Sides(0.25), subject, Recording(), Recording())
    assert (
        left(wanted)[..., 0].min() == 1
        and right(wanted)[..., -1].min() == 1
        and left(wanted)[..., -1].max() == 0
    )
    both = plan_of(Sides(0.25), subject, Recording(), Recording())
    torch.testing.assert_close(both(wanted), left(wanted) + right(wanted))
    assert both.facts == {"side": "left | right", "both": 1}


@pytest.mark.parametrize(
    ("said", "kept"), [(None, [True, False]), (True, [True, True]), (False, [False, False])]
)
def test_each_edit_keeps_its_object_or_all_do_as_is_said(backbone, said, kept):
    task = replace(TASK, edits=(LocalEdit({"red car": "blue car"}, "attribute"), TWO[1]))
    subject = Subject.of(backbone, clip(), task, [1, 501], keep_object=said)
    assert [each.keeps_object for each in subjects(subject)] == kept


def test_the_words_of_each_edit_have_heat_of_their_own(backbone):
    subject = Subject.of(backbone, clip(), TASK, [1, 501])
    keeps = keeps_of(Average(), subject).source
    assert len({keep.name for keep in keeps}) == 2
    assert len({keep.heat.columns for keep in keeps}) == 2
    whole = Recording()
    part = whole.under("edit 2: ")
    assert part.all("heat") == {} and whole.under("x").bytes == {}


# --- whole edits -------------------------------------------------------------------------------------------------


def test_without_a_pull_and_with_a_region_of_everything_it_is_plain_editing(backbone):
    task = EditTask(
        "t", "c", "a red car", "a blue fish", {"red car": ""}, "shape"
    )  # nothing is said of the region
    made = edit(backbone, task, cross=0, within=0, along=[], mask=Half(1.0), steps=2)
    plain = Ddim(steps=2)(backbone, clip(), task, seeded(0))
    torch.testing.assert_close(made.frames, plain.frames, atol=1e-6, rtol=0)


@pytest.mark.parametrize("more", [{"within": 0.3}, {"cross": 1}, {"along": [1]}, {"inject": 1}], ids=str)
def test_each_part_acts(backbone, more):
    off = {"cross": 0, "within": 0, "along": [], "mask": Half(0.5), "steps": 2}
    made, base = (edit(backbone, **{**off, **each}).frames for each in (more, {}))
    assert float((made - base).abs().max()) > 1e-4


def test_outside_all_regions_stand_the_clips_own_latents_or_the_clip_under_noise(backbone):
    for variant in ("paper", "official"):
        method = VideoGrain(steps=4, mask=Sides(0.25), variant=variant, along=[])
        subject = Subject.of(backbone, clip(), TASK, backbone.noise_path.times(4))
        grain = method.begin(backbone, subject, Along({}), seeded(0), watch=Stopwatch(backbone.device))
        x, t = torch.zeros_like(grain.inversion.latents[0]), grain.times[2]
        found = grain.after(x, 1, t)
        outside, inside = found[..., 2:4], found[..., :1]
        assert float(inside.abs().max()) == 0
        if variant == "paper":
            torch.testing.assert_close(outside, grain.inversion.at(grain.times[1])[..., 2:4])
        else:
            signal, noise = backbone.noise_path.scales(t)  # of the level above
            left = (outside - signal * grain.outside.clean[..., 2:4]) / noise
            assert float(left.std()) == pytest.approx(1, abs=0.3)


def test_what_an_edit_says_of_its_regions(backbone):
    made = edit(backbone, mask=Sides(0.6, empty=[1]), negative="ugly")
    assert made.facts["regions"] == 2 and made.facts["drawn_steps"] == 1 and made.facts["flow"] == "exact"
    assert {"mask", "mask green truck", "mask pink fish"} <= set(made.extras)
    said = " ".join(made.warnings)
    assert "overlap" in said and "missing in 1 of 3" in said and "negative changes nothing" in said
    assert "negative" not in " ".join(edit(backbone).warnings)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("frames", [1, 3])
def test_each_variant_runs_and_leaves_the_backbone_as_it_was(backbone, variant, frames):
    source = clip(frames) if frames > 1 else replace(clip(), frames=clip().frames[:1], flow=None)
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    made = edit(backbone, variant=variant, inject=0.5, source=source)
    assert made.frames.shape == source.frames.shape and bool(made.frames.isfinite().all())
    assert all(torch.equal(value, before[name]) for name, value in backbone.network.state_dict().items())


def test_a_style_has_no_region(backbone):
    made = edit(
        backbone, EditTask("t", "c", "a red car", "a comic of a red car", {"car": "car"}, "style"), along=[]
    )
    assert made.facts["mask_used"] is False and "regions" not in made.facts and made.facts["drawn_steps"] == 0


@pytest.mark.parametrize(
    ("settings", "style", "steps", "acts"),
    [
        ({}, False, 2, "attention of regions, latents in steps 1-4 of 4"),
        ({"cross": 0, "within": 0}, False, 0, "latents in steps 1-4 of 4"),
        ({"guidance": 1, "cross": 0, "within_streams": ["uncond"]}, False, 0, "latents in steps 1-4 of 4"),
        ({}, True, 2, "attention of regions"),
    ],
)
def test_what_regions_act_on_is_what_they_did(backbone, settings, style, steps, acts):
    task = replace(TASK, edits=(TWO[0], LocalEdit({"blue car": "pink fish"}, "style"))) if style else TASK
    facts = edit(backbone, task, steps=4, along=[], **settings).facts
    assert facts["drawn_steps"] == steps and facts["mask_acts_on"] == acts and "mask_used" not in facts


def test_an_edit_that_is_watched_is_the_same_and_shows_how_attention_is_drawn(backbone):
    seen = []
    method = VideoGrain(steps=2, drawn=0.5, mask=Sides(), along=[])
    watched = method.watched(backbone, clip(), TASK, seeded(0), lambda *call: seen.append(call))
    torch.testing.assert_close(watched.frames, edit(backbone, along=[]).frames, atol=1e-12, rtol=0)
    assert len(seen) == 2 * 2 * len(backbone.sites)  # steps, streams, layers
    first = max(where.t for where, *_ in seen)
    assert {
        (where.site.role, stream)
        for where, stream, _, how in seen
        if how is not None and where.t == first and where.site.stride > 1
    } == {("cross", "cond"), ("self", "uncond"), ("self", "cond")}
    assert all(how is None for where, *_, how in seen if where.t != first or where.site.stride == 1)


def test_the_pull_fades_and_ends(backbone):
    method = VideoGrain(steps=10, mask=Sides())
    assert method.pull().steps == 3 and replace(method, steps=2).pull().steps == 1
    assert replace(method, drawn=0).pull().steps == 0
    subject = Subject.of(backbone, clip(), TASK, backbone.noise_path.times(10))
    grain = method.begin(backbone, subject, Along({}), seeded(0), watch=Stopwatch(backbone.device))
    faded = [grain.fading(t) for t in reversed(grain.times)]
    assert faded == sorted(faded, reverse=True) and faded[-1] == 0 and faded[0] == pytest.approx(0.9**5)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"mask": NoMask()}, "regions"),
        ({"cross": 2}, "0..1"),
        ({"within_streams": ["source"]}, "stream"),
        ({"steps": 0}, "steps"),
        ({"phrase": "last"}, "phrase"),
    ],
)
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(UserError, match=words):
        VideoGrain(**{"mask": Sides(), **settings})


@pytest.mark.parametrize("name", ["along", "strides"])
def test_a_level_that_the_model_has_not(backbone, name):
    with pytest.raises(UserError, match=f"{name}=.1, 3.: 3"):
        edit(backbone, **{name: [1, 3]})


def test_a_model_that_sees_several_frames_is_refused():
    with pytest.raises(UserError, match="several frames"):
        edit(UNet3D.random(0, max_tokens=20))


def test_a_folder_of_masks_is_no_region_of_several_edits(tmp_path):
    method = VideoGrain(mask=Segmentation(str(tmp_path)))
    with pytest.raises(UserError, match="the same region"):
        method.check(TASK, clip)
    with pytest.raises(UserError, match="no masks"):
        method.check(replace(TASK, edits=TWO[:1]), clip)  # goes on to look for its masks


def test_a_clip_whose_flow_nobody_knows_is_refused_before_a_model_is_there():
    source = replace(clip(), flow=None)
    with pytest.raises(UserError, match="knows how this clip moves") as caught:
        VideoGrain(mask=Sides(), flow=Exact()).check(TASK, lambda: source)
    assert "flow=raft" in str(caught.value) and "method.along=[]" in str(caught.value)
    VideoGrain(mask=Sides(), flow=Exact(), along=[]).check(TASK, lambda: source)
