"""Peak memory of a piece of work and of its named stages: resident (host) and allocated (GPU), in GB of 1e9 bytes.

The system keeps one high-water mark for each process. A meter reads and resets it whenever a stage begins or ends, so
that every peak belongs to one stage, and the largest of them to the whole."""

import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
GB = 1e9


@dataclass
class Peak:
    """None where it is not known: no GPU, or a system that does not forget its high-water mark."""

    rss_gb: float | None = None
    gpu_gb: float | None = None

    def raise_to(self, rss: float | None, gpu: float | None) -> None:
        self.rss_gb = _most(self.rss_gb, rss)
        self.gpu_gb = _most(self.gpu_gb, gpu)


class Meter:
    """Listens while it is entered: to its own stages, and to those that methods name (`stage`). Of stages inside each
    other a peak counts for the innermost. `whole` is everything since it was entered."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        self._open: list[str] = []
        self._outer: Meter | None = None
        self._forgets = False
        self.stages: dict[str, Peak] = {}
        self.whole = Peak()

    def __enter__(self) -> "Meter":
        global _listening
        self._outer, _listening = _listening, self
        self._forgets = self._reset()
        return self

    def __exit__(self, *_: object) -> None:
        global _listening
        self._read()
        _listening = self._outer

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._read()
        self._open.append(name)
        try:
            yield
        finally:
            self._read()
            self._open.pop()

    def record(self) -> dict[str, dict[str, float | None]]:
        return {name: {"rss_gb": each.rss_gb, "gpu_gb": each.gpu_gb} for name, each in self.stages.items()}

    def _read(self) -> None:
        rss = peak_rss_gb()
        gpu = None if self._gpu is None else torch.cuda.max_memory_allocated(self._gpu) / GB
        self._reset()
        self.whole.raise_to(rss, gpu)
        if self._open:
            own = self.stages.setdefault(self._open[-1], Peak())
            own.raise_to(rss if self._forgets else None, gpu)

    def _reset(self) -> bool:
        if self._gpu is not None:
            torch.cuda.reset_peak_memory_stats(self._gpu)
        return forget_rss_peak()


_listening: Meter | None = None


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A stage of whatever is measured at the moment; costs nothing where nobody measures."""
    if _listening is None:
        yield
        return
    with _listening.stage(name):
        yield


def forget_rss_peak() -> bool:
    """Linux forgets the high-water mark on request; elsewhere the peak is that of the whole process."""
    with suppress(OSError):
        CLEAR.write_text("5")
        return True
    return False


def peak_rss_gb() -> float:
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024 / GB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GB


def _most(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else max(one, other)
