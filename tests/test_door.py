"""The door into a network: streams and what they are given, weights that change for a while, parts of noise paths."""

from copy import copy
from dataclasses import replace

import pytest
import torch

from freemask.attention import math as math_of_attention
from freemask.attention.bias import KeyMask
from freemask.attention.layout import in_rows
from freemask.attention.math import attend, probabilities
from freemask.attention.record import heat_of_words
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.diffusion.guidance import guided
from freemask.diffusion.inversions import Inversions
from freemask.diffusion.noise_paths import CLEAN
from freemask.diffusion.noise_paths import Ddim as Ddim_path
from freemask.errors import UserError
from freemask.fusion.settings import Fusion
from freemask.methods.ddim import Ddim
from freemask.methods.invert_fuse import InvertFuse
from freemask.methods.pnp import Pnp
from freemask.methods.sdedit import SdEdit
from freemask.methods.tokenflow import TokenFlow
from freemask.types import QKV, Clip, EditTask, Given, Grid, Site, Taps, Where
from tests.given import given


@pytest.fixture(scope="module")
def backbone():
    return UNet3D.random(0, max_tokens=20)


def latents(streams=1, frames=3):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(streams, frames, 4, 8, 8, generator=rng)


def texts(*prompts, backbone):
    return [backbone.embed(prompt).given for prompt in prompts]


# Streams, and what they are given.


def test_any_number_of_streams_by_any_names(backbone):
    """Two empty texts and a branch of motion beside the prompt: each as it would be alone."""
    x = latents(5)
    names = ("motion", "uncond", "uncond of the source", "source", "cond")
    said = dict(zip(names, texts("a dog", "", "blue", "a red car", "a boat", backbone=backbone), strict=True))
    seen = []
    taps = Taps(look=lambda where: seen.append(where.streams))
    together = backbone.predict(x, 300, said, taps=taps)
    assert set(seen) == {names}
    for place, (name, each) in enumerate(said.items()):
        alone = backbone.predict(x[place, None], 300, {name: each})[0]
        torch.testing.assert_close(together[place], alone, atol=1e-5, rtol=0)


def test_what_a_backbone_does_not_know_is_refused(backbone):
    x, text = latents(), backbone.embed("a red car").given
    with pytest.raises(UserError, match="cannot be given 'depth'") as refused:
        backbone.predict(x, 9, {"cond": text.plus(depth=torch.zeros(3, 1, 8, 8))})
    assert "text" in str(refused.value)
    with pytest.raises(UserError, match="must be given 'text'"):
        backbone.predict(x, 9, {"cond": Given({})})
    two = {"uncond": text, "cond": Given({"text": text.parts["text"][:5]})}
    with pytest.raises(UserError, match="does not fit together"):
        backbone.predict(latents(2), 9, two)
    with pytest.raises(UserError, match="no such module"):
        backbone.predict(x, 9, {"cond": text}, taps=Taps(features={"up_blocks.9": lambda _, maps: maps}))


def test_guidance_that_starts_from_another_text_at_each_time(backbone):
    x, cond = latents()[0], backbone.embed("a red car")
    empties = {9: backbone.embed("blue").given, 300: backbone.embed("grass").given}
    predict = guided(backbone, cond, 3.0, uncond=empties)
    for t, empty in empties.items():
        first, second = backbone.predict(x.expand(2, *x.shape), t, {"uncond": empty, "cond": cond.given})
        torch.testing.assert_close(predict(x, t), first + 3 * (second - first))
    with pytest.raises(KeyError):
        predict(x, 10)


def test_the_digest_follows_the_content():
    one = Given({"text": torch.ones(2, 3), "depth": torch.zeros(1)})
    assert one.digest == Given({"depth": torch.zeros(1), "text": torch.ones(2, 3)}).digest
    for other in (
        one.plus(text=torch.zeros(2, 3)),
        one.plus(more=torch.zeros(1)),
        Given({"text": torch.ones(2, 3)}),
    ):
        assert other.digest != one.digest


# Gradients, and weights that change for a while.


def test_gradients_reach_the_latents_and_the_text(backbone):
    x, text = latents().requires_grad_(True), backbone.embed("a red car").tokens.clone().requires_grad_(True)
    out = backbone.predict(x, 9, given(text[None], ("cond",)))
    of_x, of_text = torch.autograd.grad(out.square().sum(), (x, text))
    assert of_x.abs().sum() > 0 and of_text.abs().sum() > 0
    assert all(weight.grad is None for weight in backbone.network.parameters())


@pytest.mark.parametrize("rank", [0, 2])
def test_tuned_weights_learn_and_everything_is_given_back_exactly(rank):
    backbone = Inflated2D.random(0, max_tokens=20)
    x, said = latents(), {"cond": backbone.embed("a red car").given}
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    plain, own = backbone.predict(x, 9, said), backbone.identity
    with backbone.tuned(["*.attn1.to_q.weight"], rank=rank) as tuning:
        assert len(tuning.weights) == (32 if rank else 16)
        started = backbone.identity
        torch.testing.assert_close(backbone.predict(x, 9, said), plain)
        optimiser = torch.optim.SGD(tuning.weights.values(), lr=0.5)
        losses = []
        for _ in range(3):
            loss = backbone.predict(x, 9, said).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        learned, state, name = backbone.predict(x, 9, said).detach(), tuning.state(), backbone.identity
        assert losses[-1] < losses[0] and len({own, started, name}) == 3 and backbone.origin == own
    assert backbone.identity == own and torch.equal(backbone.predict(x, 9, said), plain)
    after = backbone.network.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    for weight in backbone.network.parameters():
        assert not weight.requires_grad and weight.grad is None
    with backbone.tuned(["*.attn1.to_q.weight"], rank=rank) as tuning:
        tuning.load(state)
        assert torch.equal(backbone.predict(x, 9, said), learned) and backbone.identity == name
        with pytest.raises(UserError, match="not the weights"):
            tuning.load({"other": torch.zeros(1)})
        with pytest.raises(RuntimeError, match="tuned already"), backbone.tuned(["*"]):
            pass


def test_an_error_while_tuning_gives_the_weights_back():
    backbone = Inflated2D.random(0, max_tokens=20)
    before = backbone.network.get_parameter("conv_in.weight").clone()
    with pytest.raises(ZeroDivisionError), backbone.tuned(["conv_in.*"]) as tuning:
        tuning.load({name: value * 2 for name, value in tuning.state().items()})
        raise ZeroDivisionError
    assert torch.equal(backbone.network.get_parameter("conv_in.weight"), before)
    for pattern, rank, said in (("*.to_qq.weight", 0, "No weight"), ("conv_in.weight", 4, "linear layers")):
        with pytest.raises(UserError, match=said), backbone.tuned([pattern], rank=rank):
            pass
    assert backbone.identity == backbone.origin


def test_tuned_weights_do_not_share_the_inversions_of_untuned_ones(tmp_path):
    backbone = Inflated2D.random(0, max_tokens=20)
    store, x, text = Inversions(tmp_path), latents()[0], backbone.embed("a red car")
    plain = store.invert(backbone, x, text, 2)
    with backbone.tuned(["*.attn2.to_v.weight"]) as tuning:
        tuning.load({name: value * 1.5 for name, value in tuning.state().items()})
        other = store.invert(backbone, x, text, 2)
        assert other.passes == 2 and not torch.equal(other.latents[-1], plain.latents[-1])
        assert store.invert(backbone, x, text, 2).passes == 0
    assert store.invert(backbone, x, text, 2).passes == 0


# Noise paths.


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_step_is_the_clean_latent_with_its_noise_brought_to_the_level(prediction):
    path = Ddim_path(prediction=prediction)
    x, said = latents(2).double()
    for now, call, to in ((500, 500, 400), (300, 400, 400), (21, 21, CLEAN)):
        clean = path.clean(x, said, now=now, call=call)
        noise = path.noise(x, said, now=now, call=call)
        torch.testing.assert_close(path.noised(clean, noise, now), x, atol=1e-9, rtol=0)
        made = path.step(x, said, now=now, call=call, to=to)
        torch.testing.assert_close(path.noised(clean, noise, to), made, atol=1e-9, rtol=0)


def test_fresh_noise_lifts_a_latent_to_the_level_it_is_asked_for():
    """The variance of the noise is that of the level, and the signal is scaled with it."""
    path, rng = Ddim_path(), torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 200_000, generator=rng, dtype=torch.float64)
    at_200 = path.noised(torch.full_like(first, 3.0), first, 200)
    lifted = path.renoised(at_200, second, now=200, to=600)
    signal, noise = path.scales(600)
    assert float(lifted.mean()) == pytest.approx(3 * signal, abs=0.01)
    assert float(lifted.std()) == pytest.approx(noise, abs=0.01)
    assert torch.equal(path.renoised(at_200, second, now=200, to=200), at_200)
    with pytest.raises(ValueError, match="noisier already"):
        path.renoised(at_200, second, now=600, to=200)


# What else is known of a clip, and what a network is that is none.


def test_methods_give_what_is_known_of_the_clip():
    """Images for a ControlNet: every method on an image model hands them on, for every stream."""
    backbone = Inflated2D.random(0, max_tokens=20, control=1, attention="frame", shared_norm=False)
    rng = torch.Generator().manual_seed(0)
    frames, edges = torch.rand(2, 2, 3, 12, 20, generator=rng)
    task = EditTask("t", "c", "a red car", "a blue car", {"red car": "blue car"}, "attribute")
    fused = Fusion(temporal="off", latent="off")
    flow = TokenFlow(steps=2, chunk=1)
    for method in (Ddim(steps=2), SdEdit(steps=2), Pnp(steps=2), InvertFuse(steps=2, fusion=fused), flow):
        made = []
        for image in (edges, 1 - edges):
            clip = Clip("c", frames, conditions={"control": image, "depth": image})
            made.append(method(backbone, clip, task, torch.Generator().manual_seed(0)).frames)
        assert not torch.equal(*made), type(method).__name__
        with pytest.raises(UserError, match="must be given 'control'"):
            method(backbone, Clip("c", frames), task, rng)


def test_keys_that_are_masked_are_as_if_they_were_not_there(backbone):
    """A bias through the whole network: a text without its last columns, and the same columns masked in every layer."""
    x, text = latents(), backbone.embed("a red car").tokens
    cut = {"cond": Given({"text": text[:7]})}
    allowed = torch.zeros(1, 1, len(text), dtype=torch.bool)
    allowed[..., :7] = True

    def masked(where, qkv):
        return attend(replace(qkv, bias=KeyMask(allowed)) if where.site.role == "cross" else qkv)

    whole = backbone.predict(x, 300, {"cond": Given({"text": text})}, taps=Taps(attention=masked))
    torch.testing.assert_close(whole, backbone.predict(x, 300, cut), atol=1e-5, rtol=0)
    assert (whole - backbone.predict(x, 300, {"cond": Given({"text": text})})).abs().max() > 1e-3


def test_saving_memory_holds_under_taps_too(backbone, monkeypatch):
    sizes = []
    kernel = math_of_attention._fused

    def watched(q, *rest):
        sizes.append(len(q))
        return kernel(q, *rest)

    monkeypatch.setattr(math_of_attention, "_fused", watched)
    x = torch.randn(1, 12, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    said, taps = {"cond": backbone.embed("a red car").given}, Taps(attention=lambda _, qkv: attend(qkv))
    whole = backbone.predict(x, 9, said, taps=taps)
    assert max(sizes) > 8
    sizes.clear()
    with backbone.saving_memory():
        torch.testing.assert_close(backbone.predict(x, 9, said, taps=taps), whole)
    assert max(sizes) <= 8


@pytest.mark.parametrize("text", ["first", "last"])
def test_joint_layers_have_text_among_their_tokens(text):
    """Heat of a word is that of the video's queries; a mask for rows leaves the text its own."""
    site = Site("blocks.0.attn", "joint", 1, batch="1", tokens="(f h w)", text=text)
    where, words = Where(site, 1, Grid(2, 3, 4), ("cond",), text=5), 5
    rng = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 1, 2, 24 + words, 4, generator=rng, dtype=torch.float64)
    qkv = QKV(q=q, k=k, v=v, scale=0.5)
    video = slice(words, None) if text == "first" else slice(0, 24)
    column = 3 if text == "first" else 24 + 3
    expected = probabilities(qkv)[0, 0, :, video, column].mean(0).reshape(2, 3, 4)
    heat = heat_of_words("h", (3,)).shrink(where, qkv)
    torch.testing.assert_close(heat, expected, atol=1e-12, rtol=0)
    rows = in_rows(torch.zeros(2, 3, 4), where)[0, 0, 0, :, 0]
    assert rows[video].sum() == 0 and rows.sum() == words


def test_other_noise_on_the_way_is_another_inversion(tmp_path):
    backbone, store = copy(UNet3D.random(0, max_tokens=20)), Inversions(tmp_path)
    x, text = latents()[0], backbone.embed("a red car")
    assert store.invert(backbone, x, text, 2).passes == 2
    backbone.noise_path = Ddim_path(beta_end=0.03)
    assert store.invert(backbone, x, text, 2).passes == 2


def test_loops_keep_no_graph_while_weights_are_tuned():
    backbone = Inflated2D.random(0, max_tokens=20)
    with backbone.tuned(["*.attn1.to_q.weight"]):
        made = Inversions().invert(backbone, latents()[0], backbone.embed("a red car"), 2)
        assert not any(each.requires_grad for each in made.latents)


def test_tuning_that_cannot_be_leaves_nothing_behind():
    backbone = Inflated2D.random(0, max_tokens=20)
    hooks = sum(len(each._forward_hooks) for each in backbone.network.modules())
    for patterns, rank in (
        (["*.attn1.to_q.weight", "conv_out.weight"], 2),
        (["*.to_out.0.*"], 2),
        ([], 0),
        (["*"], -3),
    ):
        with pytest.raises(UserError), backbone.tuned(patterns, rank=rank):
            pass
    assert sum(len(each._forward_hooks) for each in backbone.network.modules()) == hooks
    with backbone.tuned(["*.attn1.to_q.weight"]) as tuning:
        pass
    with pytest.raises(RuntimeError, match="over"):
        tuning.state()


@pytest.mark.parametrize("rank", [0, 2])
def test_a_network_in_half_precision_learns_in_single_precision(rank):
    half = Inflated2D.random(0, max_tokens=20, dtype="bfloat16")
    before = {name: value.clone() for name, value in half.network.state_dict().items()}
    x, said = latents(), {"cond": half.embed("a red car").given}
    plain = half.predict(x, 9, said)
    with half.tuned(["*.attn1.to_q.weight"], rank=rank) as tuning:
        assert {weight.dtype for weight in tuning.weights.values()} == {torch.float32}
        assert torch.equal(half.predict(x, 9, said), plain)
        half.predict(x, 9, said).square().mean().backward()
        grads = [w.grad for name, w in tuning.weights.items() if not name.endswith("down")]
        assert all(grad is not None and grad.dtype == torch.float32 for grad in grads)
        tuning.load({name: each + 0.25 for name, each in tuning.state().items()})
        moved = half.predict(x, 9, said).detach()
        tuning.settle()
        assert torch.equal(half.predict(x, 9, said), moved) and not torch.equal(moved, plain)
        assert not half.predict(x, 9, said).requires_grad
    after = half.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) and after[key].dtype == torch.bfloat16 for key in before)
