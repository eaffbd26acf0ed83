"""A pool of Ray actors: each item goes to an actor that is free, and an actor that dies is replaced."""

import os
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from experiments.engines.base import LOOK, Engine, View, at_least, needed
from experiments.jobs.job import Lane, job_of
from experiments.jobs.worker import Worker, grouped
from experiments.runs.claims import writer_name
from experiments.runs.plan import Item, Launch, Plan
from experiments.runs.rows import now
from freemask.errors import UserError

# The place of a group of lanes that share a model, and an item.
Unit = tuple[int, str]


@dataclass(frozen=True)
class Ray(Engine):
    workers: int = 2
    cpus: float | int = 1
    gpus: float | int = 0
    address: str | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        at_least("runner.workers", self.workers, 1)
        for key, value in (("cpus", self.cpus), ("gpus", self.gpus), ("retries", self.retries)):
            at_least(f"runner.{key}", value, 0)

    def work(self, view: View) -> bool:
        ray = needed("ray", "ray")
        groups = grouped(job_of(Plan.read(view.launch.plan)), view.lanes)
        units = [
            (number, item.id)
            for number, lanes in enumerate(groups)
            for item in view.items
            if any(lane.needs(item) for lane in lanes)
        ]
        with self._cluster(ray):
            self._refuse_too_much(ray)
            pool, items = Pool(ray, self, view, deque(units)), {item.id: item for item in view.items}
            for number, item in pool.run(min(self.workers, len(units))):
                for lane in groups[number]:
                    _give_up(lane, items[item], self.retries)
            view.look()
        return True

    @contextmanager
    def _cluster(self, ray: Any) -> Iterator[None]:
        cpus = max(1, round(self.workers * self.cpus))
        here: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False}
        given = here if self.address is None else {"address": self.address}
        try:
            ray.init(**given, log_to_driver=False, logging_level="error", configure_logging=False)
        except Exception as error:  # plain ones: for instance where a busy machine starts it too slowly
            raise UserError(
                "Ray does not start",
                came=(str(error).splitlines() or [type(error).__name__])[0],
                expected="runner.address of a cluster that runs, or null",
                todo="the same command again, or runner=local",
            ) from error
        try:
            yield
        finally:
            ray.shutdown()

    def _refuse_too_much(self, ray: Any) -> None:
        """Ray would wait forever for what no machine of the cluster has."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for key, wanted in (("CPU", self.cpus), ("GPU", self.gpus)):
            most = max((node.get(key, 0) for node in nodes), default=0)
            if wanted > most:
                wrong = f"no machine has so much for one worker: {key}"
                raise UserError(wrong, came=f"runner.{key.lower()}s={wanted}", expected=f"at most {most:g}")


class Actor:
    """What runs in a Ray actor: a worker that does one unit after the other."""

    def __init__(self, launch: Launch, index: int) -> None:
        if launch.home.is_dir():
            os.chdir(launch.home)
        self._worker = Worker(launch, writer_name("ray", index)).__enter__()

    def ready(self) -> None: ...

    def do(self, unit: Unit) -> UserError | None:
        """A mistake that the user can mend comes back as itself."""
        try:
            self._worker.do(*unit)
        except UserError as error:
            return error
        return None

    def leave(self) -> None:
        self._worker.__exit__()


@dataclass
class Pool:
    """Units wait, actors work. A unit whose actor died goes to the next that is free, `retries` times."""

    ray: Any
    wish: Ray
    view: View
    units: deque[Unit]
    deaths: Counter[Unit] = field(default_factory=Counter)
    started: int = 0

    def run(self, size: int) -> Iterator[Unit]:
        """Does everything; hands out units that were given up."""
        doing: dict[Any, tuple[Any, Unit | None]] = {}
        for _ in range(size):
            doing.update([self._hire()])
        while doing:
            over, _ = self.ray.wait(list(doing), timeout=LOOK)
            self.view.look()
            for reference in over:
                actor, unit = doing.pop(reference)
                alive = self._answered(reference)
                if not alive and unit is not None:
                    self.deaths[unit] += 1
                    if self.deaths[unit] > self.wish.retries:
                        yield unit
                    else:
                        self.units.appendleft(unit)
                if self.units and alive:
                    unit = self.units.popleft()
                    doing[actor.do.remote(unit)] = actor, unit
                elif self.units:
                    doing.update([self._hire()])
                elif alive:
                    self._dismiss(actor)

    def _hire(self) -> tuple[Any, tuple[Any, Unit | None]]:
        if self.started > 2 * (self.wish.workers + self.wish.retries) + sum(self.deaths.values()):
            raise UserError("Ray's workers die before they begin", came=f"{self.started} were started")
        made = self.ray.remote(Actor).options(
            num_cpus=self.wish.cpus, num_gpus=self.wish.gpus, max_restarts=0
        )
        actor = made.remote(self.view.launch, self.started)
        self.started += 1
        return actor.ready.remote(), (actor, None)

    def _answered(self, reference: Any) -> bool:
        """False where the actor is dead; a mistake in what it was told to do ends the run."""
        try:
            error = self.ray.get(reference)
        except self.ray.exceptions.RayActorError as died:
            self.view.say(f"note: a worker died and is replaced ({str(died).splitlines()[0]})")
            return False
        if error is not None:
            raise error
        return True

    def _dismiss(self, actor: Any) -> None:
        self.ray.wait([actor.leave.remote()], timeout=10)
        self.ray.kill(actor)


def _give_up(lane: Lane, item: Item, retries: int) -> None:
    """An item that kills its workers is a failure like others, so that the run comes to an end."""
    if lane.needs(item):
        row, writer = lane.head(item), writer_name("ray-lost", 0)
        row["message"] = (
            f"the worker died {retries + 1} times on this item (out of memory, or killed from outside)"
        )
        row["writer"], row["finished"] = writer, now()
        lane.store.append(writer, row)
