"""Null-text inversion and prompt-to-prompt: picture by picture (FateZero's baseline "Framewise Null & p2p"), or on a
network tuned on the clip, whose frames share one text (Video-P2P).

The guided reconstruction of the clip runs beside the edit and lends it its attention; outside the words' masks, its
latents. On a model whose frames do not see each other, each frame is an edit of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from torch import Generator, Tensor

from freemask.alignment import official_columns
from freemask.attention.layout import on_grid
from freemask.attention.math import marked
from freemask.attention.record import GIB, Keep, Recording, recorder
from freemask.diffusion.guidance import strength
from freemask.diffusion.inversions import Inversions, key_of, walk
from freemask.diffusion.noise_paths import CLEAN
from freemask.diffusion.null_text import MOST_STEPS, Nulls, NullText, empty_text, null_text
from freemask.errors import UserError
from freemask.fusion.settings import Fusion
from freemask.masks.plan import MaskStrategy, Subject, remembered
from freemask.masks.several import plan_of
from freemask.masks.strategies.none import NoMask
from freemask.methods.common import Stopwatch, at_least, check_masks, of_kind, whole
from freemask.methods.editing import Editing
from freemask.methods.in_turn import in_turn
from freemask.methods.invert_fuse import OFF, sampled, settled
from freemask.settings import Effect
from freemask.types import QKV, Backbone, Clip, Edit, EditTask, Progress, Taps, Text, Where, silent

TOGETHER = (
    "frames of this model see each other: each is edited on its own with model=embedded_image or sd15,"
    " model.attention=frame model.shared_norm=false"
)
ALL_FRAMES = ("temporal", "space_time", "joint")  # roles of attention that sees other frames by itself
UNTUNED = (
    "fusion.temporal acts on nothing: this model has no temporal layers; tune it on the clip"
    " (tuning=tune_a_video), or name those of a tuned checkpoint (model.temporal=PATH)"
)
UNKNOWN = "fusion passes over words that do not stand between blanks in the target prompt: {} (in '{}')"


@dataclass(frozen=True)
class NullTextP2P:
    """`inner`: how often a text is updated at each step at most. `shared`: one text for all frames; otherwise each has
    its own. `decoupled`: what was found is for the reconstruction alone, and the edit is guided from an empty prompt.
    `source_guidance`: of the reconstruction; None: the edit's own, 1: no text has an effect there and none is looked
    for (Video-P2P's fast mode). `in_turn`: several edits of a clip are done one after another, each in what the
    last has left; otherwise all at once.

    `inversions` is a folder in which inversions and the texts found for them are kept for every prompt and run; None
    keeps none. `heat_gb` bounds the word heat that masks are made of."""

    draws: ClassVar[bool] = False  # no noise: every seed gives the same

    steps: int = 50
    guidance: float | int | None = None
    inner: int = 10
    shared: bool = False
    decoupled: bool = False
    source_guidance: float | int | None = None
    in_turn: Annotated[bool | None, Effect.SAID] = None
    mask: MaskStrategy = field(default_factory=NoMask)
    fusion: Fusion = OFF
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4
    heat_gb: Annotated[float | int, Effect.NONE] = 2

    def __post_init__(self) -> None:
        for name, value, least in (("steps", self.steps, 1), ("inner", self.inner, 0)):
            whole(name, value, least)
        at_least("guidance", self.guidance, 0)
        at_least("source_guidance", self.source_guidance, 0)
        of_kind("mask", self.mask, MaskStrategy)
        of_kind("fusion", self.fusion, Fusion)
        if self.steps > MOST_STEPS and self.source_guidance != 1:
            raise UserError(
                "Null-text inversion learns less with every step, and then nothing.",
                came=f"steps={self.steps}",
                expected=f"at most {MOST_STEPS}",
            )

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        """Before any model is there; the clip is read only where it is needed."""
        check_masks(self.fusion, self.mask, task, clip)

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        def one(clip: Clip, task: EditTask) -> Edit:
            return self.at_once(backbone, clip, task, progress)

        return in_turn(one, clip, task) if self.in_turn and task.edits else one(clip, task)

    def at_once(self, backbone: Backbone, clip: Clip, task: EditTask, progress: Progress) -> Edit:
        watch = Stopwatch(backbone.device)
        with watch.stage("encode"):
            latents = backbone.encode(clip.frames)
            subject = Subject.of(backbone, clip, task, backbone.noise_path.times(self.steps))
        settled(self._fusion(subject), self.mask, subject)  # a missing word is refused before the long part
        nulls = self.nulls(backbone, latents, subject, watch, progress)
        edit = sampled(self.editing(backbone, subject, nulls, watch, progress), progress)
        lost = float((nulls.path.at(CLEAN) - latents).square().mean())
        return replace(
            edit,
            warnings=[*edit.warnings, *self._warnings(subject)],
            facts={**edit.facts, "null_text_error": round(lost, 6)},
        )

    def nulls(
        self, backbone: Backbone, latents: Tensor, subject: Subject, watch: Stopwatch, progress: Progress
    ) -> Nulls:
        """From the store, or found."""
        store = Inversions(self.inversions, self.inversions_gb)
        followed = self.guidance if self.source_guidance is None else self.source_guidance
        options = NullText(strength(followed, backbone), self.inner, self.shared)
        source, times = subject.given["source"], subject.times
        key = key_of(backbone, latents, source, times, [options])
        known = store.load(key)
        if known is not None:
            return Nulls.of(known, empty_text(backbone, options, len(latents)), times, like=latents)
        with watch.stage("inversion"):
            inversion = store.invert(backbone, latents, source, times, progress=progress)
        with watch.stage("null text"):
            found = null_text(backbone, inversion, source, options, progress=progress)
        store.save(key, found.tensors())
        return found

    def editing(
        self, backbone: Backbone, subject: Subject, nulls: Nulls, watch: Stopwatch, progress: Progress
    ) -> Editing:
        """The edit before its first step, the words' heat of the reconstruction included."""
        local, policies, keeps = settled(self._fusion(subject), self.mask, subject)
        kept, target = (Recording(int(self.heat_gb * GIB)) for _ in range(2))
        masks = None
        with watch.stage("masks"):
            if keeps.source:
                taps = Taps(attention=recorder(keeps.source, kept))
                walk(backbone, nulls.path, subject.given["source"], taps, progress=progress)
            if local is not None:
                masks = remembered(plan_of(self.mask, local, kept, target))
        made = Editing(
            backbone=backbone,
            subject=subject,
            guidance=strength(self.guidance, backbone),
            uncond=subject.given["uncond"] if self.decoupled else nulls.uncond,
            inversion=nulls.path,
            lender=nulls.path,
            policies=policies,
            masks=masks,
            watch=watch,
            target=target,
        )
        made.keeps = [_after_fusion(made, keep) for keep in keeps.target]
        return made

    def _fusion(self, subject: Subject) -> Fusion:
        """Of a network that is not tuned there are no temporal maps to take: a warning says so."""
        return self.fusion if _temporal(subject) else replace(self.fusion, temporal="off")

    def _warnings(self, subject: Subject) -> list[str]:
        together = any(site.look or site.role in ALL_FRAMES for site in subject.sites.values())
        untuned = self.fusion.mode("temporal") != "off" and not _temporal(subject)
        found = [TOGETHER] if together and not self.shared else []
        return found + ([UNTUNED] if untuned else []) + _unknown(self.fusion, subject.target)


def _after_fusion(editing: Editing, keep: Keep) -> Keep:
    """The heat of the same words in the maps that the edit really uses: the source's and reweighted ones included."""

    def shrink(where: Where, qkv: QKV) -> Tensor:
        fused = editing.fusing(editing.step_at(where.t))(
            where, marked(qkv, [keep.heat.columns if keep.heat else ()])
        )
        return on_grid(fused[where.streams.index("cond"), ..., 0].mean(dim=1), where)

    return replace(keep, shrink=shrink)


def _unknown(fusion: Fusion, target: Text) -> list[str]:
    """The authors' code passes over words that it does not find."""
    named = [str(word) for each in (fusion.reweight, fusion.word_windows) for word in each or ()]
    lost = [word for word in named if fusion.official and not official_columns(target, word)]
    return [UNKNOWN.format(", ".join(lost), target.prompt)] if lost else []


def _temporal(subject: Subject) -> bool:
    return any(site.role in ALL_FRAMES for site in subject.sites.values())
