"""Bars on a terminal, plain lines elsewhere: one bar for the tasks, one for the stage of the task in hand."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich import progress
from rich.console import Console

Thing = TypeVar("Thing")


class Reporter:
    def __init__(self, bars: progress.Progress, total: int, title: str) -> None:
        self._bars = bars
        self._tasks = bars.add_task(title, total=total, visible=total > 1)
        self._stage = bars.add_task("", total=None, visible=False)

    def stage(self, name: str, done: int, total: int) -> None:
        """What long loops call (`freemask.types.Progress`)."""
        self._bars.update(self._stage, description=f"  {name}", completed=done, total=total, visible=True)

    def busy(self, name: str) -> None:
        """A stage of unknown length."""
        self._bars.update(self._stage, description=f"  {name}", completed=0, total=None, visible=True)

    def task_done(self, line: str) -> None:
        self._bars.advance(self._tasks)
        self._bars.update(self._stage, visible=False)
        self.say(line)

    def say(self, line: str) -> None:
        self._bars.console.print(line, highlight=False, markup=False, soft_wrap=True)


def tracked(each: Iterable[Thing], total: int, title: str) -> Iterator[Thing]:
    """The same things, with a bar for how many have come."""
    with reporting(1) as reporter:
        for count, one in enumerate(each, 1):
            yield one
            reporter.stage(title, count, total)


@contextmanager
def reporting(total: int, title: str = "tasks") -> Iterator[Reporter]:
    console = Console(stderr=True)
    named = progress.TextColumn("{task.description}", markup=False)
    times = (progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
    columns = (named, progress.BarColumn(), progress.MofNCompleteColumn(), *times)
    with progress.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        yield Reporter(bars, total, title)
