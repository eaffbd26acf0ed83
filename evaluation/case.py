"""One thing to be measured: a source, its edit, and what is known about the right answer."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

from evaluation.ops import round8
from freemask.errors import UserError
from freemask.types import EditTask

SLACK = 1e-5
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """Frames are RGB in 0..1, and are rounded to 8 bits here: metrics measure what an image file can hold.
    All tensors are moved to the CPU, so that they meet on one device.

    `region` is 1 where the edit may change pixels, `regions` the same of each of the task's several edits, in their
    order, where it is known; `oracle` is the true answer. `masks` annotate the
    source's objects by name. `mask` is the method's own, in 0..1, 1 where it let the edit change pixels. `flow` is the
    source's exact motion: for the pixels of frame g + 1 the offsets (x, y) to their place in frame g, and whether
    they were seen there. Shapes are checked here rather than by annotation, for they are user input.
    """

    source: Tensor  # f 3 h w
    edited: Tensor  # f 3 h w
    task: EditTask
    oracle: Tensor | None = None  # f 3 h w
    region: Tensor | None = None  # f h w
    regions: Sequence[Tensor | None] = ()  # f h w each
    masks: Mapping[str, Tensor] = field(default_factory=dict)  # f h w each
    mask: Tensor | None = None  # f h w
    flow: Sequence[Tensor] | None = None  # g 2 h w and g h w, g = f - 1
    kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shape = tuple(self.source.shape)
        for name in ("source", "edited", "oracle"):
            frames = getattr(self, name)
            if frames is not None:
                object.__setattr__(self, name, _frames(name, frames, self.task.id, shape))
        if self.region is not None:
            object.__setattr__(self, "region", _mask("region", self.region, self.task.id, shape))
        regions = [
            None if each is None else _mask(f"region of edit {n}", each, self.task.id, shape)
            for n, each in enumerate(self.regions, 1)
        ]
        if regions and len(regions) != len(self.task.edits):
            came, expected = f"{len(regions)} regions", f"one for each of its {len(self.task.edits)} edits"
            raise UserError(f"the regions of task '{self.task.id}' do not fit", came=came, expected=expected)
        object.__setattr__(self, "regions", tuple(regions))
        masks = {
            name: _mask(f"mask '{name}'", mask, self.task.id, shape) for name, mask in self.masks.items()
        }
        object.__setattr__(self, "masks", masks)
        if self.mask is not None:
            object.__setattr__(self, "mask", _soft_mask(self.mask, self.task.id, shape))
        if self.flow is not None:
            object.__setattr__(self, "flow", _flow(self.flow, self.task.id, shape))

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, or what another metric has made of this case under the same key."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    @property
    def editable(self) -> Bool[Tensor, "f h w"] | None:
        """The region; where the data does not give it, the annotated object that the task names. Of several edits it is
        unknown where that of one is."""
        if self.region is not None:
            return self.region
        if not self.task.edits:
            return region_from_masks(self.task, self.masks)
        known = [region for _, region in self.each if region is not None]
        return torch.stack(known).any(0) if len(known) == len(self.each) else None

    @property
    def each(self) -> list[tuple[EditTask, Bool[Tensor, "f h w"] | None]]:
        """The task's several edits, each with its region in the same way; a task of one edit has none."""
        edits = self.task.each if self.task.edits else ()
        regions = self.regions or [None] * len(edits)
        return [
            (edit, region_from_masks(edit, self.masks, one_of_several=True) if known is None else known)
            for edit, known in zip(edits, regions, strict=True)
        ]


def region_from_masks(
    task: EditTask, masks: Mapping[str, Bool[Tensor, "f h w"]], *, one_of_several: bool = False
) -> Bool[Tensor, "f h w"] | None:
    """What an edit of an object may change, judged by annotations of the source alone.

    The union of the masks that a source word names, else the only mask there is; that may be another's where the edit
    is one of several. None for styles and backgrounds, which are not bound to an annotated object, and where no mask
    can be told to be meant.
    """
    if task.kind not in ("shape", "attribute") or not masks:
        return None
    phrases = {word for phrase in task.words for word in phrase.replace(",", " ").split()}
    meant = [mask for name, mask in masks.items() if name in task.words]
    if not meant:  # 'brown bear' names a mask called bear
        meant = [mask for name, mask in masks.items() if name in phrases]
    if not meant and not one_of_several:
        meant = [mask for name, mask in masks.items() if name in task.source.replace(",", " ").split()]
    if not meant and not one_of_several and len(masks) == 1:
        meant = list(masks.values())
    return torch.stack(meant).any(0) if meant else None


def annotated(task: EditTask, masks: Mapping[str, Bool[Tensor, "f h w"]]) -> Bool[Tensor, "f h w"] | None:
    """The annotated thing that the task's source words name; of a background only where it has a mask of that name."""
    if task.kind != "background":
        return region_from_masks(task, masks)
    named = [mask for name, mask in masks.items() if name in task.words]
    return torch.stack(named).any(0) if named else None


def _frames(name: str, frames: Tensor, task: str, shape: tuple[int, ...]) -> Tensor:
    what = f"the {name} frames of task '{task}' cannot be measured"
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise UserError(
            what, came=f"a tensor of shape {tuple(frames.shape)}", expected="frames, 3, height, width"
        )
    if not frames.is_floating_point():
        raise UserError(
            what, came=f"values of type {frames.dtype}", expected="floats in 0..1", todo="divide by 255"
        )
    if tuple(frames.shape) != shape:
        raise UserError(
            what,
            came=_size(tuple(frames.shape)),
            expected=f"as the source: {_size(shape)}",
            todo="give frames of the clip that was edited, at the size it was edited",
        )
    low, high = (float(v) for v in frames.aminmax())
    if not bool(frames.isfinite().all()) or low < -SLACK or high > 1 + SLACK:
        raise UserError(what, came=f"values in {low:g}..{high:g}", expected="finite values in 0..1")
    return round8(frames.detach().cpu()).contiguous()  # networks round otherwise where memory lies otherwise


def _mask(name: str, mask: Tensor, task: str, shape: tuple[int, ...]) -> Tensor:
    frames, _, height, width = shape
    if mask.dtype != torch.bool or tuple(mask.shape) != (frames, height, width):
        raise UserError(
            f"the {name} of task '{task}' does not fit the clip",
            came=f"{mask.dtype} of shape {tuple(mask.shape)}",
            expected=f"torch.bool of shape {(frames, height, width)}",
        )
    return mask.cpu()


def _soft_mask(mask: Tensor, task: str, shape: tuple[int, ...]) -> Tensor:
    frames, _, height, width = shape
    fits = mask.is_floating_point() and tuple(mask.shape) == (frames, height, width)
    if not fits or not bool(((mask >= 0) & (mask <= 1)).all()):
        raise UserError(
            f"the mask of the edit of task '{task}' cannot be measured",
            came=f"{mask.dtype} of shape {tuple(mask.shape)}",
            expected=f"floats in 0..1 of shape {(frames, height, width)}",
        )
    return round8(mask.detach().cpu())


def _flow(flow: Sequence[Tensor], task: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    frames, _, height, width = shape
    wanted = [(frames - 1, 2, height, width), (frames - 1, height, width)]
    if [tuple(each.shape) for each in flow] != wanted or flow[1].dtype != torch.bool:
        raise UserError(
            f"the flow of task '{task}' does not fit the clip",
            came=", ".join(f"{each.dtype} of shape {tuple(each.shape)}" for each in flow),
            expected=f"offsets of shape {wanted[0]} and torch.bool of shape {wanted[1]}",
        )
    back, seen = flow[0].detach().float().cpu(), flow[1].cpu()
    if not bool(back.isfinite().all()):
        raise UserError(
            f"the flow of task '{task}' cannot be measured with",
            came="offsets that are no numbers",
            expected="finite offsets, 0 where a pixel was not seen before",
        )
    return back, seen


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} frames of {shape[3]}x{shape[2]}"
