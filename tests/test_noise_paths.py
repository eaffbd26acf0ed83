"""The DDIM path against diffusers' schedulers, and the two loops against each other."""

import json
from copy import copy

import pytest
import torch

from freemask.diffusion.guidance import cfg
from freemask.diffusion.loops import Callbacks, invert, sample
from freemask.diffusion.noise_paths import CLEAN, Ddim
from freemask.errors import UserError

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def in_double(kind, steps, **config):
    """diffusers' scheduler with its table in double precision, so that only the formulas are compared."""
    scheduler = kind(**config)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    for name in ("final_alpha_cumprod", "initial_alpha_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())
    scheduler.set_timesteps(steps)
    return scheduler


def configs():
    for prediction in ("epsilon", "v_prediction", "sample"):
        for end in (True, False):
            yield {
                **STABLE,
                "prediction_type": prediction,
                "set_alpha_to_one": end,
                "steps_offset": 1,
                "clip_sample": False,
            }
    yield {"beta_schedule": "linear", "clip_sample": False}
    yield {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False, "prediction_type": "v_prediction"}
    yield {**STABLE, "timestep_spacing": "trailing", "clip_sample": False, "rescale_betas_zero_snr": True,
           "prediction_type": "v_prediction"}  # fmt: skip
    yield {
        "trained_betas": [0.001 * (i + 1) for i in range(20)],
        "num_train_timesteps": 20,
        "clip_sample": False,
    }


@pytest.mark.parametrize(
    "config", list(configs()), ids=lambda config: ",".join(map(str, config.values()))[:60]
)
@pytest.mark.parametrize("steps", [4, 10, 20])
def test_every_step_equals_diffusers(config, steps):
    from diffusers import DDIMScheduler

    theirs, ours = in_double(DDIMScheduler, steps, **config), Ddim.from_config(config)
    times = ours.times(steps)
    assert times[::-1] == theirs.timesteps.tolist()
    levels = [CLEAN, *times]
    rng = torch.Generator().manual_seed(0)
    for now, to in zip(levels[:0:-1], levels[-2::-1], strict=True):
        x, prediction = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64)
        their = theirs.step(prediction, now, x)
        close(ours.step(x, prediction, now=now, call=now, to=to), their.prev_sample)
        close(ours.clean(x, prediction, now=now, call=now), their.pred_original_sample)


@pytest.mark.parametrize("shift", [3.0, 1.0])
@pytest.mark.parametrize("steps", [4, 10, 50])
def test_a_shifted_table_equals_cogvideox(shift, steps):
    """As its checkpoints say it. Both keep the table in double precision; at the noisy end no signal is left."""
    from diffusers import CogVideoXDDIMScheduler

    asked = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "snr_shift_scale": shift}
    theirs = CogVideoXDDIMScheduler(rescale_betas_zero_snr=True, clip_sample=False, **asked)
    theirs.set_timesteps(steps)
    ours = Ddim.from_config(theirs.config)
    assert not ours.warnings and ours.times(steps)[::-1] == theirs.timesteps.tolist()
    levels = [CLEAN, *ours.times(steps)]
    rng = torch.Generator().manual_seed(0)
    for now, to in zip(levels[:0:-1], levels[-2::-1], strict=True):
        x, prediction = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64)
        close(ours.step(x, prediction, now=now, call=now, to=to), theirs.step(prediction, now, x).prev_sample)
    assert ours.scales(999) == (0.0, 1.0) and ours.scales(CLEAN) == (1.0, 0.0)


def test_what_a_shifted_table_means_where_its_file_is_silent():
    from diffusers import CogVideoXDDIMScheduler

    path = Ddim.from_config({"_class_name": "CogVideoXDDIMScheduler"})
    assert path == Ddim.from_config(CogVideoXDDIMScheduler().config) and path.snr_shift_scale == 3.0
    assert path != Ddim.from_config({"_class_name": "DDIMScheduler"})
    with pytest.raises(UserError, match="shift"):
        Ddim(snr_shift_scale=0)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("end", [True, False])
def test_upward_steps_equal_diffusers_inverse_scheduler(end):
    """For noise predictions; its starting level is the official one: alpha at time 0, or one."""
    from diffusers import DDIMInverseScheduler

    config = {**STABLE, "steps_offset": 1, "set_alpha_to_one": end, "clip_sample": False}
    theirs, ours = in_double(DDIMInverseScheduler, 50, **config), Ddim.from_config(config)
    assert ours.times(50) == theirs.timesteps.tolist()
    levels = [CLEAN, *ours.times(50)]
    rng = torch.Generator().manual_seed(0)
    for now, to in zip(levels, levels[1:], strict=False):
        x, noise = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64)
        close(ours.step(x, noise, now=now, call=to, to=to), theirs.step(noise, to, x).prev_sample)


def test_the_official_inversion_formula_by_hand():
    path = Ddim()
    x, noise = torch.tensor([1.3], dtype=torch.float64), torch.tensor([-0.4], dtype=torch.float64)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    table = torch.cumprod(1 - betas, 0).double()
    for now, to in ((CLEAN, 1), (1, 21), (961, 981)):
        below, above = table[max(now, 0)], table[to]
        clean = (x - (1 - below).sqrt() * noise) / below.sqrt()
        close(path.step(x, noise, now=now, call=to, to=to), above.sqrt() * clean + (1 - above).sqrt() * noise)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_up_and_down_are_exact_inverses_and_share_the_clean_estimate(prediction):
    path = Ddim(prediction=prediction)
    x, given = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    up = path.step(x, given, now=CLEAN, call=1, to=1)
    close(path.step(up, given, now=1, call=1, to=CLEAN), x)
    close(path.clean(x, given, now=CLEAN, call=1), path.clean(up, given, now=1, call=1))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_gives_the_clean_latent_back(prediction):
    path, rng = Ddim(prediction=prediction), torch.Generator().manual_seed(2)
    clean, noise = torch.randn(2, 5, dtype=torch.float64, generator=rng)
    x = path.noised(clean, noise, 501)
    signal, share = path.scales(501)
    given = {"epsilon": noise, "v_prediction": signal * noise - share * clean, "sample": clean}[prediction]
    close(path.clean(x, given, now=501, call=501), clean)
    close(path.step(x, given, now=501, call=501, to=41), path.noised(clean, noise, 41))
    assert signal**2 + share**2 == pytest.approx(1)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 12, 30, 50, 100, 999])
def test_times_equal_diffusers(spacing, steps):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(**STABLE, timestep_spacing=spacing, steps_offset=1)
    theirs.set_timesteps(steps)
    assert Ddim(spacing=spacing).times(steps) == theirs.timesteps.tolist()[::-1]


def test_impossible_numbers_of_steps_are_refused():
    for steps in (0, -1, 1001, 1000):  # 1000 steps with an offset of 1 would end at time 1000
        with pytest.raises(UserError):
            Ddim().times(steps)
    assert Ddim(steps_offset=0).times(1000) == list(range(1000))


def test_unknown_settings_are_refused_or_reported():
    for wrong in ({"prediction": "noise"}, {"spacing": "trailling"}, {"beta_schedule": "sigmoid"}):
        with pytest.raises(UserError, match="Unknown"):
            Ddim(**wrong)
    with pytest.raises(UserError, match="flow matching"):
        Ddim.from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    path = Ddim.from_config({**STABLE, "clip_sample": True, "solver_order": 2, "_diffusers_version": "0.1"})
    assert (
        len(path.warnings) == 2 and "clip_sample" in path.warnings[0] and "solver_order" in path.warnings[1]
    )
    with pytest.raises(ValueError, match="neither end"):
        path.step(torch.zeros(1), torch.zeros(1), now=1, call=5, to=9)
    with pytest.raises(ValueError, match="outside the noise path"):
        path.scales(1000)
    with pytest.raises(UserError, match="cannot invert"):
        Ddim(prediction="sample", set_alpha_to_one=True).step(
            torch.zeros(1), torch.zeros(1), now=-1, call=1, to=1
        )


def test_cfg():
    uncond, cond = torch.tensor([1.0]), torch.tensor([3.0])
    assert [float(cfg(uncond, cond, g)) for g in (0, 1, 2.5)] == [1.0, 3.0, 6.0]


@pytest.fixture
def seen():
    """A network that is never called, its path that of Stable Diffusion, and a prediction that notes its calls."""
    from freemask.backbones.unet3d import UNet3D

    backbone = copy(UNet3D.random(0, max_tokens=20))
    backbone.noise_path = Ddim()
    calls = []

    def predict(x, t):
        calls.append(t)
        return torch.full_like(x, 0.3)

    return backbone, predict, calls


def test_the_loops_are_mirror_images(seen):
    backbone, predict, calls = seen
    clean = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    latents = invert(backbone, clean, predict, 10)
    up = calls.copy()
    assert len(latents) == 11 and latents[0] is clean
    calls.clear()
    passed = []
    back = sample(
        backbone, latents[-1], predict, 10, on=Callbacks(after=lambda x, i, t: passed.append((x, i, t)))
    )
    assert calls == up[::-1] == backbone.noise_path.times(10)[::-1]
    close(back, clean)
    for x, i, _ in passed:
        close(x, latents[10 - 1 - i])
    assert [t for _, _, t in passed] == calls


def test_callbacks_may_replace_the_latent_and_progress_is_told(seen):
    backbone, predict, _ = seen
    told = []
    clean = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    on = Callbacks(before=lambda x, i, t: x + 1 if i == 0 else None, after=lambda x, i, t: x * 0)
    latents = invert(backbone, clean, predict, [1, 21], on=on, progress=lambda *step: told.append(step))
    assert not latents[-1].any()
    assert told == [("inversion", 0, 2), ("inversion", 1, 2), ("inversion", 2, 2)]
    with pytest.raises(ValueError, match="ascending"):
        invert(backbone, clean, predict, [21, 1])


def test_a_scheduler_file_of_the_hub_is_read(tmp_path):
    from diffusers import DDIMScheduler, PNDMScheduler

    for kind in (DDIMScheduler, PNDMScheduler):
        kind(**STABLE, steps_offset=1).save_pretrained(tmp_path)
        config = json.loads((tmp_path / "scheduler_config.json").read_text())
        path = Ddim.from_config(config)
        assert path.times(50)[:2] == [1, 21] and path.prediction == "epsilon"
