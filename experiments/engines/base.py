"""What an engine is given, and what engines have in common."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.jobs.job import Lane
from experiments.loggers.base import Guarded
from experiments.runs.plan import Item, Launch
from experiments.runs.progress import Reporter
from experiments.runs.rows import Row
from freemask.errors import UserError

LOOK = 0.5  # seconds between two looks at the rows


@dataclass
class View:
    """One launch, seen from the process that the user started: it tells the screen and the loggers of every row.
    `total` rows are awaited, `count` have come."""

    launch: Launch
    lanes: Sequence[Lane]
    items: Sequence[Item]
    reporter: Reporter
    logger: Guarded
    total: int
    count: int = 0

    def hear(self, row: Row, files: Mapping[str, Path]) -> None:
        self.logger.row(row, files)
        self.count += 1
        told = row.get("evaluation") or row  # of what was measured again, how that went
        message = str(told.get("message", ""))
        spent = sum(dict(told.get("seconds") or {}).values()) + float(told.get("measuring") or 0)
        said = message.splitlines()[0] if message else f"{spent:.1f} s"
        variant = f"{row['variant']}: " if "variant" in row else ""
        line = f"[{self.count}/{self.total}] {variant}{row['task']} {told['status']} ({said})"
        self.reporter.task_done(line)

    def look(self) -> None:
        """Tells of every row that came since the last look, no matter who wrote it."""
        for lane in self.lanes:
            for row in lane.index.news():
                files = {name: lane.store.folder / each for name, each in row.get("files", {}).items()}
                self.hear(row, files)

    def watch(self, busy: Callable[[], bool]) -> None:
        while busy():
            self.look()
            time.sleep(LOOK)
        self.look()

    def say(self, line: str) -> None:
        self.reporter.say(line)


class Engine(ABC):
    @property
    def rank(self) -> int:
        """0 for the process that speaks to the user."""
        return 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Which items this process will count as its own."""
        return items

    @abstractmethod
    def work(self, view: View) -> bool:
        """False where the work goes on after this process has ended."""


def left(lanes: Sequence[Lane], items: Sequence[Item]) -> int:
    """How many rows are to be made."""
    return sum(lane.needs(item) for lane in lanes for item in items)


def needed(module: str, extra: str, what: str = "") -> Any:
    """A library that only this engine needs, or that `what` needs."""
    try:
        return import_module(module)
    except ImportError as error:
        wrong = f"{what or f'runner={extra}'} needs {module}, which is not installed"
        todo = f'pip install "freemask[{extra}]" (in a checkout: pip install -e ".[{extra}]")'
        raise UserError(wrong, came=error, expected=f"freemask[{extra}]", todo=todo) from error


def at_least(key: str, value: float | None, least: float) -> None:
    if value is not None and value < least:
        raise UserError(f"{key} is too small", came=f"{key}={value}", expected=f"{least} or more")
