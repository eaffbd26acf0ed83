"""What had better be said of a task before it is done: that it asks for nothing, or for two things that do not fit."""

import re

from freemask.data.kinds import guess
from freemask.types import EditTask
from freemask.words import bare


def doubts(task: EditTask) -> list[str]:
    return [said for said in (_nothing(task), _misfit(task)) if said]


def _nothing(task: EditTask) -> str:
    if task.source == task.target:
        return "source and target are the same prompt: nothing is asked to change"
    if _plain(task.source) == _plain(task.target):
        return "source and target differ in case, blanks or punctuation alone: nothing is asked to change"
    return ""


def _misfit(task: EditTask) -> str:
    """Words that were read off the prompts as those of another kind than the one that was given."""
    if "words" not in task.guessed or "kind" in task.guessed or task.kind == "style":
        return ""
    found = guess(task.source, task.target)
    changed = [f"{old} -> {new or '(gone)'}" for old, new in task.words.items() if old != new]
    if found.kind in (task.kind, "style") or not changed:
        return ""
    words = ", ".join(changed)
    return (
        f"the kind is given as {task.kind}, but {words} reads as {found.kind}: leave kind out, or give words"
    )


def _plain(prompt: str) -> list[str]:
    return [bare(word).casefold() for word in prompt.split() if re.search(r"\w", word)]
