"""The noise path of flow matching: a straight line from the clean latent to noise, and the grids that cut it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from freemask.diffusion.grids import GRIDS
from freemask.diffusion.noise_paths import CLEAN, one_of, renoised
from freemask.errors import UserError, nearest
from freemask.types import Time

# A scheduler of diffusers (or of Wan's own code): how it cuts the path, and what it calls the shift.
SCHEDULERS = {
    "FlowMatchEulerDiscreteScheduler": ("euler", "shift"),
    "UniPCMultistepScheduler": ("unipc", "flow_shift"),
    "DPMSolverMultistepScheduler": ("wan", "flow_shift"),
    "FlowUniPCMultistepScheduler": ("wan", "shift"),
}
# Keys that ask for another path, and what each may say that changes nothing.
REFUSED: Mapping[str, tuple[Any, ...]] = {
    "invert_sigmas": (None, False),
    "stochastic_sampling": (None, False),
    "use_karras_sigmas": (None, False),
    "use_exponential_sigmas": (None, False),
    "use_beta_sigmas": (None, False),
    "final_sigmas_type": (None, "zero"),
    "prediction_type": (None, "flow_prediction"),
}
# These too, but for the one scheduler whose way to read them is known; and this one where the shift follows the clip.
REFUSED_OF_MOST = {"use_dynamic_shifting": (None, False), "shift_terminal": (None, 0)}
REFUSED_WHERE_BENT = {"time_shift_type": (None, "exponential")}
FRACTIONS = ("euler", "even", "quadratic")  # grids whose times the network is told as they are


@dataclass(frozen=True)
class Flow:
    """x = (1 - sigma) clean + sigma noise; the network predicts the velocity noise - clean.

    A level is sigma times `train_times`, and CLEAN is sigma 0; fractions are kept as they are. `shift` bends the grid
    towards the noisy end: s -> shift s / (1 + (shift - 1) s). The grids are those of schedulers that carry the same
    name for the shift and still differ by up to 0.24 in sigma:

    `euler` goes from sigma 1 down to the shifted sigma of time 1, which it shifts once more; `unipc` from 1 towards
    time 1, `wan` from 1 - 1 / train_times towards 0, both without their last point. These two tell the network whole
    times. The others are what pipelines give their scheduler: `even` goes from 1 down to 1 / steps (LTX, HunyuanVideo),
    `quadratic` slowly first and then ever faster (LTX from 0.9.5 on). With a `terminal` above 0 the grid is stretched
    so that it ends there, before the last step. Steps are Euler's: a scheduler's solver of higher order is a way to
    travel, and no part of the path.
    """

    prediction: ClassVar[str] = "velocity"
    shift: float | int = 1.0
    grid: str = "euler"
    train_times: int = 1000
    terminal: float | int = 0
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        one_of("grid", self.grid, tuple(GRIDS))
        if not 0 < self.shift < float("inf"):
            raise UserError(
                "The shift of the noise path is not possible.", came=self.shift, expected="above 0"
            )
        if not 0 <= self.terminal < 1:
            raise UserError(
                "The end of the noise path is not possible.",
                came=self.terminal,
                expected="0 or more, below 1",
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any], shift: float | int | None = None) -> "Flow":
        """From the content of a scheduler_config.json; `shift` stands in for what it says."""
        name = str(config.get("_class_name", ""))
        if name not in SCHEDULERS:
            raise UserError(
                "This scheduler of flow matching is not known.",
                came=name or "no _class_name",
                expected=", ".join(SCHEDULERS),
                todo=nearest(name, SCHEDULERS),
            )
        grid, key = SCHEDULERS[name]
        bent = bool(config.get("use_dynamic_shifting"))
        of_most = {} if name == "FlowMatchEulerDiscreteScheduler" else REFUSED_OF_MOST
        _refuse(config, {**REFUSED, **of_most, **(REFUSED_WHERE_BENT if bent else {})})
        warnings = []
        if config.get("thresholding"):
            warnings = ["the scheduler asks for thresholding, which is switched off: latents are not images"]
        if shift is None and bent:
            shift, words = _of_shortest(config)
            warnings.append(words)
        said = config.get(key) if shift is None else shift
        return cls(
            shift=1.0 if said is None else said,
            grid=grid,
            train_times=int(config.get("num_train_timesteps", 1000)),
            terminal=config.get("shift_terminal") or 0,
            warnings=tuple(warnings),
        )

    def times(self, steps: int) -> list[Time]:
        """The levels at which the network is called, ascending."""
        if not 1 <= steps <= self.train_times:
            raise UserError(
                "The number of steps is outside the noise path.",
                came=steps,
                expected=f"1 to {self.train_times}",
            )
        levels = GRIDS[self.grid](self.shifted, self.train_times, steps)
        if self.terminal and steps > 1:
            top = self.train_times
            levels = top - (top - levels) * ((1 - self.terminal) * top / (top - levels[-1]))
        return [float(level) for level in levels[::-1]]

    def told(self, t: Time) -> Time:
        """What the network is given for a level: the level itself, or what is before its point."""
        return float(t) if self.grid in FRACTIONS else int(t)

    def drawn(self, share: float) -> Time:
        """The time at a share of the path, bent as its grid is."""
        level = self.shifted(share) * self.train_times
        return float(level) if self.grid in FRACTIONS else float(max(1, round(level)))

    def target(self, clean: Tensor, noise: Tensor, t: Time) -> Tensor:
        """The prediction of a perfect network."""
        return noise - clean

    def step(self, x: Tensor, prediction: Tensor, *, now: Time, call: Time, to: Time) -> Tensor:
        """Move x along the velocity, wherever the network was called."""
        return x + (self.sigma(to) - self.sigma(now)) * prediction

    def clean(self, x: Tensor, prediction: Tensor, *, now: Time, call: Time) -> Tensor:
        """The clean latent that the prediction stands for."""
        return x - self.sigma(now) * prediction

    def noise(self, x: Tensor, prediction: Tensor, *, now: Time, call: Time) -> Tensor:
        """The noise that the prediction stands for."""
        return x + (1 - self.sigma(now)) * prediction

    def noised(self, x: Tensor, noise: Tensor, t: Time) -> Tensor:
        """A clean latent brought to level t with the given noise."""
        signal, of_noise = self.scales(t)
        return signal * x + of_noise * noise

    def renoised(self, x: Tensor, noise: Tensor, *, now: Time, to: Time) -> Tensor:
        """A latent at level `now` brought up to the noisier level `to` with fresh noise."""
        return x if to == now else renoised(x, noise, self.scales(now), self.scales(to))

    def scales(self, level: Time) -> tuple[float, float]:
        """How much signal and how much noise a latent at this level holds; they add up to one."""
        sigma = self.sigma(level)
        return 1 - sigma, sigma

    def sigma(self, level: Time) -> float:
        if level == CLEAN:
            return 0.0
        if not 0 <= level <= self.train_times:
            raise ValueError(f"level {level} is outside the noise path: {CLEAN}, or 0 to {self.train_times}")
        return level / self.train_times

    def shifted(self, sigma: Any) -> Any:
        return self.shift * sigma / (1 + (self.shift - 1) * sigma)


def _refuse(config: Mapping[str, Any], keys: Mapping[str, tuple[Any, ...]]) -> None:
    for key, harmless in keys.items():
        if config.get(key) not in harmless:
            raise UserError(
                f"The scheduler's '{key}' asks for another noise path than those that are known.",
                came=config[key],
                expected=f"{harmless[-1]}, or nothing said",
            )


def _of_shortest(config: Mapping[str, Any]) -> tuple[float, str]:
    """Where longer clips have a larger shift: that of the shortest, for all. A time must mean the same in every clip,
    or what was calibrated at it would say nothing."""
    shift, tokens = math.exp(config.get("base_shift", 0.5)), config.get("base_image_seq_len", 256)
    words = f"the shift of the noise path is {shift:.3g}, as for {tokens} video tokens"
    return shift, f"{words}; the scheduler would raise it for longer clips (model.shift)"
