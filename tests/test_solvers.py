"""Ways to travel a noise path: against the library, against each other, and through the store of inversions."""

from itertools import pairwise

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from freemask.attention.record import heat_of_words
from freemask.backbones.unet3d import UNet3D
from freemask.backbones.wan import Wan
from freemask.diffusion.flow import Flow
from freemask.diffusion.inversions import Inversions, Wish
from freemask.diffusion.loops import invert, sample
from freemask.diffusion.noise_paths import CLEAN
from freemask.diffusion.solvers import SOLVERS, way
from freemask.errors import UserError
from freemask.fusion.settings import Fusion
from freemask.methods.ddim import Ddim
from freemask.methods.invert_fuse import InvertFuse
from freemask.types import Clip, EditTask
from tests.quiet import quiet

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")


@pytest.fixture(scope="module")
def backbone():
    return Wan.random(0, dtype="float64", max_tokens=20, shift=2.0, grid="euler")


@pytest.fixture(scope="module")
def clip():
    return Clip("c", torch.rand(5, 3, 16, 24, generator=torch.Generator().manual_seed(0)))


def velocity(x, t):
    """Bent, and another at every time."""
    turned = x.roll(1, -1)
    return torch.tanh(turned) + 0.3 * (t / 1000) * x - 0.2


def travelled(solver, path, x, levels, calls=None):
    def predict(latent, t):
        if calls is not None:
            calls.append(t)
        return velocity(latent, path.told(t))

    journey = way(solver, path, predict)
    for now, to in pairwise(levels):
        x = journey(x, now, to)
    return x


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20])
def test_unipc_is_the_librarys(steps):
    theirs = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
    )
    theirs.set_timesteps(steps)
    path = Flow(shift=3.0, grid="unipc")
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = travelled("unipc", path, x, [*reversed(path.times(steps)), CLEAN])
    for t in theirs.timesteps:
        x = theirs.step(velocity(x, t), t, x).prev_sample
    assert float((ours - x).norm() / x.norm()) < 5e-6


def test_up_and_down_lose_as_little_as_published():
    path = Flow(shift=2.0)
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lost = {}
    for solver in SOLVERS:
        up = [CLEAN, *path.times(12)]
        back = travelled(solver, path, travelled(solver, path, x, up), up[::-1])
        lost[solver] = float((back - x).norm() / x.norm())
    assert lost["uni"] < lost["euler"] / 3
    assert max(lost["midpoint"], lost["fireflow"]) < lost["uni"] / 3
    assert lost["midpoint"] > 0


@pytest.mark.parametrize(
    ("solver", "up", "down"),
    [("euler", 6, 6), ("uni", 7, 6), ("midpoint", 12, 12), ("fireflow", 7, 7), ("unipc", 6, 6)],
)
def test_calls(solver, up, down):
    path, x = Flow(shift=2.0), torch.zeros(1, 3)
    levels, calls = [CLEAN, *path.times(6)], []
    travelled(solver, path, x, levels, calls)
    assert len(calls) == up and min(calls) >= 0 and max(calls) <= levels[-1]
    calls.clear()
    travelled(solver, path, x, levels[::-1], calls)
    assert len(calls) == down and calls[0] == levels[-1]


def test_curved_paths_have_eulers_alone():
    unet = UNet3D.random(0, max_tokens=20)
    frames = torch.rand(1, 3, 12, 20)
    with pytest.raises(UserError, match="uni"):
        invert(unet, unet.encode(frames), unet.embed("a car"), 2, solver="uni")
    with pytest.raises(UserError, match="euler"):
        Ddim(solver="eler")
    with pytest.raises(UserError, match="solver"):
        InvertFuse(solver="midpoint")  # asks between the times at which masks and fusion work


@pytest.mark.parametrize("solver", ["uni", "midpoint"])
def test_the_store_tells_solvers_apart_and_finds_all_again(backbone, clip, solver, tmp_path):
    store, text = Inversions(tmp_path), backbone.embed(TASK.source)
    latents = backbone.encode(clip.frames)
    plain = store.invert(backbone, latents, text, 3)
    first = store.invert(backbone, latents, text, 3, solver=solver)
    again = store.invert(backbone, latents, text, 3, solver=solver)
    assert not torch.equal(plain.latents[-1], first.latents[-1])
    assert (plain.passes, again.passes) == (3, 0) and first.passes == {"uni": 4, "midpoint": 6}[solver]
    for t in first.times:
        assert torch.equal(first.input_at(t), again.input_at(t))
    assert torch.equal(plain.input_at(plain.times[0]), latents)
    assert bool(first.inputs) == (solver == "uni")


def test_what_was_shown_at_a_time_gives_the_same_heat_again(backbone, clip, tmp_path):
    """A second wish is recorded on what the network saw, not on the latents of the way."""
    store, text = Inversions(tmp_path), backbone.embed(TASK.source)
    latents, keep = backbone.encode(clip.frames), heat_of_words("heat", (1, 2), stream="source")
    fresh = Inversions().invert(backbone, latents, text, 3, solver="uni", wish=Wish([keep]))
    store.invert(backbone, latents, text, 3, solver="uni")
    later = store.invert(backbone, latents, text, 3, solver="uni", wish=Wish([keep])).kept.all("heat")
    assert len(later) == 6
    for key, heat in fresh.kept.all("heat").items():
        assert torch.allclose(heat, later[key], atol=1e-6)


def test_cached_and_recomputed_features_give_the_same_edit(backbone, clip):
    fusion = Fusion(temporal="plain", cross="plain", self="plain", latent="off")
    edits = [
        InvertFuse(steps=4, guidance=3.0, solver="uni", fusion=fusion, features=features)(
            backbone, clip, TASK, torch.Generator()
        )
        for features in ("recompute", "cache")
    ]
    assert torch.allclose(edits[0].frames, edits[1].frames, atol=1e-6)
    assert edits[0].facts["inversion_passes"] == 5


def test_a_clip_comes_back_better(backbone, clip):
    latents, text = backbone.encode(clip.frames), backbone.embed(TASK.source)
    lost = {}
    with quiet(backbone, 0.3):
        for solver in ("euler", "uni", "fireflow"):
            up = invert(backbone, latents, text, 6, solver=solver)[-1]
            lost[solver] = float((sample(backbone, up, text, 6, solver=solver) - latents).norm())
    assert lost["uni"] < lost["euler"] and lost["fireflow"] < lost["uni"]
