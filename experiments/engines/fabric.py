"""Processes x devices x nodes by Lightning Fabric: its ranks and devices, without its process group.

Clips need nothing from each other, so no rank ever waits for another: there is no rendezvous, no barrier and no
collective. A rank that dies takes nobody with it (torchrun and SLURM may decide otherwise), and those that live take
up what it left."""

from dataclasses import dataclass
from typing import Any

from experiments.engines.base import Floor, Whole, at_least
from experiments.runs.plan import Launch
from freemask.errors import UserError, nearest

ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Fabric(Whole):
    """`devices` and `processes` are per node and per device; a launcher that made the processes knows better."""

    devices: int | str = "auto"
    processes: int = 1
    nodes: int = 1
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        if self.accelerator not in ACCELERATORS:
            came, known = f"runner.accelerator={self.accelerator}", nearest(self.accelerator, ACCELERATORS)
            raise UserError("there is no such accelerator", came=came, expected=known)
        if not isinstance(self.devices, int) and self.devices != "auto":
            came = f"runner.devices={self.devices}"
            raise UserError("runner.devices is no number", came=came, expected="1 or more, or auto")
        at_least("runner.devices", 1 if isinstance(self.devices, str) else self.devices, 1)
        at_least("runner.processes", self.processes, 1)
        at_least("runner.nodes", self.nodes, 1)

    @property
    def rank(self) -> int:
        from experiments.engines.ranks import started_outside

        cluster = started_outside()
        return cluster.global_rank() if cluster.creates_processes_externally else cluster.node_rank()

    def work(self, floor: Floor) -> bool:
        from experiments.engines.ranks import Ranks

        ranks = Ranks([self._device(place, floor) for place in range(self._count(floor))], self.processes)
        fabric = self._fabric(ranks, floor)
        if fabric.strategy.cluster_environment.creates_processes_externally:
            fabric.launch(_in_sight, floor)
            return True
        ranks.watch = floor.watch
        floor.say(f"{ranks.num_processes} processes on this node, on {_listed(ranks.devices)}")
        for line in fabric.launch(_at_work, floor.launch):
            floor.say(line)
        return True

    def _fabric(self, ranks: Any, floor: Floor) -> Any:
        from lightning.fabric import Fabric as Made

        try:
            return Made(accelerator=self._accelerator(floor), strategy=ranks, num_nodes=self.nodes)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                "Lightning Fabric refuses these devices or this launcher",
                came=str(error).splitlines()[0],
                expected="runner.devices, runner.processes and runner.nodes that are there",
            ) from error

    def _accelerator(self, floor: Floor) -> str:
        import torch

        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise UserError(
                "there is no GPU", came="runner.accelerator=gpu", expected="runner.accelerator=cpu"
            )
        if self.accelerator != "auto":
            return {"gpu": "cuda"}.get(self.accelerator, self.accelerator)
        asked = {str(lane.variant.config["model"].get("device", "auto")) for lane in floor.lanes}
        return "cpu" if asked == {"cpu"} or not torch.cuda.is_available() else "cuda"

    def _count(self, floor: Floor) -> int:
        import torch

        there = torch.cuda.device_count() if self._accelerator(floor) == "cuda" else None
        if isinstance(self.devices, str):
            return there or 1
        if there is not None and self.devices > there:
            came = f"runner.devices={self.devices}"
            raise UserError("there are not so many GPUs", came=came, expected=f"at most {there}")
        return self.devices

    def _device(self, place: int, floor: Floor) -> Any:
        import torch

        kind = self._accelerator(floor)
        return torch.device(kind, place) if kind == "cuda" else torch.device(kind)


def _listed(devices: list[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, devices)))


def _at_work(fabric: Any, launch: Launch) -> None:
    """A rank that this engine started; the process that started it tells of its rows."""
    from experiments.jobs.worker import work

    work(launch, "fabric", fabric.global_rank, fabric.world_size, device=str(fabric.device))


def _in_sight(fabric: Any, floor: Floor) -> None:
    """A rank that torchrun or SLURM started: it is the user's own command."""
    from experiments.jobs.worker import work

    silent = {} if fabric.global_rank else {"progress": floor.ears.reporter.stage}
    work(
        floor.launch,
        "fabric",
        fabric.global_rank,
        fabric.world_size,
        device=str(fabric.device),
        hear=floor.ears.hear,
        **silent,
    )
