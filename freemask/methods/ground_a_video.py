"""Ground-A-Video (Jeong and Ye, 2024): things of a clip are edited together, each in a box and by words of its own. All
frames look at all; a ControlNet of depth holds them; gated layers (GLIGEN) read boxes and words; noise of what stands
still is the same in all frames; outside the boxes the clip is put back.

Boxes are those of masks: annotation, files, or, as our own addition, those that FreeMask chooses by the words of the
source. Of models without gated layers nothing reads what a box is about: the prompt alone says it. What happens in a
step stands in `freemask.methods.ground_a_video_step`, boxes and noise in `freemask.methods.ground_a_video_field`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.attention.record import GIB, Recording
from freemask.diffusion.guidance import Conditions, given_to, of_frames, strength
from freemask.diffusion.inversions import Inversions, key_of
from freemask.diffusion.loops import Callbacks, sample
from freemask.diffusion.noise_paths import one_of
from freemask.diffusion.null_text import MOST_STEPS, NullText, null_text
from freemask.errors import UserError
from freemask.masks.look import over_times
from freemask.masks.plan import MaskStrategy, Subject
from freemask.masks.several import local_part, plans_of, together
from freemask.masks.strategies.none import NoMask
from freemask.masks.strategies.segmentation import Segmentation
from freemask.masks.words import located
from freemask.methods.common import (
    Stopwatch,
    at_least,
    check_mask,
    controlled,
    drawing,
    of_kind,
    only_images,
    path_warnings,
    whole,
)
from freemask.methods.composite import composited
from freemask.methods.ground_a_video_field import moves, smoothed
from freemask.methods.ground_a_video_step import Grounded
from freemask.methods.ground_a_video_told import BOXES, Hold, Things, Told
from freemask.methods.held import free, of_masks, wish_of
from freemask.methods.masked import MaskSettings
from freemask.optical.sources import Auto, FlowSource
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Grid, Progress, Time, silent

Variant = Literal["official", "paper"]
INVERTED, EPS = 20, 1e-4  # the authors' steps of inversion, and a number of Adam's for null texts
UNREAD = (
    "this model has no gated layers (GLIGEN): boxes hold the clip outside, but nothing reads what is in which"
)
WHOLE = "an edit of the whole frame has no box: the clip is made anew from its inverted noise, and nothing is put back"


@dataclass(frozen=True, kw_only=True)
class GroundAVideo(MaskSettings):
    """`mask` says where things are; their boxes are what is edited. `hold`: outside the boxes, outside the masks (our
    own addition), or nowhere the latents are put back to the clip's with fresh noise, before every step.

    `suffix` is added to the target prompt for the model alone, guidance leads away from `negative`. `gates` are the
    shares of the steps in which gated layers are open, close, and are shut. `threshold`: what moves less than this
    share of the fastest has the noise of the frame before, by the `flow`; None: nothing does.

    `variant` official does what the released code does: the inversion has `INVERTED` steps of a grid that begins at
    time 0, whatever the steps of sampling, which start from its last latent though they count it as noisier; no null
    texts; latents are drawn from what the autoencoder says; cells in which a box ends are left out of it. paper: both
    have the same times; null texts for each frame and time (`inner` updates at most) stand in for the empty prompt, and
    without the prompt each frame reads those of all frames; latents are means, and boxes have all cells that they
    touch. `null_texts` and `inversion_steps` say otherwise.
    """

    steps: int = 50
    guidance: float | int | None = None
    mask: MaskStrategy = field(default_factory=Segmentation)
    hold: Hold = "boxes"
    gates: Sequence[float | int] = (1, 0, 0)
    threshold: float | int | None = 0.2
    null_texts: bool | None = None
    inner: int = 1
    suffix: str = ""
    negative: str = ""
    flow: FlowSource = field(default_factory=Auto)
    variant: Variant = "official"
    inversion_steps: int | None = None
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("steps", 1), ("inner", 0), ("inversion_steps", 1)):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name))
                at_least(name, getattr(self, name), least)
        at_least("guidance", self.guidance, 0)
        of_kind("flow", self.flow, FlowSource)
        one_of("variant", self.variant, get_args(Variant))
        one_of("hold", self.hold, get_args(Hold))
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UserError("'threshold' is a share.", came=self.threshold, expected="0 to 1, or null")
        if len(self.gates) != 3 or min(self.gates) < 0 or abs(sum(self.gates) - 1) > 1e-6:
            expected = "three shares of the steps that make 1: open, closing, shut; such as [0.3, 0, 0.7]"
            raise UserError(
                "'gates' says when gated layers are open.", came=list(self.gates), expected=expected
            )
        if isinstance(self.mask, NoMask):
            raise UserError(
                "Ground-A-Video edits what is in boxes, which masks must say.",
                came="mask=none",
                expected="mask=segmentation (annotation, or files), mask=mmc_by_layer, ...",
                todo="method.hold=nothing puts the clip back nowhere",
            )
        if self.has_null_texts and self.up > MOST_STEPS:
            raise UserError(
                "Null texts learn less with every step, and then nothing.",
                came=f"{self.up} steps of inversion",
                expected=f"at most {MOST_STEPS}",
                todo="method.null_texts=false needs none",
            )

    @property
    def official(self) -> bool:
        return self.variant == "official"

    @property
    def has_null_texts(self) -> bool:
        return not self.official if self.null_texts is None else self.null_texts

    @property
    def up(self) -> int:
        return self.inversion_steps or (INVERTED if self.official else self.steps)

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        if (local := local_part(task, self.masked_for)) is not None:
            check_mask(self.mask, local, clip)
        if self.threshold is not None and len(clip().frames) > 1:
            self.check_flow(clip)

    def check_flow(self, clip: Callable[[], Clip]) -> None:
        try:
            self.flow.check(clip)
        except UserError as error:
            todo = f"{error.todo}\n            or method.threshold=null: every frame has noise of its own".lstrip()
            raise UserError(error.wrong, came=error.came, expected=error.expected, todo=todo) from error

    def check_model(self, model: Mapping[str, Any]) -> None:
        controlled(bool(model.get("control")), model.get("control"))

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        only_images("Ground-A-Video", backbone.sites)
        controlled("control" in backbone.takes)
        watch, times = Stopwatch(backbone.device), backbone.noise_path.times(self.steps)
        with watch.stage("encode"):
            subject, clean = Subject.of(backbone, clip, task, times), backbone.encode(clip.frames)
            if self.official:
                clean = clean + drawing(rng, clean)() * backbone.spread(clip.frames).to(clean)
        with watch.stage("masks"):
            things = self.things(backbone, subject, clean, progress)
            latents = things.free(self.hold, clean.shape[-2:]).to(clean) if things.regions else None
        told = Told(backbone, subject, things, clean, latents)
        read = self.read(told, watch, progress)
        with watch.stage("flow"):
            noise, facts = self.smooth(read.noise, clip, str(backbone.device))
        grounded = self.grounded(told, read, rng)
        on = Callbacks(before=grounded.before)
        with watch.stage("sampling"):
            made = sample(backbone, noise, grounded.predict, times, on=on, progress=progress)
        with watch.stage("decoding"):
            frames = backbone.decode(made, len(clip.frames))
        facts |= {
            "boxes": len(things.regions),
            "read_by_gated_layers": BOXES in backbone.takes,
            "inversion_passes": read.passes + things.passes,
            **things.facts,
        }
        said = [*path_warnings(backbone), *[UNREAD] * (BOXES not in backbone.takes)]
        said += [WHOLE] * (not things.regions)
        edit = Edit(frames, {}, watch.seconds, said, facts)
        plan = things.plan(self.hold) if things.regions and self.hold != "nothing" else None
        edit = of_masks(edit, plan, times, clip, "")
        return composited(edit, clip, self.composite, lambda: free(plan, times, clip))

    def things(self, backbone: Backbone, subject: Subject, clean: Tensor, progress: Progress) -> Things:
        """Where they are, and what is said of them. What masks want of the clip is recorded under its own prompt, in
        the network as codebooks were measured."""
        task = local_part(subject.task, self.masked_for)
        if task is None:
            return Things([], [], {}, 0)
        alone, store = replace(subject, task=task), Inversions(self.inversions, self.inversions_gb)
        wish, kept, passes = wish_of(self.mask, alone, int(self.heat_gb * GIB)), Recording(), 0
        if wish.keeps:
            source = subject.given["source"]
            found = store.invert(backbone, clean, source, subject.times, wish=wish, progress=progress)
            kept, passes = found.kept, found.passes
        plans = [plan.on(subject.clock) for plan in plans_of(self.mask, alone, kept, Recording())]
        frames, _, height, width = subject.clip.frames.shape
        grid = Grid(frames, height, width)
        regions = [over_times(plan, "latent", subject.times, grid) >= 0.5 for plan in plans]
        words = [located(each) for each in task.each if not task.edits or each.words]
        facts = together([plan.facts for plan in plans])
        return Things(regions, words, facts, passes, whole=not self.official)

    def read(self, told: Told, watch: Stopwatch, progress: Progress) -> "Read":
        """Each frame by itself, as a picture: its inversion under an empty prompt, and the null texts under which a
        guided way back under the source's follows that."""
        backbone, clean, times = told.backbone, told.clean, self.rising(told.backbone)
        store, frames = Inversions(self.inversions, self.inversions_gb), len(told.clean)
        empty, own = told.of_clip(""), told.of_clip(told.subject.task.source)
        guidance = strength(self.guidance, backbone)
        options, searched = NullText(guidance, self.inner), self.has_null_texts and guidance != 1
        noisy, texts, passes = [], [], 0
        for frame in range(frames):
            one, alone = clean[frame : frame + 1], of_frames(empty, [frame], frames)
            with watch.stage("inversion"):
                made = store.invert(backbone, one, alone, times, progress=_of(progress, frame, frames))
            noisy.append(made.latents[-1])
            passes += made.passes
            if not searched:
                continue
            prompted = of_frames(own, [frame], frames)
            key = key_of(backbone, one, prompted, times, [options, EPS, alone.digest])
            if (known := store.load(key)) is None:
                with watch.stage("null text"):
                    found = null_text(
                        backbone, made, prompted, options, eps=EPS, progress=_of(progress, frame, frames)
                    )
                known, passes = found.tensors(), passes + found.path.passes
                store.save(key, known)
            texts.append(known["text"][:, 0].to(clean))
        by_time = dict(zip(times, torch.stack(texts, dim=1), strict=True)) if texts else {}
        return Read(torch.cat(noisy), by_time, passes)

    def rising(self, backbone: Backbone) -> Sequence[Time]:
        """The times of the inversion."""
        if not self.official:
            return backbone.noise_path.times(self.up)
        return [i * (backbone.noise_path.train_times // self.up) for i in range(self.up)]

    def smooth(
        self, noise: Float[Tensor, "f c h w"], clip: Clip, device: str
    ) -> tuple[Tensor, dict[str, str | float | int | bool | None]]:
        if self.threshold is None or len(noise) == 1:
            return noise, {"flow": "none"}
        known = self.flow(clip, device)
        moving = moves(known, noise.shape[-2], noise.shape[-1], self.threshold)
        return smoothed(noise, moving), {
            "flow": known.origin,
            "still": round(1 - float(moving.float().mean()), 4),
        }

    def grounded(self, told: Told, read: "Read", rng: Generator) -> Grounded:
        """Of the null texts the released code takes one for each step, whatever its time, until there are no more."""
        backbone, clean, subject = told.backbone, told.clean, told.subject
        guidance, cond = strength(self.guidance, backbone), told.of_edit(self.suffix)
        negative = given_to(backbone, subject.clip, backbone.embed(self.negative), away=True)
        away = cond.plus(**negative.parts)
        if BOXES in backbone.takes:
            away = away.plus(boxes=torch.zeros_like(cond.parts[BOXES]))
        uncond: Conditions | None = away if guidance != 1 else None
        if read.texts and uncond is not None:
            falling = list(reversed(subject.times))
            texts = dict(
                zip(falling, [read.texts[t] for t in sorted(read.texts, reverse=True)], strict=False)
            )
            every = away.parts["text"].expand(len(clean), -1, -1)
            uncond = {t: away.plus(text=texts.get(t, every)) for t in falling}
        return Grounded(
            backbone,
            cond,
            uncond,
            guidance,
            subject.times,
            self.gates if BOXES in backbone.takes else None,
            None if self.hold == "nothing" else told.free,
            lambda t: backbone.noise_path.noised(clean, drawing(rng, clean)(), t),
        )


def _of(progress: Progress, frame: int, frames: int) -> Progress:
    """Of one frame, as a part of all."""
    return lambda stage, done, total: progress(stage, frame * total + done, frames * total)


class Read(NamedTuple):
    """Of all frames: their inverted noise, and null texts by the times of the inversion (none: there are none)."""

    noise: Float[Tensor, "f c h w"]
    texts: Mapping[Time, Float[Tensor, "f l d"]]
    passes: int
