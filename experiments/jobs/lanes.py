"""The variants of a run at work: what each has still to do, and who is told of what was done."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.loggers.base import Guarded
from experiments.runs.garbage import seldom_collected
from experiments.runs.plan import Frozen, Launch, Plan
from experiments.runs.progress import Reporter
from experiments.runs.rows import RowIndex
from experiments.runs.store import RunStore
from freemask.types import EditTask

SAMPLE = 8


@dataclass(frozen=True)
class Lane:
    """A variant, its folder, and the last row of each of its tasks. `retry`: failures from before it are done again."""

    variant: Frozen
    store: RunStore
    index: RowIndex
    retry: str | None

    @classmethod
    def open(cls, variant: Frozen, launch: Launch) -> "Lane":
        store = RunStore.open(variant.folder(launch.run), variant.identity)
        index = RowIndex(store.folder)
        index.refresh()
        return cls(variant, store, index, launch.retry)

    def needs(self, task: str, retry: bool = True) -> bool:
        """Whether there is work; without `retry` a failure stays what it is."""
        last = self.index.last.get(task)
        if last is None:
            return True
        again = retry and self.retry is not None and last.finished < self.retry
        return again and last.status == "failed"

    def about(self) -> dict[str, Any]:
        """What its rows say of it."""
        name = self.variant.name
        return {"run": self.variant.identity.hash} | ({} if name is None else {"variant": name})

    def news(self) -> Iterator[tuple[dict[str, Any], dict[str, Path]]]:
        """Rows that others wrote since the last look, with their files."""
        for row in self.index.news():
            yield row, {name: self.store.folder / each for name, each in row.get("files", {}).items()}


@seldom_collected()
def open_lanes(plan: Plan, launch: Launch) -> list[Lane]:
    return [Lane.open(each, launch) for each in plan.variants]


def by_model(lanes: Sequence[Lane]) -> list[list[Lane]]:
    """Lanes that can share a loaded model."""
    groups: dict[str, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(json.dumps(lane.variant.config["model"], sort_keys=True), []).append(lane)
    return list(groups.values())


def kept(tasks: Sequence[EditTask], keep: str) -> Collection[str]:
    """The tasks whose videos, sheets and frames stay."""
    chosen = {"all": tasks, "sample": tasks[:SAMPLE], "none": ()}[keep]
    return {task.id for task in chosen}


@dataclass
class Ears:
    """Who is told about every row, and how many rows there will be."""

    reporter: Reporter
    logger: Guarded
    total: int
    count: int = 0

    def hear(self, row: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        self.logger.row(row, files)
        self.count += 1
        said = row["message"].splitlines()[0] if row["message"] else f"{sum(row['seconds'].values()):.1f} s"
        who = f"{row['variant']}: " if "variant" in row else ""
        line = f"[{self.count}/{self.total}] {who}{row['task']} {row['status']} ({said})"
        self.reporter.task_done(line)
