"""Classifier-free guidance as functions: the prediction of a network for one prompt, at a strength."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.types import NO_TAPS, Backbone, Stream, Taps, Text

Predict = Callable[[Tensor, int], Tensor]  # (x: f c h w, t) -> prediction: f c h w


def cfg(
    uncond: Float[Tensor, "*shape"], cond: Float[Tensor, "*shape"], guidance: float | int
) -> Float[Tensor, "*shape"]:
    return uncond + guidance * (cond - uncond)


def guided(
    backbone: Backbone,
    text: Text,
    guidance: float | int = 1.0,
    *,
    empty: Text | None = None,
    taps: Taps = NO_TAPS,
    stream: Stream = "cond",
) -> Predict:
    """The prediction for a prompt. Guidance 1 runs the prompt's stream alone; others run (uncond, `stream`)."""
    if guidance == 1:
        return lambda x, t: backbone.predict(x[None], t, text.tokens[None], streams=(stream,), taps=taps)[0]
    empty = backbone.embed("") if empty is None else empty
    both = torch.stack([empty.tokens, text.tokens])

    def predict(x: Tensor, t: int) -> Tensor:
        pair = x.expand(2, *x.shape)
        uncond, cond = backbone.predict(pair, t, both, streams=("uncond", stream), taps=taps)
        return cfg(uncond, cond, guidance)

    return predict
