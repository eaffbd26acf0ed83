"""Invert a clip and sample it back under its own prompt: no edit, but what every edit by inversion loses."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator

from freemask.diffusion.guidance import given_to, guided
from freemask.diffusion.inversions import Watched
from freemask.diffusion.loops import invert, sample
from freemask.diffusion.noise_paths import one_of
from freemask.diffusion.solvers import EULER, SOLVERS
from freemask.methods.common import Stopwatch, path_warnings, whole
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, silent


@dataclass(frozen=True)
class Reconstruct:
    """`solver`: how both ways are travelled (`freemask.diffusion.solvers`). Nothing guides."""

    draws: ClassVar[bool] = False  # no noise: every seed gives the same

    steps: int = 50
    solver: str = EULER

    def __post_init__(self) -> None:
        whole("steps", self.steps, 1)
        one_of("solver", self.solver, SOLVERS)

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        watch, steps, solver = Stopwatch(backbone.device), self.steps, self.solver
        with watch.stage("encode"):
            latents = backbone.encode(clip.frames)
            predict = Watched(guided(backbone, given_to(backbone, clip, backbone.embed(task.source))))
        with watch.stage("inversion"):
            noise = invert(backbone, latents, predict, steps, solver=solver, progress=progress)[-1]
        with watch.stage("sampling"):
            back = sample(backbone, noise, predict, steps, solver=solver, progress=progress)
        with watch.stage("decoding"):
            frames = backbone.decode(back, len(clip.frames))
        lost = float((back - latents).norm() / latents.norm())
        facts = {"latent_error": round(lost, 5), "network_calls": predict.calls}
        return Edit(frames, {}, watch.seconds, path_warnings(backbone), facts)
