"""Invert the clip, choose masks, and sample under the target prompt while the source's attention is fused in.

FreeMask, FateZero, prompt-to-prompt and plain DDIM editing are settings of it: which masks, and which fusion.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from jaxtyping import Float
from torch import Generator, Tensor

from freemask.attention.features import PLACES, Features
from freemask.attention.record import Recording
from freemask.diffusion.inversions import Inversion, Inversions, Wish
from freemask.diffusion.loops import Callbacks, sample
from freemask.diffusion.reconstruction import reconstruct
from freemask.errors import UserError
from freemask.fusion.fuser import Fuser
from freemask.fusion.settings import Fusion, Policies
from freemask.masks.plan import Keeps, MaskStrategy, Subject, remembered
from freemask.methods.common import Stopwatch, at_least, path_warnings, whole
from freemask.methods.session import Session, feature_spy
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, Stream, Text, silent

FEATURES = ("recompute", "cache")
PASSES = ("inversion", "reconstruction")
GIB = 2**30


@dataclass(frozen=True)
class Known:
    """What a session need not make: the clip's latents; its inversion, and what the mask strategy asked of it."""

    latents: Float[Tensor, "f c h w"]
    inversion: Inversion | None = None
    source: Recording | None = None


@dataclass(frozen=True)
class InvertFuse:
    """`attention`: whose maps are fused in and make the masks: those of the inversion, or those of a reconstruction,
    sampled from the inverted noise under the source prompt at `reconstruction_guidance` (None: the edit's own).

    `features`: the source branch runs again beside the edit (recompute), or its queries and keys are kept from
    the inversion (cache), on device, host or disk, within a budget. Both give the same edit.

    `inversions` is a folder in which inversions are kept for every method, prompt and run; None keeps none.
    `heat_gb` bounds the word heat that masks are made of (some megabytes as a rule).
    """

    steps: int = 50
    guidance: float | int = 7.5
    mask: MaskStrategy | Mapping[str, Any] | None = None
    fusion: Fusion | Mapping[str, Any] | None = None
    attention: str = "inversion"
    reconstruction_guidance: float | int | None = None
    features: Annotated[str, Effect.NONE] = "recompute"
    cache_on: Annotated[str, Effect.NONE] = "host"
    budget_gb: Annotated[float | int, Effect.NONE] = 8
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4
    heat_gb: Annotated[float | int, Effect.NONE] = 2

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        at_least("steps", self.steps, 1)
        at_least("guidance", self.guidance, 0)
        for name, value, choices in (
            ("attention", self.attention, PASSES),
            ("features", self.features, FEATURES),
            ("cache_on", self.cache_on, PLACES),
        ):
            if value not in choices:
                raise UserError(f"'{name}' cannot be '{value}'", came=value, expected=", ".join(choices))
        at_least("budget_gb", self.budget_gb, 0)
        if self.reconstruction_guidance is not None:
            at_least("reconstruction_guidance", self.reconstruction_guidance, 0)

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        with self.begin(backbone, clip, task, progress=progress) as session:
            watch = session.watch
            with watch.stage("sampling"):
                edited = sample(
                    backbone,
                    session.inversion.latents[-1],
                    session.predict,
                    session.subject.times,
                    on=Callbacks(after=session.after),
                    progress=progress,
                )
            with watch.stage("decoding"):
                frames = backbone.decode(edited)
            with watch.stage("masks"):
                pictures = session.pictures()
            facts = {**session.facts(pictures), "features": self.features}
        warnings = (*path_warnings(backbone), *session.warnings(pictures))
        return Edit(frames, pictures, watch.seconds, warnings, facts)

    def begin(
        self,
        backbone: Backbone,
        clip: Clip,
        task: EditTask,
        *,
        known: Known | None = None,
        progress: Progress = silent,
    ) -> Session:
        """Everything before the first sampling step: the inversion is made, the masks are chosen.

        `known` stands in for the encoded clip, and for its inversion where that is known too.
        """
        watch = Stopwatch(backbone.device)
        with watch.stage("encode"):
            latents = backbone.encode(clip.frames) if known is None else known.latents
            prompts: dict[Stream, str] = {"source": task.source, "uncond": "", "cond": task.target}
            texts: dict[Stream, Text] = {stream: backbone.embed(prompt) for stream, prompt in prompts.items()}
        subject = Subject(
            task,
            clip,
            texts["source"],
            texts["cond"],
            backbone.noise_path.times(self.steps),
            backbone.sites,
            backbone.identity,
        )
        fusion = self.fusion if isinstance(self.fusion, Fusion) else None
        strategy = self._strategy(fusion, task)
        keeps = Keeps() if strategy is None else strategy.keeps(subject)
        budget = int(self.heat_gb * GIB)
        source = Recording(budget) if known is None or known.source is None else known.source
        target = Recording(budget)
        # The policies are settled before the inversion, for they say which features it must keep.
        policies = None if fusion is None else fusion.begin(subject, masks=strategy is not None)
        cache = self._cache(policies, backbone)
        spy = None if cache is None or policies is None else feature_spy(cache, policies, subject.times)
        wish = Wish(keeps.source, source, spy)
        again = self.attention == "reconstruction" and policies is not None
        with watch.stage("inversion"):
            if known is not None and known.inversion is not None:
                inversion = known.inversion
            else:
                inversion = self._invert(backbone, latents, subject, None if again else wish, progress)
        lender = inversion
        if again:
            with watch.stage("reconstruction"):
                lender = reconstruct(
                    backbone, inversion, subject.source, self._strength(), wish=wish, progress=progress
                )
        with watch.stage("masks"):
            plan = None if strategy is None else strategy.plan(subject, source, target)
        if fusion is not None and plan is None:
            policies = fusion.begin(subject, masks=False)
        return Session(
            backbone=backbone,
            subject=subject,
            texts=texts,
            guidance=self.guidance,
            inversion=inversion,
            lender=lender,
            fuser=None if policies is None else Fuser(policies, None if plan is None else remembered(plan)),
            watch=watch,
            keeps=keeps.target,
            target=target,
            plan=plan,
            cache=cache,
        )

    def _invert(
        self, backbone: Backbone, latents: Tensor, subject: Subject, wish: Wish | None, progress: Progress
    ) -> Inversion:
        store = Inversions(self.inversions, self.inversions_gb)
        return store.invert(backbone, latents, subject.source, self.steps, wish=wish, progress=progress)

    def _strength(self) -> float | int:
        return self.guidance if self.reconstruction_guidance is None else self.reconstruction_guidance

    def _strategy(self, fusion: Fusion | None, task: EditTask) -> MaskStrategy | None:
        """The mask strategy, where there is one and something to mask."""
        if fusion is None or not fusion.masks(task.kind) or isinstance(self.mask, Mapping):
            return None
        return self.mask

    def _cache(self, policies: Policies | None, backbone: Backbone) -> Features | None:
        if self.features == "recompute" or policies is None or not policies.attention:
            return None
        return Features(self.cache_on, self.budget_gb, device=backbone.device)
