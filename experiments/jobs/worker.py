"""A process at work on a frozen plan: `python -m experiments.jobs.worker RUN/plans/DIGEST.json --share 0/8`.

Every engine ends here. A worker reads the plan and nothing else, claims each task before it begins, and appends a row
when it has finished; so it may be started, killed and started again anywhere, beside any number of others."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

from experiments.config.build import build
from experiments.jobs.bench import Bench, Outcome, keep_files
from experiments.jobs.benches import fit, make_benches
from experiments.jobs.lanes import Lane, by_model, kept, open_lanes
from experiments.runs.claims import Claims
from experiments.runs.plan import Launch, Plan
from experiments.runs.presence import Desk, Owner
from freemask.errors import UserError
from freemask.types import DataSource, EditTask, Progress, silent

Hear = Callable[[Mapping[str, Any], Mapping[str, Path]], None]


def unheard(row: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    """For workers that somebody else watches through the rows."""


class Crew:
    """The lanes of a plan, and one loaded model at a time. `device` overrides where the models' settings put them."""

    def __init__(
        self,
        launch: Launch,
        owner: Owner,
        *,
        hear: Hear = unheard,
        progress: Progress = silent,
        device: str | None = None,
    ) -> None:
        self.plan = Plan.read(launch.plan)
        self.groups = by_model(open_lanes(self.plan, launch))
        self._tasks = {task.id: task for task in self.plan.tasks}
        self._keep = kept(self.plan.tasks, launch.keep)
        self._hear, self._progress, self._device = hear, progress, device
        self._desk = Desk(launch.run, owner, {"device": device})
        self._claims: dict[str | None, Claims] = {}
        self._tried: set[tuple[str | None, str]] = set()
        self._loaded: tuple[int, DataSource, list[Bench]] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "Crew":
        self._stack.enter_context(self._desk)
        self._desk.tidy()
        for lane in (lane for group in self.groups for lane in group):
            self._claims[lane.variant.name] = claims = Claims(lane.store.folder, self._desk)
            claims.sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def share(self, mine: Sequence[EditTask], others: Sequence[EditTask] = ()) -> None:
        """Own tasks, then whatever nobody has begun of the others'; again, until there is nothing left to take.
        So what a worker that dies meanwhile had in hand is taken up by those that live."""
        for number in range(len(self.groups)):
            while True:
                done = [self.do(number, task.id) for task in mine]
                done += [self.do(number, task.id, retry=False) for task in others]
                if not any(done):
                    break

    def do(self, group: int, task: str, *, retry: bool = True) -> int:
        """One task in every lane of a group that needs it; how many did. So the variants keep pace, and a table of
        a half-finished run compares them on the same tasks."""
        done = 0
        for place, lane in enumerate(self.groups[group]):
            key = (lane.variant.name, task)
            if key in self._tried or not lane.needs(task, retry) or not self._claims[key[0]].take(task):
                continue
            try:
                lane.index.refresh()  # somebody may have finished it since the last look
                if lane.needs(task, retry):
                    self._tried.add(key)
                    self._edit(group, place, self._tasks[task])
                    done += 1
            finally:
                self._claims[lane.variant.name].drop(task)
        return done

    def _edit(self, group: int, place: int, task: EditTask) -> None:
        data, benches = self._benches(group)
        lane = self.groups[group][place]
        outcome = benches[place].edit(task, data, self._progress)
        files = self._files(lane, outcome) if task.id in self._keep else {}
        within = {name: path.relative_to(lane.store.folder).as_posix() for name, path in files.items()}
        row: dict[str, Any] = outcome.row | {"files": within}
        lane.store.append(self._desk.owner.writer, row)
        self._hear(row, files)

    def _files(self, lane: Lane, outcome: Outcome) -> dict[str, Path]:
        started = perf_counter()
        try:
            return keep_files(lane.store, outcome)
        except OSError as error:
            raise UserError(
                "the files of an edit cannot be written",
                came=f"{lane.store.folder}: {error.strerror or error}",
                expected="a folder with space left in it",
                todo="make room, or keep=none; then the same command goes on",
            ) from error
        finally:
            outcome.row["seconds"]["files"] = perf_counter() - started

    def _benches(self, group: int) -> tuple[DataSource, list[Bench]]:
        if self._loaded is None or self._loaded[0] != group:
            self._progress("loading the model", 0, 1)
            self._loaded = None  # the last model goes before the next one comes
            lanes = self.groups[group]
            benches = make_benches([(self._placed(lane), lane.about()) for lane in lanes])
            data = build(lanes[0].variant.config["data"], "data")
            fit(data, benches[0].backbone)
            self._loaded = group, data, benches
        return self._loaded[1:]

    def _placed(self, lane: Lane) -> Mapping[str, Any]:
        config = lane.variant.config
        if self._device is None:
            return config
        return {**config, "model": {**config["model"], "device": self._device}}


def part(tasks: Sequence[EditTask], index: int, count: int) -> tuple[list[EditTask], list[EditTask]]:
    """Share `index` of `count` of the full ordered list, and the rest: the other shares' last tasks first, since those
    are the ones that nobody will reach soon."""
    mine = list(tasks[index::count])
    rest = [task for place, task in enumerate(tasks) if place % count != index]
    return mine, rest[::-1]


def work(launch: Launch, engine: str, index: int, count: int, **sight: Any) -> None:
    """What a process does that an engine started: its share, then what is left of the others'. `sight` goes to Crew."""
    if launch.home.is_dir():
        os.chdir(launch.home)
    with Crew(launch, Owner.me(engine, index), **sight) as crew:
        crew.share(*part(crew.plan.tasks, index, count))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.jobs.worker", description=__doc__)
    parser.add_argument("plan", type=Path, help="RUN/plans/DIGEST.json, as `freemask run` wrote it")
    parser.add_argument(
        "--share", default="0/1", metavar="K/N", help="share K of N, and what is left of the others"
    )
    parser.add_argument("--task", help="this task alone, in every variant")
    parser.add_argument("--keep", choices=("all", "sample", "none"), default="all")
    parser.add_argument(
        "--retry", metavar="TIME", help="redo what failed before this time (2026-01-31T12:00:00)"
    )
    given = parser.parse_args(words)
    index, _, count = given.share.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        parser.error("--share takes K/N with K from 0 to N-1")
    launch = Launch(given.plan.resolve(), given.retry, given.keep, Path.cwd())
    try:
        if given.task is None:
            work(launch, "worker", int(index), int(count))
            return 0
        with Crew(launch, Owner.me("worker", int(index))) as crew:
            if given.task not in {task.id for task in crew.plan.tasks}:
                raise UserError("the plan has no such task", came=given.task, expected="an id of its list")
            for number in range(len(crew.groups)):
                crew.do(number, given.task)
        return 0
    except UserError as error:
        print(f"freemask: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
