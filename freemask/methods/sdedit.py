"""SDEdit (Meng et al., 2022): add noise up to a strength, then sample under the target prompt from there."""

from dataclasses import dataclass

from torch import Generator

from freemask.diffusion.guidance import given_to, guided
from freemask.diffusion.loops import sample
from freemask.methods.common import Stopwatch, at_least, drawing, path_warnings, share, whole
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, silent


@dataclass(frozen=True)
class SdEdit:
    """`strength` is the share of the path that is travelled: near 0 keeps the clip, 1 keeps next to nothing."""

    steps: int = 50
    guidance: float | int | None = None
    strength: float | int = 0.6

    def __post_init__(self) -> None:
        whole("steps", self.steps, 1)
        at_least("guidance", self.guidance, 0)
        share("strength", self.strength, above=True)

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        watch = Stopwatch(backbone.device)
        times = backbone.noise_path.times(self.steps)[: max(1, round(self.strength * self.steps))]
        with watch.stage("encode"):
            latents = backbone.encode(clip.frames)
            target = given_to(backbone, clip, backbone.embed(task.target))
        noise = drawing(rng, latents)()
        with watch.stage("sampling"):
            noised = backbone.noise_path.noised(latents, noise, times[-1])
            edited = sample(
                backbone, noised, guided(backbone, target, self.guidance), times, progress=progress
            )
        with watch.stage("decoding"):
            frames = backbone.decode(edited, len(clip.frames))
        return Edit(frames, {}, watch.seconds, path_warnings(backbone))
