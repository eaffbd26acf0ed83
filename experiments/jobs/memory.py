"""Peak memory since the last reset, for work without stages: resident (host) and allocated (GPU), in GB of 10^9."""

import torch

from freemask.memory import CLEAR as CLEAR
from freemask.memory import STATUS as STATUS
from freemask.memory import forget_rss_peak
from freemask.memory import peak_rss_gb as peak_rss_gb


def reset_peaks() -> None:
    forget_rss_peak()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_gb() -> float | None:
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
