"""Layered neural atlases (Kasten et al., 2021) with one edited frame, as FateZero compares itself with: fields map
every pixel to a foreground and a background picture, an edit of one frame is brought there, and all frames read it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.diffusion.noise_paths import one_of
from freemask.fields.atlas_fit import AtlasRecipe, AtlasWork
from freemask.fields.atlases import LAYERS, Atlases, Layered
from freemask.fields.fit import fitted
from freemask.fields.recipe import check_frame, frame_of
from freemask.fields.scattered import Read, triangulated, windowed
from freemask.masks.several import local_part
from freemask.masks.strategies.none import NoMask
from freemask.methods.common import Stopwatch, check_mask, of_kind
from freemask.methods.first_frame import Picture, only
from freemask.methods.lifted import Facts, Lifting, decibels, objects, poor, said_of
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, silent

Variant = Literal["paper", "official"]
Alpha = Literal["mask", "ones"]
Edits = Literal["key", "atlas"]
Layers = Literal["auto", "both", "foreground", "background"]
OF_THINGS = ("attribute", "shape", "style")  # kinds of edits whose words are things in the foreground
# The layer that an edit of a kind is about; a style is of the whole frame.
ABOUT = {"attribute": "foreground", "shape": "foreground", "background": "background"}


@dataclass(frozen=True, kw_only=True)
class Nla(Lifting):
    """`edits`: the frame `key` is edited; or, with atlas, the picture of each layer that the edit reaches, of which
    the editor sees what the clip shows. `fit` is how the fields are fitted. `mask` marks the foreground at first,
    roughly; none: all annotated things. `alpha`: which pixels of the edited frame count as edited, those in the
    editor's own mask (all, where it has none), or all (`ones`); the others stay the clip's. `layers`: which of them
    the edit reaches; auto: the one that it is about, of a style both.

    `variant` official does what the released code does: no gradient reaches the mappings through the pictures' skips,
    and an edited pixel goes to both layers, as much as each is seen there, so that edges fade. paper: it goes to the
    layer that is seen.
    """

    fit: AtlasRecipe = field(default_factory=AtlasRecipe)
    edits: Edits = "key"
    key: str | int = "middle"
    alpha: Alpha = "mask"
    layers: Layers = "auto"
    variant: Variant = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        of_kind("fit", self.fit, AtlasRecipe)
        check_frame("key", self.key)
        one_of("edits", self.edits, get_args(Edits))
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
        if len(clip.frames) == 1:
            with watch.stage("encode"):
                picture = said_of(self.first_frame(backbone, only(clip, 0), task, rng, progress), "picture")
            return self.alone(picture, watch, progress)
        with watch.stage("encode"):
            rough, facts = self.rough(backbone, clip, task, progress)
        with watch.stage("flow"):
            footage = self.footage(backbone, clip, rough)
        with watch.stage("fit"):
            recipe = self.fit.for_clip(*clip.frames.shape[-2:])
            work = AtlasWork(recipe, footage, self.variant == "official")
            fit = fitted(work, recipe.store, backbone.device, progress)
            fields = Fields.of(work.atlases, fit.weights)
        shown = {"key frame": only(clip, key)}
        if self.edits == "atlas":
            shown = {
                layer: only(clip, key, fields.picture(layer), alike=False) for layer in self.reached(task)
            }
        edited = {}
        with watch.stage("first frame"):
            for name, one in shown.items():
                edited[name] = said_of(self.first_frame(backbone, one, task, rng, progress), name)
        with watch.stage("sampling"):
            if self.edits == "atlas":
                reads = {layer: of_atlas(each, fields.windows[layer]) for layer, each in edited.items()}
            else:
                seen = fields.atlases.frame(fit.weights, key)
                reads = self.reads(seen, edited["key frame"], self.reached(task))
            frames, changed, errors = self.all_lifted(fields, reads, clip, progress)
        with watch.stage("decoding"):
            frames = frames.clamp(0, 1)
        facts |= {"edits": self.edits, "key_frame": key, "layers": ", ".join(self.reached(task))}
        facts |= {**fit.facts(), "fit_iterations": recipe.iterations, "fit_psnr": decibels(errors)}
        facts |= {"mask_acts_on": "latents: pixels of the lifted edit", "mask_share": share(changed)}
        warnings = [*poor(decibels(errors), recipe.iterations), *empty(rough)]
        edit = Edit(frames, {"mask": changed}, watch.seconds, warnings, facts)
        return self.said(edit, fields, edited)

    def said(self, edit: Edit, fields: "Fields", edited: dict[str, Picture]) -> Edit:
        """With both layers' pictures, and what the editor said and drew."""
        extras = {f"picture {layer}": fields.picture(layer).cpu() for layer in LAYERS}
        extras |= {f"picture {name} edited": each.frame.cpu() for name, each in edited.items()}
        warnings, facts = list(edit.warnings), dict(edit.facts)
        for each in edited.values():
            warnings, facts = [*warnings, *each.warnings], {**facts, **each.facts}
        return replace(edit, extras={**edit.extras, **extras}, warnings=warnings, facts=facts)

    def all_lifted(
        self, fields: "Fields", reads: dict[str, Read], clip: Clip, progress: Progress
    ) -> tuple[Float[Tensor, "f 3 h w"], Float[Tensor, "f h w"], list[float]]:
        """All frames, what of them is edited, and how far the fields alone are from each."""
        made, count = [], len(clip.frames)
        for at, frame in enumerate(clip.frames):
            layered = fields.atlases.frame(fields.weights, at)
            own = frame.to(layered.opacity)
            apart = float((layered.shown.T.reshape(own.shape) - own).square().mean())
            made.append((*(each.cpu() for each in self.lifted(layered, reads, own)), apart))
            progress("sampling", at + 1, count)
        frames, changed, errors = zip(*made, strict=True)
        return torch.stack(frames), torch.stack(changed), list(errors)

    def rough(
        self, backbone: Backbone, clip: Clip, task: EditTask, progress: Progress
    ) -> tuple[Float[Tensor, "f h w"], Facts]:
        """Where the foreground is, about: what edits of things are about, and all but what edits of the background
        are about."""
        if isinstance(self.mask, NoMask):
            return objects(clip).float(), {"rough_mask": "annotation"}
        things = local_part(task, OF_THINGS)
        found, facts = self.masked(backbone, clip, things or task, self.mask, progress)
        if all(each.kind == "background" for each in task.each):
            found = 1 - found
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


class Fields(NamedTuple):
    """Of one clip. `windows`: what it shows of each layer's picture."""

    atlases: Atlases
    weights: dict[str, Tensor]
    windows: dict[str, Tensor]

    @classmethod
    def of(cls, atlases: Atlases, weights: dict[str, Tensor]) -> "Fields":
        return cls(atlases, weights, {layer: atlases.window(weights, layer) for layer in LAYERS})

    def picture(self, layer: str) -> Float[Tensor, "3 h w"]:
        """What the clip shows of it, in a frame's size."""
        return self.atlases.picture(self.weights, layer, self.windows[layer], self.atlases.size[1:])


def of_atlas(picture: Picture, window: Float[Tensor, "2 2"]) -> Read:
    """An edited picture of a layer: colours, all of which count as edited."""
    frame = picture.frame.to(window)
    return windowed(torch.cat([frame, torch.ones_like(frame[:1])]), window)


def empty(rough: Float[Tensor, "f h w"]) -> list[str]:
    """Opacity is pulled to nothing there, and the things are then the background's."""
    frames = int((rough.flatten(1).amax(1) == 0).sum())
    return [f"the rough mask of the foreground is empty in {frames} of {len(rough)} frames"] * (frames > 0)


def share(mask: Float[Tensor, "f h w"]) -> float:
    return round(float(mask.mean()), 4)
