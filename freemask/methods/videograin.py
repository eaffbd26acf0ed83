"""VideoGrain (Yang et al., 2025; first called ST-Modulator): several regions of a clip, each edited by its own words in
one pass. Early in sampling, text attention draws each region's words into it and keeps others out, and
self-attention, over all frames, draws cells of a region towards each other.

Regions are masks: annotation, files, or, as our own addition, those that FreeMask chooses by the words of the source.
What a step does stands in `freemask.methods.videograin_step`, regions and their words in `freemask.methods.regional`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, get_args

from torch import Generator, Tensor

from freemask.attention.along import Along
from freemask.attention.record import GIB, Recording
from freemask.diffusion.guidance import given_to, strength
from freemask.diffusion.inversions import Inversion, Inversions, Wish
from freemask.diffusion.loops import Callbacks, sample
from freemask.diffusion.noise_paths import one_of
from freemask.diffusion.solvers import EULER, LOWER
from freemask.errors import UserError
from freemask.masks.plan import MaskStrategy, Subject
from freemask.masks.several import local_part, of_whole_frame, plans_of
from freemask.masks.strategies.none import NoMask
from freemask.masks.strategies.segmentation import Segmentation
from freemask.methods.common import (
    Stopwatch,
    at_least,
    check_mask,
    drawing,
    of_kind,
    of_layers,
    only_images,
    path_warnings,
    whole,
)
from freemask.methods.flatten import ATTENTIONS, CONVOLUTIONS
from freemask.methods.following import followed
from freemask.methods.held import wish_of
from freemask.methods.masked import MaskSettings
from freemask.methods.pnp_layers import Lent, attentions, convolutions
from freemask.methods.regional import Layout, phrases_of, spliced
from freemask.methods.videograin_step import Grain, Outside, Pull, Watch
from freemask.methods.videograin_told import told
from freemask.optical.sources import Auto, FlowSource
from freemask.optical.trajectories import Variant
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Given, Progress, Stream, silent

BOTH: tuple[Stream, ...] = ("uncond", "cond")
UNREAD = "method.negative changes nothing: ControlNets alone read it, and this model has none"


@dataclass(frozen=True, kw_only=True)
class VideoGrain(MaskSettings):
    """`cross` and `within` say how strongly text attention and self-attention are drawn to regions at the noisy end (0:
    not at all); both fade with the fifth power of the time, are weaker for large regions, and end after the share
    `drawn` of the steps. They act in layers of these `strides` (None: all but the finest) and in the streams
    `cross_streams` and `within_streams` (None: as the variant has it).

    `along`: the strides at which attention along the optical flow follows self-attention, with the layer's own queries
    and keys where `old_qk`; `inject`: for so much of the steps the clip's features and the queries and keys of its
    self-attention are taken over. In the released code both are there, in the paper's first version neither.

    `phrase`: described reads a region's words with those that describe them (truck: red truck), all as they are.
    `alone`: the network reads these words as if they stood by themselves, not as the prompt colours them (None: in the
    released code; text encoders that were taught whole captions alone lose the thread, as the embedded ones do).
    `negative` is what guidance leads away from, in the ControlNet alone.

    `variant` official does what the released code does: self-attention is drawn in the unconditional stream alone;
    cells of no region are drawn to nothing, not even to each other; a region's size in self-attention is divided by
    the number of frames, which leaves it next to no say; outside the regions the clip is put back under fresh noise of
    the level above, in every step; the inversion asks the network at the level that it leaves; features of the clip
    are those of the step before. paper: self-attention in both streams, sizes as shares of the clip, and outside the
    regions the latents of the inversion.
    """

    steps: int = 50
    guidance: float | int | None = None
    mask: MaskStrategy = field(default_factory=Segmentation)
    cross: float | int = 1
    within: float | int = 0.3
    drawn: float | int = 0.3
    strides: Sequence[int] | None = None
    cross_streams: Sequence[str] | None = None
    within_streams: Sequence[str] | None = None
    phrase: str = "described"
    alone: bool | None = None
    negative: str = ""
    flow: FlowSource = field(default_factory=Auto)
    along: Sequence[int] = (1,)
    old_qk: bool = True
    inject: float | int = 0
    convolutions: Sequence[str] | None = None
    attentions: Sequence[str] | None = None
    variant: Variant = "paper"
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("steps", self.steps, 1)
        at_least("guidance", self.guidance, 0)
        of_kind("flow", self.flow, FlowSource)
        one_of("variant", self.variant, get_args(Variant))
        one_of("phrase", self.phrase, ("described", "all"))
        for name in ("cross", "within", "drawn", "inject"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"'{name}' must lie in 0..1.", came=getattr(self, name))
        for name in ("cross_streams", "within_streams"):
            for stream in getattr(self, name) or ():
                one_of(f"stream in {name}", stream, BOTH)
        if isinstance(self.mask, NoMask):
            raise UserError(
                "VideoGrain edits regions, which masks must say.",
                came="mask=none",
                expected="mask=segmentation (annotation, or files), mask=mmc_by_layer, ...",
                todo="method.cross=0 method.within=0 draws attention to none of them",
            )

    @property
    def official(self) -> bool:
        return self.variant == "official"

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        if (local := local_part(task, self.masked_for)) is not None:
            self.check_regions(local)
            check_mask(self.mask, local, clip)
        if self.along and len(clip().frames) > 1:
            self.check_flow(clip)

    def check_flow(self, clip: Callable[[], Clip]) -> None:
        try:
            self.flow.check(clip)
        except UserError as error:
            todo = f"{error.todo}\n            or method.along=[]: without attention along the flow".lstrip()
            raise UserError(error.wrong, came=error.came, expected=error.expected, todo=todo) from error

    def check_regions(self, task: EditTask) -> None:
        folder = getattr(self.mask, "folder", None)
        if folder is not None and len(task.edits) > 1:
            raise UserError(
                "All edits would have the same region.",
                came=f"mask.folder={folder}, {len(task.edits)} edits",
                expected="a region for each edit: edits='red car->truck @ masks/car; dog->cat @ masks/dog'",
            )

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        return self.watched(backbone, clip, task, rng, None, progress)

    def watched(  # noqa: PLR0913 -- a call, and who watches it
        self,
        backbone: Backbone,
        clip: Clip,
        task: EditTask,
        rng: Generator,
        watch: Watch | None,
        progress: Progress = silent,
    ) -> Edit:
        """The edit; `watch` is shown its attention."""
        only_images("VideoGrain", backbone.sites)
        for name in ("along", "strides"):
            of_layers(name, getattr(self, name) or (), backbone.sites)
        clock = Stopwatch(backbone.device)
        with clock.stage("encode"):
            subject = Subject.of(backbone, clip, task, backbone.noise_path.times(self.steps))
        with clock.stage("flow"):
            paths, facts, said = followed(self.flow, backbone, clip, self.along, self.variant, rng)
        said += [UNREAD] * bool(self.negative and "control_text" not in backbone.takes)
        grain = self.begin(backbone, subject, Along(paths, self.old_qk), rng, watch=clock, progress=progress)
        grain.watch = watch
        with clock.stage("sampling"):
            start, on = grain.inversion.at(subject.times[-1]), Callbacks(after=grain.after)
            edited = sample(backbone, start, grain.predict, subject.times, on=on, progress=progress)
        with clock.stage("decoding"):
            frames = backbone.decode(edited, len(clip.frames))
        facts = {**facts, "inversion_passes": grain.inversion.passes, "drawn_steps": len(grain.drew)}
        edit = Edit(frames, {}, clock.seconds, (*path_warnings(backbone), *said), facts)
        return told(edit, grain, subject, self.composite)

    def begin(
        self,
        backbone: Backbone,
        subject: Subject,
        along: Along,
        rng: Generator,
        *,
        watch: Stopwatch,
        progress: Progress = silent,
    ) -> Grain:
        """Everything before the first step."""
        with watch.stage("encode"):
            mean = backbone.encode(subject.clip.frames)
            noise = drawing(rng, mean)
            clean = mean + backbone.spread(subject.clip.frames) * noise() if self.official else mean
        with watch.stage("inversion"):
            store = Inversions(self.inversions, self.inversions_gb)
            wish = Wish(under=along.taps, named=along.name if along.paths else "")
            solver = LOWER if self.official else EULER
            source, times = subject.given["source"], subject.times
            inversion = store.invert(
                backbone, clean, source, times, solver=solver, wish=wish, progress=progress
            )
        with watch.stage("masks"):
            layout, passes = self.layout(backbone, subject, clean, store, progress)
        inversion = replace(inversion, passes=inversion.passes + passes)
        return self.grain(backbone, subject, inversion, layout, along, Outside(mean, noise))

    def grain(
        self,
        backbone: Backbone,
        subject: Subject,
        inversion: Inversion,
        layout: Layout | None,
        along: Along,
        outside: Outside,
    ) -> Grain:
        guidance = strength(self.guidance, backbone)
        given = self.given(backbone, subject, layout)
        return Grain(
            backbone=backbone,
            given=given if guidance != 1 else {"cond": given["cond"]},
            clips={"uncond": subject.given["uncond"], "cond": subject.given["source"]},
            inversion=inversion,
            times=subject.times,
            guidance=guidance,
            layout=layout,
            pull=self.pull(),
            along=along,
            lent=self.lent(backbone),
            outside=outside if self.official else None,
        )

    def layout(
        self, backbone: Backbone, subject: Subject, clean: Tensor, store: Inversions, progress: Progress
    ) -> tuple[Layout | None, int]:
        """The regions, and how often the network ran for them. What masks want of the clip is recorded under its own
        prompt, in the network as codebooks were measured."""
        task = local_part(subject.task, self.masked_for)
        if task is None:
            return None, 0
        alone = replace(subject, task=task)
        phrases = phrases_of(
            task.each, subject.target, described=self.phrase == "described", first=self.official
        )
        wish, read = wish_of(self.mask, alone, int(self.heat_gb * GIB)), None
        if wish.keeps:
            source = subject.given["source"]
            read = store.invert(backbone, clean, source, subject.times, wish=wish, progress=progress)
        kept = Recording() if read is None else read.kept
        plans = [plan.on(subject.clock) for plan in plans_of(self.mask, alone, kept, Recording())]
        holds = not of_whole_frame(subject.task, self.masked_for)
        return Layout(plans, phrases, self.official, holds), 0 if read is None else read.passes

    def given(self, backbone: Backbone, subject: Subject, layout: Layout | None) -> dict[Stream, Given]:
        """What the network reads; ControlNets read the prompts as they are."""
        alone = self.official if self.alone is None else self.alone
        target = subject.target
        if layout is not None and alone:
            target = spliced(target, layout.phrases, backbone)
        found = {"uncond": subject.given["uncond"], "cond": given_to(backbone, subject.clip, target)}
        if "control_text" not in backbone.takes:
            return found
        read = {"uncond": backbone.embed(self.negative), "cond": subject.target}
        return {stream: given.plus(control_text=read[stream].tokens) for stream, given in found.items()}

    def bare(self) -> "VideoGrain":
        """The same without attention drawn to regions: what that costs is measured against it."""
        return replace(self, cross=0, within=0)

    def pull(self) -> Pull:
        # The small term undoes binary fractions such as 0.29 * 100; a share above 0 is one step at least.
        steps = max(int(self.drawn > 0), int(self.drawn * self.steps + 1e-9))
        usual = {"cross": ["cond"], "within": ["uncond"] if self.official else BOTH}
        return Pull(
            self.cross,
            self.within,
            usual["cross"] if self.cross_streams is None else self.cross_streams,
            usual["within"] if self.within_streams is None else self.within_streams,
            steps,
            self.strides,
        )

    def lent(self, backbone: Backbone) -> Lent:
        """What the clip lends to the edit, and for how many steps."""
        steps = int(self.inject * self.steps + 1e-9)
        names = CONVOLUTIONS if self.convolutions is None else self.convolutions
        looks = ATTENTIONS if self.attentions is None else self.attentions
        return Lent(
            convolutions(backbone, names) if steps else (),
            steps,
            attentions(backbone, looks) if steps else (),
            steps,
        )
