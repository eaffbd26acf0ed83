"""Fusion where one softmax runs over text and video: against written-out matrices, and what it must be at its ends."""

from dataclasses import replace

import pytest
import torch

from freemask.alignment import WordMap
from freemask.attention.bias import Additive, KeyMask, Regions
from freemask.attention.layout import in_rows
from freemask.attention.math import attend, probabilities
from freemask.backbones.cogvideox import CogVideoX
from freemask.backbones.hunyuan import Hunyuan
from freemask.backbones.hunyuan15 import Hunyuan15
from freemask.fusion import joint, ops, policies
from freemask.fusion.policies import Cross, Self, Temporal, Window
from freemask.fusion.settings import Fusion
from freemask.methods.invert_fuse import InvertFuse
from freemask.types import QKV, Clip, EditTask, Grid, Site, Where
from tests.given import Half
from tests.test_fusion import Shapes

GRID, TEXT = Grid(3, 2, 4), 5
VIDEO = 24
NOW = Window(0, 1)
FACTORS = torch.tensor([1.0, 2.0, 1.0, 0.5, 1.0], dtype=torch.float64)
# The words as they stand; and a new one in the second column, the third taken from the fourth.
SAME = WordMap(torch.eye(TEXT, dtype=torch.float64), torch.zeros(TEXT, dtype=torch.float64))
CHANGED = WordMap(torch.eye(TEXT, dtype=torch.float64)[:, [0, 0, 3, 3, 4]], torch.zeros(TEXT).double())
CHANGED.matrix[:, 1], CHANGED.own[1] = 0, 1


def place(text="first", layer="joint"):
    site = Site("blocks.0.attn", layer, 1, batch="1", tokens="(f h w)", text=text)
    return Where(site, 21, GRID, ("source", "cond"), TEXT)


def qkv(seed, bias=None):
    rng = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, 1, 2, VIDEO + TEXT, 4, generator=rng, dtype=torch.float64) for _ in range(3))
    return QKV(q=q, k=k, v=v, scale=0.6, bias=bias)


def padded(length, text="first"):
    """A key mask: of the text, so many columns are words."""
    allowed = torch.ones(1, 1, VIDEO + TEXT, dtype=torch.bool)
    columns = torch.arange(TEXT) if text == "first" else torch.arange(VIDEO, VIDEO + TEXT)
    allowed[:, :, columns[length:]] = False
    return KeyMask(allowed)


def cross(words=SAME, factors=None, **more):
    factors = torch.ones(TEXT).double() if factors is None else factors
    return Cross(torch.ones(1, TEXT, dtype=torch.bool), True, words, factors, **more)


def soft(where, seed=3):
    mask = torch.rand(tuple(GRID), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return in_rows(mask, where)


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def blend(mask, inside, outside):
    return outside if mask is None else mask * inside + (1 - mask) * outside


def written_out(own, source, where, acting):
    """With whole matrices. The source has the values that it lends."""
    video = slice(TEXT, None) if where.site.text == "first" else slice(0, VIDEO)
    text = slice(0, TEXT) if where.site.text == "first" else slice(VIDEO, None)
    ours, theirs = probabilities(own), probabilities(source)
    part, policy, mask = next(((p, *acting[p]) for p in ("self", "temporal") if p in acting), (None, 0, 0))
    seen, mass = ours[..., video] @ own.v[..., video, :], ours[..., video].sum(-1, keepdim=True)
    if part is not None:
        mask = mask if mask is None or not getattr(policy, "inverse", False) else 1 - mask
        mass = blend(mask, mass, theirs[..., video].sum(-1, keepdim=True))
        seen = blend(mask, seen, theirs[..., video] @ source.v[..., video, :])
    if part == "temporal" and mask is not None:
        q, k, v = (blend(mask, getattr(own, x), getattr(source, x)) for x in "qkv")
        logits = (q @ k.transpose(-1, -2) * 0.6)[..., video]
        seen = mass * (torch.softmax(logits, dim=-1) @ v[..., video, :])
    words, read = own.v[..., text, :], ours[..., text]
    if "cross" in acting:
        policy, mask = acting["cross"]
        if policy.lends:
            weights = blend(mask, read * policy.factors, 0 * read), blend(mask, 0 * read, theirs[..., text])
            words, read = torch.cat([words, source.v[..., text, :]], dim=-2), torch.cat(weights, dim=-1)
        else:
            mapped = theirs[..., text] @ policy.words.matrix + read * policy.words.own
            read = blend(mask, read * policy.factors, mapped * policy.factors)
    made = (seen + read @ words) / (mass + read.sum(-1, keepdim=True))
    made[..., text, :] = (ours @ own.v)[..., text, :]
    return made


VIDEO_PARTS = {
    "none": {},
    "self": {"self": Self(NOW, True)},
    "self turned round": {"self": Self(NOW, True, inverse=True)},
    "temporal": {"temporal": Temporal(NOW, True)},
}
TEXT_PARTS = {"none": {}, "same": {"cross": cross()}, "changed": {"cross": cross(CHANGED, FACTORS)}}


@pytest.mark.parametrize("text", ["first", "last"])
@pytest.mark.parametrize("words", TEXT_PARTS)
@pytest.mark.parametrize("video", VIDEO_PARTS)
def test_fusion_is_the_written_out_one(video, words, text):
    """Masked or not, with the edit's values or the source's, with prompts of different lengths."""
    where, parts = place(text), {**VIDEO_PARTS[video], **TEXT_PARTS[words]}
    for masked in (True, False):
        for lends in (False, True):
            own, source = qkv(1, padded(3, text)), qkv(2, padded(4, text))
            source = source if lends else replace(source, v=own.v)
            acting = {
                part: (replace(policy, lends=lends) if part == "cross" else policy, soft(where, seed))
                for seed, (part, policy) in enumerate(parts.items())
            }
            if not masked:
                acting = {part: (policy, None) for part, (policy, _) in acting.items()}
            made = joint.fused(own, source, where, acting, 0)
            close(made, written_out(own, source, where, acting))


def test_the_sources_attention_on_the_edits_values_where_nothing_is_masked():
    where, own, source = place(), qkv(1), qkv(2)
    lender = replace(source, v=own.v)
    for part in ({"self": Self(NOW, False)}, {"temporal": Temporal(NOW, False)}):
        for mask in (None, torch.zeros_like(soft(where))):
            acting = {name: (policy, mask) for name, policy in {**part, "cross": cross()}.items()}
            made = joint.fused(own, lender, where, acting, 0)
            close(made[..., TEXT:, :], attend(lender)[..., TEXT:, :])
            close(made[..., :TEXT, :], attend(own)[..., :TEXT, :])


@pytest.mark.parametrize("part", ["self", "temporal"])
def test_a_mask_of_ones_is_plain_attention(part):
    where, own, source = place("last"), qkv(1, padded(3, "last")), qkv(2, padded(5, "last"))
    ones = torch.ones_like(soft(where))
    kinds = {"self": Self(NOW, True), "temporal": Temporal(NOW, True)}
    acting = {part: (kinds[part], ones), "cross": (cross(CHANGED), ones)}
    close(joint.fused(own, replace(source, v=own.v), where, acting, 0), attend(own))


def test_rows_are_means_of_values():
    """Whatever is taken away or made stronger: values that are all alike come out as they are."""
    where, own, source = place(), qkv(1), qkv(2)
    alike = torch.full_like(own.v, 2.5)
    acting = {"self": (Self(NOW, True), soft(where)), "cross": (cross(CHANGED, 3 * FACTORS), soft(where, 4))}
    close(joint.fused(replace(own, v=alike), replace(source, v=alike), where, acting, 0), alike)


def test_no_matrix_of_tokens_by_tokens_is_ever_formed(monkeypatch):
    shapes, where, n = Shapes(), place(), VIDEO + TEXT
    for module in (joint, ops, policies):
        monkeypatch.setattr(module, "attend", shapes.attend)
    own, source = qkv(1), qkv(2)
    for parts in VIDEO_PARTS.values():
        acting = {name: (policy, soft(where)) for name, policy in {**parts, "cross": cross()}.items()}
        with shapes:
            joint.fused(own, source, where, acting, 0)
    assert not {(n, n), (n, VIDEO), (VIDEO, VIDEO)} & shapes.seen and shapes.calls


def test_attention_to_some_keys_and_its_share():
    own = qkv(1)
    some, rest = slice(0, 7), slice(7, None)
    maps = probabilities(own)
    for bias in (None, padded(2), Additive(torch.randn(1, 1, 2, VIDEO + TEXT, VIDEO + TEXT).double())):
        given = replace(own, bias=bias)
        maps = probabilities(given)
        parts = [
            attend(
                replace(
                    given,
                    k=own.k[..., part, :],
                    v=own.v[..., part, :],
                    bias=None if bias is None else bias.columns(part),
                    share=maps[..., part].sum(-1, keepdim=True),
                )
            )
            for part in (some, rest)
        ]
        close(parts[0] + parts[1], attend(given))
        assert torch.equal(probabilities(replace(given, share=maps[..., :1])), maps * maps[..., :1])
    regions = Regions(torch.rand(1, 1, 9, 2), torch.rand(1, 1, 8, 2))
    assert torch.equal(regions.columns(some).rows(slice(None)), regions.rows(slice(None))[..., some])
    assert replace(own, share=maps[..., :1]).stream(0).share is not None


# --- whole edits, on tiny networks ------------------------------------------------------------------------------

FAMILIES = {"cogvideox": CogVideoX, "hunyuan": Hunyuan, "hunyuan15": Hunyuan15}


@pytest.fixture(params=FAMILIES)
def backbone(request):
    return FAMILIES[request.param].random(0, dtype="float64")


def edited(backbone, target="a blue car on grass", **options):
    frames = torch.rand(8, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    task = EditTask("t", "c", "a red car on grass", target, {"red": "blue"}, "shape")
    method = InvertFuse(**{"steps": 4, "mask": Half(), "fusion": Fusion(), **options})
    return method(backbone, Clip("c", frames), task, torch.Generator())


OPTIONS = {
    "cogvideox": [{}, {"variant": "official"}],
    "hunyuan": [{}, {"values": "source"}],
    "hunyuan15": [{}],
}


@pytest.mark.parametrize(
    ("backbone", "options"),
    [(name, each) for name in OPTIONS for each in OPTIONS[name]],
    indirect=["backbone"],
)
def test_features_that_were_kept_give_the_same_edit(backbone, options):
    """The source beside the edit sees what the inversion saw; each layer is kept once, whatever parts act in it."""
    fusion = Fusion(**options)
    again, kept = (
        edited(backbone, fusion=fusion, keep_object=False, features=features, guidance=4.0)
        for features in ("recompute", "cache")
    )
    torch.testing.assert_close(again.frames, kept.frames, atol=1e-6, rtol=0)
    plain = edited(backbone, fusion=Fusion(self="off", temporal="off", cross="off"), guidance=4.0)
    assert (again.frames - plain.frames).abs().max() > 1e-3
    assert 0 < kept.facts["features_gb"] < 0.01


def test_the_own_prompt_gives_the_clip_back(backbone):
    with torch.no_grad():  # as quiet as a trained network, so that the inversion can be undone
        backbone.network.proj_out.weight.mul_(0.01)
        backbone.network.proj_out.bias.mul_(0.01)
    made = edited(backbone, target="a red car on grass", guidance=1.0, keep_object=False)
    frames = torch.rand(8, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    decoded = backbone.decode(backbone.encode(frames), 8)
    torch.testing.assert_close(made.frames, decoded, atol=5e-3, rtol=0)
