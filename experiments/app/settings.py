"""What is chosen on the page, as the words of the command that does the same."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from threading import Lock
from typing import Any

from experiments.cli.quoting import quoted
from experiments.config import choices
from experiments.config.build import build
from experiments.config.compose import Composed, composed, plain, typed
from experiments.config.early import refuse_idle_controls, refuse_misfits, refuse_missing
from experiments.config.texts import EDIT, PATHS
from experiments.jobs.one_clip import Asked
from experiments.jobs.one_clip import made as captioned
from experiments.jobs.variants import Composition
from experiments.report.one_edit import Planned
from freemask.types import DataSource, EditTask

# Keys of `freemask edit` that are typed as plain text.
TEXTS = ("clip", "out", "source", "target", "words", "edits", *EDIT, *PATHS)
GROUPS = ("method", "task", "model", "mask")
PLAIN = re.compile(r"[\w./+-]+")
COMPOSED = 128  # configurations at hand: every text that is typed makes others
_HYDRA = Lock()  # it composes for one thread at a time


@dataclass(frozen=True)
class Settings:
    """`clip` is a file, or the id of a task that the data know; then empty prompts are the task's own. `masks` are
    words that choose the mask in place of the strategy: a map that was looked at, or a folder that was painted."""

    clip: str
    source: str
    target: str
    method: str
    model: str
    mask: str
    task: str
    steps: int | None = None
    guidance: float | int | None = None
    seed: int = 0
    frames: int | None = None
    words: str = ""
    masks: tuple[str, ...] = ()

    def overrides(self, start: Sequence[str] = ()) -> list[str]:
        """Only what differs from what `freemask edit` does with the words of the `start`."""
        said = list(start)
        for group in GROUPS:
            said = _with_choice(said, group, getattr(self, group))
        said = _with_masks(said, self.masks)
        before = values(said)
        for key, wanted in self._numbers(before["method"]):
            if key in before["method"] and before["method"][key] != wanted:
                said = _with_key(said, f"method.{key}", wanted)
        for key, wanted in (("seed", self.seed), ("frames", self.frames if self.is_file(start) else None)):
            if before[key] != wanted:
                said = _with_key(said, key, wanted)
        return [quoted("clip", self.clip), *self._prompts(start), *said]

    def _numbers(self, method: Mapping[str, Any]) -> list[tuple[str, int | float | None]]:
        """Without a number of steps, as the method has it; guidance may be the model's own, which is None."""
        steps = method.get("steps") if self.steps is None else self.steps
        return [("steps", steps), ("guidance", self.guidance)]

    def is_file(self, start: Sequence[str]) -> bool:
        return self.clip not in {task.id for task in tasks(tuple(start))}

    def command(self, start: Sequence[str] = ()) -> str:
        """As one types it in a shell."""
        return f"freemask edit {typed(self.overrides(start), TEXTS)}"

    def _prompts(self, start: Sequence[str]) -> list[str]:
        own = next((task for task in tasks(tuple(start)) if task.id == self.clip), None)
        known = {"source": own.source, "target": own.target} if own else {}
        given = {"source": self.source, "target": self.target, "words": self.words}
        return [quoted(key, text) for key, text in given.items() if text and text != known.get(key)]


@dataclass(frozen=True)
class Asking:
    """A command that was composed and looked over as the command line does it: nothing is loaded yet."""

    made: Composition
    config: Mapping[str, Any]
    task: EditTask
    data: DataSource
    frames: int | None

    @classmethod
    def of(cls, words: Sequence[str]) -> "Asking":
        made = _composed(words)
        config = plain(made.cfg)
        refuse_misfits(config, "experiments.jobs.one_clip.Asked")
        refuse_idle_controls(config["model"], words)
        refuse_missing(made.cfg, made.choices)
        asked = Asked.of(config)
        task, data = asked.wish().task(*captioned(config))
        return cls(Composition(made.cfg, made.choices, tuple(words)), config, task, data, asked.frames)

    def planned(self) -> Planned:
        return Planned.of(self.made, self.config, self.task, self.data, frames=self.frames)


def values(words: Sequence[str]) -> dict[str, Any]:
    """The configuration of an edit; and, by `choices`, what is chosen in each group."""
    return _values(tuple(words))


@cache
def tasks(start: tuple[str, ...]) -> tuple[EditTask, ...]:
    """What can be picked: the clips of the data, each with its own prompts."""
    return tuple(build(values(start)["data"], "data").tasks())


def usual(start: Sequence[str], method: str | None = None) -> dict[str, Any]:
    """What the page shows until something else is chosen, with a method and what it chooses in other groups."""
    said = list(start) if method is None else _with_choice(list(start), "method", method)
    found = values(said)
    chosen = {group: found["choices"].get(group) for group in GROUPS}
    numbers = {key: found["method"].get(key) for key in ("steps", "guidance")}
    return {**chosen, **numbers, "seed": found["seed"], "has_steps": "steps" in found["method"]}


def offered(group: str) -> list[str]:
    """As `freemask list` has them."""
    return [each.name for each in choices.group(group)]


def said_of(key: str, value: object) -> str:
    """A word of the command, with quotes only where they are needed."""
    if value is None:
        return f"{key}=null"
    if isinstance(value, float) and value == int(value):
        value = int(value)
    text = str(value)
    return f"{key}={text}" if PLAIN.fullmatch(text) else quoted(key, text)


def _with_choice(said: list[str], group: str, name: str) -> list[str]:
    """What was said of another option of the group does not hold for this one."""
    if values(said)["choices"].get(group) == name:
        return said
    return [each for each in said if _key(each).partition(".")[0] != group] + [f"{group}={name}"]


def _with_masks(said: list[str], masks: Sequence[str]) -> list[str]:
    if not masks:
        return said
    return [each for each in said if _key(each).partition(".")[0] != "mask"] + list(masks)


def _with_key(said: list[str], key: str, value: object) -> list[str]:
    return [each for each in said if _key(each) != key] + [said_of(key, value)]


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


@lru_cache(maxsize=COMPOSED)
def _values(words: tuple[str, ...]) -> dict[str, Any]:
    made = _composed(words)
    return {**plain(made.cfg), "choices": dict(made.choices)}


def _composed(words: Sequence[str]) -> Composed:
    with _HYDRA:
        return composed("edit", list(words))
