"""A Fabric strategy whose ranks never speak to each other, and its launcher."""

import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing import connection, get_context, parent_process
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.strategies.launchers.launcher import _Launcher

from freemask.errors import UserError

Watch = Callable[[Callable[[], bool]], None]


def started_outside() -> ClusterEnvironment:
    """Who made this process: torchrun, SLURM, or nobody in particular."""
    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind.detect():
            return kind()
    return LightningEnvironment()


class Ranks(DDPStrategy):
    """Independent processes, `processes` of them on each device. The process group of its parent is never made."""

    watch: Watch | None = None

    def __init__(self, devices: list[torch.device], processes: int) -> None:
        self.devices = [device for device in devices for _ in range(processes)]
        super().__init__(parallel_devices=self.devices)

    @property
    def root_device(self) -> torch.device:
        # A launcher may show each rank one device only, or make more ranks than there are devices.
        return self.devices[self.local_rank % len(self.devices)]

    def setup_environment(self) -> None:
        self._set_world_ranks()
        assert self.accelerator is not None
        self.accelerator.setup_device(self.root_device)

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Nobody waits."""

    def _configure_launcher(self) -> None:
        self._launcher = Starter(self)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "watch"}


class Starter(_Launcher):
    """Starts a process for each rank of this node, unless somebody else did, and outlives those that die."""

    def __init__(self, strategy: Ranks) -> None:
        self._strategy = strategy

    @property
    def is_interactive_compatible(self) -> bool:
        return False

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Lines about ranks that did not end well."""
        environment = self._strategy.cluster_environment
        assert environment is not None
        if environment.creates_processes_externally:
            function(*args, **kwargs)
            return []
        spawn, call = get_context("spawn"), partial(function, *args, **kwargs)
        count, started = self._strategy.num_processes, []
        for rank in range(count):
            here, there = spawn.Pipe(duplex=False)
            process = spawn.Process(target=_begin, args=(rank, count, call, there), daemon=True)
            process.start()
            there.close()
            started.append((process, here))
        assert self._strategy.watch is not None
        self._strategy.watch(lambda: any(process.is_alive() for process, _ in started))
        errors = [error for _, here in started if (error := _received(here)) is not None]
        if errors:
            raise errors[0]
        codes = {rank: process.exitcode for rank, (process, _) in enumerate(started)}
        return [_said(rank, code) for rank, code in codes.items() if code]


def _begin(rank: int, count: int, call: Callable[[], Any], told: connection.Connection) -> None:
    """The life of a rank: it ends with the process that started it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["LOCAL_RANK"] = str(rank)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
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


def _said(rank: int, code: int | None) -> str:
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    return f"note: process {rank} {how}; the edit it had in hand is done by another, or at the next start"
