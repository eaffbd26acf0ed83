"""The clip sampled again from its inverted noise under its own prompt: attention of this pass, not of the inversion."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from freemask.attention.record import Recording
from freemask.diffusion.guidance import Conditions, guided
from freemask.diffusion.inversions import Inversion, Wish
from freemask.diffusion.loops import Callbacks, sample
from freemask.types import Backbone, Progress, Taps, Time, silent


@dataclass(frozen=True)
class Reconstruction(Inversion):
    """`latents` at the levels [CLEAN, *times], as of an inversion, but made on the way down."""

    def input_at(self, t: Time) -> Float[Tensor, "f c h w"]:
        """What the network saw at time t: the latent of that level itself."""
        return self.at(t)


def reconstruct(
    backbone: Backbone,
    inversion: Inversion,
    source: Conditions,
    guidance: float | int,
    *,
    wish: Wish,
    progress: Progress = silent,
) -> Reconstruction:
    """From the inversion's noise under the clip's own prompt; keeps and spy see the stream of that prompt."""
    latents, kept = [inversion.latents[-1]], Recording(wish.budget)

    def note(x: Tensor, i: int, t: Time) -> None:
        latents.append(x)

    taps = Taps(attention=wish.tap(wish.keeps, kept))
    sample(
        backbone,
        latents[0],
        guided(backbone, source, guidance, taps=taps, stream="source"),
        inversion.times,
        on=Callbacks(after=note),
        progress=lambda _, done, total: progress("reconstruction", done, total),
    )
    return Reconstruction(latents[::-1], inversion.times, len(inversion.times), kept)
