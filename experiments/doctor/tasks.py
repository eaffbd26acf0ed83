"""The part of `freemask doctor` that reads a task list back: what was understood of it, a line for each task."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from difflib import SequenceMatcher
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.jobs.explain import each_edit, paired
from freemask.data.doubts import doubts
from freemask.data.kinds import unsure
from freemask.errors import UserError
from freemask.types import KINDS, EditTask

HEAD = ("id", "clip", "kind", "words", "prompts, [changes] in brackets")
MOST = (24, 16, 11, 20)  # the widest that columns but the last may be
GUESS = "*"
NARROW, WIDE = 100, 160
# The key by which each kind of data is told its list.
KEYS = {"folder": "tasks", "davis": "tasks", "pexels": "manifest"}


def listed_in(data: DictConfig, chosen: str | None, tasks: str) -> DictConfig:
    """The data with that list, so that its clips are looked up there."""
    key = KEYS.get(chosen or "")
    if key is None:
        came, expected = f"data={chosen} tasks={tasks}", " or ".join(f"data={name}" for name in KEYS)
        raise UserError("these data have tasks of their own", came=came, expected=expected)
    return OmegaConf.merge(data, {key: tasks})  # pyright: ignore[reportReturnType]


def told(task: EditTask) -> dict[str, Any]:
    """For programs."""
    return task.stored()


def lines(tasks: Sequence[EditTask]) -> list[str]:
    """For a reader."""
    return [*_table(tasks), "", *_counts(tasks)] if tasks else _counts(tasks)


def _table(tasks: Sequence[EditTask]) -> list[str]:
    """Below a task whose guess is not sure stands what to write."""
    cells = [[task.id, task.clip, _kind(task), _words(task)] for task in tasks]
    widths = [max(map(len, column)) for column in zip(HEAD[:-1], *cells, strict=True)]
    room = sys.maxsize
    if (wide := _terminal()) is not None:
        widths = list(map(min, MOST, widths))
        room = min(max(wide, NARROW), WIDE) - sum(widths) - 2 * len(widths)
    said = [_row(HEAD, widths)]
    for task, row in zip(tasks, cells, strict=True):
        said.append(_row([*row, _prompts(task, room)], widths))
        edits = each_edit([asdict(edit) for edit in task.edits])
        said += [f"    edit {number}: {each}" for number, each in enumerate(edits, 1)]
        said += [f"    note: {each}" for each in doubts(task)]
        said += [f"    not sure: {lacking}"] if (lacking := _lacking(task)) else []
    return said


def _terminal() -> int | None:
    """How wide it is; None where a file or a program reads on, for which nothing is cut."""
    if "COLUMNS" not in os.environ and not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size((NARROW, 0)).columns


def _counts(tasks: Sequence[EditTask]) -> list[str]:
    kinds, clips = Counter(task.kind for task in tasks), len({task.clip for task in tasks})
    each = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
    said = [f"{_many(len(tasks), 'task')} on {_many(clips, 'clip')}" + (f": {each}" if each else "")]
    guessed = {name: sum(name in task.guessed for task in tasks) for name in ("kind", "words")}
    if any(guessed.values()):
        few = sum(bool(unsure(task)) for task in tasks)
        read = f"{GUESS} read off the prompts: the kind of {guessed['kind']}, the words of {guessed['words']}"
        said.append(f"{read}; not sure of {few or 'none'}")
    return said


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    *first, last = cells
    kept = [_within(cell, width).ljust(width) for cell, width in zip(first, widths, strict=True)]
    return "  ".join([*kept, last]).rstrip()


def _kind(task: EditTask) -> str:
    return task.kind + GUESS * ("kind" in task.guessed)


def _words(task: EditTask) -> str:
    if task.edits:
        return _many(len(task.edits), "edit")
    return (paired(task.words) or "(none)") + GUESS * ("words" in task.guessed)


def _prompts(task: EditTask, room: int) -> str:
    """Both in one text, [in brackets] where they differ; where there is little room, from shortly before that on."""
    old, new = task.source.split(), task.target.split()
    parts = []
    for step, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = " ".join(old[a:b]), " ".join(new[c:d])
        arrow = f"{gone} -> {come}" if gone and come else f"+ {come}" if come else f"- {gone}"
        parts.append(gone if step == "equal" else f"[{arrow}]")
    said = " ".join(parts)
    if len(said) > room and len(parts) > 1 and not parts[0].startswith("["):
        parts[0] = f"…{parts[0].split()[-1]}" if " " in parts[0] else parts[0]
    return _begun(" ".join(parts), room)


def _lacking(task: EditTask) -> str:
    """What would make it sure."""
    means: Mapping[str, str] = {
        "kind": f"kind: {task.kind} (or {', '.join(kind for kind in KINDS if kind != task.kind)})",
        "words": f"words: {paired(task.words) or 'one word -> another'}",
    }
    said = " and ".join(means[name] for name in unsure(task))
    return f"write {said}" if said else ""


def _within(text: str, width: int) -> str:
    """Both ends of it, by which ids and clips differ."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[-end:]}"


def _begun(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
