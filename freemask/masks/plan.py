"""What a mask strategy is told, what it may ask to be recorded, and what it answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.record import Keep, Recording
from freemask.types import Clip, EditTask, Grid, Site, Text

Use = Literal["temporal", "cross", "self", "latent"]
USES: tuple[Use, ...] = ("temporal", "cross", "self", "latent")


class Wanted(NamedTuple):
    """A mask that somebody needs: what for, at which network time, on which grid."""

    use: Use
    t: int
    grid: Grid


@dataclass(frozen=True)
class Subject:
    """One edit, as a mask strategy sees it. `times` are the network's times, ascending; `sites` its layers."""

    task: EditTask
    clip: Clip
    source: Text
    target: Text
    times: Sequence[int]
    sites: Mapping[str, Site]
    identity: str


@dataclass(frozen=True)
class Keeps:
    """What to record of the source clip's inversion, and of the edit while it is made."""

    source: Sequence[Keep] = ()
    target: Sequence[Keep] = ()


@dataclass(frozen=True)
class MaskPlan:
    """Masks on demand: 1 where the edit may change, 0 where the source stays. The masks of one `Wanted` are equal
    however often it is asked for, except where `live`: then a mask at time t uses what the edit has recorded at
    times t and above, and may be asked for only after the step at t.

    `soft` gives the values that were compared with the threshold, where there are such. `facts` go into the row.
    """

    mask: Callable[[Wanted], Tensor]
    facts: Mapping[str, str | float | int | bool | None] = field(default_factory=dict)
    soft: Callable[[Wanted], Tensor] | None = None
    live: frozenset[Use] = frozenset()

    def __call__(self, wanted: Wanted) -> Float[Tensor, "f h w"]:
        found = self.mask(wanted)
        if tuple(found.shape) != tuple(wanted.grid):
            raise ValueError(
                f"a mask of {tuple(found.shape)} was given where {tuple(wanted.grid)} was asked for"
            )
        return found


@runtime_checkable
class MaskStrategy(Protocol):
    """Which masks to trust. `plan` is called after the inversion; None means: fuse without any mask.

    Word heat is recorded with `heat_of_words`; the recording answers `all(name)` -> {(site, t): f h w}.
    """

    def keeps(self, subject: Subject) -> Keeps: ...

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan | None: ...


def remembered(plan: MaskPlan) -> MaskPlan:
    """The same masks, each computed once while one time is at hand: what is kept does not grow with the steps."""
    known: dict[Wanted, Tensor] = {}

    def mask(wanted: Wanted) -> Tensor:
        if any(each.t != wanted.t for each in known):
            known.clear()
        if wanted not in known:
            known[wanted] = plan(wanted)
        return known[wanted]

    return MaskPlan(mask, plan.facts, plan.soft, plan.live)


def everywhere(value: float | int = 1) -> MaskPlan:
    """The constant mask: 1 lets the edit change everything, 0 nothing."""
    return MaskPlan(lambda wanted: torch.full(tuple(wanted.grid), float(value)))
