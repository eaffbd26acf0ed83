"""The steps of a tuning: what is drawn for each, and how the weights learn from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from freemask.errors import UserError
from freemask.types import Backbone, Given, Time

SCALER = ("scale", "_growth_tracker")  # what changes in it
FEWEST = 20  # errors that are averaged
MOST = 2**63  # what a generator takes


class Draw(NamedTuple):
    """One step's clean latents, noise and time."""

    latents: Float[Tensor, "f c h w"]
    noise: Float[Tensor, "f c h w"]
    t: Time


@dataclass(frozen=True)
class Draws:
    """Of a clip: each step's own random numbers, so that a tuning that goes on draws what it would have drawn."""

    backbone: Backbone
    mean: Float[Tensor, "f c h w"]
    spread: Float[Tensor, "f c h w"]
    seed: int

    def at(self, step: int) -> Draw:
        rng = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % MOST)
        more, noise = (torch.randn(self.mean.shape, generator=rng).to(self.mean) for _ in range(2))
        t = self.backbone.noise_path.drawn(float(torch.rand((), generator=rng)))
        return Draw(self.mean + self.spread * more, noise, t)


class Step(NamedTuple):
    """The error before it, and the length of the gradient before it was cut."""

    error: float
    length: float


@dataclass
class Learner:
    """AdamW on weights, a step for each draw. `most` is the length beyond which a gradient is cut."""

    backbone: Backbone
    weights: Mapping[str, Tensor]
    given: Given
    rate: float
    decay: float
    most: float
    errors: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.adam = torch.optim.AdamW(list(self.weights.values()), lr=self.rate, weight_decay=self.decay)
        half = self.backbone.dtype == torch.float16  # whose gradients would vanish
        self.scaler = torch.amp.GradScaler(self.backbone.device.type, enabled=half)

    @torch.enable_grad()
    def step(self, draw: Draw) -> Step:
        path, place = self.backbone.noise_path, len(self.errors) + 1
        noisy = path.noised(draw.latents, draw.noise, draw.t)
        made = self.backbone.predict(noisy[None], draw.t, {"source": self.given})[0]
        error = (made - path.target(draw.latents, draw.noise, draw.t)).square().mean()
        self.adam.zero_grad()
        if bool(error.isfinite()):
            self.scaler.scale(error).backward()
            self.scaler.unscale_(self.adam)
            length = clip_grad_norm_(list(self.weights.values()), self.most)
        else:
            length = error.detach()
        # Half precision may yet do with a smaller scale.
        tried = bool(error.isfinite()) and self.scaler.get_scale() > 1
        if not bool(length.isfinite()) and not tried:
            raise _broken(place, float(error.detach()), self.backbone)
        self.scaler.step(self.adam)  # left out where half precision overflowed
        self.scaler.update()
        self.errors.append(float(error.detach()))
        return Step(self.errors[-1], float(length))

    def tensors(self) -> dict[str, Tensor]:
        """All that going on from here needs."""
        found = {f"weight {name}": weight.detach() for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            found |= {f"{key} {name}": value for key, value in self.adam.state[weight].items()}
        found["errors"] = torch.tensor(self.errors, dtype=torch.float64)
        scaler = self.scaler.state_dict()
        return found | {f"scaler {key}": torch.tensor(scaler[key]) for key in SCALER if key in scaler}

    def go_on(self, tensors: Mapping[str, Tensor]) -> None:
        found = dict(tensors)
        self.errors = found.pop("errors").tolist()
        scaler = {key: found.pop(f"scaler {key}").item() for key in SCALER if f"scaler {key}" in found}
        self.scaler.load_state_dict({**self.scaler.state_dict(), **scaler})
        with torch.no_grad():
            for key, value in found.items():
                kind, _, name = key.partition(" ")
                weight: Any = self.weights[name]
                if kind == "weight":
                    weight.copy_(value)
                else:  # Adam's own; it counts its steps on the host
                    self.adam.state[weight][kind] = value.clone() if kind == "step" else value.to(weight)


def ends(errors: Sequence[float]) -> tuple[float, float]:
    """The mean error of the first tenth of the steps, and of the last: single ones depend on the time drawn."""
    count = min(max(FEWEST, len(errors) // 10), max(1, len(errors) // 2))
    return sum(errors[:count]) / count, sum(errors[-count:]) / count


def _broken(place: int, error: float, backbone: Backbone) -> UserError:
    half = backbone.dtype in (torch.float16, torch.bfloat16)
    return UserError(
        f"Step {place} of the tuning met numbers that are not finite.",
        came=f"an error of {error:g} in {str(backbone.dtype).removeprefix('torch.')}",
        expected="a tuning that converges",
        todo="model.dtype=float32, or a smaller tuning.rate" if half else "a smaller tuning.rate",
    )
