"""ControlVideo's step: a guided prediction in one call or by key frames, and clean frames smoothed on the way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.diffusion.guidance import cfg, of_frames
from freemask.interpolation.interleaved import Neighbours, Remade, interleaved, neighbours
from freemask.types import NO_TAPS, Backbone, Given, Progress, Stream, Taps, Time, silent

Variant = Literal["official", "paper"]
ENDS = Taps(
    look=lambda where: ("first", "last")
)  # whom frames look at between key frames: of those in the call


class Call(NamedTuple):
    """Frames that the network sees together, in this order, and the places of those whose prediction counts."""

    frames: Sequence[int]
    counts: slice = slice(None)
    taps: Taps = NO_TAPS


def key_frames(frames: int, window: int) -> list[int]:
    """Neighbouring windows share a key frame; the last frame is one too."""
    return sorted({*range(0, frames, window - 1), frames - 1})


def calls_of(frames: int, window: int | None, variant: Variant) -> list[Call]:
    """All frames at once; or the key frames, then those between each two of them.

    Frames between look at both key frames in the paper. The released code puts its key frames first and then takes
    the first and the last frame of the call: the left key frame, and the last one of those between.
    """
    if window is None:
        return [Call(range(frames))]
    keys = key_frames(frames, window)
    found = [Call(keys)]
    for left, right in pairwise(keys):
        within = range(left + 1, right)
        if within and variant == "official":
            found.append(Call([left, right, *within], slice(2, None), ENDS))
        elif within:
            found.append(Call([left, *within, right], slice(1, -1), ENDS))
    return found


@dataclass(frozen=True)
class Smoother:
    """`steps` are those in which clean frames are smoothed, counted from 0. In the released code, even ones make odd
    frames anew, and what is encoded again is drawn from what the autoencoder says; in the paper, even ones make even
    frames, and it is the mean."""

    backbone: Backbone
    remade: Remade
    steps: frozenset[int]
    variant: Variant
    draw: Callable[[Tensor], Tensor]  # noise of this size

    def __call__(self, clean: Float[Tensor, "f c h w"], i: int) -> Float[Tensor, "f c h w"]:
        frames = self.backbone.decode(clean)
        smooth = interleaved(frames, self.made_of(len(frames), i), self.remade)
        again = self.backbone.encode(smooth).to(clean)
        if self.variant == "paper":
            return again
        return again + self.draw(again) * self.backbone.spread(smooth).to(clean)

    def made_of(self, frames: int, i: int) -> Neighbours:
        return neighbours(frames, odd=(i % 2 == 0) == (self.variant == "official"))


@dataclass(frozen=True)
class Steps:
    """An edit in progress. `given` has the stream cond, and uncond where it is guided; `levels` go from the noisy end
    down to the clean one. `held` puts the clip back, outside a mask, into what a step has made."""

    backbone: Backbone
    given: Mapping[Stream, Given]
    guidance: float | int
    calls: Sequence[Call]
    levels: Sequence[Time]
    smoother: Smoother | None
    held: Callable[[Tensor, int], Tensor] | None = None

    def predict(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "f c h w"]:
        out = torch.empty_like(x)
        for call in self.calls:
            frames = list(call.frames)
            given = {stream: of_frames(each, frames, len(x)) for stream, each in self.given.items()}
            seen = x[frames].expand(len(given), *x[frames].shape)
            made = dict(zip(given, self.backbone.predict(seen, t, given, taps=call.taps), strict=True))
            led = cfg(made["uncond"], made["cond"], self.guidance) if "uncond" in made else made["cond"]
            out[frames[call.counts]] = led[call.counts]
        return out

    def step(self, x: Float[Tensor, "f c h w"], i: int) -> Float[Tensor, "f c h w"]:
        """Where clean frames are smoothed, they get the noise of the prediction again."""
        path, now, to = self.backbone.noise_path, self.levels[i], self.levels[i + 1]
        made = self.predict(x, now)
        if self.smoother is None or i not in self.smoother.steps:
            return path.step(x, made, now=now, call=now, to=to)
        smooth = self.smoother(path.clean(x, made, now=now, call=now), i)
        return path.noised(smooth, path.noise(x, made, now=now, call=now), to)

    @torch.no_grad()
    def all(self, x: Float[Tensor, "f c h w"], progress: Progress = silent) -> Float[Tensor, "f c h w"]:
        steps = len(self.levels) - 1
        progress("sampling", 0, steps)
        for i in range(steps):
            x = self.step(x, i)
            x = x if self.held is None else self.held(x, i)
            progress("sampling", i + 1, steps)
        return x
