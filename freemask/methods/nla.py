"""Layered neural atlases (Kasten et al., 2021) with one edited frame, as FateZero compares itself with: fields map
every pixel to a foreground and a background picture, an edit of one frame is brought there, and all frames read it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.diffusion.noise_paths import one_of
from freemask.fields.atlas_fit import AtlasRecipe, AtlasWork
from freemask.fields.atlases import LAYERS, Layered
from freemask.fields.fit import fitted
from freemask.fields.recipe import check_frame, frame_of
from freemask.fields.scattered import Read, triangulated
from freemask.masks.strategies.none import NoMask
from freemask.methods.common import Stopwatch, check_mask, of_kind
from freemask.methods.first_frame import Picture
from freemask.methods.lifted import Facts, Lifting, decibels, objects, only, poor, said_of
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, silent

Variant = Literal["paper", "official"]
Alpha = Literal["mask", "ones"]
Layers = Literal["auto", "both", "foreground", "background"]
# The layer that an edit of a kind is about; a style is of the whole frame.
ABOUT = {"attribute": "foreground", "shape": "foreground", "background": "background"}


@dataclass(frozen=True, kw_only=True)
class Nla(Lifting):
    """`key` is the frame that is edited, `fit` how the fields are fitted. `mask` marks the foreground at first,
    roughly; none: all annotated things. `alpha`: which pixels of the edited frame count as edited, those in the
    editor's own mask (all, where it has none), or all (`ones`); the others stay the clip's. `layers`: which of them
    the edit reaches; auto: the one that it is about, of a style both.

    `variant` official does what the released code does: no gradient reaches the mappings through the pictures' skips,
    and an edited pixel goes to both layers, as much as each is seen there, so that edges fade. paper: it goes to the
    layer that is seen.
    """

    fit: AtlasRecipe = field(default_factory=AtlasRecipe)
    key: str | int = "middle"
    alpha: Alpha = "mask"
    layers: Layers = "auto"
    variant: Variant = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        of_kind("fit", self.fit, AtlasRecipe)
        check_frame("key", self.key)
        one_of("alpha", self.alpha, get_args(Alpha))
        one_of("layers", self.layers, get_args(Layers))
        one_of("variant", self.variant, get_args(Variant))

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        super().check(task, clip)
        frame_of("key", self.key, len(clip().frames))
        if len(clip().frames) == 1:
            return
        if isinstance(self.mask, NoMask):
            objects(clip())
        else:
            check_mask(self.mask, task, clip)

    def knowing(self, answer: Float[Tensor, "f 3 h w"] | None) -> "Nla":
        """The same where the true answer may be seen: `first_frame` decides."""
        if answer is not None:
            answer = answer[frame_of("key", self.key, len(answer))][None]
        return replace(self, first_frame=self.first_frame.knowing(answer))

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        self.check(task, lambda: clip)
        watch, key = Stopwatch(backbone.device), frame_of("key", self.key, len(clip.frames))
        with watch.stage("encode"):
            rough, facts = self.rough(backbone, clip, task, progress)
        with watch.stage("first frame"):
            picture = self.first_frame(backbone, only(clip, key), task, rng, progress)
            picture = said_of(picture, "key frame")
        facts |= {"key_frame": key, "layers": ", ".join(self.reached(task))}
        if len(clip.frames) == 1:
            return self.alone(picture, watch, progress, facts)
        recipe = self.fit.for_clip(*clip.frames.shape[-2:])
        with watch.stage("flow"):
            footage = self.footage(backbone, clip, rough)
        work = AtlasWork(recipe, footage, self.variant == "official")
        with watch.stage("fit"):
            made = fitted(work, recipe.store, backbone.device, progress)
            frames = list(work.atlases.all(made.weights))
        psnr = decibels((as_picture(each.shown, clip) for each in frames), clip.frames)
        with watch.stage("sampling"):
            reads = self.reads(frames[key], picture, self.reached(task))
            lifted = []
            for at, each in enumerate(frames):
                lifted.append(self.lifted(each, reads, clip.frames[at].to(backbone.device)))
                progress("sampling", at + 1, len(frames))
        with watch.stage("decoding"):
            edited, changed = (torch.stack(each).cpu() for each in zip(*lifted, strict=True))
        facts |= {**made.facts(), "fit_iterations": recipe.iterations, "fit_psnr": psnr}
        facts |= {"mask_acts_on": "latents: pixels of the lifted edit", "mask_share": share(changed)}
        warnings = (*poor(psnr, recipe.iterations or 0), *picture.warnings)
        extras = {"mask": changed, **self.pictures(work, made.weights)}
        return Edit(edited.clamp(0, 1), extras, watch.seconds, warnings, {**facts, **picture.facts})

    def rough(
        self, backbone: Backbone, clip: Clip, task: EditTask, progress: Progress
    ) -> tuple[Float[Tensor, "f h w"] | None, Facts]:
        """Where the foreground is, about."""
        if len(clip.frames) == 1:
            return None, {}
        if isinstance(self.mask, NoMask):
            return objects(clip).float(), {"rough_mask": "annotation"}
        found, facts = self.masked(backbone, clip, task, self.mask, progress)
        return found, {**facts, "rough_mask": type(self.mask).__name__}

    def reached(self, task: EditTask) -> Sequence[str]:
        """The layers that the edit reaches."""
        if self.layers == "auto":
            about = {ABOUT.get(each.kind, "both") for each in task.each}
            return LAYERS if "both" in about else sorted(about)
        return LAYERS if self.layers == "both" else (self.layers,)

    def reads(self, layered: Layered, picture: Picture, layers: Sequence[str]) -> dict[str, Read]:
        """The edited frame, brought to where these layers have its pixels: colours and how much each counts as
        edited."""
        seen, device = layered.opacity, layered.opacity.device
        colours = picture.frame.to(device).flatten(1).T
        edited = torch.ones_like(seen)
        if self.alpha == "mask" and picture.mask is not None:
            edited = picture.mask.to(device).flatten().float()
        values = torch.cat([colours, edited[:, None]], dim=1)
        found: dict[str, Read] = {}
        for layer in layers:
            mine = seen if layer == "foreground" else 1 - seen
            places = layered.places[layer]
            if self.variant == "official":
                found[layer] = triangulated(places, values * mine[:, None])
            else:
                found[layer] = triangulated(places[mine > 0.5], values[mine > 0.5])
        return found

    def lifted(
        self, layered: Layered, reads: dict[str, Read], own: Float[Tensor, "3 h w"]
    ) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "h w"]]:
        """A frame with the edit of each layer over the clip's own pixels; and how much of every pixel is edited."""
        under = own.flatten(1).T
        made, changed = torch.zeros_like(under), torch.zeros_like(layered.opacity)
        for layer in LAYERS:
            mine = layered.opacity if layer == "foreground" else 1 - layered.opacity
            if layer not in reads:
                made = made + mine[:, None] * under
                continue
            found = reads[layer](layered.places[layer]).to(under)
            edited = found[:, 3].clamp(0, 1)
            over = edited[:, None] * found[:, :3] + (1 - edited[:, None]) * under
            made, changed = made + mine[:, None] * over, changed + mine * edited
        return made.T.reshape(own.shape), changed.clamp(0, 1).reshape(own.shape[1:])

    def pictures(self, work: AtlasWork, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both layers' pictures as a whole."""
        side = work.atlases.longer
        return {f"picture {layer}": work.atlases.picture(weights, layer, side).cpu() for layer in LAYERS}


def as_picture(colours: Float[Tensor, "n 3"], clip: Clip) -> Float[Tensor, "3 h w"]:
    return colours.T.reshape(clip.frames.shape[1:])


def share(mask: Float[Tensor, "f h w"]) -> float:
    return round(float(mask.mean()), 4)
