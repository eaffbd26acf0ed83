"""The path of flow matching against diffusers' schedulers, against its own definition, and in the two loops."""

import math

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from freemask.diffusion.flow import GRIDS, Flow
from freemask.diffusion.noise_paths import CLEAN, Ddim
from freemask.diffusion.scheduler import noise_path
from freemask.errors import UserError
from freemask.types import NoisePath

SWITCH = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
SCHEDULERS = {
    "euler": (FlowMatchEulerDiscreteScheduler, "shift", {}),
    "unipc": (UniPCMultistepScheduler, "flow_shift", SWITCH),
    "wan": (DPMSolverMultistepScheduler, "flow_shift", SWITCH),
}
LEVELS = st.sampled_from([CLEAN, 0.0, 8.928571701049805, 250, 735.0, 999.999, 1000.0])


def both(grid, shift):
    """diffusers' scheduler, and our path from its own file."""
    kind, key, switch = SCHEDULERS[grid]
    theirs = kind(**{key: shift}, **switch)
    return theirs, noise_path({**theirs.config, "_class_name": kind.__name__})


def tensors(count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 3, 4, 5, generator=rng, dtype=torch.float64)


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
@pytest.mark.parametrize("grid", SCHEDULERS)
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 2.7, 0.5])
def test_the_grids_are_those_of_the_schedulers_to_the_bit(grid, shift):
    theirs, ours = both(grid, shift)
    assert (ours.grid, ours.shift) == (grid, shift)
    for steps in (1, 2, 10, 25, 333, 999, 1000):
        theirs.set_timesteps(steps)
        levels = ours.times(steps)
        assert [ours.told(t) for t in reversed(levels)] == theirs.timesteps.tolist()
        sigmas = np.array([ours.sigma(t) for t in (CLEAN, *levels)][::-1])
        assert np.abs(sigmas - theirs.sigmas.double().numpy()).max() < 6e-8  # kept in single precision there
        assert len(set(levels)) == steps and levels == sorted(levels)


def test_the_network_is_told_a_fraction_or_what_is_before_the_point():
    assert Flow(grid="euler").told(857.6923217773438) == 857.6923217773438
    for grid in ("unipc", "wan"):
        assert [Flow(grid=grid).told(t) for t in (857.69, 999.999, 250)] == [857, 999, 250]
    assert Ddim().told(501) == 501


def test_a_step_is_that_of_diffusers():
    theirs, ours = both("euler", 3.0)
    theirs.set_timesteps(7)
    x, velocity = tensors(2)
    levels = [*ours.times(7)[::-1], CLEAN]
    for i, t in enumerate(theirs.timesteps):
        after = theirs.step(velocity, t, x).prev_sample
        made = ours.step(x, velocity, now=levels[i], call=levels[i], to=levels[i + 1])
        close(made, after, atol=1e-6)  # it computes in single precision


@given(now=LEVELS, to=LEVELS, call=LEVELS)
@settings(deadline=None, max_examples=60)
def test_everything_follows_from_the_straight_line(now, to, call):
    """With the true velocity, every question has its answer by definition, wherever the network was called."""
    path, (clean, noise) = Flow(shift=3.0), tensors(2)
    velocity = noise - clean
    x, at = path.noised(clean, noise, now), {"now": now, "call": call}
    signal, share = path.scales(now)
    close(x, signal * clean + share * noise)
    close(path.clean(x, velocity, **at), clean)
    close(path.noise(x, velocity, **at), noise)
    close(path.step(x, velocity, **at, to=to), path.noised(clean, noise, to))
    back = path.step(path.step(x, velocity, **at, to=to), velocity, now=to, call=call, to=now)
    close(back, x)


@pytest.mark.parametrize(("now", "to"), [(CLEAN, 300.0), (100.0, 700.5), (700.5, 1000.0), (400, 400)])
def test_fresh_noise_on_a_noisy_latent_makes_the_level(now, to):
    path, (clean, old, new) = Flow(), tensors(3)
    found = path.renoised(path.noised(clean, old, now), new, now=now, to=to)
    signal, share = path.scales(to)
    kept = 0 if now == 1000 else signal / path.scales(now)[0] * path.scales(now)[1]
    close(found, signal * clean + kept * old + math.sqrt(share**2 - kept**2) * new)
    with pytest.raises(ValueError, match="noisier already"):
        path.renoised(clean, new, now=700, to=300)
    close(path.renoised(old, new, now=1000.0, to=1000.0), old)


@given(
    shift=st.floats(0.1, 12),
    steps=st.integers(1, 200),
    grid=st.sampled_from(sorted(GRIDS)),
)
@settings(deadline=None, max_examples=60)
def test_levels_rise_between_clean_and_noise_and_survive_being_written(shift, steps, grid):
    levels = Flow(shift=shift, grid=grid).times(steps)
    assert all(low < high for low, high in zip(levels, levels[1:], strict=False))
    assert levels[0] >= 0 and levels[-1] <= 1000
    assert [float(f"{t}") for t in levels] == levels and all(isinstance(t, float) for t in levels)


# As the file of LTX-Video has it.
BENT = {"use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024}
BENT = {**BENT, "max_image_seq_len": 4096, "shift_terminal": 0.1}


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("config", [{"shift": 7.0}, BENT, {**BENT, "shift_terminal": None}], ids=str)
def test_a_grid_that_the_pipeline_cuts(config, steps):
    """LTX and HunyuanVideo give their scheduler the sigmas, and the former how far to bend them."""
    theirs = FlowMatchEulerDiscreteScheduler(**config)
    ours = noise_path({**theirs.config, "_class_name": type(theirs).__name__}, grid="even")
    bend = {"mu": 0.95} if "base_shift" in config else {}
    if steps == 1:  # their stretching would divide by zero
        theirs.register_to_config(shift_terminal=None)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), **bend)
    sigmas = np.array([ours.sigma(t) for t in (CLEAN, *ours.times(steps))][::-1])
    assert np.abs(sigmas - theirs.sigmas.double().numpy()).max() < 2e-7  # single precision, in another order
    assert [ours.told(t) for t in ours.times(steps)] == ours.times(steps)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 51])
def test_a_grid_that_is_slow_first(steps):
    theirs = FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(timesteps=(linear_quadratic_schedule(steps) * 1000).tolist())
    ours = noise_path({**theirs.config, "_class_name": type(theirs).__name__}, grid="quadratic")
    sigmas = np.array([ours.sigma(t) for t in (CLEAN, *ours.times(steps))][::-1])
    assert np.abs(sigmas - theirs.sigmas.double().numpy()).max() < 2e-7


def test_a_shift_that_follows_the_clip_is_said():
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", **BENT}
    (said,) = noise_path(config).warnings
    assert "1024 video tokens" in said and "2.59" in said
    chosen = noise_path(config, shift=3.0, grid="even")
    assert chosen == Flow(shift=3.0, grid="even", terminal=0.1) and not chosen.warnings
    with pytest.raises(UserError, match="time_shift_type"):
        noise_path({**config, "time_shift_type": "linear"})
    assert noise_path({**config, "use_dynamic_shifting": False, "time_shift_type": "linear"}).shift == 1.0
    with pytest.raises(UserError, match="not possible"):
        Flow(terminal=1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ({"shift_terminal": 0.1}, "shift_terminal"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas"),
        ({"final_sigmas_type": "sigma_min"}, "final_sigmas_type"),
        ({"prediction_type": "epsilon"}, "prediction_type"),
        ({"_class_name": "FlowMatchHeunDiscreteScheduler"}, "did you mean"),
        ({"flow_shift": 0}, "shift"),
    ],
    ids=str,
)
def test_other_paths_are_refused(changes, said):
    config = {
        **UniPCMultistepScheduler(**SWITCH, flow_shift=3.0).config,
        "_class_name": "UniPCMultistepScheduler",
    }
    assert noise_path(config) == Flow(shift=3.0, grid="unipc")
    with pytest.raises(UserError, match=said):
        noise_path({**config, **changes})


def test_the_schedulers_file_says_which_path():
    assert isinstance(noise_path({"_class_name": "UniPCMultistepScheduler"}), Ddim)
    found = noise_path({"_class_name": "FlowUniPCMultistepScheduler", "shift": 5.0, "thresholding": True})
    assert found == Flow(shift=5.0, grid="wan") and "thresholding" in found.warnings[0]
    assert noise_path({"_class_name": "FlowMatchEulerDiscreteScheduler"}) == Flow(shift=1.0, grid="euler")
    for path in (Flow(), Ddim()):
        assert isinstance(path, NoisePath)


def test_wrong_numbers_are_refused():
    for steps in (0, 1001):
        with pytest.raises(UserError, match="1 to 1000"):
            Flow().times(steps)
    with pytest.raises(UserError, match="euler"):
        Flow(grid="eular")
    with pytest.raises(ValueError, match="outside the noise path"):
        Flow().scales(1000.5)
