"""Invert the clip under the source prompt, then sample under the target prompt: the plainest edit there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Generator, Tensor

from freemask.diffusion.guidance import given_to, guided
from freemask.diffusion.inversions import Inversion, Inversions
from freemask.diffusion.loops import invert, sample
from freemask.diffusion.noise_paths import one_of
from freemask.diffusion.solvers import EULER, SOLVERS
from freemask.methods.common import Stopwatch, at_least, finer, path_warnings, paths, whole
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Given, Progress, Time, silent

PROMPTS = ("source", "empty")


@dataclass(frozen=True)
class Ddim:
    """`reconstruct` also samples back under the source prompt at guidance 1 (in Edit.extras): what inversion loses.

    `inversion_steps`: a finer path up than down; None: as many as `steps`. `inversions` is a folder in which inversions
    are kept for every method, prompt and run; None keeps none. `solver`: how both ways are travelled
    (`freemask.diffusion.solvers`). `inversion_prompt` empty: the clip is inverted under no text.
    """

    draws: ClassVar[bool] = False  # no noise: every seed gives the same

    steps: int = 50
    guidance: float | int | None = None
    solver: str = EULER
    inversion_prompt: str = "source"
    inversion_guidance: float | int = 1.0
    inversion_steps: int | None = None
    reconstruct: bool = False
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        whole("steps", self.steps, 1)
        one_of("solver", self.solver, SOLVERS)
        one_of("inversion_prompt", self.inversion_prompt, PROMPTS)
        finer(self.steps, self.inversion_steps)
        at_least("guidance", self.guidance, 0)
        at_least("inversion_guidance", self.inversion_guidance, 0)

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        watch = Stopwatch(backbone.device)
        down, up = paths(backbone, self.steps, self.inversion_steps)
        with watch.stage("encode"):
            latents = backbone.encode(clip.frames)
            source, target = (
                given_to(backbone, clip, backbone.embed(prompt)) for prompt in (task.source, task.target)
            )
        with watch.stage("inversion"):
            under = (
                source if self.inversion_prompt == "source" else source.plus(**backbone.embed("").given.parts)
            )
            noise = self._noise(backbone, latents, under, up, progress).at(down[-1])
        with watch.stage("sampling"):
            predict = guided(backbone, target, self.guidance)
            edited = sample(backbone, noise, predict, down, solver=self.solver, progress=progress)
        with watch.stage("decoding"):
            frames = backbone.decode(edited, len(clip.frames))
        extras = {}
        if self.reconstruct:
            with watch.stage("reconstruction"):
                predict = guided(backbone, source)
                back = sample(backbone, noise, predict, down, solver=self.solver, progress=progress)
                extras["reconstruction"] = backbone.decode(back, len(clip.frames))
        return Edit(frames, extras, watch.seconds, path_warnings(backbone))

    def _noise(
        self, backbone: Backbone, latents: Tensor, source: Given, up: Sequence[Time], progress: Progress
    ) -> Inversion:
        """Inversions under guidance are rare, and are not kept."""
        if self.inversion_guidance == 1:
            store = Inversions(self.inversions, self.inversions_gb)
            return store.invert(backbone, latents, source, up, solver=self.solver, progress=progress)
        upwards = guided(backbone, source, self.inversion_guidance, stream="source")
        path = invert(backbone, latents, upwards, up, solver=self.solver, progress=progress)
        return Inversion(path, up)
