"""How schedulers and pipelines cut the path of flow matching: levels, from noise (`top`) down."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

SLOW = 0.025  # of the path, for which the grid `quadratic` takes half of the steps


Shifted = Callable[[Any], Any]  # bends the grid, number by number


def _euler(shifted: Shifted, top: int, steps: int) -> np.ndarray:
    """In the single precision of the scheduler, so that its own times come out to the bit."""
    last = float(shifted(np.float32(1 / top)))
    sigmas = np.linspace(top, last * top, steps) / top
    return shifted(sigmas).astype(np.float32) * np.float32(top)


def _unipc(shifted: Shifted, top: int, steps: int) -> np.ndarray:
    sigmas = shifted(np.linspace(1, 1 / top, steps + 1)[:-1])
    sigmas[0] -= 1e-6  # at 1 the scheduler's own solver would divide by zero
    return sigmas * top


def _wan(shifted: Shifted, top: int, steps: int) -> np.ndarray:
    sigmas = 1.0 - np.linspace(1, 1 / top, steps + 1)
    return shifted(sigmas)[:0:-1] * top


def _even(shifted: Shifted, top: int, steps: int) -> np.ndarray:
    """In single precision, as that of `euler`."""
    sigmas = shifted(np.linspace(1, 1 / steps, steps))
    return sigmas.astype(np.float32) * np.float32(top)


def _quadratic(shifted: Shifted, top: int, steps: int) -> np.ndarray:
    slow, place = max(1, steps // 2), np.arange(steps)
    quick = max(1, steps - slow)
    gone = SLOW / slow * place
    gone += (slow - SLOW * steps) / (slow * quick**2) * np.clip(place - slow, 0, None) ** 2
    return shifted(1 - gone).astype(np.float32) * np.float32(top)


GRIDS: Mapping[str, Callable[[Shifted, int, int], np.ndarray]] = {
    "euler": _euler,
    "unipc": _unipc,
    "wan": _wan,
    "even": _even,
    "quadratic": _quadratic,
}
