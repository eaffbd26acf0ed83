"""What a measurement of time or memory depends on besides the command."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

from experiments.cost.memory import can_reset, has_glibc
from experiments.runs import environment

CPU = Path("/proc/cpuinfo")


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


def abilities() -> dict[str, bool]:
    """What of measuring memory this system can do."""
    return {"peaks_are_reset": can_reset(), "freed_memory_is_returned": has_glibc()}


def _cpu() -> str:
    try:
        lines = CPU.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
