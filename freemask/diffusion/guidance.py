"""Classifier-free guidance as functions: the prediction of a network for one prompt, at a strength."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.types import NO_TAPS, Backbone, Clip, Given, Stream, Taps, Text, Time

Predict = Callable[[Tensor, Time], Tensor]  # (x: f c h w, t) -> prediction: f c h w
# What a stream is conditioned on: always the same, or something else at each time (null-text inversion).
Conditions = Text | Given | Mapping[Time, Given]


def cfg(
    uncond: Float[Tensor, "*shape"], cond: Float[Tensor, "*shape"], guidance: float | int
) -> Float[Tensor, "*shape"]:
    return uncond + guidance * (cond - uncond)


def given_to(backbone: Backbone, clip: Clip, prompt: Text, *, away: bool = False) -> Given:
    """A prompt, what else is known of the clip that this network takes, and what it is shown of the clip. `away`:
    guidance leads away from it."""
    known = {name: value for name, value in clip.conditions.items() if name in backbone.takes}
    given = prompt.given.plus(**{**backbone.seen(clip), **known})
    return unseen(given) if away else given


def unseen(given: Given) -> Given:
    """Without what an image encoder says of a picture, which networks are trained to do without; its latent stays."""
    image = given.parts.get("image")
    return given if image is None else given.plus(image=torch.zeros_like(image))


def of_frames(given: Given, frames: Sequence[int], total: int) -> Given:
    """For some of the frames: of texts, channels and images that there are for each, theirs."""
    parts = {
        name: part[list(frames)] if part.ndim > 2 and len(part) == total else part
        for name, part in given.parts.items()
    }
    return Given(parts)


def at(conditions: Conditions, t: Time) -> Given:
    """What is given at time t."""
    if isinstance(conditions, Text):
        return conditions.given
    return conditions if isinstance(conditions, Given) else conditions[t]


def strength(asked: float | int | None, backbone: Backbone, emphasis: float | int = 1) -> float | int:
    """How strongly a prompt is followed: as asked, or so many times as the model was made for. Models that are made
    for no guidance (1) get none."""
    if asked is not None:
        return asked
    return 1 if backbone.guidance == 1 else emphasis * backbone.guidance


def guided(
    backbone: Backbone,
    cond: Conditions,
    guidance: float | int | None = 1.0,
    *,
    uncond: Conditions | None = None,
    taps: Taps = NO_TAPS,
    stream: Stream = "cond",
) -> Predict:
    """The prediction for a prompt. Guidance 1 runs the prompt's stream alone; others run (uncond, `stream`); None is
    the model's own.

    `uncond` None stands for the same with an empty prompt. With three streams or more, a method calls the network
    itself and puts the predictions together as its paper says.
    """
    guidance = strength(guidance, backbone)
    if guidance == 1:
        return lambda x, t: backbone.predict(x[None], t, {stream: at(cond, t)}, taps=taps)[0]
    empty = backbone.embed("").given.parts if uncond is None else {}

    def predict(x: Tensor, t: Time) -> Tensor:
        given = at(cond, t)
        away = unseen(given.plus(**empty)) if uncond is None else at(uncond, t)
        both = {"uncond": away, stream: given}
        first, second = backbone.predict(x.expand(2, *x.shape), t, both, taps=taps)
        return cfg(first, second, guidance)

    return predict
