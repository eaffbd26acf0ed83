"""What methods share: seconds and memory per stage, and refusals of numbers that make no sense."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from freemask import memory
from freemask.errors import UserError
from freemask.types import Backbone


class Stopwatch:
    """Seconds per named stage; waits for the device, so that a stage is charged for its own work. Peak memory goes to
    whoever measures it meanwhile (`freemask.memory`)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = self._now()
        with memory.stage(name):
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - began

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def at_least(name: str, came: float | int, least: float | int) -> None:
    if not came >= least:
        raise UserError(f"'{name}' is too small.", came=came, expected=f"at least {least}")


def whole(name: str, came: object) -> None:
    if not isinstance(came, int) or isinstance(came, bool):
        raise UserError(f"'{name}' must be a whole number.", came=came, expected="such as 50")


def path_warnings(backbone: Backbone) -> tuple[str, ...]:
    return tuple(getattr(backbone.noise_path, "warnings", ()))
