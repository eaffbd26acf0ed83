"""Null-text inversion (Mokady et al., 2023): for each time the unconditional text under which guided sampling goes back
the way that the inversion came."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from freemask.diffusion.guidance import Conditions, at, cfg, unseen
from freemask.diffusion.inversions import Inversion
from freemask.diffusion.noise_paths import CLEAN
from freemask.diffusion.reconstruction import Reconstruction
from freemask.errors import UserError
from freemask.types import Backbone, Given, Progress, Time, silent

MOST_STEPS = 100
RATE, FALL = 1e-2, 1 / MOST_STEPS  # of Adam at step i: RATE (1 - FALL i)
EPS = 1e-8
ENOUGH, MORE = 1e-5, 2e-5  # an error below ENOUGH + MORE i ends the updates of step i
# A power of two changes no number, and keeps gradients within what a network in half precision can hold.
SCALE = 2.0**14


@dataclass(frozen=True)
class NullText:
    """`inner`: how often a text is updated at most. `shared`: one text for all frames (Video-P2P); otherwise each frame
    has its own and stops on its own: of a network that works frame by frame, exactly as if each were a clip."""

    guidance: float | int = 7.5
    inner: int = 10
    shared: bool = False


@dataclass(frozen=True)
class Nulls:
    """What guidance starts from at each time, and the way down that guided sampling takes with it."""

    uncond: Mapping[Time, Given]
    path: Reconstruction

    def tensors(self) -> dict[str, Tensor]:
        """To be kept on a disk."""
        texts = [self.uncond[t].parts["text"] for t in self.path.times]
        return {"text": torch.stack(texts), "latents": torch.stack(list(self.path.latents))}

    @classmethod
    def of(cls, kept: Mapping[str, Tensor], begun: Given, times: Sequence[Time], like: Tensor) -> "Nulls":
        """Back from it; `begun` is what the way down began with."""
        text = begun.parts["text"]
        uncond = {t: begun.plus(text=each.to(text)) for t, each in zip(times, kept["text"], strict=True)}
        return cls(uncond, Reconstruction([each.to(like) for each in kept["latents"]], times))


class Place(NamedTuple):
    """Sampling step i: the network is called at time t, and the latent comes to the level `below`."""

    i: int
    t: Time
    below: Time


def null_text(
    backbone: Backbone,
    inversion: Inversion,
    source: Conditions,
    options: NullText,
    *,
    eps: float = EPS,
    progress: Progress = silent,
) -> Nulls:
    """From the inversion's noise down; each time begins with the text of the one before it. `eps` is Adam's."""
    times, x = list(inversion.times), inversion.latents[-1]
    descent = Descent(backbone, source, options, eps=eps)
    given = empty_text(backbone, options, len(x))
    latents, found = [x], {}
    progress("null text", 0, len(times))
    for i, t in enumerate(reversed(times)):
        below = times[-2 - i] if i + 1 < len(times) else CLEAN
        given, x = descent.step(Place(i, t, below), x, inversion.at(below), given)
        found[t] = given
        latents.append(x)
        progress("null text", i + 1, len(times))
    return Nulls(found, Reconstruction(latents[::-1], times, descent.passes))


def empty_text(backbone: Backbone, options: NullText, frames: int) -> Given:
    """An empty prompt, in single precision or better; where frames differ, once for each."""
    empty = backbone.embed("").given
    text = empty.parts["text"]
    text = text.to(torch.promote_types(text.dtype, torch.float32))
    return empty.plus(text=text if options.shared else text.expand(frames, *text.shape))


@dataclass
class Descent:
    """Guided steps down. `watch` sees of each update the errors, their gradient and the new text, one row for each
    text; `passes` counts calls of the network."""

    backbone: Backbone
    source: Conditions
    options: NullText
    watch: Callable[[Tensor, Tensor, Tensor], None] | None = None
    passes: int = 0
    eps: float = EPS

    @torch.no_grad()
    def step(self, place: Place, x: Tensor, aim: Tensor, given: Given) -> tuple[Given, Tensor]:
        """The text that leads nearest to `aim`, and where it leads."""
        own = at(self.source, place.t)
        cond = self._predict(x, place.t, own)
        searched = self.options.guidance != 1  # at 1 no text has an effect

        def moved(text: Tensor) -> Tensor:
            guided = cond
            if searched:
                away = unseen(own.plus(**given.parts).plus(text=text))
                uncond = self._predict(x, place.t, away)
                guided = cfg(uncond, cond, self.options.guidance)
            return self.backbone.noise_path.step(x, guided, now=place.t, call=place.t, to=place.below)

        text = given.parts["text"]
        if searched:
            text = self._fitted(lambda text: moved(text) - aim, text, place.i)
        return given.plus(text=text), moved(text)

    def _fitted(self, miss: Callable[[Tensor], Tensor], begun: Tensor, i: int) -> Tensor:
        shared = self.options.shared
        text = (begun[None] if shared else begun).clone().requires_grad_(True)
        adam = torch.optim.Adam(
            [text], lr=RATE * (1 - FALL * i), eps=self.eps
        )  # its moments are new at every time
        done = torch.zeros(len(text), dtype=torch.bool, device=text.device)
        for _ in range(self.options.inner):
            with torch.enable_grad():
                errors = miss(text[0] if shared else text).square().flatten(1).mean(1)
                errors = errors.mean(0, keepdim=True) if shared else errors
                (gradient,) = torch.autograd.grad(errors.sum() * SCALE, text)
            before, text.grad = text.detach().clone(), gradient / SCALE
            adam.step()  # number by number, so that texts do not touch each other
            text[done] = before[done]
            if self.watch is not None:
                self.watch(errors.detach(), text.grad, text.detach().clone())
            done |= errors.to(done.device) < ENOUGH + MORE * i  # only now: one update is always made
            if bool(done.all()):
                break
        return _finite(text.detach()[0] if shared else text.detach(), self.backbone)

    def _predict(self, x: Tensor, t: Time, given: Given) -> Tensor:
        self.passes += 1
        return self.backbone.predict(x[None], t, {"source": given})[0]


def _finite(text: Tensor, backbone: Backbone) -> Tensor:
    if not bool(torch.isfinite(text).all()):
        raise UserError(
            "Null-text inversion met numbers that this precision cannot hold.",
            came=str(backbone.dtype).removeprefix("torch."),
            todo="model.dtype=bfloat16 or float32",
        )
    return text
