"""Video Instruct-Pix2Pix (Text2Video-Zero's third way): a network that follows an instruction and is shown the clip's
latents beside the noisy ones, with guidance by both, and fresh noise in every step.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.control.images import LATENTS
from freemask.diffusion.noise_paths import CLEAN
from freemask.errors import UserError
from freemask.methods.common import Noise
from freemask.methods.renoised import Held
from freemask.types import Backbone, Given, NoisePath, Progress, Stream, Taps, Time


@dataclass(frozen=True)
class Instructed:
    """`given` is what each stream is given, `shares` how much of each one's prediction counts. `draw`: the noise of a
    step. `held` puts the clip back, outside a mask, into what a step has made."""

    backbone: Backbone
    given: Mapping[Stream, Given]
    shares: Mapping[Stream, float | int]
    levels: list[Time]
    taps: Taps
    draw: Noise
    held: Callable[[Tensor, int], Tensor]

    def predict(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "f c h w"]:
        given = {stream: self.given[stream] for stream, share in self.shares.items() if share}
        made = self.backbone.predict(x.expand(len(given), *x.shape), t, given, taps=self.taps)
        return torch.stack([self.shares[each] * one for each, one in zip(given, made, strict=True)]).sum(0)

    @torch.no_grad()
    def all(self, x: Float[Tensor, "f c h w"], progress: Progress) -> Float[Tensor, "f c h w"]:
        steps = len(self.levels) - 1
        progress("sampling", 0, steps)
        for i in range(steps):
            now, to = self.levels[i : i + 2]
            x = ancestral(self.backbone.noise_path, x, self.predict(x, now), self.draw, now=now, to=to)
            x = self.held(x, i)
            progress("sampling", i + 1, steps)
        return x


def shares(guidance: float | int, image_guidance: float | int) -> dict[Stream, float | int]:
    """none + image_guidance (image - none) + guidance (cond - image), sorted by predictions; one that does not count
    is not asked for."""
    return {"uncond": 1 - image_guidance, "image": image_guidance - guidance, "cond": guidance}


def streams(held: Held, instruction: Given) -> dict[Stream, Given]:
    """Instruction and clip; the clip alone, and neither: a text that is empty, and channels of zeros."""
    both, empty = held.subject.given["cond"].plus(**instruction.parts), held.subject.given["uncond"]
    nothing = {"channels": torch.zeros_like(empty.parts["channels"])}
    return {"uncond": empty.plus(**nothing), "image": empty, "cond": both}


def ancestral(
    path: NoisePath,
    x: Float[Tensor, "f c h w"],
    prediction: Float[Tensor, "f c h w"],
    draw: Noise,
    *,
    now: Time,
    to: Time,
) -> Float[Tensor, "f c h w"]:
    """Euler's ancestral step, which is DDIM's with eta 1: of the noise that stays, a part is drawn anew. With s the
    noise for each share of signal, it is 1 - (s_to / s_now)^2 of its square. The last step leaves none."""
    clean = path.clean(x, prediction, now=now, call=now)
    if to == CLEAN:
        return clean
    kept = _noisiness(path, to) / _noisiness(path, now)
    noise = kept * path.noise(x, prediction, now=now, call=now) + math.sqrt(1 - kept**2) * draw()
    return path.noised(clean, noise, to)


def _noisiness(path: NoisePath, level: Time) -> float:
    one, none = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    return float(path.noised(none, one, level) / path.noised(one, none, level))


def shown_latents(channels: Tensor | None, like: Float[Tensor, "f c h w"]) -> None:
    """Refuses a network that is shown anything else beside the noisy latents."""
    if channels is None or channels.shape[-3] != like.shape[1]:
        came = "none" if channels is None else str(channels.shape[-3])
        raise _no_pix2pix(
            f"a network that is shown {came} channels beside the {like.shape[1]} of its noisy latents"
        )


def check_channels(said: object) -> None:
    """`said` is what the model's settings say of channels."""
    if said != LATENTS:
        raise _no_pix2pix(f"model.channels={'null' if said is None else said}")


def _no_pix2pix(came: str) -> UserError:
    return UserError(
        "In its mode pix2pix, Text2Video-Zero follows an instruction and is shown the clip's latents.",
        came=came,
        expected="a network of InstructPix2Pix, which has twice as many input channels as latents have",
        todo="model=instruct_pix2pix model.control=null, or model=random_image model.channels=latents model.control=0",
    )
