"""CoDeF (Ouyang et al., 2024): a canonical picture of all that a clip shows is edited once, by any editor of
pictures, and every frame reads it through a deformation field that was fitted to the clip.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.diffusion.noise_paths import one_of
from freemask.fields.canonical import read
from freemask.fields.canonical_fit import CanonicalRecipe, CanonicalWork
from freemask.fields.fit import Fitted, fitted, together
from freemask.fields.recipe import frame_of
from freemask.masks.strategies.none import NoMask
from freemask.methods.common import Stopwatch, at_least, of_kind, whole
from freemask.methods.composite import composited
from freemask.methods.first_frame import Picture, only
from freemask.methods.lifted import Facts, Lifting, decibels, poor, said_of
from freemask.methods.masked import MaskSettings
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, silent

Variant = Literal["paper", "official"]
OFF = 255 / 256  # what a colour becomes in the released code, which divides by 256 and multiplies by 255
WITHOUT_FLOW = 2  # of the last frames in the released code


class Part(NamedTuple):
    """A part of the clip with fields of its own: where it is, and whether the edit is about it."""

    name: str
    marked: Float[Tensor, "f h w"] | None
    edited: bool


class Shown(NamedTuple):
    """A part as its fields have it: every frame by itself, and where of the canonical picture its pixels are."""

    part: Part
    frames: Sequence[Float[Tensor, "3 h w"]]
    where: Sequence[Float[Tensor, "h w 2"]]
    canonical: Float[Tensor, "3 oh ow"]
    fit: Fitted


@dataclass(frozen=True, kw_only=True)
class Codef(MaskSettings, Lifting):
    """`fit` is how the fields are fitted. The canonical picture has `margin` more pixels on each side than a frame,
    or as many more as the editor's model needs. With a `mask` its inside and the rest have fields of their own each,
    and only the one is edited that the edit is about; without one there is one picture of everything, as for styles.

    `variant` official does what the released code does: colours lose a little on the way in and out, and the last two
    frames have no flow. paper: neither.
    """

    fit: CanonicalRecipe = field(default_factory=CanonicalRecipe)
    margin: int = 0
    variant: Variant = "paper"

    def __post_init__(self) -> None:
        Lifting.__post_init__(self)
        MaskSettings.__post_init__(self)
        of_kind("fit", self.fit, CanonicalRecipe)
        whole("margin", self.margin)
        at_least("margin", self.margin, 0)
        one_of("variant", self.variant, get_args(Variant))

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        Lifting.check(self, task, clip)
        MaskSettings.check(self, task, clip)
        self.first(clip())

    def first(self, clip: Clip) -> int | None:
        """The frame that the canonical picture begins with."""
        asked = self.fit.reference
        return None if asked is None else frame_of("method.fit.reference", asked, len(clip.frames))

    def knowing(self, answer: Float[Tensor, "f 3 h w"] | None) -> "Codef":
        """The same where the true answer may be seen: `first_frame` decides. What is known is the answer of the frame
        that the canonical picture begins with."""
        asked = self.fit.reference
        if answer is None or asked is None:
            return replace(self, first_frame=self.first_frame.knowing(None))
        at = frame_of("method.fit.reference", asked, len(answer))
        return replace(self, first_frame=self.first_frame.knowing(answer[at][None]))

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        watch = Stopwatch(backbone.device)
        if len(clip.frames) == 1:
            with watch.stage("encode"):
                picture = self.edited(backbone, clip, task, rng, progress)
            return self.alone(picture, watch, progress)
        with watch.stage("encode"):
            parts, facts = self.parts(backbone, clip, task, progress)
        recipe = self.fit.for_clip(*clip.frames.shape[-2:])
        shown = []
        for part in parts:
            with watch.stage("fit"):
                shown.append(self.shown(backbone, clip, part, recipe, progress))
        whole_clip = composed(parts, [each.frames for each in shown])
        facts |= self.facts(shown, decibels(apart(whole_clip, clip)), recipe)
        pictures, extras = {}, {}
        for each in shown:
            name = "canonical" if each.part.name == "all" else f"canonical {each.part.name}"
            extras[f"picture {name}"] = each.canonical
            if each.part.edited:
                with watch.stage("first frame"):
                    first = self.first(clip)
                    one = only(clip, first or 0, each.canonical, alike=first is not None)
                    pictures[each.part.name] = self.edited(backbone, one, task, rng, progress)
                extras[f"picture {name} edited"] = pictures[each.part.name].frame
        with watch.stage("sampling"):
            read_all = [self.lifted(each, pictures, clip, progress) for each in shown]
        with watch.stage("decoding"):
            frames = torch.stack(composed(parts, read_all)).clamp(0, 1)
        warnings = [*poor(facts["fit_psnr"], recipe.iterations)]  # type: ignore[arg-type]
        for each in pictures.values():
            warnings, facts = [*warnings, *each.warnings], {**facts, **each.facts}
        edit = Edit(frames, extras, watch.seconds, warnings, facts)
        return composited(edit, clip, self.composite, lambda: free(parts))

    def edited(
        self, backbone: Backbone, one: Clip, task: EditTask, rng: Generator, progress: Progress
    ) -> Picture:
        return said_of(self.first_frame(backbone, one, task, rng, progress), "canonical picture")

    def parts(
        self, backbone: Backbone, clip: Clip, task: EditTask, progress: Progress
    ) -> tuple[list[Part], Facts]:
        mask = self.acting_mask(task)
        if isinstance(mask, NoMask):
            return [Part("all", None, True)], {"mask_used": False}
        found, facts = self.masked(backbone, clip, task, mask, progress)
        # Masks are of what an edit is about, a background included.
        return [Part("inside", found, True), Part("outside", 1 - found, False)], facts

    def shown(self, backbone: Backbone, clip: Clip, part: Part, recipe: Any, progress: Progress) -> Shown:
        footage = self.footage(backbone, clip, part.marked)
        official = self.variant == "official"
        if official:
            footage = replace(footage, frames=footage.frames * OFF)
        work = CanonicalWork(recipe, footage, WITHOUT_FLOW if official else 1)
        made = fitted(work, recipe.store, backbone.device, progress)
        fields = work.fields
        margin = -(-self.margin // backbone.multiple) * backbone.multiple
        count = range(len(clip.frames))
        return Shown(
            part,
            [fields.shown(made.weights, at).cpu() for at in count],
            [fields.where(made.weights, at).cpu() + margin for at in count],
            fields.picture(made.weights, margin).cpu(),
            made,
        )

    def lifted(
        self, shown: Shown, pictures: dict[str, Picture], clip: Clip, progress: Progress
    ) -> list[Float[Tensor, "3 h w"]]:
        """The frames that read the edited picture, or the canonical one where the part is not edited."""
        picture = pictures[shown.part.name].frame if shown.part.edited else shown.canonical
        made = []
        for at, where in enumerate(shown.where):
            made.append(read(picture.float().cpu(), where))
            progress("sampling", at + 1, len(clip.frames))
        return made

    def facts(self, shown: Sequence[Shown], psnr: float, recipe: Any) -> Facts:
        facts = shown[0].fit.facts()
        facts["fit_seconds"] = round(sum(each.fit.seconds for each in shown), 1)
        facts["fit_kept"] = all(each.fit.kept for each in shown)
        if devices := together(*(each.fit.device for each in shown)):
            facts["fit_device"] = devices
        beyond = [out_of(each.where, each.canonical) for each in shown]
        moved = {"canonical_parts": len(shown), "beyond_picture": round(max(beyond), 4)}
        return {**facts, "fit_iterations": recipe.iterations, "fit_psnr": psnr, **moved}


def composed(
    parts: Sequence[Part], frames: Sequence[Sequence[Float[Tensor, "3 h w"]]]
) -> list[Float[Tensor, "3 h w"]]:
    """Each part where it is."""
    if len(parts) == 1:
        return list(frames[0])
    inside = parts[0].marked
    assert inside is not None
    return [a.where(m[None] > 0.5, b) for m, a, b in zip(inside, *frames, strict=True)]


def apart(made: Sequence[Float[Tensor, "3 h w"]], clip: Clip) -> list[float]:
    """The mean squared error of each frame."""
    return [float((one - own.cpu()).square().mean()) for one, own in zip(made, clip.frames, strict=True)]


def free(parts: Sequence[Part]) -> Tensor | None:
    """Which pixels may change; None: all."""
    inside = parts[0].marked
    return None if inside is None else inside > 0.5


def out_of(where: Sequence[Float[Tensor, "h w 2"]], picture: Float[Tensor, "3 oh ow"]) -> float:
    """The share of pixels that lie beyond the canonical picture's border."""
    height, width = picture.shape[-2:]
    most = torch.tensor([width - 0.5, height - 0.5])
    return sum(float(((each < -0.5) | (each > most)).any(-1).float().mean()) for each in where) / len(where)
