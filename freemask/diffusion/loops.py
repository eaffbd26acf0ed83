"""The two loops: up the noise path (invert) and down it (sample), as mirror images of each other. No graph is kept: a
method that needs gradients within a step switches them on where it needs them (`torch.enable_grad`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.diffusion.guidance import Predict, guided
from freemask.diffusion.noise_paths import CLEAN
from freemask.diffusion.solvers import EULER, way
from freemask.types import Backbone, Given, Progress, Text, Time, silent

Watch = Callable[[Tensor, int, Time], Tensor | None]  # (x, i, t): a tensor stands in for x, None leaves it


@dataclass(frozen=True)
class Callbacks:
    """`before` sees the latent that the network is about to see, `after` the one that the step has made.

    i counts the steps of this loop from 0; t is the time of the network call.
    """

    before: Watch | None = None
    after: Watch | None = None


@torch.no_grad()
def invert(  # noqa: PLR0913 -- the parts of a journey
    backbone: Backbone,
    latents: Float[Tensor, "f c h w"],
    predict: Text | Given | Predict,
    steps: int | Sequence[Time],
    *,
    solver: str = EULER,
    on: Callbacks = Callbacks(),
    progress: Progress = silent,
) -> list[Tensor]:
    """From the clean latent to noise: latents at the levels [CLEAN, *times], the given one first.

    `predict` is a prompt, or what else a stream may be given (at guidance 1), or any function (x, t) -> prediction;
    `steps` a number or ascending times.
    """
    path, times = backbone.noise_path, _times(backbone, steps)
    call = guided(backbone, predict, stream="source") if isinstance(predict, Text | Given) else predict
    travel = way(solver, path, call)
    x, now, kept = latents, CLEAN, [latents]
    progress("inversion", 0, len(times))
    for i, t in enumerate(times):
        x = _seen(on.before, x, i, t)
        x = travel(x, now, t)
        x, now = _seen(on.after, x, i, t), t
        kept.append(x)
        progress("inversion", i + 1, len(times))
    return kept


@torch.no_grad()
def sample(  # noqa: PLR0913 -- the parts of a journey
    backbone: Backbone,
    latents: Float[Tensor, "f c h w"],
    predict: Text | Given | Predict,
    steps: int | Sequence[Time],
    *,
    solver: str = EULER,
    on: Callbacks = Callbacks(),
    progress: Progress = silent,
) -> Float[Tensor, "f c h w"]:
    """From the noise at the last time down to the clean latent.

    After step i of n the latent is at the level of `invert(...)[n - 1 - i]`, where the times are the same.
    """
    path, times = backbone.noise_path, _times(backbone, steps)
    call = guided(backbone, predict) if isinstance(predict, Text | Given) else predict
    travel = way(solver, path, call)
    x = latents
    progress("sampling", 0, len(times))
    for i, t in enumerate(reversed(times)):
        below = times[-2 - i] if i + 1 < len(times) else CLEAN
        x = _seen(on.before, x, i, t)
        x = travel(x, t, below)
        x = _seen(on.after, x, i, t)
        progress("sampling", i + 1, len(times))
    return x


def _times(backbone: Backbone, steps: int | Sequence[Time]) -> list[Time]:
    times = list(backbone.noise_path.times(steps) if isinstance(steps, int) else steps)
    if not times or times != sorted(set(times)):
        raise ValueError(f"times must be ascending and different, and at least one: {times}")
    return times


def _seen(watch: Watch | None, x: Tensor, i: int, t: Time) -> Tensor:
    changed = None if watch is None else watch(x, i, t)
    return x if changed is None else changed
