"""What methods share that fit fields to a clip, edit one picture, and lift the edit back into all frames."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.attention.record import GIB, Recording
from freemask.data.lexicon import GROUNDS
from freemask.diffusion.inversions import Inversions
from freemask.errors import UserError
from freemask.fields.footage import Footage
from freemask.masks.plan import MaskStrategy, Subject
from freemask.masks.strategies.none import NoMask
from freemask.methods import shown
from freemask.methods.common import Stopwatch, of_kind, whole
from freemask.methods.first_frame import FirstFrame, Picture, Unedited
from freemask.methods.held import planned, wish_of
from freemask.optical.sources import Auto, FlowSource
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Progress

Facts = dict[str, str | float | int | bool | None]
GOOD = 25.0  # decibels: below it, what is lifted is lost in what the fields do not show
MOST = 100.0
ALONE = "one frame has nothing to be fitted to: this is the edit of the picture"


@dataclass(frozen=True, kw_only=True)
class Lifting:
    """`first_frame` edits the picture, in `steps` where it refers to them. `flow` knows how the clip moves. `mask`
    tells the parts of the clip apart; `heat_gb` bounds the word heat that it is made of."""

    first_frame: FirstFrame = field(default_factory=Unedited)
    steps: int = 50
    flow: FlowSource = field(default_factory=Auto)
    mask: MaskStrategy = field(default_factory=NoMask)
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4
    heat_gb: Annotated[float | int, Effect.NONE] = 2

    def __post_init__(self) -> None:
        whole("steps", self.steps, 1)
        of_kind("first_frame", self.first_frame, FirstFrame)
        of_kind("flow", self.flow, FlowSource)
        of_kind("mask", self.mask, MaskStrategy)

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        """Before any model is there."""
        self.first_frame.check(task, clip)
        if len(clip().frames) > 1:
            self.flow.check(clip)

    def check_model(self, model: Mapping[str, Any]) -> None:
        """A picture's editor that cannot run on it is told of before fields are fitted, which may take hours."""
        check = getattr(self.first_frame, "check_model", None)
        if check is not None:
            check(model)

    def footage(
        self, backbone: Backbone, clip: Clip, marked: Float[Tensor, "f h w"] | None = None
    ) -> Footage:
        flow = self.flow(clip, str(backbone.device)) if len(clip.frames) > 1 else None
        return Footage.of(clip.frames, flow, marked, backbone.device)

    def masked(
        self, backbone: Backbone, clip: Clip, task: EditTask, mask: MaskStrategy, progress: Progress
    ) -> tuple[Float[Tensor, "f h w"], Facts]:
        """The strategy's mask of the clip, 1 where the edit's words are; an inversion is made where it needs
        attention."""
        times = backbone.noise_path.times(self.steps)
        subject, kept = Subject.of(backbone, clip, task, times), Recording()
        wish = wish_of(mask, subject, int(self.heat_gb * GIB))
        if wish.keeps:
            store = Inversions(self.inversions, self.inversions_gb)
            given, clean = subject.given["source"], backbone.encode(clip.frames)
            kept = store.invert(backbone, clean, given, times, wish=wish, progress=progress).kept
        plan = planned(mask, subject, kept)
        assert plan is not None
        found = shown.of_masks(plan, "latent", times, clip.frames)["mask"]
        return (found > 0.5).float().cpu(), dict(plan.facts)

    def alone(self, picture: Picture, watch: Stopwatch, progress: Progress) -> Edit:
        """Of a clip of one frame: the edited picture is the edit."""
        with watch.stage("sampling"), watch.stage("decoding"):
            progress("sampling", 1, 1)
        warnings = (*picture.warnings, ALONE)
        frames = picture.frame[None].float().cpu()
        return Edit(frames, {}, watch.seconds, warnings, picture.facts)


def said_of(picture: Picture, name: str) -> Picture:
    """By the name of what was edited, which is no first frame."""
    if picture.facts.get("first_frame") == "own":
        return replace(picture, warnings=(f"the {name} is not edited: first_frame=... chooses an editor",))
    return replace(picture, warnings=[each.replace("first frame", name) for each in picture.warnings])


def things(clip: Clip) -> Bool[Tensor, "f h w"] | None:
    """All that is annotated of a clip but its backgrounds; None: nothing."""
    found = [mask for name, mask in clip.masks.items() if name.split()[-1].casefold() not in GROUNDS]
    return torch.stack(found).any(dim=0) if found else None


def objects(clip: Clip) -> Bool[Tensor, "f h w"]:
    found = things(clip)
    if found is None:
        raise UserError(
            "rough masks of what moves before the background are needed",
            came=f"'{clip.id}' without an annotation of things",
            expected="data with masks (world, davis), or a mask strategy",
            todo="mask=mmc_by_layer or another of `freemask list mask`, or mask=segmentation mask.folder=...",
        )
    return found


def decibels(errors: Sequence[float]) -> float:
    """How well the fields show the clip, by each frame's mean squared error."""
    error = sum(errors) / len(errors)
    return MOST if error == 0 else min(MOST, round(-10 * math.log10(error), 2))


def poor(psnr: float, iterations: int | None) -> list[str]:
    """A warning where a fit is not good."""
    if psnr >= GOOD:
        return []
    return [
        f"the fields show the clip at {psnr:g} dB only (good: {GOOD:g}): what is lifted is no better than that;"
        f" method.fit.iterations (here {iterations}) above that may help"
    ]
