"""Invert the clip under the source prompt, then sample under the target prompt: the plainest edit there is."""

from dataclasses import dataclass

from torch import Generator

from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert, sample
from freemask.methods.common import Stopwatch, at_least, path_warnings, whole
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, silent


@dataclass(frozen=True)
class Ddim:
    """`reconstruct` also samples back under the source prompt at guidance 1 (in Edit.extras): what inversion loses."""

    steps: int = 50
    guidance: float | int = 7.5
    inversion_guidance: float | int = 1.0
    reconstruct: bool = False

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
            upwards = guided(backbone, source, self.inversion_guidance, stream="source")
            noise = invert(backbone, latents, upwards, self.steps, progress=progress)[-1]
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
