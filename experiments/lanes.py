"""The variants of a run at work: what each has still to do, and the worker that takes them through one task."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.bench import Bench, keep_files
from experiments.identity import Identity
from experiments.loggers.base import Guarded
from experiments.progress import Reporter
from experiments.store import RunStore
from experiments.variants import Variant
from freemask.types import DataSource, EditTask


@dataclass(frozen=True)
class Lane:
    """A variant, its folder, and the tasks that need nothing more there."""

    variant: Variant
    identity: Identity
    store: RunStore
    finished: Collection[str] = field(default_factory=set)

    @classmethod
    def open(cls, variant: Variant, identity: Identity, run: Path, retry: str | None) -> "Lane":
        store = RunStore.open(variant.folder(run), identity)
        return cls(variant, identity, store, store.done() | (set() if retry else store.failed()))

    def needs(self, task: EditTask) -> bool:
        return task.id not in self.finished

    def about(self) -> dict[str, Any]:
        """What its rows say of it."""
        name = self.variant.name
        return {"run": self.identity.hash} | ({} if name is None else {"variant": name})


def by_model(lanes: Sequence[Lane]) -> list[list[Lane]]:
    """Lanes that can share a loaded model."""
    groups: dict[str, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(json.dumps(lane.variant.config["model"], sort_keys=True), []).append(lane)
    return list(groups.values())


@dataclass
class Ears:
    """Who is told about every row, of which tasks the files are kept, and how many rows there will be."""

    reporter: Reporter
    logger: Guarded
    keep: Collection[str]
    total: int
    count: int = 0

    def hear(self, row: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        self.logger.row(row, files)
        self.count += 1
        said = row["message"].splitlines()[0] if row["message"] else f"{sum(row['seconds'].values()):.1f} s"
        who = f"{row['variant']}: " if "variant" in row else ""
        line = f"[{self.count}/{self.total}] {who}{row['task']} {row['status']} ({said})"
        self.reporter.task_done(line)


@dataclass
class Worker:
    """Does one task after the other, each in every lane that needs it: edit, files, row, log. So the variants keep
    pace, and a table of a half-finished run compares them on the same tasks."""

    lanes: Sequence[tuple[Lane, Bench]]
    data: DataSource
    writer: str
    ears: Ears

    def __call__(self, task: EditTask) -> None:
        for lane, bench in self.lanes:
            if lane.needs(task):
                self._do(task, lane.store, bench)

    def _do(self, task: EditTask, store: RunStore, bench: Bench) -> None:
        outcome = bench.edit(task, self.data, self.ears.reporter.stage)
        files = keep_files(store, outcome) if task.id in self.ears.keep else {}
        within = {name: path.relative_to(store.folder).as_posix() for name, path in files.items()}
        row: dict[str, Any] = outcome.row | {"files": within}
        store.append(self.writer, row)
        self.ears.hear(row, files)
