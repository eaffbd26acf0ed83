"""Noise paths: which times the network is called at, and what its prediction means.

A *time* is what the network is given; a *level* is how noisy a latent is. They share one scale, 0 ..
train_times - 1, plus the level CLEAN below the first time. A path of n steps has the n + 1 levels
[CLEAN, *times(n)]. Every interval is travelled, up or down, with the network called at its upper time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from freemask.diffusion.schedule import SCHEDULES, Betas, alphas_cumprod
from freemask.errors import UserError, nearest
from freemask.types import NoisePath, Time

CLEAN = -1
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")
# Keys of a diffusers scheduler file that do not change a deterministic DDIM path.
HARMLESS = {
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "clip_sample_range",
    "skip_prk_steps",
    "variance_type",
}
# What diffusers means where its file leaves a key out.
ABSENT: dict[str, Any] = {
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "steps_offset": 0,
    "set_alpha_to_one": True,
}
# What CogVideoX's own schedulers mean where the file leaves it out; their table is one of double precision.
SHIFTED = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
OF_SHIFTED: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "snr_shift_scale": 3.0,
}
RENAMED = {
    "num_train_timesteps": "train_times",
    "prediction_type": "prediction",
    "timestep_spacing": "spacing",
}


@dataclass(frozen=True)
class Ddim:
    """The deterministic path of DDIM. The defaults are those of Stable Diffusion and Zeroscope. `snr_shift_scale`: the
    ratio of signal to noise is divided by it, as CogVideoX has it (None: an ordinary table)."""

    train_times: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    trained_betas: Sequence[float] | None = None
    prediction: str = "epsilon"
    spacing: str = "leading"
    steps_offset: int = 1
    set_alpha_to_one: bool = False
    rescale_betas_zero_snr: bool = False
    snr_shift_scale: float | int | None = None
    warnings: Sequence[str] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        one_of("prediction type", self.prediction, PREDICTIONS)
        one_of("time spacing", self.spacing, SPACINGS)
        one_of("beta schedule", self.beta_schedule, SCHEDULES)
        if self.snr_shift_scale is not None and not self.snr_shift_scale > 0:
            raise UserError(
                "The shift of the noise table is not possible.", came=self.snr_shift_scale, expected="above 0"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Ddim":
        """From the content of a diffusers scheduler_config.json; absent keys mean what diffusers means by them."""
        name = str(config.get("_class_name", "DDIMScheduler"))
        if "flow" in name.lower() or config.get("use_flow_sigmas"):
            raise UserError(
                "This checkpoint was trained for flow matching, which is another noise path.",
                came=name,
                expected="a DDIM, DDPM, PNDM or similar scheduler",
            )
        given = ABSENT | (OF_SHIFTED if name in SHIFTED else {})
        ours = {each.name for each in fields(cls)} - {"warnings"}
        warnings = []
        for key, value in config.items():
            if RENAMED.get(key, key) in ours:
                given[RENAMED.get(key, key)] = value
            elif key in ("clip_sample", "thresholding"):
                if value:
                    warnings.append(
                        f"the scheduler asks for {key}, which is switched off: latents are not images"
                    )
            elif not key.startswith("_") and key not in HARMLESS and value not in (None, False):
                warnings.append(f"the scheduler's '{key}' = {value!r} is not part of DDIM and is ignored")
        return cls(**given, warnings=tuple(warnings))

    def times(self, steps: int) -> list[int]:
        """The times at which the network is called, ascending."""
        if not 1 <= steps <= self.train_times:
            raise UserError(
                "The number of steps is outside the noise path.",
                came=steps,
                expected=f"1 to {self.train_times}",
            )
        times = self._spaced(steps)
        if times[-1] >= self.train_times:
            raise UserError(
                f"{steps} steps with an offset of {self.steps_offset} pass the last time of the noise path.",
                came=times[-1],
                expected=f"at most {self.train_times - 1}",
                todo="take fewer steps",
            )
        return times

    def told(self, t: Time) -> Time:
        """What the network is given for a level: the level itself."""
        return t

    def drawn(self, share: float) -> int:
        """The time at a share of the path."""
        return min(int(share * self.train_times), self.train_times - 1)

    def target(self, clean: Tensor, noise: Tensor, t: Time) -> Tensor:
        """The prediction of a perfect network."""
        if self.prediction == "epsilon":
            return noise
        signal, of_noise = self.scales(t)
        return clean if self.prediction == "sample" else signal * noise - of_noise * clean

    def step(self, x: Tensor, prediction: Tensor, *, now: Time, call: Time, to: Time) -> Tensor:
        """Move x from level `now` to level `to`, one of which is `call`.

        Upwards (`to` is `call`) this is the exact inverse of the downward step with the same prediction. For
        noise predictions it is the usual DDIM inversion.
        """
        if now == call:
            of_x, of_prediction = self._weights(call, to)
            return of_x * x + of_prediction * prediction
        if to != call:
            raise ValueError(
                f"the network was called at {call}, which is neither end of the step {now} -> {to}"
            )
        of_x, of_prediction = self._weights(call, now)
        if of_x == 0:
            raise self._no_noise()
        return (x - of_prediction * prediction) / of_x

    def clean(self, x: Tensor, prediction: Tensor, *, now: Time, call: Time) -> Tensor:
        """The clean latent that the prediction stands for."""
        if self.prediction == "sample":
            return prediction
        if now != call:
            x = self.step(x, prediction, now=now, call=call, to=call)
        signal, noise = self.scales(call)
        if self.prediction == "epsilon":
            return (x - noise * prediction) / signal
        return signal * x - noise * prediction

    def noise(self, x: Tensor, prediction: Tensor, *, now: Time, call: Time) -> Tensor:
        """The noise that the prediction stands for."""
        if self.prediction == "epsilon":
            return prediction
        if now != call:
            x = self.step(x, prediction, now=now, call=call, to=call)
        signal, noise = self.scales(call)
        if self.prediction == "v_prediction":
            return noise * x + signal * prediction
        return (x - signal * prediction) / noise

    def noised(self, x: Tensor, noise: Tensor, t: Time) -> Tensor:
        """A clean latent brought to level t with the given noise."""
        of_x, of_noise = self.scales(t)
        return of_x * x + of_noise * noise

    def renoised(self, x: Tensor, noise: Tensor, *, now: Time, to: Time) -> Tensor:
        """A latent at level `now` brought up to the noisier level `to` with fresh noise."""
        return renoised(x, noise, self.scales(now), self.scales(to))

    def scales(self, level: Time) -> tuple[float, float]:
        """How much signal and how much noise a latent at this level holds; their squares add up to one."""
        if level != int(level) or not CLEAN <= level < self.train_times:
            raise ValueError(f"level {level} is outside the noise path: {CLEAN} to {self.train_times - 1}")
        alpha = self._alphas[0] if level == CLEAN else self._alphas[int(level)]
        if level == CLEAN and self.set_alpha_to_one:
            alpha = 1.0
        return math.sqrt(alpha), math.sqrt(1 - alpha)

    @cached_property
    def _alphas(self) -> list[float]:
        betas = Betas(self.beta_schedule, self.train_times, self.beta_start, self.beta_end)
        return alphas_cumprod(betas, self.trained_betas, self.rescale_betas_zero_snr, self.snr_shift_scale)

    def _weights(self, call: Time, to: Time) -> tuple[float, float]:
        """The step from `call` to `to` is linear: x_to = first * x_call + second * prediction."""
        signal, noise = self.scales(call)
        signal_to, noise_to = self.scales(to)
        if self.prediction == "epsilon":  # eq. 12 of DDIM with sigma = 0, sorted by x and prediction
            return signal_to / signal, noise_to - signal_to * noise / signal
        if self.prediction == "v_prediction":  # v = signal * eps - noise * x_0: a rotation
            return signal_to * signal + noise_to * noise, noise_to * signal - signal_to * noise
        if noise == 0:
            raise self._no_noise()
        return noise_to / noise, signal_to - noise_to * signal / noise

    def _no_noise(self) -> UserError:
        return UserError(
            "A network that predicts the clean sample cannot invert a noise-free latent.",
            came="set_alpha_to_one: true",
            expected="set_alpha_to_one: false in the scheduler's file",
        )

    def _spaced(self, steps: int) -> list[int]:
        if self.spacing == "leading":
            return [i * (self.train_times // steps) + self.steps_offset for i in range(steps)]
        if self.spacing == "trailing":
            ratio = self.train_times / steps
            return [round(self.train_times - i * ratio) - 1 for i in reversed(range(steps))]
        return [round(float(t)) for t in torch.linspace(0, self.train_times - 1, steps, dtype=torch.float64)]


def renoised(x: Tensor, noise: Tensor, now: tuple[float, float], to: tuple[float, float]) -> Tensor:
    """From one (signal, noise) to another: what is missing of the noise is added, independent of what is there."""
    share = to[0] / now[0]
    missing = to[1] ** 2 - (share * now[1]) ** 2
    if missing < 0:
        raise ValueError("the latent is noisier already than the level to which noise is to be added")
    return share * x + math.sqrt(missing) * noise


def noise_between(path: NoisePath, clean: Tensor, x: Tensor, t: Time) -> Tensor:
    """The noise with which a path makes x, at level t, of a clean latent: noising is a weighted sum of the two."""
    nothing = torch.zeros_like(x)
    return (x - path.noised(clean, nothing, t)) / path.noised(nothing, torch.ones_like(x), t)


def one_of(what: str, came: str, known: Sequence[str]) -> None:
    if came not in known:
        raise UserError(f"Unknown {what}.", came=came, expected=", ".join(known), todo=nearest(came, known))
