"""Mask strategies: what every one of them keeps, on made-up heat, and each against a written-out version."""

import math
import re
import warnings
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from experiments.config import choices
from experiments.config.build import build
from freemask.attention.record import Recording, Words
from freemask.errors import UserError
from freemask.masks.agreement import agreed, decided
from freemask.masks.around import other_columns, other_phrases
from freemask.masks.clock import Clock
from freemask.masks.codebook import Codebook
from freemask.masks.mmc import Estimate
from freemask.masks.ops import Binarise
from freemask.masks.plan import USES, Checks, MaskStrategy, Subject, Wanted, same_object
from freemask.masks.strategies.agreement import Agreement
from freemask.masks.strategies.average import Average
from freemask.masks.strategies.layer import Layer
from freemask.masks.strategies.mmc import Mmc
from freemask.masks.strategies.official import Official
from freemask.masks.strategies.oracle import Oracle
from freemask.masks.strategies.segmentation import Segmentation
from freemask.masks.words import annotated, located, source_columns, target_columns
from freemask.types import Clip, EditTask, Grid, Site, Text, Where
from freemask.words import columns_of_prompt

# The YAML of `layer` names none, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:no layer and no time was named")
# Groups are made of self-attention as well: tests/test_clusters.py.
NAMES = sorted({option.name for option in choices.groups()["mask"]} - {"clusters"})
HEATED = [name for name in NAMES if name not in ("none", "segmentation")]
# Those that ship show what they compared with a threshold.
SOFT = (
    *(
        "agreement",
        "average",
        "fatezero",
        "layer",
        "mmc",
        "mmc_by_layer",
        "mmc_without_lmmc",
        "mmc_without_tmmc",
    ),
    *("official", "oracle", "oracle_time_aware", "p2p", "segmentation"),
)
SITES = {
    f"{block}.attentions.{i}.transformer_blocks.0.attn2": stride
    for block, stride, count in (
        ("down_blocks.0", 1, 2),
        ("mid_block", 4, 1),
        ("up_blocks.1", 2, 2),
        ("up_blocks.2", 1, 2),
    )
    for i in range(count)
}
BEST, TIMES = "up_blocks.1.attentions.1.transformer_blocks.0.attn2", tuple(range(1, 241, 20))
# The settings under which even heat fills the mask.
FULL = Binarise(normalise="frame_max")


def text(prompt):
    spans = [(0, 0), *(match.span() for match in re.finditer(r"[\w-]+|[^\w\s-]", prompt)), (0, 0)]
    columns, ids = columns_of_prompt(prompt, spans), tuple(range(len(spans)))
    return Text(prompt, torch.zeros(77, 4), columns, len(spans), ids, tuple(spans))


def subject_of(words=None, kind="shape", source="a red car on grass", target="a red truck on grass", **given):
    task = EditTask("t", "c", source, target, {"car": "truck"} if words is None else words, kind)
    frames, (height, width) = given.get("frames", 3), given.get("size", (16, 24))
    truth = torch.zeros(frames, height, width, dtype=torch.bool)
    truth[:, height // 4 : height // 2, width // 3 : width // 2] = True
    clip = Clip("c", torch.rand(frames, 3, height, width), given.get("masks", {"car": truth}))
    sites = {name: Site(name, "cross", stride) for name, stride in SITES.items()}
    sites["down_blocks.0.attentions.0.transformer_blocks.0.attn1"] = Site("self", "self", 1)
    times, delta = given.get("times", TIMES), given.get("keep_object")
    delta = same_object(task) if delta is None else delta
    return Subject(task, clip, text(source), text(target), times, sites, {}, "made-up", delta, Clock(frames))


def record(keeps, subject, heat, times=None):
    """Answers keeps as a network would: `heat(keep, site, t, grid)` on the grid of each layer, latents being half
    the frames' size."""
    into = Recording()
    frames, _, height, width = subject.clip.frames.shape
    for site in subject.sites.values():
        grid = Grid(frames, *(math.ceil(side / 2 / site.stride) for side in (height, width)))
        for t in subject.times if times is None else times:
            where = Where(site, t, grid, ("source",))
            for keep in keeps:
                if keep.wants(where):
                    into.put(keep.name, where, heat(keep, site, t, grid))
    return into


def noise(keep, site, t, grid):
    seed = sum(map(ord, f"{site.name}{sorted(keep.heat.columns)}")) * 1000 + t
    return torch.rand(*grid, generator=torch.Generator().manual_seed(seed))


def even(value):
    return lambda keep, site, t, grid: torch.full(tuple(grid), float(value))


@cache
def options(name):
    """The YAML as it stands; test_conf.py composes each."""
    return dict(choices.content("mask", name))


@pytest.fixture(scope="session")
def books(tmp_path_factory):
    names, times = list(SITES), list(TIMES)
    table = [[0.5] * len(times) for _ in names]
    folder = tmp_path_factory.mktemp("codebooks")
    Codebook(
        backbone="made-up",
        model="random",
        data={},
        words=["car"],
        phrase="described",
        binarise={},
        overlap="foreground",
        floor=0.01,
        n=1,
        of=1,
        clips=1,
        sites=names,
        strides=list(SITES.values()),
        grids=[[8 // stride, 8 // stride] for stride in SITES.values()],
        times=times,
        iou=table,
        cost=table,
        lmmc=[Estimate(2.0, 2.0, 2.0)] * len(names),
        tmmc=[Estimate(2.0, 2.0, 2.0)] * len(times),
        best_site=BEST,
        best_time=101,
    ).write(folder / "made-up.json")
    return folder


def strategy(name, books, **changes):
    values = options(name) | changes
    values |= {"folders": [str(books)]} if "folders" in values else {}
    made = build(values, "mask")
    assert isinstance(made, MaskStrategy)
    return made


def planned(made, subject, heat=noise):
    keeps = made.keeps(subject)
    assert all(keep.heat for keep in (*keeps.source, *keeps.target))
    source, target = record(keeps.source, subject, heat), record(keeps.target, subject, heat)
    return made.plan(subject, source, target)


def grids(subject):
    frames, _, height, width = subject.clip.frames.shape
    latent = [
        Grid(frames, *(math.ceil(side / 2 / stride) for side in (height, width))) for stride in (1, 2, 4)
    ]
    return [*latent, Grid(frames, height, width)]


def wanted_of(subject):
    """Temporal masks on the grids of layers, others on any."""
    for use in USES:
        for grid in grids(subject)[: 3 if use == "temporal" else 4]:
            for t in (subject.times[0], subject.times[-1]):
                yield Wanted(use, t, grid)


# Every YAML ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "size", "kind"),
    [(1, (16, 16), "style"), (2, (18, 10), "shape"), (8, (12, 20), "style"), (17, (16, 24), "shape")],
)
@pytest.mark.parametrize("name", NAMES)
def test_masks_are_binary_of_the_right_grid_and_the_same_every_time(name, frames, size, kind, books):
    subject = subject_of(kind=kind, frames=frames, size=size)
    made = strategy(name, books)
    plan, again = planned(made, subject), planned(made, subject)
    if name == "none":
        assert not made.keeps(subject).source
        assert all(bool((plan(wanted) == 1).all()) for wanted in wanted_of(subject))
        return
    assert plan.facts and plan.facts == again.facts
    for wanted in wanted_of(subject):
        mask = plan(wanted)
        assert mask.shape == tuple(wanted.grid) and mask.dtype == torch.float32
        assert ((mask == 0) | (mask == 1)).all()
        assert torch.equal(mask, again(wanted)) and torch.equal(mask, plan(wanted))
        if plan.soft is None:  # which none of those that ship leaves out
            assert name not in SOFT
            continue
        soft = plan.soft(wanted)
        assert soft.shape == mask.shape and soft.min() >= 0 and soft.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", HEATED)
def test_words_are_found_at_any_position_and_only_text_layers_are_kept(name, books):
    prompts = {
        "car on grass": {1},
        "grass with a red car": {4, 5},
        "a sports-car, car on": {4},
        "a car and a car": {2, 5},
    }
    for source, columns in prompts.items():
        subject = subject_of(source=source, words={"car": "truck"})
        for keep in strategy(name, books).keeps(subject).source:
            literal = not hasattr(strategy(name, books), "phrase")  # it takes words as they are given
            plainly = {5} if source == "grass with a red car" and literal else columns
            assert set(keep.heat.columns) == plainly
            assert not any(
                keep.wants(Where(site, TIMES[0], Grid(1, 1, 1), ("source",)))
                for site in subject.sites.values()
                if site.role != "cross"
            )


@pytest.mark.parametrize("name", HEATED)
def test_an_unknown_word_is_refused_with_the_words_of_the_prompt(name, books):
    with pytest.raises(UserError, match="'zebra' is not in the prompt") as refusal:
        strategy(name, books).keeps(subject_of(words={"zebra": "truck"}))
    assert "a, red, car, on, grass" in str(refusal.value)


@pytest.mark.parametrize("value", [0.0, math.nan])
@pytest.mark.parametrize("name", HEATED)
def test_no_heat_is_an_empty_mask(name, value, books):
    subject = subject_of()
    plan = planned(strategy(name, books), subject, even(value))
    assert not any(plan(wanted).any() for wanted in wanted_of(subject))


@pytest.mark.parametrize("name", HEATED)
def test_even_heat_without_a_minimum_taken_off_is_a_full_mask(name, books):
    subject, made = subject_of(), strategy(name, books)
    if name not in SOFT:  # a new one may cut by a rule of its own
        return
    made = replace(made, binarise=FULL) if hasattr(made, "binarise") else made
    plan = planned(made, subject, even(0.2))
    assert all((plan(wanted) == 1).all() for wanted in wanted_of(subject))


@pytest.mark.parametrize("value", [False, True])
def test_an_annotation_of_nothing_or_everything(value, books):
    subject = subject_of(masks={"car": torch.full((3, 16, 24), value)})
    plan = planned(strategy("segmentation", books), subject)
    assert all((plan(wanted) == float(value)).all() for wanted in wanted_of(subject))


# Written out -----------------------------------------------------------------------------------------------------


def heat_at(subject, site, t, columns=(2, 3)):
    """What `noise` recorded there for "red car"."""
    _, _, height, width = subject.clip.frames.shape
    stride = subject.sites[site].stride
    grid = Grid(len(subject.clip.frames), math.ceil(height / 2 / stride), math.ceil(width / 2 / stride))
    return noise(SimpleNamespace(heat=Words(columns)), subject.sites[site], t, grid)


def slow_mean(heats):
    """Plain mean on one grid; else each frame over its maximum, bilinear to the largest grid, mean."""
    height, width = max(h.shape[1] for h in heats), max(h.shape[2] for h in heats)
    if len({h.shape for h in heats}) > 1:
        heats = [torch.stack([frame / frame.max() for frame in heat]) for heat in heats]
        resized = torch.nn.functional.interpolate
        heats = [
            resized(heat[None], (height, width), mode="bilinear", align_corners=False)[0] for heat in heats
        ]
    total = torch.zeros_like(heats[0])
    for heat in heats:
        total += heat
    return total / len(heats)


MASK = Binarise()


@pytest.mark.parametrize("kind", ["style", "shape"])
@pytest.mark.parametrize(
    ("use_layer", "use_time"), [(True, True), (False, True), (True, False), (False, False)]
)
def test_mmc_is_equation_8_and_its_ablations(kind, use_layer, use_time, books):
    words = {"car": "car"} if kind == "style" else {"car": "truck"}
    subject = subject_of(words=words, kind=kind, target="a red car, a red truck", times=(1, 90, 130, 200))
    made = Mmc(folders=[str(books)], use_layer=use_layer, use_time=use_time)
    keeps, plan = made.keeps(subject), planned(made, subject)
    assert keeps.source[0].heat == Words((2, 3))
    layers = [BEST] if use_layer else list(SITES)
    recorded = record(keeps.source, subject, noise).all("heat")
    assert {site for site, _ in recorded} == set(layers)
    for t in subject.times:
        times = (
            ([90] if kind == "style" else [t]) if use_time else list(subject.times)
        )  # 90 is nearest to 101
        heat = slow_mean([heat_at(subject, site, each) for site in layers for each in times])
        assert torch.allclose(plan.soft(Wanted("self", t, Grid(3, 8, 12))), MASK.soft(heat, 8, 12), atol=1e-6)
    if kind == "style" and use_time:
        assert {t for _, t in recorded} == {90} and plan.facts["mask_time"] == 90


def test_a_calibrations_folder_stands_for_its_codebook(books, tmp_path):
    with pytest.raises(UserError, match="no codebook") as caught:
        Codebook.read(tmp_path)
    assert "delete" not in str(caught.value)
    book = Codebook.read(books / "made-up.json")
    book.write(tmp_path / "codebook.json")
    assert Codebook.read(tmp_path).digest == book.digest


def test_mmc_makes_masks_of_the_heat_that_the_codebook_was_measured_with(books, tmp_path):
    replace(Codebook.read(books / "made-up.json"), heat="share").write(tmp_path / "b.json")
    mmc = Mmc(folders=[str(tmp_path)])
    (keep,) = mmc.keeps(subject_of()).source
    assert mmc.told(subject_of())["mask_heat"] == "share"
    assert keep.heat == Words((2, 3), among=(1, 2, 3, 4, 5))  # "red car" in the prompt without its marks
    for made in (Agreement(heat="share"), Layer(heat="share"), Oracle(heat="share")):
        assert made.keeps(subject_of()).source[0].heat == keep.heat
        with pytest.raises(UserError, match="heat cannot be 'mass'"):
            replace(made, heat="mass")


def test_masks_of_one_head(books, tmp_path):
    """As a codebook of heads chose it, or as it is named."""
    book = Codebook.read(books / "made-up.json")
    heads = [f"{site}:{head}" for site in book.sites for head in (0, 1)]
    table = {
        key: [row for row in getattr(book, key) for _ in (0, 1)]
        for key in ("iou", "cost", "lmmc", "strides", "grids")
    }
    replace(book, sites=heads, best_site=f"{BEST}:1", **table).write(tmp_path / "b.json")
    for made in (Mmc(folders=[str(tmp_path)]), Layer(layer="up_blocks.1.attentions.1:1")):
        (keep,) = made.keeps(subject_of()).source
        assert keep.heat == Words((2, 3), head=f"{BEST}:1")
        recorded = record([keep], subject_of(), noise)
        assert {site for site, _ in recorded.all("heat")} == {BEST}
        plan = made.plan(subject_of(), recorded, Recording())
        assert plan.facts["mask_layer"] == "up_blocks.1.attentions.1:1"
        assert torch.equal(
            plan.soft(Wanted("self", 41, Grid(3, 8, 12))), MASK.soft(heat_at(subject_of(), BEST, 41), 8, 12)
        )
    without = Mmc(folders=[str(tmp_path)], use_layer=False).keeps(subject_of()).source[0]
    assert without.heat == Words((2, 3))


def test_mmc_may_take_the_time_at_which_the_best_layer_matched_best(books, tmp_path):
    book = Codebook.read(books / "made-up.json")
    cost = [list(row) for row in book.cost]
    cost[list(SITES).index(BEST)][9] = 0.2  # of BEST; another layer is cheaper still at another time
    cost[0][2] = 0.1
    replace(book, cost=cost).write(tmp_path / "b.json")
    for time_by, t in (("tmmc", 101), ("layer", TIMES[9])):
        made = Mmc(folders=[str(tmp_path)], time_by=time_by)
        assert planned(made, subject_of(kind="style")).facts["mask_time"] == t
        assert planned(made, subject_of()).facts["mask_time"] == "each"
    with pytest.raises(UserError, match="tmmc or layer"):
        Mmc(time_by="time")


def test_mmc_says_where_it_may_not_find_a_background(books):
    made = Mmc(folders=[str(books)])
    with pytest.warns(UserWarning, match="mask=agreement"):
        planned(made, subject_of({"snow": "grass"}, "background", "the snow", "the grass"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planned(made, subject_of({"snow": "grass"}, "background", "a red car on snow", "a red car on grass"))


def test_mmc_refuses_a_codebook_of_another_model_and_says_how_to_make_one(books, tmp_path):
    stranger = replace(subject_of(), origin="other")
    with pytest.raises(UserError, match="made for another model"):
        Mmc(codebook=str(books / "made-up.json")).keeps(stranger)
    with pytest.raises(UserError, match="freemask calibrate"):
        Mmc(folders=[str(tmp_path)]).keeps(stranger)
    assert Mmc(use_layer=False, use_time=False).keeps(stranger).source  # needs none
    facts = planned(Mmc(codebook=str(books / "made-up.json")), subject_of()).facts
    named = {"codebook": str(books / "made-up.json"), "codebook_n": 1}
    assert facts == {"mask_layer": "up_blocks.1.attentions.1", "mask_time": "each", **named}
    assert planned(Mmc(folders=[str(books)]), subject_of()).facts["codebook"] == "own"
    assert "codebook" not in planned(Mmc(use_layer=False, use_time=False), subject_of()).facts


def test_layer_without_any_name_says_that_it_is_the_mean_over_all():
    with pytest.warns(UserWarning, match="mean over all text layers.*up_blocks.1.attentions.0"):
        assert planned(Layer(), subject_of()).facts["mask_layer"] == f"mean of {len(SITES)}"


def test_layer_takes_the_named_layer_and_time():
    subject = subject_of()
    plan = planned(Layer(layer="up_blocks.1.attentions.0", time=104), subject)
    site = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
    for t in (1, 221):
        assert torch.equal(
            plan(Wanted("cross", t, Grid(3, 8, 12))), MASK.mask(heat_at(subject, site, 101), 8, 12)
        )
    assert plan.facts == {"mask_layer": "up_blocks.1.attentions.0", "mask_time": 101}
    for share, t in ((0, 1), (1.0, 221), (0.5, 121)):
        assert planned(Layer(layer="mid_block", share=share), subject).facts["mask_time"] == t
    aware = planned(Layer(layer="mid_block"), subject)
    heat = heat_at(subject, "mid_block.attentions.0.transformer_blocks.0.attn2", 41)
    assert torch.equal(aware(Wanted("self", 41, Grid(3, 16, 24))), MASK.mask(heat, 16, 24))


def test_layers_that_are_named_together_are_averaged():
    subject, names = subject_of(), ["up_blocks.1.attentions.1", "up_blocks.1.attentions.0"]
    plan = planned(Layer(layer=names, time=104), subject)
    heats = [heat_at(subject, f"{name}.transformer_blocks.0.attn2", 101) for name in names]
    wanted = MASK.mask(torch.stack(heats).mean(0), 8, 12)
    assert torch.equal(plan(Wanted("cross", 1, Grid(3, 8, 12))), wanted)
    assert plan.facts["mask_layer"] == "mean of 2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": []}, "no layer is named"),
        ({"layer": ["mid_block", "up_block"]}, "no text layer of this model"),
        ({"layer": "up_blocks.1"}, "beginning of 2 text layers"),
        ({"layer": "up_block"}, "no text layer of this model"),
        ({"layer": "zzz"}, "one of: down_blocks.0.attentions.0, (.*, )?up_blocks.1.attentions.0"),
        ({"layer": "mid_block:x"}, "a head is a number"),
        ({"layer": ["mid_block:0", "up_blocks.1.attentions.0"]}, "a head stands alone"),
        ({"layer": "mid_blok"}, "did you mean 'mid_block"),
        ({"time": 3, "share": 0.5}, "a time is named twice"),
        ({"share": 1.5}, "0 to 1"),
        ({"phrase": "first"}, "described, last, all"),
    ],
)
def test_layer_refuses(arguments, message):
    with pytest.raises(UserError, match=message):
        Layer(**arguments).keeps(subject_of())


@pytest.mark.parametrize(
    ("settings", "strides"),
    [
        ({"strides": [2]}, {2}),
        ({"strides": [1, 4]}, {1, 4}),
        ({"cells": None}, {1, 2, 4}),
        ({"cells": 16}, {1}),  # the short sides are 8, 4 and 2
        ({"cells": 4}, {2}),
        ({"cells": 3}, {2}),  # 4 / 3 is nearer than 3 / 2
        ({"cells": 1}, {4}),
    ],
)
def test_average_takes_layers_by_stride_or_by_the_size_of_their_grid(settings, strides):
    subject = subject_of()
    plan = planned(Average(**settings), subject)
    sites = [name for name, stride in SITES.items() if stride in strides]
    for t in (1, 201):
        heat = slow_mean([heat_at(subject, site, t) for site in sites])
        assert torch.allclose(plan.soft(Wanted("self", t, Grid(3, 8, 12))), MASK.soft(heat, 8, 12), atol=1e-6)
    assert plan.facts["mask_layer"] == f"mean of {len(sites)}" and not plan.live


def test_average_with_union_joins_what_the_edit_has_recorded_so_far():
    subject, made = subject_of(), Average(strides=[2], union=True)
    keeps = made.keeps(subject)
    source, t = record(keeps.source, subject, noise), 181
    plan = made.plan(subject, source, record(keeps.target, subject, noise, times=(181, 201, 221)))
    later = made.plan(subject, source, record(keeps.target, subject, noise))
    sites = [name for name, stride in SITES.items() if stride == 2]
    own = MASK.mask(slow_mean([heat_at(subject, site, t) for site in sites]), 8, 12)
    sums = [sum(heat_at(subject, site, time) for time in (181, 201, 221)) for site in sites]
    edited = MASK.mask(slow_mean(sums), 8, 12)
    assert plan.live == {"latent"} and not torch.equal(own, own.maximum(edited))
    for each in (plan, later):
        assert torch.equal(each(Wanted("latent", t, Grid(3, 8, 12))), own.maximum(edited))
        assert torch.equal(each(Wanted("self", t, Grid(3, 8, 12))), own)
    with pytest.raises(ValueError, match="asked for too early"):
        made.plan(subject, source, Recording())(Wanted("latent", t, Grid(3, 8, 12)))


def slow_official(heat, height, width, threshold=0.3):
    """Max over 3 x 3 neighbours, nearest cell, over the frame's maximum, strictly above the threshold."""
    frames, rows, columns = heat.shape
    mask = torch.zeros(frames, height, width)
    for f in range(frames):
        soft = torch.zeros(height, width)
        for y in range(height):
            for x in range(width):
                row, column = y * rows // height, x * columns // width
                soft[y, x] = heat[f, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].max()
        mask[f] = (soft / soft.max() > threshold).float()
    return mask


def test_official_masks_written_out():
    threshold = (0.85, 0.9)
    subject = subject_of(target="a red old truck on grass")
    made = Official(strides=[2], threshold=threshold)
    columns, other = (3,), (4,)
    keeps = made.keeps(subject)
    assert [set(keep.heat.columns) for keep in keeps.source] == [{3}, {3}]  # the word alone, not its colour
    t, plan = 181, planned(made, subject)
    sites = [name for name, stride in SITES.items() if stride == 2]
    heat = slow_mean([heat_at(subject, site, t, columns) for site in sites])
    for use, grid in (("self", Grid(3, 2, 3)), ("cross", Grid(3, 8, 12)), ("self", Grid(3, 16, 24))):
        assert torch.equal(plan(Wanted(use, t, grid)), slow_official(heat, grid.height, grid.width, 0.85))
    for stride in (1, 2, 4):
        same = [name for name, each in SITES.items() if each == stride]
        fixed = slow_mean([heat_at(subject, site, TIMES[10], columns) for site in same])
        grid = Grid(3, 8 // stride, 12 // stride)
        assert torch.equal(
            plan(Wanted("temporal", t, grid)), slow_official(fixed, grid.height, grid.width, 0.85)
        )
    sums = [sum(heat_at(subject, site, time, other) for time in TIMES if time >= t) for site in sites]
    union = slow_official(heat, 8, 12, 0.85).maximum(slow_official(slow_mean(sums), 8, 12, 0.9))
    latent = Wanted("latent", t, Grid(3, 8, 12))
    assert torch.equal(plan(latent), union) and plan.live == {"latent"}
    single = [Official(strides=[2], threshold=each) for each in ((0.85, 0.999), (0.999, 0.9))]
    assert union.sum() > max(planned(each, subject)(latent).sum() for each in single)


def test_official_with_few_steps_refuses_only_temporal_masks():
    subject = subject_of(times=TIMES[:10])
    plan = planned(Official(), subject)
    assert plan(Wanted("self", 1, Grid(3, 8, 12))).any()
    with pytest.raises(UserError, match="at least 11"):
        plan(Wanted("temporal", 1, Grid(3, 8, 12)))
    with pytest.raises(UserError, match="no text layer has the grid"):
        planned(Official(), subject_of())(Wanted("temporal", 1, Grid(3, 5, 5)))


@pytest.mark.parametrize("words", [{"zebra": "truck"}, {"car": "zebra"}, {"zebra": "zebra"}])
def test_official_may_take_missing_words_for_an_empty_mask(words):
    subject = subject_of(words=words)
    with pytest.raises(UserError, match="is not in the prompt"):
        Official().keeps(subject)
    plan = planned(Official(missing="empty"), subject)
    assert plan(Wanted("self", 1, Grid(3, 8, 12))).any() == ("car" in words)
    assert plan(Wanted("temporal", 1, Grid(3, 8, 12))).any() == ("car" in words)
    assert plan(Wanted("latent", 1, Grid(3, 8, 12))).any() == (words != {"zebra": "zebra"})
    given = Official(source_words=["car"], target_words=["truck", "grass"]).keeps(subject)
    assert [set(keep.heat.columns) for keep in (*given.source, *given.target)] == [{3}, {3}, {3, 5}]


@pytest.mark.parametrize(
    "settings", [{"threshold": [0.3]}, {"missing": "maybe"}, {"temporal_index": -1}, {"pool": 2}]
)
def test_official_refuses_settings(settings):
    with pytest.raises(UserError):
        Official(**settings)


def slow_iou(mask, truth):
    inside = union = 0
    for a, b in zip(mask.flatten().tolist(), truth.flatten().tolist(), strict=True):
        inside += bool(a) and b
        union += bool(a) or b
    return inside / union


def test_oracle_finds_the_best_pair_by_trying_all():
    subject = subject_of(frames=2, size=(8, 12), times=(1, 21, 41))
    truth = subject.clip.masks["car"]
    tried = {
        (site, t): slow_iou(MASK.mask(heat_at(subject, site, t), 8, 12), truth)
        for site in SITES
        for t in subject.times
    }
    (site, t), most = max(tried.items(), key=lambda item: item[1])
    plan = planned(Oracle(), subject)
    assert (plan.facts["mask_layer"], plan.facts["mask_time"]) == (
        site.removesuffix(".transformer_blocks.0.attn2"),
        t,
    )
    assert plan.facts["oracle_iou"] == pytest.approx(most)
    assert torch.equal(plan(Wanted("self", 21, Grid(2, 4, 6))), MASK.mask(heat_at(subject, site, t), 4, 6))
    means = {site: sum(tried[site, t] for t in subject.times) / 3 for site in SITES}
    best = max(means, key=means.get)
    aware = planned(Oracle(time_aware=True), subject)
    assert torch.equal(aware(Wanted("self", 21, Grid(2, 4, 6))), MASK.mask(heat_at(subject, best, 21), 4, 6))
    assert aware.facts["oracle_iou"] == pytest.approx(means[best])


def blob(keep, site, t, grid):
    """Layers of stride 1 find a moving object, best at middle times; the others look everywhere a little."""
    heat = noise(keep, site, t, grid) / 10
    if site.stride != 1:
        return heat
    y, x = torch.meshgrid(torch.arange(grid.height), torch.arange(grid.width), indexing="ij")
    found = torch.stack([torch.exp(-((y - 3) ** 2 + (x - 3 - f) ** 2) / 4.0) for f in range(grid.frames)])
    return 0.8 * found + heat * abs(t - 101) / 100


def test_agreement_finds_what_decided_maps_find():
    subject = subject_of()
    plan = planned(Agreement(), subject, blob)
    assert plan.facts == {"mask_layer": f"mean of {len(SITES)}", "mask_time": f"mean of {len(TIMES)}"}
    mask = plan(Wanted("self", 1, Grid(3, 8, 12)))
    y, x = torch.meshgrid(torch.arange(8), torch.arange(12), indexing="ij")
    for f in range(3):
        far = (y - 3) ** 2 + (x - 3 - f) ** 2
        assert mask[f][far <= 2].all() and not mask[f][far >= 8].any()
    assert torch.equal(plan(Wanted("latent", 221, Grid(3, 8, 12))), mask)


def slow_agreed(maps):
    """Cell after cell: the weighed mean of maps on the grid of the finest."""
    height, width = max(tuple(heat.shape[1:]) for heat in maps)
    total, weights = torch.zeros(len(maps[0]), height, width), 0.0
    for heat in maps:
        cells = [float(value) for value in heat.flatten()]
        mean = sum(cells) / len(cells)
        between = sum((value - mean) ** 2 for value in cells) / len(cells)
        within = sum(value * (1 - value) for value in cells) / len(cells)
        weight = between / (between + within)
        wide = torch.nn.functional.interpolate(heat[None], (height, width), mode="bilinear")[0]
        total, weights = total + weight * wide, weights + weight
    return total / weights


def test_agreement_is_the_mean_weighed_by_how_decided_a_map_is():
    maps = [torch.rand(2, *size) ** power for size in ((5, 7), (3, 4), (1, 2)) for power in (0.5, 2, 8)]
    assert torch.allclose(agreed(maps), slow_agreed(maps), atol=1e-6)
    sure, even_heat, nothing = (
        (torch.rand(2, 5, 7) > 0.8).float(),
        torch.full((2, 5, 7), 0.4),
        torch.zeros(2, 5, 7),
    )
    assert decided(sure) == pytest.approx(1) and decided(nothing) == decided(nothing + 1) == 0
    assert decided(even_heat) == pytest.approx(0, abs=1e-6) and decided(1 - maps[1]) == pytest.approx(
        decided(maps[1])
    )
    lost = torch.full((2, 5, 7), float("nan"))
    assert torch.equal(agreed([nothing, sure, lost]), sure) and torch.equal(agreed([nothing]), nothing)


AROUND = ("agreement", "average", "layer", "mmc", "mmc_by_layer", "mmc_without_lmmc", "mmc_without_tmmc")


@pytest.mark.parametrize("name", [*AROUND, "oracle", "oracle_time_aware"])
def test_a_background_is_what_the_things_before_it_leave(name, books):
    truth = torch.zeros(3, 16, 24, dtype=torch.bool)
    truth[:, 4:10, 6:14] = True
    masks = {"car": truth, "snow": ~truth}
    made, wanted = strategy(name, books), Wanted("self", 1, Grid(3, 8, 12))
    behind = subject_of(
        {"snow": "grass"}, "background", "a red car on snow", "a red car on grass", masks=masks
    )
    asked = made.keeps(behind).source[0].heat.columns
    assert (
        asked
        == made.keeps(subject_of(source="a red car on snow", masks=masks)).source[0].heat.columns
        == (2, 3)
    )
    around = planned(made, behind, blob)
    car = planned(made, subject_of(masks=masks), blob)
    assert around.facts["mask_around"] == "red car" and "mask_around" not in car.facts
    if name in AROUND:  # the others choose by another truth
        assert torch.equal(around(wanted), 1 - car(wanted))
        assert torch.equal(around.soft(wanted), 1 - car.soft(wanted))
    else:
        assert around(wanted)[:, -1].all() and not around(wanted)[:, 2:4, 4:6].any()


def test_a_background_alone_is_looked_for_by_its_own_word():
    alone = subject_of({"snow": "grass"}, "background", "the snow", "the grass")
    assert Agreement().keeps(alone).source[0].heat.columns == (2,)
    plan, wanted = planned(Agreement(), alone, blob), Wanted("self", 1, Grid(3, 8, 12))
    assert torch.equal(plan(wanted), planned(Agreement(), subject_of(), blob)(wanted))
    assert "mask_around" not in plan.facts


def test_what_goes_around_things_is_not_joined_with_the_words_of_the_edit():
    behind = subject_of({"snow": "grass"}, "background", "a red car on snow", "a red car on grass")
    assert not Average(union=True).keeps(behind).target
    assert Average(union=True).keeps(subject_of()).target


@pytest.mark.parametrize(
    ("prompt", "word", "phrases", "columns", "last"),
    [
        ("a red car on grass", "grass", ["red car"], (2, 3), (3,)),
        ("a red car and two dogs on red sand", "red sand", ["red car", "dogs"], (2, 3, 6), (3, 6)),
        ("a photo of the Bear, in a forest", "forest", ["Bear"], (5,), (5,)),
        ("a beach at sunset", "a beach at sunset", [], (), ()),
        ("a cat on grass, grass", "grass", ["cat"], (2,), (2,)),
        ("a cat walking left and a dog on grass", "grass", ["cat", "dog"], (2, 7), (2, 7)),
        ("a bird flies left and a girl together on grass", "grass", ["bird", "girl"], (2, 7), (2, 7)),
        ("a butterfly slowly moving on grass", "grass", ["butterfly"], (2,), (2,)),
        ("a horse on a meadow at noon", "noon", ["horse"], (2,), (2,)),
        ("cars parked on grass", "grass", ["cars"], (1,), (1,)),
        ("the ocean waves", "ocean", [], (), ()),
        ("a car on a snow field", "snow", ["car"], (2,), (2,)),
        ("a snow leopard on snow", "snow", ["snow leopard"], (3,), (3,)),
    ],
)
def test_what_else_a_prompt_speaks_of(prompt, word, phrases, columns, last):
    subject = subject_of({word: "snow"}, "background", prompt, "snow")
    assert other_phrases(subject) == phrases
    assert other_columns(subject) == columns and other_columns(subject, "last") == last


@pytest.mark.parametrize(
    ("source", "target", "around"),
    [
        ("a boat sails", "a boat sails in the desert", "boat"),
        ("a red car on a rug", "a red car on a towel", "red car"),
        ("a bear and a dog", "a bear and a dog at night", "bear, dog"),
    ],
)
def test_a_background_that_no_word_names_is_what_the_things_leave(source, target, around):
    plan = planned(Agreement(), subject_of({}, "background", source, target), blob)
    assert plan.facts["mask_around"] == around and plan(Wanted("self", 1, Grid(3, 8, 12)))[:, 7].all()


def test_segmentation_covers_cells_by_their_share():
    truth = torch.zeros(2, 8, 8, dtype=torch.bool)
    truth[0, :3, :4], truth[1, 4:, 4:6] = True, True
    subject = subject_of(frames=2, size=(8, 8), masks={"car": truth})
    plan = planned(Segmentation(), subject)
    small = plan(Wanted("self", 1, Grid(2, 2, 2)))
    assert small.tolist() == [[[1, 0], [0, 0]], [[0, 0], [0, 1]]]
    assert torch.equal(plan(Wanted("latent", 1, Grid(2, 8, 8))), truth.float())
    assert not planned(Segmentation(cover=0.8), subject)(Wanted("self", 1, Grid(2, 2, 2))).any()
    assert plan.soft(Wanted("self", 1, Grid(2, 2, 2)))[0, 0, 0] == 0.75
    grown = planned(Segmentation(grow=0.2), subject)(
        Wanted("self", 1, Grid(2, 8, 8))
    )  # 1.6 pixels: 2 each way
    assert grown[0, :5, :6].all() and grown.sum() == 5 * 6 + 6 * 6


@pytest.fixture
def masks(tmp_path):
    """A folder of smooth masks at twice the clip's size."""
    (tmp_path / "c").mkdir()
    for f in range(3):
        image = Image.new("L", (48, 32))
        image.paste(255, (0, 0, 16 + f * 8, 16))
        image.paste(11, (40, 24, 48, 32))
        image.paste(10, (0, 24, 8, 32))
        image.convert("RGB").save(tmp_path / "c" / f"{f}.png")
    return tmp_path


def test_segmentation_reads_a_folder_of_any_segmenter(masks):
    subject = subject_of(masks={})
    plan = planned(Segmentation(folder=str(masks)), subject)
    mask = plan(Wanted("self", 1, Grid(3, 16, 24)))
    for f in range(3):
        truth = torch.zeros(16, 24)
        truth[:8, : 8 + f * 4] = 1
        truth[12:, 20:] = 1  # grey 11 counts, grey 10 does not
        assert torch.equal(mask[f], truth)
    (masks / "c").rename(masks / "t")  # named after the task
    assert torch.equal(
        planned(Segmentation(folder=str(masks)), subject)(Wanted("self", 1, Grid(3, 16, 24))), mask
    )


def test_the_clips_own_folder_of_masks_does_as_well_as_its_parent(masks):
    subject, parent, own = subject_of(masks={}), Segmentation(str(masks)), Segmentation(str(masks / "c"))
    one, two = planned(parent, subject), planned(own, subject)
    wanted = Wanted("self", 1, Grid(3, 16, 24))
    assert torch.equal(one(wanted), two(wanted)) and one.facts == two.facts == {"mask_from": "c"}
    assert (parent.of_one_clip, own.of_one_clip) == (False, True)


def test_what_needs_no_model_is_refused_without_one(masks):
    task, clip = subject_of().task, subject_of(frames=2, masks={}).clip
    for made, words in (
        (Segmentation(str(masks)), "3 masks"),
        (Segmentation(str(masks / "nowhere")), "no such file"),
        (Segmentation(), "annotated clip"),
        (Oracle(), "annotated clip"),
    ):
        assert isinstance(made, Checks)
        with pytest.raises(UserError, match=words):
            made.check(task, clip)


def test_segmentation_refuses_what_does_not_fit(masks):
    made = Segmentation(folder=str(masks))
    with pytest.raises(UserError, match="3 masks"):
        made.keeps(subject_of(frames=2))
    with pytest.raises(UserError, match="another shape"):
        made.keeps(subject_of(size=(16, 16)))
    assert planned(Segmentation(folder=str(masks), stretch=True), subject_of(size=(16, 16)))
    (masks / "other").mkdir()
    with pytest.raises(UserError, match="a folder called t or c"):
        Segmentation(folder=str(masks / "other")).keeps(subject_of())
    with pytest.raises(UserError, match="no such file"):
        Segmentation(folder=str(masks / "nowhere")).keeps(subject_of())
    with pytest.raises(UserError, match="need an annotated clip"):
        Segmentation().keeps(subject_of(masks={}))
    with pytest.raises(UserError, match="above 0"):
        Segmentation(cover=0)


# Words -----------------------------------------------------------------------------------------------------------


def test_annotations_are_found_by_the_words():
    car, dog = torch.zeros(2, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.bool)
    car[:, :2], dog[:, :, 3] = True, True
    frames = torch.zeros(2, 3, 4, 4)

    def ask(words, masks, kind="shape", source="a red car and a dog on grass"):
        return annotated(EditTask("t", "c", source, source, words, kind), Clip("c", frames, masks))

    both = {"car": car, "dog": dog}
    assert torch.equal(ask({"red car": "bus"}, both), car)
    assert torch.equal(ask({"red car": "bus"}, {"red car": dog, "car": car}), dog)
    assert torch.equal(ask({"car": "bus", "dog": "cat"}, both), car | dog)
    assert torch.equal(ask({"jeep": "bus"}, {"object1": car}), car)
    assert torch.equal(ask({"grass": "snow"}, both, "background"), ~(car | dog))
    assert torch.equal(ask({"grass": "snow"}, {**both, "grass": car}, "background"), car)
    assert torch.equal(ask({}, {"car": car}, "style"), car)
    assert torch.equal(ask({}, {"car": car}, "background"), ~car)
    for words in ({"jeep": "bus"}, {"car": "bus", "jeep": "bus"}):
        with pytest.raises(UserError, match="'jeep' is not annotated"):
            ask(words, both)


def task_of(source, target, words=None, kind="style"):
    return EditTask("t", "c", source, target, words or {}, kind)


@pytest.mark.parametrize(
    ("kind", "words", "same"),
    [
        ("style", {}, True),
        ("attribute", {"red": "blue"}, True),
        ("shape", {"red car": "blue Car,"}, True),
        ("shape", {"car": "truck"}, False),
        ("shape", {"car": "car", "dog": "cat"}, False),
        ("background", {"grass": "snow"}, False),
        ("shape", {}, False),
    ],
)
def test_delta_of_equation_7(kind, words, same):
    assert same_object(task_of("a", "b", words, kind)) is same


@pytest.mark.parametrize(
    ("source", "target", "word"),
    [
        ("a giraffe walks under a tree", "a giraffe walks under a tree, Ukiyo-e style", "giraffe"),
        ("a red car moving left on grass", "watercolor painting of a red car moving left on grass", "car"),
        ("a red car parked on grass", "neon art of a red car parked on grass", "car"),
        ("a photo of a bear", "an oil painting of a bear", "bear"),
        ("a photo of a bear", "a dark photo of a bear", "bear"),
        ("A black swan with a red beak swimming", "A black swan with a red beak swimming, cartoon", "swan"),
        ("two white swans", "two white swans, anime", "swans"),
        ("a bus", "a bus, anime", "bus"),
        ("A girl, jumping high", "A girl, jumping high, manga", "girl"),
    ],
)
def test_the_object_of_a_style_edit_is_found(source, target, word):
    assert located(task_of(source, target)) == {word: word}


@pytest.mark.parametrize(
    ("source", "target", "named"),
    [
        ("a cat and a dog on a sofa", "comic drawing of a cat and a dog on a sofa", "one of: cat, dog"),
        ("the giraffe walks slowly", "the giraffe walks slowly, oil", "one of: giraffe, walks"),
        ("grass", "snow", "a word of each prompt"),
    ],
)
def test_an_unclear_object_is_asked_for(source, target, named):
    with pytest.raises(UserError, match="Which word is the object") as question:
        located(task_of(source, target))
    assert named in str(question.value) and "add words=" in str(question.value)


@pytest.mark.parametrize(
    ("source", "target", "words", "found"),
    [
        ("a red car on grass", "a blue car on grass", {"red": "blue"}, {"red car": "blue car"}),
        (
            "a red sports car driving",
            "a blue sports car driving",
            {"red": "blue"},
            {"red sports car": "blue sports car"},
        ),
        ("the red fox walks", "the blue fox walks", {"red": "blue"}, {"red fox": "blue fox"}),
        ("a red, big car", "a blue, big car", {"red": "blue"}, {"red": "blue"}),
        ("a red car", "a blue bus", {"red": "blue"}, {"red": "blue"}),
        ("a red car", "a blue car", {"car": "car"}, {"car": "car"}),
    ],
)
def test_an_attribute_stands_for_its_noun(source, target, words, found):
    assert located(task_of(source, target, words, "attribute")) == found


def test_columns_with_describing_words_without_them_and_of_several_words():
    subject = subject_of(
        source="a shiny red car, on dry grass",
        target="a shiny red truck and a car",
        words={"red car": "car", "grass": "truck"},
    )
    assert source_columns(subject, "described") == (2, 3, 4, 7, 8)
    assert source_columns(subject, "last") == (4, 8)
    assert source_columns(subject, "all") == (3, 4, 8)
    assert target_columns(subject, "described") == (2, 3, 4, 7)
    assert target_columns(subject, "last") == (4, 7)
    assert source_columns(subject, "last", ["shiny red"]) == (3,)
    double = replace(
        subject,
        source=text("a car, a red car and a red car"),
        task=replace(subject.task, words={"red car": "x"}),
    )
    assert source_columns(double, "last") == (6, 10) and source_columns(double, "all") == (5, 6, 9, 10)
