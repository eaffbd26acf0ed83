"""Small networks of coordinates, as plans: their weights are handed in by name, so that they are easily kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import linear

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Encoding:
    """Sine and cosine of each coordinate at `bands` frequencies, 1, 2, 4, ... times `unit`. `own`: the coordinates
    stand before them."""

    bands: int
    unit: float = 1.0
    own: bool = False

    def width(self, coordinates: int) -> int:
        return coordinates * (2 * self.bands + self.own)

    def __call__(
        self, x: Float[Tensor, "n c"], shares: Sequence[float] | None = None
    ) -> Float[Tensor, "n e"]:
        """`shares`: how much of each band is there; None: all."""
        parts = [x] if self.own else []
        for band in range(self.bands):
            angle = x * (self.unit * 2**band)
            share = 1.0 if shares is None else shares[band]
            parts += [share * angle.sin(), share * angle.cos()]
        return torch.cat(parts, dim=1)


def annealed(bands: int, step: int, begin: int, length: int) -> list[float]:
    """The shares of an encoding's bands: they are switched on one after the other, softly, from `begin` on."""
    progress = bands * max(0, step - begin) / max(1, length)
    return [(1 - math.cos(math.pi * min(1.0, max(0.0, progress - band)))) / 2 for band in range(bands)]


@dataclass(frozen=True)
class Mlp:
    """`layers` linear maps, ReLU between them. Those in `skips` see the input beside what comes from the one before;
    `detached`: no gradient reaches the input that way. `straight`: no ReLU before the last. `last`: how far from zero
    the last map's weights begin; None: as all others."""

    inputs: int
    outputs: int
    layers: int
    width: int
    skips: Sequence[int] = ()
    detached: bool = False
    straight: bool = False
    last: float | None = None

    def sides(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each map."""
        before = [self.inputs] + [
            self.width + self.inputs * (at in self.skips) for at in range(1, self.layers)
        ]
        after = [self.width] * (self.layers - 1) + [self.outputs]
        return list(zip(before, after, strict=True))

    def fresh(self, rng: Generator) -> dict[str, Tensor]:
        """As PyTorch begins linear layers, drawn on the CPU."""
        made: dict[str, Tensor] = {}
        for at, (before, after) in enumerate(self.sides()):
            ends = at == self.layers - 1 and self.last is not None
            bound = (self.last or 0.0) if ends else 1 / math.sqrt(before)
            for name, shape in (("weight", (after, before)), ("bias", (after,))):
                made[f"{at}.{name}"] = (torch.rand(shape, generator=rng) * 2 - 1) * bound
        return made

    def __call__(self, weights: Weights, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        made = x
        for at in range(self.layers):
            if at in self.skips:
                made = torch.cat([made, x.detach() if self.detached else x], dim=1)
            made = linear(made, weights[f"{at}.weight"], weights[f"{at}.bias"])
            if at < self.layers - 1 - self.straight:
                made = made.relu()
        return made

    def multiplications(self) -> int:
        """Of one point."""
        return sum(before * after for before, after in self.sides())


def below(weights: Weights, name: str) -> dict[str, Tensor]:
    """Those of one network among several."""
    return {key.removeprefix(f"{name}."): each for key, each in weights.items() if key.startswith(f"{name}.")}


def named(name: str, weights: Weights) -> dict[str, Tensor]:
    return {f"{name}.{key}": each for key, each in weights.items()}
