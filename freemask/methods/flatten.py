"""FLATTEN (Cong et al., 2024): an image model whose frames all look at each other, and then each place at the same
point of the clip in the other frames, along its optical flow; early in sampling, features are those of the clip.

Attention along trajectories stands in `freemask.attention.along`, trajectories in `freemask.optical`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, get_args

from torch import Generator

from freemask.attention.along import Along
from freemask.attention.record import GIB
from freemask.diffusion.guidance import strength
from freemask.diffusion.inversions import Inversion, Inversions, Wish
from freemask.diffusion.noise_paths import one_of
from freemask.diffusion.solvers import EULER, LOWER
from freemask.masks.plan import Subject
from freemask.methods.common import Stopwatch, of_kind, only_images, paths, share
from freemask.methods.composite import composited
from freemask.methods.following import followed
from freemask.methods.held import free, of_masks, planned, wish_of
from freemask.methods.masked import MaskSettings
from freemask.methods.pnp import Beside, Pnp, finished
from freemask.optical.sources import Auto, FlowSource
from freemask.optical.trajectories import Variant
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, silent

FINEST = 1  # the stride of the layers in which attention goes along trajectories
CONVOLUTIONS = ("up_blocks.1.resnets.[01].conv2", "up_blocks.2.resnets.0.conv2")
ATTENTIONS = ("up_blocks.1.attentions.[12].*", "up_blocks.2.attentions.*", "up_blocks.3.attentions.0.*")
ALONE = "one frame has no motion to follow: this is plug-and-play with FLATTEN's layers"


@dataclass(frozen=True)
class Flatten(MaskSettings):
    """`flow` knows how the clip moves; `flow_attention` false leaves attention along it out. `old_qk`: its queries and
    keys are those of the layer, otherwise they are what attention over all frames has put out, as its values are.
    `inject`: for so much of the steps the outputs of the `convolutions` (before the shortcut) and the queries and keys
    of the `attentions` are those of the clip, which runs beside the edit under an empty prompt, as it was inverted.

    `variant` official does what the released code does: the inversion asks the network at the level that it leaves,
    and sampling starts from what it ended in, though that is noisier where its grid is finer; trajectories are the
    released ones (`freemask.optical.trajectories`). paper: the levels of inversion and sampling are the same.

    `mask` (our own addition) holds the clip outside: there the edit has the clip's self-attention, its output of the
    convolutions, and its latents, at every step. Masks are made from an inversion under the clip's own prompt.
    """

    steps: int = 50
    guidance: float | int | None = None
    flow: FlowSource = field(default_factory=Auto)
    flow_attention: bool = True
    old_qk: bool = False
    inject: float | int = 0.8
    convolutions: Sequence[str] | None = None
    attentions: Sequence[str] | None = None
    negative: str = ""
    variant: Variant = "paper"
    inversion_steps: int | None = 100
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        of_kind("flow", self.flow, FlowSource)
        one_of("variant", self.variant, get_args(Variant))
        share("inject", self.inject, "the steps")
        self.settings()

    def settings(self) -> Pnp:
        """The plug-and-play on which it stands."""
        return Pnp(
            self.steps,
            self.guidance,
            self.inject,
            self.inject,
            CONVOLUTIONS if self.convolutions is None else self.convolutions,
            ATTENTIONS if self.attentions is None else self.attentions,
            self.negative,
            "last" if self.variant == "official" else "inverted",
            self.inversion_steps,
        )

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        super().check(task, clip)
        if self.flow_attention and len(clip().frames) > 1:
            self.flow.check(clip)

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        only_images("FLATTEN", backbone.sites)
        watch, settings = Stopwatch(backbone.device), self.settings()
        subject = settings.subject(backbone, clip, task, watch=watch)
        with watch.stage("flow"):
            strides = [FINEST] if self.flow_attention else []
            found, facts, said = followed(self.flow, backbone, clip, strides, self.variant, rng)
        said += [ALONE] * (len(clip.frames) == 1)
        along = Along(found, self.old_qk)
        beside = self.begin(backbone, subject, along, watch=watch, progress=progress)
        with watch.stage("masks"):
            read = self.read(backbone, subject, beside.inversion, progress)
            masks = planned(self.acting_mask(task), subject, read.kept)
        beside = replace(beside, masks=masks)
        edit = finished(beside, clip, settings.start, watch=watch, progress=progress)
        facts = {**edit.facts, **facts, "inversion_passes": beside.inversion.passes + read.passes}
        edit = replace(edit, warnings=(*edit.warnings, *said), facts=facts)
        edit = of_masks(edit, masks, beside.times, clip)
        return composited(edit, clip, self.composite, lambda: free(masks, beside.times, clip))

    def begin(
        self, backbone: Backbone, subject: Subject, along: Along, *, watch: Stopwatch, progress: Progress
    ) -> Beside:
        """Everything before the first step: the clip is inverted under an empty prompt."""
        lent = self.settings().lent(backbone)
        _, up = paths(backbone, self.steps, self.inversion_steps)
        with watch.stage("encode"):
            latents = backbone.encode(subject.clip.frames)
            empty = subject.given["source"].plus(**backbone.embed("").given.parts)
        given = {**subject.given, "source": empty}
        solver = LOWER if self.variant == "official" else EULER
        wish = Wish(under=along.taps, named=along.name if along.paths else "")
        with watch.stage("inversion"):
            inversion = self.store.invert(
                backbone, latents, empty, up, solver=solver, wish=wish, progress=progress
            )
        guidance = strength(self.guidance, backbone)
        return Beside(backbone, given, inversion, subject.times, lent, guidance, along.taps)

    def read(
        self, backbone: Backbone, subject: Subject, inversion: Inversion, progress: Progress
    ) -> Inversion:
        """What masks want of the clip: recorded under its own prompt, in the network as codebooks were measured."""
        wish = wish_of(self.acting_mask(subject.task), subject, int(self.heat_gb * GIB))
        if not wish.keeps:
            return replace(inversion, passes=0)
        clean, source = inversion.latents[0], subject.given["source"]
        return self.store.invert(backbone, clean, source, subject.times, wish=wish, progress=progress)

    @property
    def store(self) -> Inversions:
        return Inversions(self.inversions, self.inversions_gb)
