"""What an engine is given, and what engines have in common."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from experiments.engines.local import Work
from experiments.jobs.lanes import Ears, Lane
from experiments.runs.plan import Launch
from freemask.errors import UserError
from freemask.types import EditTask

LOOK = 0.5  # seconds between two looks at the rows


@dataclass(frozen=True)
class Floor:
    """One launch seen from the process that the user started."""

    launch: Launch
    lanes: Sequence[Lane]
    tasks: Sequence[EditTask]
    ears: Ears

    def left(self) -> int:
        return sum(lane.needs(task.id) for lane in self.lanes for task in self.tasks)

    def look(self) -> None:
        """Tells of every row that came since the last look, whoever wrote it."""
        for lane in self.lanes:
            for row, files in lane.news():
                self.ears.hear(row, files)

    def watch(self, busy: Callable[[], bool]) -> None:
        while busy():
            self.look()
            time.sleep(LOOK)
        self.look()

    def say(self, line: str) -> None:
        self.ears.reporter.say(line)


class Engine(Protocol):
    rank: int
    """0 for the process that speaks to the user."""

    def share(self, tasks: Sequence[EditTask]) -> Sequence[EditTask]:
        """Which tasks this process will count as its own."""
        ...

    def work(self, floor: Floor) -> bool:
        """False where the work goes on after this process has ended."""
        ...


class Whole:
    """For engines that do all that is left, and nothing but runs."""

    rank = 0

    def share(self, tasks: Sequence[EditTask]) -> Sequence[EditTask]:
        return tasks

    def __call__(self, tasks: Sequence[EditTask], make: Callable[[str], Work]) -> None:
        name = type(self).__name__.lower()
        raise UserError(
            f"runner={name} is for freemask run",
            came=f"runner={name}",
            expected="runner=local",
            todo="several processes by hand: runner.workers=N and runner.worker=0, 1, ... N-1",
        )


def needed(module: str, extra: str) -> Any:
    """A library that only this engine needs."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"runner={extra} needs {module}, which is not installed",
            came=error,
            expected=f"freemask[{extra}]",
            todo=f'pip install "freemask[{extra}]" (in a checkout: pip install -e ".[{extra}]")',
        ) from error


def at_least(key: str, value: float | int, least: float | int) -> None:
    if value < least:
        raise UserError(f"{key} is too small", came=f"{key}={value}", expected=f"{least} or more")
