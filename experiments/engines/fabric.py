"""Processes x devices x nodes, by Lightning Fabric: its ranks and devices, without its process group.

Clips need nothing from each other, so no rank ever waits for another: there is no rendezvous, no barrier and no
collective. A rank that dies takes nobody with it (torchrun and SLURM may decide otherwise), and those that live take
up what it left."""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection, get_context, parent_process
from typing import Any

from experiments.engines.base import Engine, View, at_least
from experiments.jobs.worker import work
from experiments.runs.plan import Launch
from freemask.errors import UserError, nearest

ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Fabric(Engine):
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
        cluster = _cluster()
        return cluster.global_rank() if cluster.creates_processes_externally else cluster.node_rank()

    def work(self, view: View) -> bool:
        cluster, devices = _cluster(), self._devices(view)
        if cluster.creates_processes_externally:
            device = _chosen(devices[cluster.local_rank() % len(devices)])
            seen: dict[str, Any] = {"hear": view.hear, "device": device}
            if cluster.global_rank() == 0:
                seen["progress"] = view.reporter.stage
            work(view.launch, "fabric", cluster.global_rank(), cluster.world_size(), **seen)
            return True
        places = [device for device in devices for _ in range(self.processes)]
        first, count = cluster.node_rank() * len(places), len(places) * self.nodes
        threads = max(1, (os.cpu_count() or 1) // len(places))
        view.say(f"{len(places)} processes on this node, on {', '.join(dict.fromkeys(devices))}")
        calls = [
            partial(_at_work, view.launch, device, first + place, count, threads)
            for place, device in enumerate(places)
        ]
        for line in _processes(calls, view.watch):
            view.say(line)
        return True

    def _devices(self, view: View) -> list[str]:
        """Of this node. A launcher may show each rank one device only, or make more ranks than there are devices."""
        import torch

        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise UserError(
                "there is no GPU", came="runner.accelerator=gpu", expected="runner.accelerator=cpu"
            )
        asked = {str((lane.variant.config.get("model") or {}).get("device", "auto")) for lane in view.lanes}
        there = torch.cuda.device_count()
        if self.accelerator == "cpu" or not there or (self.accelerator == "auto" and asked == {"cpu"}):
            return ["cpu"] * (1 if isinstance(self.devices, str) else self.devices)
        wanted = there if isinstance(self.devices, str) else self.devices
        if wanted > there:
            came = f"runner.devices={self.devices}"
            raise UserError("there are not so many GPUs", came=came, expected=f"at most {there}")
        return [f"cuda:{place}" for place in range(wanted)]


def _cluster() -> Any:
    """Who made this process: torchrun, SLURM, or nobody in particular."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind.detect():
            return kind()
    return LightningEnvironment()


def _chosen(device: str) -> str:
    """By Fabric, which also makes the device this process's current one."""
    from lightning.fabric import Fabric as LightningFabric
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    kind, _, index = device.partition(":")
    alone = LightningEnvironment()  # to Fabric each rank is a run of its own
    fabric = LightningFabric(accelerator=kind, devices=[int(index)] if index else 1, plugins=[alone])
    fabric.launch()
    return str(fabric.device)


def _at_work(launch: Launch, device: str, rank: int, count: int, threads: int) -> None:
    """A rank that this engine started; the process that started it tells of its rows."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    work(launch, "fabric", rank, count, device=_chosen(device))


def _processes(calls: list[Callable[[], None]], watch: Callable[[Callable[[], bool]], None]) -> list[str]:
    """Runs each call in a process of its own, outlives those that die, and says which did not end well."""
    spawn, started = get_context("spawn"), []
    for call in calls:
        here, there = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_begin, args=(call, there), daemon=True)
        process.start()
        there.close()
        started.append((process, here))
    watch(lambda: any(process.is_alive() for process, _ in started))
    errors = [error for _, here in started if (error := _received(here)) is not None]
    if errors:
        raise errors[0]
    return [
        f"note: process {place} {_end_of(process.exitcode)}; the item it had in hand is done by another, "
        "or at the next start"
        for place, (process, _) in enumerate(started)
        if process.exitcode
    ]


def _begin(call: Callable[[], None], told: connection.Connection) -> None:
    """The life of a rank: it ends with the process that started it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        call()
    except UserError as error:
        told.send(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _received(told: connection.Connection) -> UserError | None:
    try:
        return told.recv() if told.poll() else None
    except (EOFError, OSError):
        return None


def _end_of(code: int | None) -> str:
    return f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
