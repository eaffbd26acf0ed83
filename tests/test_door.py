"""The door into a network: streams and what they are given, weights that change for a while, parts of noise paths."""

import pytest
import torch

from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.diffusion.guidance import guided
from freemask.diffusion.inversions import Inversions
from freemask.diffusion.noise_paths import CLEAN, Ddim
from freemask.errors import UserError
from freemask.types import Given, Taps
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
    path = Ddim(prediction=prediction)
    x, said = latents(2).double()
    for now, call, to in ((500, 500, 400), (300, 400, 400), (21, 21, CLEAN)):
        clean = path.clean(x, said, now=now, call=call)
        noise = path.noise(x, said, now=now, call=call)
        torch.testing.assert_close(path.noised(clean, noise, now), x, atol=1e-9, rtol=0)
        made = path.step(x, said, now=now, call=call, to=to)
        torch.testing.assert_close(path.noised(clean, noise, to), made, atol=1e-9, rtol=0)


def test_fresh_noise_lifts_a_latent_to_the_level_it_is_asked_for():
    """The variance of the noise is that of the level, and the signal is scaled with it."""
    path, rng = Ddim(), torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 200_000, generator=rng, dtype=torch.float64)
    at_200 = path.noised(torch.full_like(first, 3.0), first, 200)
    lifted = path.renoised(at_200, second, now=200, to=600)
    signal, noise = path.scales(600)
    assert float(lifted.mean()) == pytest.approx(3 * signal, abs=0.01)
    assert float(lifted.std()) == pytest.approx(noise, abs=0.01)
    assert torch.equal(path.renoised(at_200, second, now=200, to=200), at_200)
    with pytest.raises(ValueError, match="noisier already"):
        path.renoised(at_200, second, now=600, to=200)
