"""Fusion against written-out matrices, policy by policy; windows; the tap's treatment of the other streams."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from freemask.alignment import WordMap
from freemask.attention.layout import in_rows
from freemask.attention.math import attend, probabilities
from freemask.attention.record import Recording
from freemask.backbones.unet3d import UNet3D
from freemask.diffusion.noise_paths import Ddim as DdimPath
from freemask.errors import UserError
from freemask.fusion import ops
from freemask.fusion import policies as kinds
from freemask.fusion.policies import Cross, LatentBlend, Policy, Self, Temporal, Window
from freemask.fusion.settings import PARTS, WINDOWS, Fusion, Policies
from freemask.masks.clock import Clock
from freemask.masks.plan import MaskPlan, Subject, Wanted, everywhere, same_object
from freemask.methods.invert_fuse import InvertFuse
from freemask.types import QKV, Clip, EditTask, Grid, Site, Text, Where

GRID = Grid(3, 2, 4)
SELF = Site("a.attn1", "self", 2)
CROSS = Site("a.attn2", "cross", 2)
TEMPORAL = Site("t.attn1", "temporal", 2, batch="(h w)", tokens="f")
LENGTH = 7


def qkv(b, n, m, seed, streams=1):
    rng = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(streams, b, 2, x, 4, generator=rng, dtype=torch.float64) for x in (n, m, m))
    return QKV(q=q, k=k, v=v, scale=0.6)


def mask(seed=3):
    return (torch.rand(tuple(GRID), generator=torch.Generator().manual_seed(seed)) > 0.5).double()


def act(policy, site, own, source, m=None, lend=False):
    """What a policy answers at step 0; the source's map is on the edit's values, unless it lends its own."""
    where = Where(site, 21, GRID, ("source", "cond"))
    if lend and isinstance(policy, Cross):
        policy = dataclasses.replace(policy, lends=True)
    lender = source if lend else dataclasses.replace(source, v=own.v)
    return policy(own, lender, None if m is None else in_rows(m, where), 0)


def only(**parts):
    """A fusion of these parts, and of no other."""
    return {**dict.fromkeys(PARTS, "off"), **parts}


def spatial(seed, keys=8):
    return qkv(3, 8, keys, seed)


def rows(m):
    """One mask value per (frame, query): the written-out twin of token_mask for image layers."""
    return torch.stack([torch.stack([m[f, n // 4, n % 4] for n in range(8)]) for f in range(3)])


@pytest.mark.parametrize("inverse", [False, True])
def test_masked_self_attention_is_the_row_wise_mix_of_two_matrices(inverse):
    own, source, m = spatial(1), spatial(2), mask()
    made = act(Self(Window(0, 5), True, inverse), SELF, own, source, m)
    theirs, ours = probabilities(source), probabilities(own)
    inside = rows(1 - m if inverse else m)
    for f in range(3):
        for n in range(8):
            matrix = ours if inside[f, n] == 1 else theirs
            expected = torch.einsum("hm,hme->he", matrix[0, f, :, n], own.v[0, f])
            torch.testing.assert_close(made[0, f, :, n], expected, atol=1e-13, rtol=0)


def test_a_soft_mask_mixes_in_proportion():
    own, source = spatial(1), spatial(2)
    made = act(
        Self(Window(0, 5), True), SELF, own, source, torch.full(tuple(GRID), 0.25, dtype=torch.float64)
    )
    matrix = 0.25 * probabilities(own) + 0.75 * probabilities(source)
    torch.testing.assert_close(made, matrix @ own.v, atol=1e-13, rtol=0)


def test_plain_self_attention_is_the_sources_matrix_on_the_edits_values():
    own, source = spatial(1), spatial(2)
    made = act(Self(Window(0, 5), False), SELF, own, source)
    torch.testing.assert_close(made, probabilities(source) @ own.v, atol=1e-13, rtol=0)


@pytest.mark.parametrize("inside", ["edit", "source"])
def test_temporal_keys_are_mixed_place_by_place(inside):
    own, source, m = qkv(8, 3, 3, 4), qkv(8, 3, 3, 5), mask()
    made = act(Temporal(Window(0, 5), True, inside=inside), TEMPORAL, own, source, m)
    first, second = (own, source) if inside == "edit" else (source, own)
    for place in range(8):
        picked = [m[f, place // 4, place % 4] for f in range(3)]
        q, k = (
            torch.stack(
                [
                    (getattr(first, name) if picked[f] == 1 else getattr(second, name))[0, place, :, f]
                    for f in range(3)
                ],
                dim=1,
            )
            for name in ("q", "k")
        )
        matrix = torch.softmax(torch.einsum("hnd,hmd->hnm", q, k) * 0.6, dim=-1)
        expected = matrix @ own.v[0, place]
        torch.testing.assert_close(made[0, place], expected, atol=1e-13, rtol=0)


def test_temporal_maps_are_replaced_whole_whatever_the_mask():
    own, source = qkv(8, 3, 3, 4), qkv(8, 3, 3, 5)
    made = act(Temporal(Window(1, 5), False, keys=False), TEMPORAL, own, source, mask())
    torch.testing.assert_close(made, probabilities(source) @ own.v, atol=1e-13, rtol=0)


def word_map(seed=9):
    rng = torch.Generator().manual_seed(seed)
    matrix = torch.rand(LENGTH, LENGTH, generator=rng, dtype=torch.float64)
    return WordMap(matrix, torch.rand(LENGTH, generator=rng, dtype=torch.float64))


def cross(*, masked_first=False, gate=None, factors=None):
    gate = torch.ones(LENGTH, dtype=torch.bool) if gate is None else gate
    factors = torch.ones(LENGTH, dtype=torch.float64) if factors is None else factors
    return Cross(gate[None], True, word_map(), factors, masked_first)


def written_cross(own, source, m, *, masked_first, gate, factors):
    """Column by column on explicit maps, in the order that the card gives."""
    theirs, ours, words = probabilities(source)[0], probabilities(own)[0], word_map()
    keep = torch.zeros(3, 1, 8, 1, dtype=torch.float64) if m is None else rows(m)[:, None, :, None]
    lent = (1 - keep) * theirs + keep * ours if masked_first else theirs
    made = torch.zeros_like(ours)
    for column in range(LENGTH):
        new = sum(lent[..., k] * words.matrix[k, column] for k in range(LENGTH))
        new = (new + words.own[column] * ours[..., column]) * factors[column]
        if not masked_first:
            new = (1 - keep[..., 0]) * new + keep[..., 0] * ours[..., column] * factors[column]
        made[..., column] = new if gate[column] else ours[..., column]
    return made @ own.v[0]


@pytest.mark.parametrize("masked_first", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_text_attention_equals_the_written_out_columns(masked_first, with_mask, gated):
    own, source = spatial(6, LENGTH), spatial(7, LENGTH)
    gate = torch.ones(LENGTH, dtype=torch.bool)
    if gated:
        gate[[1, 4]] = False
    factors = torch.linspace(0.5, 3, LENGTH, dtype=torch.float64)
    m = mask() if with_mask else None
    made = act(cross(masked_first=masked_first, gate=gate, factors=factors), CROSS, own, source, m)
    expected = written_cross(own, source, m, masked_first=masked_first, gate=gate, factors=factors)
    torch.testing.assert_close(made[0], expected, atol=1e-12, rtol=0)


def test_the_order_of_mask_and_word_map_matters():
    own, source = spatial(6, LENGTH), spatial(7, LENGTH)
    first, second = (act(cross(masked_first=flag), CROSS, own, source, mask()) for flag in (True, False))
    assert float((first - second).abs().max()) > 1e-2


@pytest.mark.parametrize("kind", ["self", "cross", "temporal"])
def test_a_lender_of_values_hides_the_edit_entirely(kind):
    site = {"self": SELF, "cross": CROSS, "temporal": TEMPORAL}[kind]
    policy = {"self": Self(Window(0, 1), True), "cross": cross(), "temporal": Temporal(Window(0, 1), True)}[
        kind
    ]
    shape = (8, 3, 3) if kind == "temporal" else (3, 8, LENGTH if kind == "cross" else 8)
    source = qkv(*shape, 2)
    made = [act(policy, site, qkv(*shape, seed), source, lend=True) for seed in (11, 12)]
    torch.testing.assert_close(made[0], made[1], atol=0, rtol=0)
    torch.testing.assert_close(made[0], attend(source))


@pytest.fixture(scope="module")
def begun():
    """An edit whose policies and masks the tests choose."""
    clip = Clip("c", torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    task = EditTask("t", "c", "a red car", "a blue car", {"car": "car"}, "shape")
    return InvertFuse(steps=2).begin(UNet3D.random(0, max_tokens=20), clip, task)


def fusing(begun, i, plan, keeps_object=False, **attention):
    made = {"self": Self(Window(0, 2), True), **attention}
    policies = Policies(made, vanish=("temporal", "cross") if keeps_object else ())
    return dataclasses.replace(begun, policies=policies, masks=plan).fusing(i)


def planned(value):
    asked = []

    def answer(wanted):
        asked.append(wanted)
        return torch.full(tuple(wanted.grid), value)

    return MaskPlan(answer), asked


def test_only_the_conditional_stream_changes_and_the_order_stays(begun):
    stacked, where = qkv(3, 8, 8, 1, streams=3), Where(SELF, 41, GRID, ("source", "uncond", "cond"))
    plan, asked = planned(0.0)
    made, plain = fusing(begun, 1, plan)(where, stacked), attend(stacked)
    torch.testing.assert_close(made[:2], plain[:2])
    expected = attend(QKV(q=stacked.q[:1], k=stacked.k[:1], v=stacked.v[2:], scale=0.6))
    torch.testing.assert_close(made[2:], expected, atol=1e-13, rtol=0)
    assert asked == [Wanted("self", 41, GRID)]


def test_outside_the_window_nothing_is_asked_and_nothing_changes(begun):
    stacked, where = qkv(3, 8, 8, 1, streams=2), Where(SELF, 41, GRID, ("source", "cond"))
    plan, asked = planned(0.0)
    torch.testing.assert_close(fusing(begun, 2, plan)(where, stacked), attend(stacked))
    assert not asked


def test_where_the_object_stays_temporal_and_text_masks_vanish(begun):
    """Eq. 9 with delta = 1: the source everywhere, and the strategy is not even asked."""
    where = Where(TEMPORAL, 41, GRID, ("source", "cond"))
    stacked = qkv(8, 3, 3, 1, streams=2)
    made = {}
    for keeps in (True, False):
        plan, asked = planned(1.0)
        made[keeps] = fusing(begun, 0, plan, keeps, temporal=Temporal(Window(0, 2), True))(where, stacked)[1]
        assert bool(asked) is not keeps
    torch.testing.assert_close(made[False], attend(stacked)[1])
    assert float((made[True] - made[False]).abs().max()) > 1e-2


def test_small_layers_only_where_a_limit_is_given():
    assert Self(Window(0, 1), True, most_queries=8).serves(SELF, GRID)
    assert not Self(Window(0, 1), True, most_queries=7).serves(SELF, GRID)
    assert not Temporal(Window(0, 1), True, most_positions=7).serves(TEMPORAL, GRID)
    assert not Temporal(Window(0, 1), True, skip=("t.",)).serves(TEMPORAL, GRID)
    assert not Self(Window(0, 1), True).serves(TEMPORAL, GRID)


def text(prompt):
    words = prompt.split()
    ids = (98, *(hash(word) % 90 for word in words), 99)
    columns = {word: (place + 1,) for place, word in enumerate(words)}
    starts = [prompt.index(word) for word in words]
    spans = ((0, 0), *((a, a + len(w)) for a, w in zip(starts, words, strict=True)), (0, 0))
    return Text(prompt, torch.zeros(LENGTH, 4), columns, len(ids), ids, spans)


SITES = {site.name: site for site in (SELF, CROSS, TEMPORAL)}


def subject(kind="shape", steps=10, words=None, sites=SITES, keep_object=None):
    words = {"car": "boat"} if words is None else words
    task = EditTask("t", "c", "a car on grass", "a boat on grass", words, kind)
    clip = Clip("c", torch.zeros(2, 3, 8, 8))
    texts = text(task.source), text(task.target)
    delta = same_object(task) if keep_object is None else keep_object
    grids = dict.fromkeys(sites, GRID)
    return Subject(task, clip, *texts, DdimPath().times(steps), sites, grids, "none", delta, Clock(2))


def active_steps(policy, site, steps):
    return [i for i in range(steps) if policy.awake(i) and policy.serves(site, GRID)]


@pytest.mark.parametrize(
    ("variant", "temporal", "cross_", "self_"),
    [
        ("paper", range(9), range(5), range(3)),
        ("official", range(9), range(5), range(3)),
    ],
)
def test_windows_of_ten_steps(variant, temporal, cross_, self_):
    policies = Fusion(variant=variant).policies(subject(), masks=True)
    assert active_steps(policies.attention["temporal"], TEMPORAL, 10) == list(temporal)
    assert active_steps(policies.attention["cross"], CROSS, 10) == list(cross_)
    assert active_steps(policies.attention["self"], SELF, 10) == list(self_)


def test_windows_where_paper_and_official_code_count_differently():
    """Eleven steps at a share of one half: the official text window counts on steps + 1."""
    windows = {"shape": {"cross": 0.5, "temporal": 0.9}}
    counts = {}
    for variant in ("paper", "official"):
        made = Fusion(variant=variant, windows=windows, **only(cross="plain", temporal="plain"))
        policies = made.policies(subject(steps=11), masks=False)
        counts[variant] = [
            active_steps(policies.attention["cross"], CROSS, 11),
            active_steps(policies.attention["temporal"], TEMPORAL, 11),
        ]
    assert counts["paper"] == [list(range(5)), list(range(9))]
    assert counts["official"] == [list(range(6)), list(range(1, 9))]


def test_latents_are_blended_at_their_own_level_and_officially_one_too_noisy():
    windows = {"shape": {"latent": [0.2, 0.8]}}
    paper, official = (
        Fusion(variant=variant, windows=windows).policies(subject(), masks=True).latent
        for variant in ("paper", "official")
    )
    assert paper == LatentBlend(Window(2, 8)) and official == LatentBlend(Window(2, 7), late=True)


@pytest.mark.parametrize("late", [False, True])
def test_the_level_of_blended_latents(begun, late):
    """After the last step of two: the clean latent, or officially that of the level above."""
    blend = LatentBlend(Window(0, 2), late=late, masked=False)
    editing = dataclasses.replace(begun, policies=Policies({}, blend))
    first, last = reversed(begun.subject.times)
    levels = begun.inversion.latents
    assert torch.equal(editing.after(levels[0], 0, first), levels[2 if late else 1])
    assert torch.equal(editing.after(levels[0], 1, last), levels[1 if late else 0])


def test_plain_latents_are_the_clips_own_everywhere_and_need_no_mask():
    for masks in (False, True):
        plain = Fusion(**only(latent="plain")).policies(subject(), masks=masks)
        assert plain.latent == LatentBlend(Window(2, 6), masked=False) and not plain.attention


def test_without_masks_masked_parts_are_plain_and_latents_are_left_alone():
    policies = Fusion().policies(subject(), masks=False)
    assert policies.latent is None and not any(each.masked for each in policies.attention.values())
    policies = Fusion().policies(subject(), masks=True)
    assert policies.latent.masked and all(each.masked for each in policies.attention.values())


@pytest.mark.parametrize(
    ("kind", "words", "keeps", "inverse"),
    [
        ("shape", {"car": "boat"}, False, False),
        ("shape", {"car": "car"}, True, False),
        ("attribute", {"car": "car"}, True, False),
        ("style", {}, True, True),
    ],
)
def test_delta_and_the_inverse_mask_follow_the_kind_of_edit(kind, words, keeps, inverse):
    made = subject(kind, words=words)
    policies = Fusion().policies(made, masks=True)
    assert made.keeps_object is keeps and policies.attention["self"].inverse is inverse
    assert policies.vanish == (("temporal", "cross") if keeps else ())
    official = Fusion(variant="official").policies(made, masks=True)
    assert not official.attention["self"].inverse and not official.vanish
    other = subject(kind, words=words, keep_object=not keeps)
    assert bool(Fusion().policies(other, masks=True).vanish) is not keeps


def test_switches_and_words_mean_what_they_say():
    made = Fusion(temporal=True, cross=False, self="plain", latent="off")
    modes = {part: made.mode(part) for part in PARTS}
    assert modes == {"temporal": "masked", "cross": "off", "self": "plain", "latent": "off"}
    assert set(made.policies(subject(), masks=True).attention) == {"temporal", "self"}
    assert Fusion(temporal="on").mode("temporal") == "masked"


@pytest.mark.parametrize("part", ["temporal", "cross", "self"])
def test_a_part_that_serves_no_layer_is_refused(part):
    """Missing layers, and layers that all lie beyond the limits."""
    role = part
    others = {name: site for name, site in SITES.items() if site.role != role}
    with pytest.raises(UserError, match=f"fusion.{part} acts in no layer"):
        Fusion(**only(**{part: "plain"})).policies(subject(sites=others), masks=True)
    limit = {"temporal": {"skip": ("t.",)}}.get(part, {"most_queries": 7})
    with pytest.raises(UserError, match=f"fusion.{part}=off"):
        Fusion(**only(**{part: "plain"}), **limit).policies(subject(), masks=True)


def test_joint_layers_serve_every_part():
    joint = Site("blocks.0.attn", "joint", 1, batch="1", tokens="(f h w)", text="first")
    made = Fusion().policies(subject(sites={joint.name: joint}), masks=True)
    assert set(made.attention) == {"temporal", "cross", "self"}
    assert all(policy.serves(joint, GRID) for policy in made.attention.values())


def test_spatial_fusion_serves_attention_over_all_frames_too():
    both = Site("blocks.0.attn1", "space_time", 1, batch="1", tokens="(f h w)")
    made = Fusion(**only(self="masked")).policies(subject(sites={both.name: both}), masks=True)
    assert made.attention["self"].serves(both, GRID)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"self": "maskd"}, "masked"),
        ({"variant": "offical"}, "official"),
        ({"control": "swap"}, "replace"),
        ({"windows": {"shape": {"self": 1.5}}}, "0 to 1"),
        ({"windows": {"shape": {"latent": 0.5}}}, "from, until"),
        ({"windows": {"shapes": {}}}, "shape"),
        ({"windows": {"shape": {"selfs": 0.5}}}, "self"),
        ({"inverse": ["styl"]}, "style"),
        ({"values": "both"}, "source"),
    ],
)
def test_settings_that_mean_nothing_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        Fusion(**given)


def test_every_kind_of_edit_has_every_window():
    for kind in ("style", "attribute", "shape", "background"):
        assert set(WINDOWS[kind]) == {"temporal", "cross", "self", "latent"}
        Fusion().policies(subject(kind), masks=True)


class Shapes(TorchDispatchMode):
    """The last two axes of all that is computed, attention itself (whose kernels are tested elsewhere) apart."""

    def __init__(self):
        super().__init__()
        self.seen, self.calls, self.watching = set(), 0, True

    def __torch_dispatch__(self, called, types, args=(), kwargs=None):
        made = called(*args, **(kwargs or {}))
        if self.watching and isinstance(made, torch.Tensor):
            self.seen.add(tuple(made.shape[-2:]))
        return made

    def attend(self, each):
        self.calls, self.watching = self.calls + 1, False
        made = attend(each)
        self.watching = True
        return made


POLICIES = {
    "self": (Self(Window(0, 1), True), SELF, (3, 8, 8)),
    "self, turned round": (Self(Window(0, 1), True, inverse=True), SELF, (3, 8, 8)),
    "words": (cross(factors=torch.linspace(0.5, 3, LENGTH, dtype=torch.float64)), CROSS, (3, 8, LENGTH)),
    "words, masked first": (cross(masked_first=True), CROSS, (3, 8, LENGTH)),
    "frames by keys": (Temporal(Window(0, 1), True, inside="source"), TEMPORAL, (8, 3, 3)),
    "frames by maps": (Temporal(Window(0, 1), False, keys=False), TEMPORAL, (8, 3, 3)),
}


def test_every_kind_of_policy_is_tried():
    assert {type(policy) for policy, *_ in POLICIES.values()} == {
        each for each in vars(kinds).values() if isinstance(each, type) and "awake" in vars(each)
    } - {Policy}


@pytest.mark.parametrize("lend", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", POLICIES)
def test_no_matrix_of_queries_by_keys_is_ever_formed(monkeypatch, name, masked, lend):
    """Whatever a policy computes outside `attend`, whose fused kernel forms no matrix."""
    policy, site, (b, n, m) = POLICIES[name]
    shapes = Shapes()
    for module in (ops, kinds):
        monkeypatch.setattr(module, "attend", shapes.attend)
    given = qkv(b, n, m, 1), qkv(b, n, m, 2), mask() if masked else None, lend
    with shapes:
        act(policy, site, *given)
    assert (n, m) not in shapes.seen and (m, n) not in shapes.seen
    assert shapes.calls


def test_constant_masks_and_wrong_grids():
    plan = everywhere(1)
    assert plan(Wanted("self", 1, GRID)).shape == tuple(GRID)
    wrong = dataclasses.replace(plan, mask=lambda wanted: torch.ones(1, 1, 1))
    with pytest.raises(ValueError, match="asked for"):
        wrong(Wanted("self", 1, GRID))
    assert Recording().all("x") == {}
