"""What an edit is measured against, and an edit brought to its size and length."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from evaluation.case import Case
from evaluation.ops import resize_cubic
from freemask.errors import UserError
from freemask.types import Clip, DataSource, EditTask

STRETCH = 1.02  # shapes that differ by more are stretched visibly
BROUGHT = "were brought to the source's"


@dataclass(frozen=True)
class Truth:
    """All that the data knows about a task."""

    clip: Clip
    oracle: Float[Tensor, "f 3 h w"] | None = None
    region: Bool[Tensor, "f h w"] | None = None
    flow: Sequence[Tensor] | None = None
    regions: Sequence[Bool[Tensor, "f h w"] | None] = ()  # of each of several edits by itself

    @classmethod
    def of(cls, data: DataSource, task: EditTask) -> "Truth":
        """`flow` and `regions` are those of a source that knows them."""
        motion, each = getattr(data, "flow", None), getattr(data, "regions", None)
        flow = None if motion is None else motion(task)
        regions = () if each is None or not task.edits else each(task)
        return cls(data.clip(task), data.oracle(task), data.region(task), flow, regions)

    def first(self, count: int) -> "Truth":
        masks = {name: mask[:count] for name, mask in self.clip.masks.items()}
        clip = replace(self.clip, frames=self.clip.frames[:count], masks=masks, flow=None, depth=None)
        oracle, region = (None if each is None else each[:count] for each in (self.oracle, self.region))
        flow = None if self.flow is None else [each[: count - 1] for each in self.flow]
        regions = [None if each is None else each[:count] for each in self.regions]
        return Truth(clip, oracle, region, flow, regions)

    def case(self, task: EditTask, edited: Tensor, mask: Tensor | None = None) -> Case:
        return Case(
            self.clip.frames.cpu(),
            edited,
            task,
            oracle=self.oracle,
            region=self.region,
            regions=self.regions,
            masks=self.clip.masks,
            mask=mask,
            flow=self.flow,
        )


def informed(method: Any, data: DataSource, task: EditTask) -> Any:
    """The method itself; one that may see the true answer, a bound for measuring, sees it."""
    knowing = getattr(method, "knowing", None)
    return method if knowing is None else knowing(data.oracle(task))


def matched(
    edited: Float[Tensor, "f 3 h w"], truth: Truth
) -> tuple[Float[Tensor, "g 3 oh ow"], Truth, list[str]]:
    """Both in the source's size and the shorter one's length, and what had to be done for it."""
    notes = []
    frames, known = len(edited), len(truth.clip.frames)
    if frames != known:
        common = min(frames, known)
        if common < 2:
            wrong = "the edited frames are not those of the source"
            came = f"{frames} edited, {known} of the source"
            raise UserError(wrong, came=came, expected="equal numbers, or at least two frames in common")
        notes.append(
            f"{frames} edited frames, {known} of the source: the first {common} of both were measured"
        )
        edited, truth = edited[:common], truth.first(common)
    (high, wide), (height, width) = edited.shape[-2:], truth.clip.frames.shape[-2:]
    if (high, wide) != (height, width):
        ratio = (wide / high) / (width / height)
        stretched = ", which stretched them" if max(ratio, 1 / ratio) > STRETCH else ""
        notes.append(f"edited frames of {wide}x{high} {BROUGHT} {width}x{height}{stretched}")
        edited = resize_cubic(edited, height, width)
    return edited, truth, notes
