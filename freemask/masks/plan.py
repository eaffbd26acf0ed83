"""What a mask strategy is told, what it may ask to be recorded, and what it answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.record import Keep, Recording
from freemask.diffusion.guidance import given_to
from freemask.masks.clock import Clock
from freemask.types import Backbone, Clip, EditTask, Given, Grid, Site, Stream, Text, Time
from freemask.words import bare

Use = Literal["temporal", "cross", "self", "latent"]
USES: tuple[Use, ...] = ("temporal", "cross", "self", "latent")


class Wanted(NamedTuple):
    """A mask that somebody needs: what for, at which network time, on which grid."""

    use: Use
    t: Time
    grid: Grid


@dataclass(frozen=True)
class Subject:
    """One edit, as masks and fusion see it. `times` are the times of sampling, ascending; `sites` the network's layers
    and `grids` their grids for this clip; `origin` is the model, whatever was tuned of it, and `base` the
    same without ControlNets. `keeps_object` is eq. 7's
    delta, and `keep_object` what somebody said of it, whatever the task. `given` is what the streams source, uncond
    and cond are given: their prompts, and what else is known of the clip."""

    task: EditTask
    clip: Clip
    source: Text
    target: Text
    times: Sequence[Time]
    sites: Mapping[str, Site]
    grids: Mapping[str, Grid]
    origin: str
    keeps_object: bool
    clock: Clock
    given: Mapping[Stream, Given] = field(default_factory=dict)
    keep_object: bool | None = None
    base: str = ""

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        clip: Clip,
        task: EditTask,
        times: Sequence[Time],
        *,
        keep_object: bool | None = None,
    ) -> "Subject":
        """`keep_object` None: as the task says."""
        frames, _, height, width = clip.frames.shape
        grids = {name: backbone.grid(site, frames, height, width) for name, site in backbone.sites.items()}
        texts = {
            "source": backbone.embed(task.source),
            "uncond": backbone.embed(""),
            "cond": backbone.embed(task.target),
        }
        return cls(
            task,
            clip,
            texts["source"],
            texts["cond"],
            times,
            backbone.sites,
            grids,
            backbone.origin,
            _delta(task, keep_object),
            Clock(frames, backbone.compression),
            {
                stream: given_to(backbone, clip, text, away=stream == "uncond")
                for stream, text in texts.items()
            },
            keep_object,
            getattr(backbone, "alone", backbone.origin),
        )

    def alone(self, task: EditTask) -> "Subject":
        """The same of one of several edits."""
        return replace(self, task=task, keeps_object=_delta(task, self.keep_object))


def _delta(task: EditTask, said: bool | None) -> bool:
    return same_object(task) if said is None else said


def same_object(task: EditTask) -> bool:
    """delta of eq. 7: 1 where the target shows the source's object (style, attribute), else 0."""
    if task.kind in ("style", "attribute"):
        return True
    return bool(task.words) and all(same_word(old, new) for old, new in task.words.items())


def same_word(old: str, new: str) -> bool:
    """Whether two phrases end in the same word."""
    first, second = (bare((phrase.split() or [""])[-1]).casefold() for phrase in (old, new))
    return first == second


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

    def on(self, clock: Clock) -> "MaskPlan":
        """The same masks on the frames that are asked for, where a strategy answers on those of its own heat."""

        def lifted(of: Callable[[Wanted], Tensor]) -> Callable[[Wanted], Tensor]:
            return lambda wanted: clock.lift(of(wanted), wanted.grid.frames)

        return replace(self, mask=lifted(self.mask), soft=None if self.soft is None else lifted(self.soft))


@runtime_checkable
class MaskStrategy(Protocol):
    """Which masks to trust. `plan` is called after the inversion.

    Word heat is recorded with `heat_of_words`; the recording answers `all(name)` -> {(site, t): f h w}. Masks come on
    the height and width that are asked for, and on the frames asked for or those of the heat they are made of.

    A strategy that knows facts of its masks before the inversion may have `told(subject)`, which gives them.
    """

    def keeps(self, subject: Subject) -> Keeps: ...

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan: ...


@runtime_checkable
class Checks(Protocol):
    """A strategy that can refuse an edit before any model is there, by the task, the clip's annotations and the number
    of its frames. Their size is not yet the final one."""

    def check(self, task: EditTask, clip: Clip) -> None: ...


def remembered(plan: MaskPlan) -> MaskPlan:
    """The same masks, each computed once while one time is at hand: what is kept does not grow with the steps."""
    known: dict[Wanted, Tensor] = {}

    def mask(wanted: Wanted) -> Tensor:
        if any(each.t != wanted.t for each in known):
            known.clear()
        if wanted not in known:
            known[wanted] = plan(wanted)
        return known[wanted]

    return replace(plan, mask=mask)


def everywhere(value: float | int = 1) -> MaskPlan:
    """The constant mask: 1 lets the edit change everything, 0 nothing."""
    return MaskPlan(lambda wanted: torch.full(tuple(wanted.grid), float(value)))
