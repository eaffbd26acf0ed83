"""The runner in one process, and what anything that does tasks one after the other asks of a runner."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from freemask.errors import UserError
from freemask.types import EditTask

if TYPE_CHECKING:
    from experiments.engines.base import Floor

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
    rank = 0

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

    def work(self, floor: "Floor") -> bool:
        """In this process, in sight of the user."""
        from experiments.jobs.worker import Crew, Owner

        ears = floor.ears
        owner = Owner.me("local", self.worker)
        with Crew(floor.launch, owner, hear=ears.hear, progress=ears.reporter.stage) as crew:
            crew.share(self.share(crew.plan.tasks))
        return True

    def __call__(self, tasks: Sequence[EditTask], make: Callable[[str], Work]) -> None:
        from experiments.runs.presence import Owner

        work = make(Owner.me("local", self.worker).writer)
        for task in tasks:
            work(task)
