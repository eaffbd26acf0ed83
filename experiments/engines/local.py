"""The engine of one process, in sight of the user."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.engines.base import Engine, View
from experiments.jobs.worker import Worker
from experiments.runs.claims import writer_name
from experiments.runs.plan import Item
from freemask.errors import UserError


@dataclass(frozen=True)
class Local(Engine):
    """This process alone, or as worker `worker` of `workers` processes started by hand."""

    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.worker < self.workers:
            wrong = "there is no such worker"
            came = f"runner.worker={self.worker} runner.workers={self.workers}"
            raise UserError(wrong, came=came, expected=f"worker from 0 to {max(self.workers, 1) - 1}")

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Of the full ordered list; finished items are skipped afterwards, never before."""
        return items[self.worker :: self.workers]

    def work(self, view: View) -> bool:
        writer = writer_name("local", self.worker)
        with Worker(view.launch, writer, hear=view.hear, progress=view.reporter.stage) as worker:
            worker.share(self.share(worker.plan.items))
        return True
