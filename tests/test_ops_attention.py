"""Attention mathematics against written-out versions; recording; the processor against the library's own."""

import math
from dataclasses import replace

import pytest
import torch

from freemask.attention.math import attend, probabilities, word_mass
from freemask.attention.processor import Call, SiteProcessor, Slot
from freemask.attention.record import Recording, Words, heads_apart, heat_of_words, on_grid, recorder
from freemask.errors import UserError
from freemask.types import QKV, Grid, Site, Taps, Where

CROSS = Site("net.attn2", "cross", 2)


def random_qkv(n, m, *, dtype=torch.float64):
    """Two streams, a batch of three, two heads of width four."""
    rng = torch.Generator().manual_seed(n * 100 + m)
    made = {
        name: torch.randn(2, 3, 2, tokens, 4, generator=rng, dtype=torch.float64).to(dtype)
        for name, tokens in {"q": n, "k": m, "v": m}.items()
    }
    return QKV(**made, scale=0.7)


def written_out(qkv):
    """Attention with loops and scalars."""
    s, b, heads, n, _ = qkv.q.shape
    out = torch.zeros(s, b, heads, n, qkv.v.shape[-1], dtype=torch.float64)
    matrix = torch.zeros(s, b, heads, n, qkv.k.shape[-2], dtype=torch.float64)
    for index in torch.cartesian_prod(*map(torch.arange, (s, b, heads, n))):
        i, j, h, row = index.tolist()
        logits = [
            sum(x * y for x, y in zip(qkv.q[i, j, h, row].tolist(), key.tolist(), strict=True)) * qkv.scale
            for key in qkv.k[i, j, h]
        ]
        weights = [math.exp(logit - max(logits)) for logit in logits]
        for column, weight in enumerate(weights):
            matrix[i, j, h, row, column] = weight / sum(weights)
            out[i, j, h, row] += weight / sum(weights) * qkv.v[i, j, h, column]
    return out, matrix


@pytest.mark.parametrize(("n", "m"), [(5, 7), (1, 1), (30, 3)])
def test_attention_equals_the_written_out_sums(n, m):
    qkv = random_qkv(n, m)
    out, matrix = written_out(qkv)
    torch.testing.assert_close(attend(qkv), out, atol=1e-14, rtol=0)
    torch.testing.assert_close(probabilities(qkv), matrix, atol=1e-14, rtol=0)


@pytest.mark.parametrize("n", [8, 24, 25, 64])
def test_kernels_chosen_by_shape_agree_and_so_do_slices(n):
    qkv = random_qkv(n, n, dtype=torch.float32)
    explicit = probabilities(qkv) @ qkv.v
    torch.testing.assert_close(attend(qkv), explicit, atol=2e-6, rtol=0)
    torch.testing.assert_close(attend(replace(qkv, rows=4)), attend(qkv), atol=1e-6, rtol=0)


@pytest.mark.parametrize("n", [6, 40])
def test_word_mass_sums_the_columns_of_the_matrix(n):
    qkv = random_qkv(n, 9)
    groups = [[1], [2, 3, 8], [0, 1], [4], [5], [6]]  # more groups than the head is wide
    mass, matrix = word_mass(qkv, groups), probabilities(qkv)
    for place, columns in enumerate(groups):
        torch.testing.assert_close(mass[..., place], matrix[..., columns].sum(-1), atol=1e-14, rtol=0)
    torch.testing.assert_close(word_mass(qkv, [range(9)])[..., 0], torch.ones_like(qkv.q[..., 0]))


def test_word_mass_of_half_precision_is_computed_in_single():
    half = random_qkv(30, 9, dtype=torch.bfloat16)
    whole = QKV(q=half.q.float(), k=half.k.float(), v=half.v.float(), scale=half.scale)
    assert word_mass(half, [[1]]).dtype == torch.float32
    torch.testing.assert_close(word_mass(half, [[1]]), word_mass(whole, [[1]]))


def test_attention_lets_gradients_through():
    for n in (8, 40):
        qkv = random_qkv(n, n)
        qkv.q.requires_grad_(True)
        attend(qkv).sum().backward()
        assert qkv.q.grad is not None and qkv.q.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("batch", "tokens", "b", "n"), [("f", "(h w)", 2, 12), ("(h w)", "f", 12, 2), ("1", "(f h w)", 1, 24)]
)
def test_a_planted_query_is_found_on_the_grid(batch, tokens, b, n):
    where = Where(Site("x", "cross", 1, batch, tokens), 1, Grid(2, 3, 4), ("source",))
    values = torch.zeros(b, n)
    f, h, w = 1, 2, 1
    place = {"f": (f, h * 4 + w), "(h w)": (h * 4 + w, f), "1": (0, (f * 3 + h) * 4 + w)}[batch]
    values[place] = 1
    assert on_grid(values, where).nonzero().tolist() == [[f, h, w]]


def heat_case(streams=("uncond", "cond")):
    return Where(CROSS, 21, Grid(3, 5, 2), streams), random_qkv(10, 7)


def test_heat_of_words_is_the_mean_over_heads_of_the_prompts_stream():
    where, qkv = heat_case()
    keep, kept = heat_of_words("heat", (2, 4)), Recording()
    out = recorder([keep], kept)(where, qkv)
    torch.testing.assert_close(out, attend(qkv))
    expected = probabilities(qkv)[1][..., [2, 4]].sum(-1).mean(1).reshape(3, 5, 2)
    torch.testing.assert_close(kept.get("heat", where), expected, atol=1e-14, rtol=0)
    assert list(kept.all("heat")) == [("net.attn2", 21)]


def test_a_share_is_the_means_over_heads_divided_by_those_of_other_columns():
    where, qkv = heat_case()
    p = probabilities(qkv)[1].mean(1)
    expected = (p[..., [2, 4]].sum(-1) / p[..., 1:6].sum(-1)).reshape(3, 5, 2)
    words = Words((4, 2, 2), among=(1, 2, 3, 4, 5))
    found = heat_of_words("heat", words).shrink(where, qkv)
    torch.testing.assert_close(found, expected, atol=1e-14, rtol=0)
    faint = replace(
        qkv, k=qkv.k.index_fill(-2, torch.arange(1, 6), 0), q=qkv.k[..., :1, :].expand_as(qkv.q) * 1e6
    )
    assert heat_of_words("heat", words).shrink(where, faint).isfinite().all()


def test_heads_are_recorded_apart_in_one_pass_or_one_alone():
    where, qkv = heat_case(("source",))
    words, kept = Words((2, 4), among=(1, 2, 3, 4)), Recording()
    p = probabilities(qkv)[0]
    torch.testing.assert_close(heads_apart("heat", words, kept)(where, qkv), attend(qkv))
    assert list(kept.all("heat")) == [("net.attn2:0", 21), ("net.attn2:1", 21)]
    for head, found in enumerate(kept.all("heat").values()):
        mass = p[:, head]
        expected = (mass[..., [2, 4]].sum(-1) / mass[..., 1:5].sum(-1)).reshape(3, 5, 2)
        torch.testing.assert_close(found, expected, atol=1e-14, rtol=0)
        assert torch.equal(
            heat_of_words("h", replace(words, head=f"net.attn2:{head}")).shrink(where, qkv), found
        )
    assert not heat_of_words("h", replace(words, head="net.attn1:0")).wants(where)
    with pytest.raises(UserError, match="no such head"):
        heat_of_words("h", replace(words, head="net.attn2:2")).shrink(where, qkv)


def test_heat_of_words_wants_only_what_was_chosen():
    where, _ = heat_case()
    assert heat_of_words("h", (1,)).wants(where)
    assert heat_of_words("h", (1,), strides={2}, times={21}, sites={"net.attn2"}, stream="cond").wants(where)
    for refused in ({"strides": {4}}, {"times": {1}}, {"sites": {"other"}}, {"stream": "source"}):
        assert not heat_of_words("h", (1,), **refused).wants(where)
    assert not heat_of_words("h", (1,)).wants(Where(Site("t", "temporal", 1), 21, Grid(3, 5, 2), ("source",)))
    with pytest.raises(ValueError, match="no text columns"):
        heat_of_words("h", ())


def test_recorder_passes_on_to_the_next_tap():
    where, qkv = heat_case()
    tap = recorder([heat_of_words("heat", (2,))], Recording(), then=lambda _, given: given.q * 0)
    assert not tap(where, qkv).any()
    with pytest.raises(ValueError, match="same name"):
        recorder([heat_of_words("heat", (2,)), heat_of_words("heat", (3,))], Recording())


def test_recording_refuses_duplicates_and_unknown_keys():
    where, qkv = heat_case()
    kept = Recording()
    kept.put("q", where, qkv.q)
    with pytest.raises(ValueError, match="already recorded at net.attn2, t = 21"):
        kept.put("q", where, qkv.q)
    with pytest.raises(KeyError, match=r"times recorded there: \[21\]"):
        kept.get("q", Where(CROSS, 41, where.grid, where.streams))


def test_recording_keeps_to_its_budget_and_says_who_filled_it():
    where, qkv = heat_case()
    size = qkv.q.numel() * 8
    kept = Recording(budget=2 * size)
    kept.put("big", where, qkv.q)
    kept.put("other", where, qkv.q)
    with pytest.raises(UserError, match="'third' at net.attn2") as refusal:
        kept.put("third", where, qkv.q[:, :1])
    assert "big: " in str(refusal.value) and "other: " in str(refusal.value)


def test_recording_does_not_hold_what_a_view_looks_at():
    where, qkv = heat_case()
    kept = Recording()
    kept.put("part", where, qkv.q[:1, :1].requires_grad_(True))
    held = kept.get("part", where)
    assert held.untyped_storage().nbytes() == held.numel() * 8
    assert not held.requires_grad


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm_num_groups": 4, "residual_connection": True, "rescale_output_factor": 1.7, "bias": True},
        {"cross_attention_dim": 6},
        {"cross_attention_dim": 6, "cross_attention_norm": "layer_norm", "qk_norm": "layer_norm"},
    ],
)
@pytest.mark.parametrize("tokens", [8, 40])
def test_the_processor_equals_the_librarys(options, tokens):
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0

    torch.manual_seed(0)
    layer = Attention(query_dim=16, heads=2, dim_head=8, **options).double().eval()
    hidden = torch.randn(6, tokens, 16, dtype=torch.float64)
    context = torch.randn(6, 5, 6, dtype=torch.float64) if "cross_attention_dim" in options else None
    layer.set_processor(AttnProcessor2_0())
    expected = layer(hidden, context)
    slot = Slot()
    layer.set_processor(SiteProcessor(CROSS, slot))
    with slot.opened(Call(1, ("uncond", "cond"), 3, Taps())):
        torch.testing.assert_close(layer(hidden, context), expected, atol=1e-14, rtol=0)
    with pytest.raises(RuntimeError, match="outside backbone.predict"):
        layer(hidden, context)
