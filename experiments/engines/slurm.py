"""A SLURM array over the frozen plan, by submitit. A job is a worker: its share of the items, then what others left."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.engines.base import Engine, View, at_least, left, needed
from experiments.runs.plan import Launch
from freemask.errors import UserError, nearest

CLUSTERS = ("slurm", "local")


@dataclass(frozen=True)
class Slurm(Engine):
    array: int = 4
    at_once: int | None = None
    minutes: int = 240
    cpus: int = 4
    gpus: int = 1
    memory_gb: float | int = 32
    partition: str | None = None
    account: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    setup: Sequence[str] = ()
    cluster: str | None = None
    wait: bool = False

    def __post_init__(self) -> None:
        for key, value in (("array", self.array), ("minutes", self.minutes), ("cpus", self.cpus)):
            at_least(f"runner.{key}", value, 1)
        at_least("runner.gpus", self.gpus, 0)
        at_least("runner.memory_gb", self.memory_gb, 0)
        at_least("runner.at_once", self.at_once, 1)
        if self.cluster is not None and self.cluster not in CLUSTERS:
            known = nearest(self.cluster, CLUSTERS)
            raise UserError("there is no such cluster", came=f"runner.cluster={self.cluster}", expected=known)

    def work(self, view: View) -> bool:
        submitit = needed("submitit", "slurm")
        folder = view.launch.run / "jobs"
        executor = self._executor(submitit, folder, view.launch.run.name)
        count = min(self.array, left(view.lanes, view.items))
        try:
            jobs = executor.map_array(Share(view.launch, count), range(count))
        except submitit.core.utils.FailedJobError as error:
            raise UserError(
                "sbatch refuses the array",
                came=str(error).strip(),
                expected="settings that this cluster knows",
                todo="runner.partition=..., runner.account=..., runner.more={...}",
            ) from error
        named = f"{jobs[0].job_id} ... {jobs[-1].job_id}" if len(jobs) > 1 else jobs[0].job_id
        view.say(f"submitted {len(jobs)} job{'s' * (len(jobs) > 1)} ({named}); their output: {folder}")
        if not self.wait:
            view.say(f"freemask status {view.launch.run} shows how far they are")
            view.say("the same command makes tables and page when they have ended")
            return False
        view.watch(lambda: not all(job.done() for job in jobs))
        for line in _told(jobs):
            view.say(line)
        return True

    def _executor(self, submitit: Any, folder: Path, name: str) -> Any:
        cluster = self.cluster or "slurm"
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        except (RuntimeError, OSError) as error:
            raise UserError(
                "there is no SLURM here",
                came=str(error).splitlines()[0],
                expected="sbatch on the path",
                todo="start it on a login node, or runner=local, or runner.cluster=local to try it",
            ) from error
        wanted = {"timeout_min": self.minutes, "gpus_per_node": self.gpus, "tasks_per_node": 1, "name": name}
        if cluster == "slurm":
            asked = {"partition": self.partition, "account": self.account, "setup": list(self.setup) or None}
            asked |= {"array_parallelism": self.at_once, "additional_parameters": dict(self.more) or None}
            wanted |= {"cpus_per_task": self.cpus, "mem_gb": self.memory_gb}
            wanted |= {f"slurm_{key}": value for key, value in asked.items() if value is not None}
        executor.update_parameters(**wanted)
        return executor


@dataclass(frozen=True)
class Share:
    """What a job does. Stopped by the clock or by somebody more important, it is queued again and goes on."""

    launch: Launch
    count: int

    def __call__(self, index: int) -> None:
        from experiments.jobs.worker import work

        work(self.launch, "slurm", index, self.count)

    def checkpoint(self, index: int) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, index)


def _told(jobs: Sequence[Any]) -> list[str]:
    """A line for each job that did not end well; the first mistake that the user can mend is raised."""
    lines = []
    for job in jobs:
        error: BaseException | None = None
        with suppress(Exception):
            error = job.exception()
        if error is None:
            continue
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        lines.append(f"note: job {job.job_id} did not end well ({last[0]}); its output: {job.paths.stderr}")
    return lines
