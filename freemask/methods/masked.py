"""The settings of methods that hold a clip outside a mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from freemask.diffusion.noise_paths import one_of
from freemask.masks.plan import MaskStrategy
from freemask.masks.several import of_whole_frame
from freemask.masks.strategies.none import NoMask
from freemask.methods import composite
from freemask.methods.common import check_mask, of_kind
from freemask.settings import Effect
from freemask.types import KINDS, Clip, EditTask

OF_OBJECTS = ("attribute", "shape", "background")  # edits that leave the rest of a clip alone


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """`mask` holds the clip outside, in edits of the kinds `masked_for`; `composite`: pixels puts the clip's own back
    where the mask lets nothing change; `heat_gb` bounds the word heat."""

    mask: MaskStrategy = field(default_factory=NoMask)
    masked_for: Sequence[str] = OF_OBJECTS
    composite: str = "none"
    heat_gb: Annotated[float | int, Effect.NONE] = 2

    def __post_init__(self) -> None:
        of_kind("mask", self.mask, MaskStrategy)
        composite.check(self.composite)
        for kind in self.masked_for:
            one_of("kind of edit in masked_for", kind, KINDS)

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        """Before any model is there; the clip is read only where it is needed."""
        check_mask(self.acting_mask(task), task, clip)

    def acting_mask(self, task: EditTask) -> MaskStrategy:
        return NoMask() if of_whole_frame(task, self.masked_for) else self.mask


def of_target(task: EditTask) -> EditTask:
    """What is asked of a clip that shows the target already: where its own words are."""
    words = {new: new for new in task.words.values() if new.strip()}
    edits = tuple(replace(each, words={new: new for new in each.words.values()}) for each in task.edits)
    return replace(task, source=task.target, words=words, edits=edits)
