"""RF-Solver-Edit (Wang et al., 2024): inversion and sampling by the midpoint rule, and for the first steps of sampling
the values of self-attention are those of the inversion."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from torch import Generator, Tensor

from freemask.attention.layout import video_tokens
from freemask.attention.math import attend
from freemask.attention.record import GIB, Recording
from freemask.diffusion.guidance import given_to, guided
from freemask.diffusion.loops import Callbacks, invert, sample
from freemask.diffusion.noise_paths import one_of
from freemask.methods.common import Stopwatch, at_least, path_warnings, share, whole
from freemask.settings import Effect
from freemask.types import QKV, Backbone, Clip, Edit, EditTask, Progress, Taps, Time, Where, silent

SOLVERS = ("midpoint", "fireflow")
SEES_VIDEO = ("self", "space_time", "joint")


@dataclass(frozen=True)
class RfSolver:
    """`inject`: the first so many steps of sampling take the inversion's values, in the last `blocks` of the layers, a
    share of them. `solver=fireflow` (FireFlow) asks the network half as often.

    `inversion_prompt`: the inversion goes under the empty text, as in the released code for video, or the clip's own.
    """

    draws: ClassVar[bool] = False  # no noise: every seed gives the same

    steps: int = 25
    guidance: float | int | None = None
    inject: int = 3
    blocks: float | int = 0.32
    solver: str = "midpoint"
    inversion_prompt: str = "empty"
    budget_gb: Annotated[float | int, Effect.NONE] = 8

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("inject", 0)):
            whole(name, getattr(self, name), least)
        at_least("guidance", self.guidance, 0)
        one_of("solver", self.solver, SOLVERS)
        one_of("inversion_prompt", self.inversion_prompt, ("empty", "source"))
        share("blocks", self.blocks, "the layers")

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        watch, times = Stopwatch(backbone.device), backbone.noise_path.times(self.steps)
        with watch.stage("encode"):
            latents = backbone.encode(clip.frames)
            prompts = task.source if self.inversion_prompt == "source" else "", task.target
            source, target = (given_to(backbone, clip, backbone.embed(prompt)) for prompt in prompts)
        values = Values(self._layers(backbone), times, self.inject, int(self.budget_gb * GIB))
        with watch.stage("inversion"):
            up = guided(backbone, source, taps=Taps(attention=values.kept), stream="source")
            on = Callbacks(before=values.begin)
            noise = invert(backbone, latents, up, times, solver=self.solver, on=on, progress=progress)[-1]
        with watch.stage("sampling"):
            down = guided(backbone, target, self.guidance, taps=Taps(attention=values.lent))
            edited = sample(backbone, noise, down, times, solver=self.solver, on=on, progress=progress)
        with watch.stage("decoding"):
            frames = backbone.decode(edited, len(clip.frames))
        gib = sum(values.recording.bytes.values()) / GIB
        facts = {"values_from_layers": len(values.layers), "values_gib": round(gib, 4)}
        return Edit(frames, {}, watch.seconds, path_warnings(backbone), facts)

    def _layers(self, backbone: Backbone) -> frozenset[str]:
        found = [site.name for site in backbone.sites.values() if site.role in SEES_VIDEO]
        return frozenset(found[len(found) - round(self.blocks * len(found)) :])


class Values:
    """The inversion's values, by step and by the place of the call in it. A step is named by its noisier end, so that
    the step up and the step down are the same one.

    FireFlow asks at a step's start in its first step alone, which is the cleanest one up and the noisiest one down:
    there the values of the middle stand for those of the start, as its velocities do."""

    def __init__(self, layers: frozenset[str], times: Sequence[Time], inject: int, budget: int) -> None:
        self.layers, self.times, self.recording = layers, list(times), Recording(budget)
        self.wanted = self.times[len(times) - inject :] if inject else []
        self.step = self.times[0]

    def begin(self, x: Tensor, i: int, t: Time) -> None:
        self.step = t

    def kept(self, where: Where, qkv: QKV) -> Tensor:
        if self._wants(where):
            self.recording.put(self._place(where), replace(where, t=self.step), qkv.v)
        return attend(qkv)

    def lent(self, where: Where, qkv: QKV) -> Tensor:
        """The clip's values for the video tokens of every stream; a text among them keeps its own."""
        if not self._wants(where):
            return attend(qkv)
        video, v, place = video_tokens(where, qkv.v.shape[-2]), qkv.v.clone(), self._place(where)
        place = place if (where.site.name, self.step) in self.recording.all(place) else "middle"
        v[..., video, :] = self.recording.get(place, replace(where, t=self.step))[..., video, :]
        return attend(replace(qkv, v=v))

    def _wants(self, where: Where) -> bool:
        return where.site.name in self.layers and self.step in self.wanted

    def _place(self, where: Where) -> str:
        ends = [0.0, *self.times]
        lower = ends[self.times.index(self.step)]
        return "middle" if where.t == (lower + self.step) / 2 else "start"
