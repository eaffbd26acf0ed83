"""The peak of memory during one call, above what the process held before it."""

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

import torch

from experiments.jobs import memory

MB = 10**6
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
# glibc's threshold at the start, and the most that it grows to by itself
SMALL, LARGE = 128 * 1024, 32 * 1024**2


@dataclass(frozen=True)
class Peak:
    """In MB of 10**6 bytes. `held` is what there was before, the others come on top of it."""

    held_rss_mb: float
    rss_mb: float
    held_gpu_mb: float | None = None
    gpu_mb: float | None = None

    def record(self) -> dict[str, float]:
        return {key: value for key, value in asdict(self).items() if value is not None}


def peak_of(work: Callable[[], object], device: torch.device, *, keep_caches: bool = False) -> Peak:
    """What `work` returns is part of its peak. `keep_caches`: of the GPU's allocators, as for one edit of many."""
    on_gpu = device.type == "cuda"
    settle(device, keep_caches)
    memory.reset_peaks()
    rss, gpu = held_rss_mb(), torch.cuda.memory_allocated(device) / MB if on_gpu else 0.0
    work()
    above = memory.peak_rss_gb() * 1e3 - rss
    if not on_gpu:
        return Peak(rss, above)
    torch.cuda.synchronize(device)
    return Peak(rss, above, gpu, torch.cuda.max_memory_allocated(device) / MB - gpu)


def settle(device: torch.device, keep_caches: bool = False) -> None:
    """Give back what is no longer used, so that the next call cannot live on it unseen."""
    gc.collect()
    if device.type == "cuda" and not keep_caches:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        getattr(torch._C, "_host_emptyCache", lambda: None)()  # pinned memory
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def keep_what_is_freed(keep: bool) -> None:
    """Whether glibc keeps freed blocks for later, as it comes to do by itself, or gives every freed block of 128 KiB or
    more back at once. Other allocators do as they like.

    Left alone glibc raises this threshold up to 32 MiB: peaks then hold up to twice what is in use, and depend on what
    ran before. What was freed before stays in use, so this has to come early."""
    mmap, trim = (LARGE, 2 * LARGE) if keep else (SMALL, SMALL)
    libc = _glibc()
    if libc is not None:
        libc.mallopt(MMAP_THRESHOLD, mmap)
        libc.mallopt(TRIM_THRESHOLD, trim)


def has_glibc() -> bool:
    return _glibc() is not None


def held_rss_mb() -> float:
    """Resident memory now; where the system does not say, the most there ever was."""
    with suppress(OSError, StopIteration):
        line = next(line for line in memory.STATUS.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024 / MB
    return memory.peak_rss_gb() * 1e3


def can_reset() -> bool:
    """Whether the system forgets its high-water mark on request; elsewhere only a growth of it shows."""
    try:
        memory.CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None
