"""Masks of tasks with several edits: one for each, and where one is wanted for all, what any of them may change."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from freemask.attention.record import Keep, Recording
from freemask.masks.heat import Facts
from freemask.masks.plan import Keeps, MaskPlan, MaskStrategy, Subject, Wanted


def subjects(subject: Subject) -> list[Subject]:
    """The edits one by one, as if each were alone in the clip."""
    if not subject.task.edits:
        return [subject]
    return [subject.alone(task) for task in subject.task.each]


def keeps_of(mask: MaskStrategy, subject: Subject) -> Keeps:
    """What the masks of all edits need recorded."""
    if not subject.task.edits:
        return mask.keeps(subject)
    wished = [mask.keeps(each) for each in subjects(subject)]
    source = [_named(keep, place) for place, each in enumerate(wished) for keep in each.source]
    target = [_named(keep, place) for place, each in enumerate(wished) for keep in each.target]
    return Keeps(source, target)


def plans_of(
    mask: MaskStrategy, subject: Subject, source: Recording, target: Recording
) -> Sequence[MaskPlan]:
    """A plan for each edit, from what `keeps_of` had recorded."""
    if not subject.task.edits:
        return [mask.plan(subject, source, target)]
    return [
        mask.plan(each, source.under(_prefix(place)), target.under(_prefix(place)))
        for place, each in enumerate(subjects(subject))
    ]


def plan_of(mask: MaskStrategy, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
    return union([plan.on(subject.clock) for plan in plans_of(mask, subject, source, target)])


def told_of(mask: MaskStrategy, subject: Subject) -> Facts:
    """What the strategy knows of its masks before the inversion."""
    told = getattr(mask, "told", None)
    return {} if told is None else together([told(each) for each in subjects(subject)])


def together(said: Sequence[Facts]) -> Facts:
    """Facts of several edits: those that differ stand side by side."""
    found: dict[str, str | float | int | bool | None] = {}
    for name in dict.fromkeys(name for each in said for name in each):
        values = [each.get(name) for each in said]
        found[name] = values[0] if len(set(values)) == 1 else " | ".join(map(str, values))
    return found


def union(plans: Sequence[MaskPlan]) -> MaskPlan:
    """What any of several edits may change."""
    if len(plans) == 1:
        return plans[0]
    softs = [plan.soft for plan in plans if plan.soft is not None]

    def soft(wanted: Wanted) -> Tensor:
        return _most([each(wanted) for each in softs])

    return MaskPlan(
        lambda wanted: _most([plan(wanted) for plan in plans]),
        together([plan.facts for plan in plans]),
        soft if len(softs) == len(plans) else None,
        frozenset(use for plan in plans for use in plan.live),
    )


def _most(masks: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(masks)).amax(dim=0)


def _named(keep: Keep, place: int) -> Keep:
    return replace(keep, name=_prefix(place) + keep.name)


def _prefix(place: int) -> str:
    return f"edit {place + 1}: "
