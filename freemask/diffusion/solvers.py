"""Ways to travel a noise path from level to level: how often the network is called for a step, and where.

`euler` calls it once, at the noisier end of the step, up and down alike. `lower` goes down like that; up it calls the
network at the end that it leaves, and takes the clip for what is at the first time, as diffusers' DDIMInverseScheduler
had it until 0.19. `own_level` is what that does since: up, the network is told the noisier end, but what it says is
taken as said of the latent's own level. Where noise is predicted that is Euler; where v is, only Euler is undone by a
step down with the same prediction. The others are for straight paths (flow matching), and halve what an inversion
loses, or better:

`uni` (Uni-Inv) goes up with the velocity of a guess at where the step ends, which costs one call more in all; down it
is Euler. `midpoint` (RF-Solver's update is the same rule) asks at the start and in the middle of the step, twice the
calls. `fireflow` takes the middle's velocity of the step before for that of the start: one call for each step.
`unipc` goes down with two steps' memory and a correction, as the scheduler of the same name; up it is Euler.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from freemask.diffusion.flow import Flow
from freemask.diffusion.guidance import Predict
from freemask.diffusion.noise_paths import CLEAN, one_of
from freemask.errors import UserError
from freemask.types import NoisePath, Time

EULER, LOWER, OWN_LEVEL = "euler", "lower", "own_level"
NEAREST = 1e-6  # to pure noise: at sigma 1 the share of signal has no logarithm


# One journey along a path, from a latent and its level to another; it may remember what the network said before.
Way = Callable[[Tensor, Time, Time], Tensor]


@dataclass
class Euler:
    """At a time of the grid in every step, so that what is recorded of one journey is found on another."""

    path: NoisePath
    predict: Predict

    def __call__(self, x: Tensor, now: Time, to: Time) -> Tensor:
        call = max(now, to)
        return self.path.step(x, self.predict(x, call), now=now, call=call, to=to)


@dataclass
class Lower(Euler):
    def __call__(self, x: Tensor, now: Time, to: Time) -> Tensor:
        if to < now:
            return super().__call__(x, now, to)
        return x if now == CLEAN else self.path.step(x, self.predict(x, now), now=now, call=now, to=to)


@dataclass
class OwnLevel(Euler):
    def __call__(self, x: Tensor, now: Time, to: Time) -> Tensor:
        return self.path.step(x, self.predict(x, max(now, to)), now=now, call=now, to=to)


@dataclass
class Uni:
    path: Flow
    predict: Predict
    velocity: Tensor | None = None

    def __call__(self, x: Tensor, now: Time, to: Time) -> Tensor:
        if to < now:
            return Euler(self.path, self.predict)(x, now, to)
        if self.velocity is None:
            self.velocity = self.predict(x, level(now))
        guess = self.path.step(x, self.velocity, now=now, call=now, to=to)
        self.velocity = self.predict(guess, to)
        return self.path.step(x, self.velocity, now=now, call=to, to=to)


@dataclass
class Midpoint:
    """`remembers`: the middle's velocity stands for the next step's start (FireFlow)."""

    path: Flow
    predict: Predict
    remembers: bool = False
    velocity: Tensor | None = None

    def __call__(self, x: Tensor, now: Time, to: Time) -> Tensor:
        middle = (level(now) + level(to)) / 2
        if self.velocity is None or not self.remembers:
            self.velocity = self.predict(x, level(now))
        half = self.path.step(x, self.velocity, now=now, call=now, to=middle)
        self.velocity = self.predict(half, middle)
        return self.path.step(x, self.velocity, now=now, call=middle, to=to)


@dataclass
class UniPc:
    """Order 2 of UniPC (Zhao et al., 2023) for clean predictions, with B(h) = exp(h) - 1 and its corrector: in the
    logarithm of signal to noise, through the clean latents of this step and the one before.

    `memory` holds level, latent and clean latent of the last steps, newest last. The step to CLEAN is of order 1.
    """

    path: Flow
    predict: Predict | None = None
    memory: list[tuple[Time, Tensor, Tensor]] = field(default_factory=list)
    order: int = 0

    def __call__(self, x: Tensor, now: Time, to: Time) -> Tensor:
        assert self.predict is not None
        if to > now:
            return Euler(self.path, self.predict)(x, now, to)
        return self.step(x, self.predict(x, now), now=now, to=to)

    def step(self, x: Tensor, velocity: Tensor, *, now: Time, to: Time) -> Tensor:
        clean = self.path.clean(x, velocity, now=now, call=now)
        if self.memory:
            x = self._corrected(clean, now)
        self.order = 1 if to == CLEAN else min(2, len(self.memory) + 1)
        self.memory = [*self.memory[-1:], (now, x, clean)]
        return self._moved(now, to, [0.5] if self.order == 2 else [])

    def _corrected(self, clean: Tensor, now: Time) -> Tensor:
        """The last step again, with the clean latent that the network has since seen at its end."""
        h = self._log(now) - self._log(self.memory[-1][0])
        last = [0.5]
        if self.order == 2:
            ratio = (self._log(self.memory[-2][0]) - self._log(self.memory[-1][0])) / h
            first = math.expm1(-h) / -h - 1  # the integrals of exp against 1 and against its distance
            sides = [first / math.expm1(-h), 2 * (first / -h - 0.5) / math.expm1(-h)]
            last = torch.linalg.solve(
                torch.tensor([[1.0, 1.0], [ratio, 1.0]], dtype=torch.float64),
                torch.tensor(sides, dtype=torch.float64),
            ).tolist()
        moved = self._moved(self.memory[-1][0], now, last[:-1])
        newest = self.memory[-1][2]
        return moved - self._signal(now) * math.expm1(-h) * last[-1] * (clean - newest)

    def _moved(self, now: Time, to: Time, weights: list[float]) -> Tensor:
        """From the newest of memory, bent by the one before it where there is a weight for it."""
        _, x, clean = self.memory[-1]
        h = self._log(to) - self._log(now)
        moved = self._noise(to) / self._noise(now) * x - self._signal(to) * math.expm1(-h) * clean
        for weight in weights:
            before, _, older = self.memory[-2]
            ratio = (self._log(before) - self._log(now)) / h
            moved = moved - self._signal(to) * math.expm1(-h) * weight * (older - clean) / ratio
        return moved

    def _noise(self, at: Time) -> float:
        return min(self.path.sigma(at), 1 - NEAREST)

    def _signal(self, at: Time) -> float:
        return 1 - self._noise(at)

    def _log(self, at: Time) -> float:
        noise = self._noise(at)
        return math.inf if noise == 0 else math.log((1 - noise) / noise)


def level(at: Time) -> Time:
    """The time at which a network is called for a level; CLEAN has none of its own."""
    return 0.0 if at == CLEAN else at


MADE: dict[str, Callable[[Flow, Predict], Way]] = {
    "uni": Uni,
    "midpoint": Midpoint,
    "fireflow": lambda path, predict: Midpoint(path, predict, remembers=True),
    "unipc": UniPc,
}
ANYWHERE: dict[str, Callable[[NoisePath, Predict], Way]] = {EULER: Euler, LOWER: Lower, OWN_LEVEL: OwnLevel}
SOLVERS = (*ANYWHERE, *MADE)


def way(solver: str, path: NoisePath, predict: Predict) -> Way:
    """A new journey."""
    one_of("solver", solver, SOLVERS)
    if solver in ANYWHERE:
        return ANYWHERE[solver](path, predict)
    if not isinstance(path, Flow):
        raise UserError(
            f"The solver '{solver}' is for straight noise paths.",
            came=f"the path of {type(path).__name__}",
            expected="a model of flow matching, such as model=embedded_dit or model=wan",
            todo="solver=euler goes with every model",
        )
    return MADE[solver](path, predict)
