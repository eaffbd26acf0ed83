"""The clip sampled again from its inverted noise under its own prompt: attention of this pass, not of the inversion."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from freemask.attention.math import attend
from freemask.attention.record import recorder
from freemask.diffusion.guidance import guided
from freemask.diffusion.inversions import Inversion, Spy, Wish
from freemask.diffusion.loops import Callbacks, sample
from freemask.types import QKV, AttentionTap, Backbone, Progress, Taps, Text, Where, silent


@dataclass(frozen=True)
class Reconstruction(Inversion):
    """`latents` at the levels [CLEAN, *times], as of an inversion, but made on the way down."""

    def input_at(self, t: int) -> Float[Tensor, "f c h w"]:
        """What the network saw at time t: the latent of that level itself."""
        return self.latents[list(self.times).index(t) + 1]


def reconstruct(
    backbone: Backbone,
    inversion: Inversion,
    text: Text,
    guidance: float | int,
    *,
    wish: Wish,
    progress: Progress = silent,
) -> Reconstruction:
    """From the inversion's noise under `text`; keeps and spy see the stream of that prompt."""
    latents = [inversion.latents[-1]]

    def note(x: Tensor, i: int, t: int) -> None:
        latents.append(x)

    tap: AttentionTap | None = None if wish.spy is None else _spying(wish.spy)
    tap = recorder(wish.keeps, wish.into, then=tap) if wish.keeps else tap
    predict = guided(backbone, text, guidance, taps=Taps(attention=tap), stream="source")
    sample(
        backbone,
        latents[0],
        predict,
        inversion.times,
        on=Callbacks(after=note),
        progress=lambda _, done, total: progress("reconstruction", done, total),
    )
    return Reconstruction(latents[::-1], inversion.times, len(inversion.times))


def _spying(spy: Spy) -> AttentionTap:
    def tap(where: Where, qkv: QKV) -> Tensor:
        place = where.streams.index("source")
        q, k, v = (each[place, None] for each in (qkv.q, qkv.k, qkv.v))
        spy(where, QKV(q=q, k=k, v=v, scale=qkv.scale))
        return attend(qkv)

    return tap
