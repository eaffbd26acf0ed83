"""Engines: they decide which worker does which task. The rows do not know which engine ran."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from freemask.errors import UserError
from freemask.types import EditTask

# make(writer) gives the function that does one task and appends its row under that writer's name
Work = Callable[[EditTask], None]


class Runner(Protocol):
    def share(self, tasks: Sequence[EditTask]) -> Sequence[EditTask]: ...

    def __call__(self, tasks: Sequence[EditTask], make: Callable[[str], Work]) -> None: ...


@dataclass(frozen=True)
class Local:
    """This process alone, or as worker `worker` of `workers` processes started by hand."""

    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.worker < self.workers:
            raise UserError(
                "there is no such worker",
                came=f"runner.worker={self.worker} runner.workers={self.workers}",
                expected=f"worker from 0 to {max(self.workers, 1) - 1}",
            )

    def share(self, tasks: Sequence[EditTask]) -> Sequence[EditTask]:
        """Of the full ordered list; finished tasks are skipped afterwards, never before."""
        return tasks[self.worker :: self.workers]

    def __call__(self, tasks: Sequence[EditTask], make: Callable[[str], Work]) -> None:
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        work = make(f"local-{self.worker}-{started}-{os.getpid()}")
        for task in tasks:
            work(task)
