"""What a kind of work is: items, and a way to do one of them. Everything else (plans, engines, claims, resuming, rows,
progress) is the same for all kinds.

A kind of work is a module of experiments.jobs with a `JOB`."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from experiments.runs import environment
from experiments.runs.plan import Item, Launch, Plan, Variant
from experiments.runs.rows import Brief, Row, RowIndex, brief
from experiments.runs.store import RunStore

if TYPE_CHECKING:
    from freemask.types import Progress

TOLD = (
    "clip",
    "kind",
    "level",
    "source",
    "target",
    "words",
    "edits",
)  # of a task, in its row; some have no level


@dataclass(frozen=True)
class Lane:
    """A variant with its folder, and the last row of each of its items in brief."""

    variant: Variant
    store: RunStore
    index: RowIndex
    launch: Launch

    @classmethod
    def open(cls, variant: Variant, launch: Launch, brief: Callable[[Row], Brief] = brief) -> "Lane":
        store = RunStore.open(variant.folder(launch.run), variant.identity)
        index = RowIndex(store.folder, brief)
        index.refresh()
        return cls(variant, store, index, launch)

    def needs(self, item: Item, again: bool = True) -> bool:
        """Whether there is work; without `again` what was done or has failed stays what it is."""
        last, mark = self.index.last.get(item.id), item.mark(self.variant.name)
        if mark is None:
            return False
        if last is None or last.mark != mark:
            return True
        older = again and self.launch.redo is not None and last.finished < self.launch.redo
        return older and (self.launch.whole or last.status == "failed")

    def head(self, item: Item) -> Row:
        return head(item, self.variant)


@dataclass
class Done:
    """What an item came to: its row, files by kind, and what the columns of its metrics mean. When it was finished, by
    whom, and the names of the files are entered where the row is written."""

    row: Row
    files: Mapping[str, Path] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)


class Loaded(Protocol):
    """What a process has in memory to do the items of the variants that share it."""

    def do(self, place: int, item: Item, progress: "Progress") -> Done:
        """One item in the variant at that place of those it was loaded for. Never raises for the item's own fault."""
        ...


class Job(ABC):
    def brief(self, row: Row) -> Brief:
        """What of a row decides whether there is work left."""
        return brief(row)

    def group(self, variant: Variant) -> str:
        """Variants of equal groups share what is loaded: the model, where there is one."""
        return json.dumps(variant.config.get("model"), sort_keys=True)

    @abstractmethod
    def load(self, lanes: Sequence[Lane], plan: Plan, device: str | None, progress: "Progress") -> Loaded:
        """`device` overrides where the variants' settings put their model."""


def job_of(plan: Plan) -> Job:
    """By its module's name; with dots it is the whole name of a module elsewhere."""
    return import_module(plan.job if "." in plan.job else f"experiments.jobs.{plan.job}").JOB


def open_lanes(plan: Plan, launch: Launch) -> list[Lane]:
    return [Lane.open(each, launch, job_of(plan).brief) for each in plan.variants]


def kept(items: Iterable[Item], keep: str) -> set[str]:
    """The items whose files stay."""
    ids = [item.id for item in items]
    return set({"all": ids, "sample": ids[:8], "none": ()}[keep])


def head(item: Item, variant: Variant) -> Row:
    """What a row says before anything is known. It is a failure without numbers until it is told otherwise."""
    config, choices = variant.config, dict(variant.choices)
    row = {"task": item.id, "status": "failed", "message": "", "where": ""}
    row |= {key: item.data[key] for key in TOLD if key in item.data}
    row |= {"guessed": item.data["guessed"]} if item.data.get("guessed") else {}
    row |= {"method": choices.get("method"), "choices": choices}
    row |= {} if variant.name is None else {"variant": variant.name}
    row |= {"run": variant.identity.hash, "mark": item.mark(variant.name) or "", "seed": config.get("seed")}
    row |= maker()
    row |= {"steps": (config.get("method") or {}).get("steps", config.get("steps")), "model": None}
    row |= {"metrics": {}, "facts": {}, "warnings": []}
    row |= {"device": "", "dtype": None, "seconds": {}, "peak_rss_gb": None, "peak_gpu_gb": None, "files": {}}
    return cast(Row, row)


def maker() -> dict[str, Any]:
    """The code that makes the numbers."""
    commit, dirty = environment.commit()
    return {"commit": commit, "dirty": dirty, "versions": environment.versions()}
