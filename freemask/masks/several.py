"""Masks of tasks with several edits: one for each, and where one is wanted for all, what any of them may change.

One rule for all methods: an edit has a mask where its kind is one of those that the method makes masks for
(`masked_for`) and it says which words it is about. Any other edit, such as a style beside a new shape, is for the whole
frame: then pixels are held nowhere, and masks of the other edits act on attention alone, in methods that have such.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from freemask.attention.record import Keep, Recording
from freemask.masks.heat import Facts
from freemask.masks.plan import Keeps, MaskPlan, MaskStrategy, Subject, Wanted
from freemask.types import EditTask


def local_part(task: EditTask, kinds: Sequence[str]) -> EditTask | None:
    """The task with those of its edits that have a mask, which edits of these `kinds` have; None where none has one."""
    if not task.edits:
        return task if task.kind in kinds else None
    edits = tuple(edit for edit in task.edits if edit.kind in kinds and edit.words)
    return replace(task, edits=edits) if edits else None


def of_whole_frame(task: EditTask, kinds: Sequence[str]) -> bool:
    """Whether some of the edits may change everything: those of these `kinds` hold what is outside their masks."""
    local = local_part(task, kinds)
    return local is None or len(local.edits) < len(task.edits)


def subjects(subject: Subject) -> list[Subject]:
    """The edits one by one, as if each were alone in the clip. One without words is about none of its parts, and beside
    others about none."""
    if not subject.task.edits:
        return [subject]
    named = [each for each in subject.task.each if each.words]
    return [subject.alone(task) for task in named or subject.task.each[:1]]


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
