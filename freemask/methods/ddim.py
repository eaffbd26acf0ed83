"""Invert the clip under the source prompt, then sample under the target prompt: the plainest edit there is."""

from dataclasses import dataclass
from typing import Annotated

from torch import Generator, Tensor

from freemask.diffusion.guidance import guided
from freemask.diffusion.inversions import Inversions
from freemask.diffusion.loops import invert, sample
from freemask.methods.common import Stopwatch, at_least, path_warnings, whole
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, Text, silent


@dataclass(frozen=True)
class Ddim:
    """`reconstruct` also samples back under the source prompt at guidance 1 (in Edit.extras): what inversion loses.

    `inversions` is a folder in which inversions are kept for every method, prompt and run; None keeps none.
    """

    steps: int = 50
    guidance: float | int = 7.5
    inversion_guidance: float | int = 1.0
    reconstruct: bool = False
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        at_least("steps", self.steps, 1)
        at_least("guidance", self.guidance, 0)
        at_least("inversion_guidance", self.inversion_guidance, 0)

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        watch = Stopwatch(backbone.device)
        with watch.stage("encode"):
            latents = backbone.encode(clip.frames)
            source, target = backbone.embed(task.source), backbone.embed(task.target)
        with watch.stage("inversion"):
            noise = self._noise(backbone, latents, source, progress)
        with watch.stage("sampling"):
            edited = sample(
                backbone, noise, guided(backbone, target, self.guidance), self.steps, progress=progress
            )
        with watch.stage("decoding"):
            frames = backbone.decode(edited)
        extras = {}
        if self.reconstruct:
            with watch.stage("reconstruction"):
                back = sample(backbone, noise, guided(backbone, source), self.steps, progress=progress)
                extras["reconstruction"] = backbone.decode(back)
        return Edit(frames, extras, watch.seconds, path_warnings(backbone))

    def _noise(self, backbone: Backbone, latents: Tensor, source: Text, progress: Progress) -> Tensor:
        """The inverted latent. Inversions under guidance are rare, and are not kept."""
        if self.inversion_guidance == 1:
            store = Inversions(self.inversions, self.inversions_gb)
            return store.invert(backbone, latents, source, self.steps, progress=progress).latents[-1]
        upwards = guided(backbone, source, self.inversion_guidance, stream="source")
        return invert(backbone, latents, upwards, self.steps, progress=progress)[-1]
