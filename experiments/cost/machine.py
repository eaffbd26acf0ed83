"""What a measurement depends on besides the command, and the peak of memory during one call."""

import ctypes
import gc
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from experiments.runs import environment
from freemask.memory import Meter, forget_rss_peak, peak_rss_gb

CPU = Path("/proc/cpuinfo")
MB = 10**6
PLAIN = "plain"  # the speed that nothing is said of
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
# glibc's threshold at the start, and the most that it grows to by itself
SMALL, LARGE = 128 * 1024, 32 * 1024**2


def machine() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())],
        "versions": environment.versions(),
        "commit": environment.commit()[0],
    }


def device_of(device: torch.device) -> str:
    return _cpu() if device.type == "cpu" else environment.device_name(str(device))


def limits() -> list[str]:
    """What this system cannot do, as sentences for the reader of a peak."""
    found = {
        "RSS shows only where an edit went beyond all before it: this system cannot reset the mark.": forget_rss_peak(),
        "This system's allocator keeps freed memory for later: peaks hold some of that too.": _glibc()
        is not None,
    }
    return [sentence for sentence, able in found.items() if not able]


def peak_of(work: Callable[[], object], device: torch.device) -> dict[str, float]:
    """In MB above what the process held before; what `work` returns is part of it."""
    settle(device)
    gpu = torch.cuda.memory_allocated(device) / MB if device.type == "cuda" else 0.0
    forget_rss_peak()
    rss = peak_rss_gb() * 1e3  # after the mark was reset, what is held
    with Meter(device) as meter:
        work()
        wait(device)
    peaks = {"rss_mb": (meter.whole.rss_gb, rss), "gpu_mb": (meter.whole.gpu_gb, gpu)}
    return {key: peak * 1e3 - held for key, (peak, held) in peaks.items() if peak is not None}


def settle(device: torch.device) -> None:
    """Give back what is no longer used, so that the next call cannot live on it unseen."""
    gc.collect()
    wait(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        getattr(torch._C, "_host_emptyCache", lambda: None)()  # pinned memory
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None


def _cpu() -> str:
    try:
        lines = CPU.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def numbers_of(about: Mapping[str, Any]) -> str:
    """The precision, and how layers are run where that was asked for."""
    speed = about.get("speed", PLAIN)  # older records know no other
    return f"{about['dtype']}{'' if speed == PLAIN else f', {speed}'}"
