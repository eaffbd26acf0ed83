"""Invert the clip, choose masks, and sample under the target prompt while the source's attention is fused in.

FreeMask, FateZero, prompt-to-prompt and plain DDIM editing are settings of it: which masks, and which fusion. What
happens in a sampling step stands in `freemask.methods.editing`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, ClassVar, NamedTuple

from torch import Generator

from freemask.attention.features import FORMS, PLACES
from freemask.attention.record import GIB, Recording
from freemask.diffusion.guidance import strength
from freemask.diffusion.inversions import Inversion, Inversions, Wish
from freemask.diffusion.loops import Callbacks, sample
from freemask.diffusion.reconstruction import reconstruct
from freemask.diffusion.solvers import EULER
from freemask.errors import UserError, nearest
from freemask.fusion.settings import Fusion, Policies
from freemask.masks.heat import Facts
from freemask.masks.plan import Keeps, MaskStrategy, Subject, remembered
from freemask.masks.several import keeps_of, local_part, of_whole_frame, plan_of, told_of
from freemask.masks.strategies.none import NoMask
from freemask.methods import composite, shown
from freemask.methods.common import (
    Stopwatch,
    at_least,
    check_masks,
    finer,
    of_kind,
    path_warnings,
    paths,
    whole,
)
from freemask.methods.composite import composited
from freemask.methods.editing import Editing
from freemask.methods.lent import CHOICES, Lent, cached, where_small
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Given, Progress, Time, silent

ON_GRID = (EULER, "uni")  # solvers that ask the network at every time of sampling
PASSES = ("inversion", "reconstruction")
OFF = Fusion(temporal="off", cross="off", self="off", latent="off")


@dataclass(frozen=True)
class InvertFuse:
    """`keep_object` overrides eq. 7's delta, for masks and fusion alike (None: 1 for style and attribute edits and
    where the words of the object stay).

    `attention`: whose maps are fused in and make the masks: those of the inversion, or those of a reconstruction,
    sampled from the inverted noise under the source prompt at `reconstruction_guidance` (None: the edit's own).

    `features`: the source branch runs again beside the edit (recompute), or its queries and keys are kept from
    the inversion (cache), on device, host or disk, within a budget. Both give the same edit but for rounding. auto:
    they are kept on the device where they are small, as those of the models that ship, and for the next edit of the
    clip, too; else the source runs again.

    `solver`: how the inversion goes up (`freemask.diffusion.solvers`); sampling takes Euler's steps, which ask the
    network at the times of the grid.

    `composite`: pixels puts the clip's own back where the mask lets nothing change.

    `inversion_steps`: a finer path up than down; None: as many as `steps`. `inversions` is a folder in which inversions
    are kept for every method, prompt and run; None keeps none. `heat_gb` bounds the word heat that masks are made of
    (some megabytes as a rule).
    """

    draws: ClassVar[bool] = False  # no noise: every seed gives the same

    steps: int = 50
    guidance: float | int | None = None
    mask: MaskStrategy = field(default_factory=NoMask)
    fusion: Fusion = OFF
    keep_object: bool | None = None
    attention: str = "inversion"
    reconstruction_guidance: float | int | None = None
    inversion_steps: int | None = None
    solver: str = EULER
    composite: str = "none"
    features: Annotated[str, Effect.NONE] = "auto"
    cache_on: Annotated[str, Effect.NONE] = "host"
    cache_as: Annotated[str | None, Effect.SAID] = None
    budget_gb: Annotated[float | int, Effect.NONE] = 8
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4
    heat_gb: Annotated[float | int, Effect.NONE] = 2

    def __post_init__(self) -> None:
        whole("steps", self.steps, 1)
        at_least("guidance", self.guidance, 0)
        for name, value, choices in (
            ("attention", self.attention, PASSES),
            ("features", self.features, CHOICES),
            ("cache_on", self.cache_on, PLACES),
            ("cache_as", self.cache_as, FORMS),
            ("solver", self.solver, ON_GRID),
        ):
            if value not in choices:
                known = [each or "null" for each in choices]
                todo = nearest(str(value), known)
                raise UserError(
                    f"'{name}' cannot be '{value}'", came=value, expected=", ".join(known), todo=todo
                )
        if self.cache_as is not None and self.features != "cache":
            raise UserError(
                "features are kept in another form only where that is asked for",
                came=f"cache_as={self.cache_as}, features={self.features}",
                expected="features=cache",
                todo=f"add method.features=cache to method.cache_as={self.cache_as}",
            )
        composite.check(self.composite)
        at_least("budget_gb", self.budget_gb, 0)
        finer(self.steps, self.inversion_steps)
        at_least("reconstruction_guidance", self.reconstruction_guidance, 0)
        of_kind("mask", self.mask, MaskStrategy)
        of_kind("fusion", self.fusion, Fusion)

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        """Before any model is there; the clip is read only where it is needed."""
        check_masks(self.fusion, self.mask, task, clip)

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        with self.begin(backbone, clip, task, progress=progress) as editing:
            edit = sampled(editing, progress)
            edit = replace(edit, facts={**edit.facts, "features": _said(editing)})
            return composited(edit, clip, self.composite, partial(shown.free, editing))

    def foretell(self, backbone: Backbone, clip: Clip, task: EditTask) -> Facts:
        """What the row will say of the masks, as far as it is known before the inversion."""
        times, _ = paths(backbone, self.steps, self.inversion_steps)
        subject = Subject.of(backbone, clip, task, times, keep_object=self.keep_object)
        local, policies, _ = settled(self.fusion, self.mask, subject)
        found = {"mask_used": False} if local is None else told_of(self.mask, local)
        return {**found, **shown.of_object(policies, subject)}

    def begin(
        self,
        backbone: Backbone,
        clip: Clip,
        task: EditTask,
        *,
        known: Inversion | None = None,
        progress: Progress = silent,
    ) -> Editing:
        """Everything before the first sampling step: the inversion is made, the masks are chosen.

        `known` is as much of the inversion as is known: the clean latent alone, or all of it.
        """
        watch, budget = Stopwatch(backbone.device), int(self.heat_gb * GIB)
        times, path = paths(backbone, self.steps, self.inversion_steps)
        with watch.stage("encode"):
            known = Inversion([backbone.encode(clip.frames)], ()) if known is None else known
            subject = Subject.of(backbone, clip, task, times, keep_object=self.keep_object)  # eq. 7
        local, policies, keeps = settled(self.fusion, self.mask, subject)
        again = self.attention == "reconstruction" and (local is not None or bool(policies.attention))
        lent = self._lent(backbone, policies, subject, known, path, again=again)
        wish = Wish(keeps.source, lent.spy, budget, times)
        with watch.stage("inversion"):
            first = None if again else wish
            inversion = self._inverted(backbone, known, subject.given["source"], path, first, progress)
        lender = inversion
        if again:
            with watch.stage("reconstruction"):
                lender = self._reconstructed(backbone, inversion, subject.given["source"], wish, progress)
        target, masks, cache = Recording(budget), None, lent.settled(backbone)
        if local is not None:
            with watch.stage("masks"):  # eq. 8
                masks = remembered(plan_of(self.mask, local, lender.kept, target))
        return Editing(
            backbone=backbone,
            subject=subject,
            guidance=strength(self.guidance, backbone),
            uncond=subject.given["uncond"],
            inversion=inversion,
            lender=lender,
            policies=policies,
            masks=masks,
            watch=watch,
            keeps=keeps.target,
            target=target,
            cache=cache,
        )

    def _inverted(
        self,
        backbone: Backbone,
        known: Inversion,
        source: Given,
        path: Sequence[Time],
        wish: Wish | None,
        progress: Progress,
    ) -> Inversion:
        if len(known.latents) > 1:
            if wish is not None and wish.spy is not None:
                raise ValueError("features are kept while an inversion is made: this one is known already")
            return known
        store = Inversions(self.inversions, self.inversions_gb)
        return store.invert(
            backbone, known.latents[0], source, path, solver=self.solver, wish=wish, progress=progress
        )

    def _reconstructed(
        self, backbone: Backbone, inversion: Inversion, source: Given, wish: Wish, progress: Progress
    ) -> Inversion:
        asked = self.guidance if self.reconstruction_guidance is None else self.reconstruction_guidance
        followed = strength(asked, backbone)
        return reconstruct(backbone, inversion, source, followed, wish=wish, progress=progress)

    def _lent(
        self,
        backbone: Backbone,
        policies: Policies,
        subject: Subject,
        known: Inversion,
        path: Sequence[Time],
        *,
        again: bool,
    ) -> Lent:
        if self.features == "cache":
            return cached(backbone, policies, subject, self.cache_on, self.budget_gb, self.cache_as)
        if self.features == "auto":
            return where_small(backbone, policies, subject, known, path, self.solver, again=again)
        return Lent()


class Settled(NamedTuple):
    """What is known before the long part: the edits that have masks (None: none has), what the fusion does, and what
    the masks must have recorded."""

    local: Subject | None
    policies: Policies
    keeps: Keeps


def settled(fusion: Fusion, mask: MaskStrategy, subject: Subject) -> Settled:
    task = subject.task
    part = None if isinstance(mask, NoMask) else local_part(task, fusion.masked_for)
    if part is None or not fusion.uses_masks(task.kind):
        return Settled(None, fusion.policies(subject, masks=False), Keeps())
    policies, local = fusion.policies(subject, masks=True), replace(subject, task=part)
    if task.edits and of_whole_frame(task, fusion.held_for):
        held = policies.latent if policies.latent is not None and not policies.latent.masked else None
        policies = replace(policies, latent=held, whole_frame=True)
    return Settled(local, policies, keeps_of(mask, local))


def sampled(editing: Editing, progress: Progress) -> Edit:
    """All sampling steps of an edit that has begun, and what it says of itself."""
    backbone, subject, watch = editing.backbone, editing.subject, editing.watch
    with watch.stage("sampling"):
        noise, on = editing.inversion.at(subject.times[-1]), Callbacks(after=editing.after)
        edited = sample(backbone, noise, editing.predict, subject.times, on=on, progress=progress)
    with watch.stage("decoding"):
        frames = backbone.decode(edited, len(subject.clip.frames))
    with watch.stage("masks"):
        pictures = shown.pictures(editing)
    warnings = (*path_warnings(backbone), *shown.warnings(pictures, shown.acts_on(editing)))
    return Edit(frames, pictures, watch.seconds, warnings, shown.facts(editing, pictures))


def _said(editing: Editing) -> str:
    return "recompute" if editing.cache is None else "cache"
