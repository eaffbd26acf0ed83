"""Noise tables: how much signal is left at each time, in the precision that the networks were trained with: single, or
double where the table is shifted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


@dataclass(frozen=True)
class Betas:
    """The variance added at each time."""

    kind: str  # one of SCHEDULES
    times: int
    start: float
    end: float

    def table(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Only the middle kind knows another precision."""
        if self.kind == "linear":
            return torch.linspace(self.start, self.end, self.times, dtype=torch.float32)
        if self.kind == "scaled_linear":
            return torch.linspace(self.start**0.5, self.end**0.5, self.times, dtype=dtype) ** 2
        left = [math.cos((i / self.times + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(self.times + 1)]
        betas = [min(1 - after / before, 0.999) for before, after in zip(left, left[1:], strict=False)]
        return torch.tensor(betas, dtype=torch.float32)


def alphas_cumprod(
    betas: Betas, trained: Sequence[float] | None, zero_snr: bool, shift: float | int | None = None
) -> list[float]:
    """The share of signal variance left at each time. With `shift` (1 as well) as CogVideoX has it: the ratio of signal
    to noise is divided by it before the end is cleared of signal."""
    precision = torch.float32 if shift is None else torch.float64
    table = betas.table(precision) if trained is None else torch.tensor(list(trained), dtype=torch.float32)
    alphas = torch.cumprod(1 - table, dim=0)
    if shift is not None:
        alphas = alphas / (shift + (1 - shift) * alphas)
    if zero_snr:
        alphas = _without_signal_at_the_end(alphas, rounded=shift is None)
    return [float(alpha) for alpha in alphas]


def _without_signal_at_the_end(alphas: Tensor, rounded: bool) -> Tensor:
    """Shift and stretch the square roots so that the last one is 0 and the first one stays."""
    roots = alphas.sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    roots = (roots - last) * (first / (first - last))
    squared = roots**2
    if not rounded:
        return squared
    # Back through the single-step factors, as in the original recipe: it changes the rounding.
    steps = torch.cat([squared[:1], squared[1:] / squared[:-1]])
    return torch.cumprod(1 - (1 - steps), dim=0)
