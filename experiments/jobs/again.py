"""The metrics of a run's stored frames, measured again: new rows beside the old ones, which stay."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from evaluation.suite import Suite
from experiments.config.build import build
from experiments.jobs.stored import Stored, complete, measured_again, task_of, writer
from experiments.jobs.truth import Truth
from experiments.report.results import Results, finish
from experiments.report.sources import find_run
from experiments.runs.on_disk import RunOnDisk, open_data
from experiments.runs.progress import Reporter, reporting
from experiments.runs.rows import file_name
from freemask.errors import UserError
from freemask.types import DataSource

NAMED = 20  # tasks that are named in one line


@dataclass
class Left:
    """Tasks that got no new row, by the reason why."""

    reasons: dict[str, list[str]] = field(default_factory=dict)

    def out(self, who: str, why: str) -> None:
        self.reasons.setdefault(why.splitlines()[0], []).append(who)

    def lines(self) -> Iterable[str]:
        for why, tasks in self.reasons.items():
            more = f" and {len(tasks) - NAMED} more" if len(tasks) > NAMED else ""
            yield f"not measured, {len(tasks)}: {why}: {', '.join(tasks[:NAMED])}{more}"


def measure_run(config: Mapping[str, Any], asked: str, *, own_data: bool) -> int:
    run = RunOnDisk.open(find_run(asked, config["paths"]["runs"]))
    suite = Suite(build(config["metric"], "metric"))
    sources = Sources(partial(open_data, run, config["data"], own_data=own_data))
    rows, left = run.rows(), Left()
    todo, ready = _todo(run, rows, suite, left, redo=config["redo"])
    if ready:
        print(f"{ready} have every number of this suite already (redo=true measures them again)")
    with reporting(sum(map(len, todo.values())), "edits") as reporter:
        work = Work(sources, suite, reporter, left, sum(map(len, todo.values())))
        for stored in todo.values():
            work.measure(stored)
    for line in left.lines():
        print(line)
    wanted = [task_of(next(iter(each.values()))) for _, each in sorted(rows.items())]
    results = Results(run.folder, run.stores, run.reference)
    finish(results, wanted, results.rows(wanted))
    print(f"{work.count} measured, {sum(map(len, left.reasons.values()))} not")
    return 0 if work.count or ready else 1


@dataclass
class Sources:
    """The run's data. Clips from files come in the size in which a row's model took them: a source for each size."""

    opened: Callable[[], DataSource]

    def __post_init__(self) -> None:
        first = self.opened()
        self.known = {task.id: task for task in first.tasks()}
        self.geometry = getattr(first, "geometry", None)
        self.each: dict[tuple[int, ...] | None, DataSource] = {None: first}

    def truth(self, row: Mapping[str, Any]) -> Truth:
        task = self.known.get(row["task"])
        if task is None:
            raise UserError("the data has no such task")
        told, known = task_of(row), (task.clip, task.kind, task.source, task.target, dict(task.words))
        if (told.clip, told.kind, told.source, told.target, dict(told.words)) != known:
            raise UserError("the data has another task of this name")
        return Truth.of(self._sized(row), task)

    def _sized(self, row: Mapping[str, Any]) -> DataSource:
        if self.geometry is None:
            return self.each[None]
        height, width = row["frames"][-2:]
        if (height, width) not in self.each:
            made = self.opened()
            sized = replace(self.geometry, short_side=None, height=height, width=width, multiple=1)
            vars(made)["geometry"] = sized
            self.each[height, width] = made
        return self.each[height, width]


@dataclass
class Work:
    sources: Sources
    suite: Suite
    reporter: Reporter
    left: Left
    total: int
    count: int = 0

    def __post_init__(self) -> None:
        self.writer = writer()

    def measure(self, stored: Sequence[Stored]) -> None:
        """All variants of one task: its source is read once for each size."""
        truths: dict[str, Truth] = {}
        for each in stored:
            try:
                size = str(each.row.get("frames"))
                if size not in truths:
                    truths[size] = self.sources.truth(each.row)
                self._one(each, truths[size])
            except Exception as error:
                said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                self.left.out(each.who, said or type(error).__name__)

    def _one(self, stored: Stored, truth: Truth) -> None:
        frames, mask = stored.read()
        task = self.sources.known[stored.row["task"]]
        row = measured_again(stored.row, self.suite(truth.case(task, frames, mask)), self.suite)
        stored.store.append(self.writer, row)
        self.count += 1
        self.reporter.task_done(f"[{self.count}/{self.total}] {stored.who} measured")


def _todo(
    run: RunOnDisk,
    rows: Mapping[str, Mapping[str | None, dict[str, Any]]],
    suite: Suite,
    left: Left,
    *,
    redo: bool,
) -> tuple[dict[str, list[Stored]], int]:
    """By task what is to be measured, and how many edits have all numbers already."""
    todo: dict[str, list[Stored]] = {}
    ready = 0
    for task, variants in sorted(rows.items()):
        for name, row in variants.items():
            store = run.stores[name]
            path = store.folder / "frames" / f"{file_name(task)}.npz"
            stored = Stored(store, row, path, task if name is None else f"{name}/{task}")
            if row["status"] != "done":
                left.out(stored.who, "the edit failed, there is nothing to measure")
            elif not redo and complete(row, suite):
                ready += 1
            elif not path.is_file():
                left.out(stored.who, "its frames were not kept (keep=all keeps them)")
            else:
                todo.setdefault(task, []).append(stored)
    return todo, ready
