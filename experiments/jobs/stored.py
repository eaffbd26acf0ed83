"""Stored frames of edits, and rows with new numbers of them."""

import zipfile
from collections.abc import Mapping
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.suite import Measured, Suite
from experiments.jobs.job import maker
from experiments.runs.rows import now
from freemask.errors import UserError

SAME = 1e-4  # relative: what another processor may change in a number of the same frames


def frames_of(
    folder: Path, row: Mapping[str, Any]
) -> tuple[Float[Tensor, "f 3 h w"], Float[Tensor, "f h w"] | None]:
    """An edit's frames, and its mask where the method had one."""
    path = folder / row["files"]["frames"]
    try:
        with np.load(path, allow_pickle=False) as kept:
            frames, mask = kept["frames"], kept.get("mask")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError("its stored frames cannot be read", came=f"{path}: {error}") from error
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise UserError("its stored frames are no frames", came=f"{frames.dtype} of shape {frames.shape}")
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    return pixels, None if mask is None else torch.from_numpy(mask).float() / 255


def measured_again(row: Mapping[str, Any], measured: Measured, suite: Suite) -> dict[str, Any]:
    """The row with new numbers in the place of old ones; other columns stay."""
    new: dict[str, Any] = dict(measured.row())
    old = row.get("metrics") or {}
    notes = [each for each in row.get("metric_warnings") or () if not each.startswith(tuple(suite.columns))]
    changed = [_changed(name, old.get(name), value) for name, value in new["metrics"].items() if name in old]
    errors = {
        name: each for name, each in (row.get("metric_errors") or {}).items() if name not in suite.metrics
    }
    return {
        **row,
        "metrics": {**old, **new["metrics"]},
        "columns": new["columns"],
        "metric_seconds": {**(row.get("metric_seconds") or {}), **new["metric_seconds"]},
        "metric_errors": {**errors, **new["metric_errors"]},
        "metric_warnings": [*notes, *new["metric_warnings"], *(each for each in changed if each)],
        "evaluated": now(),
        "evaluated_by": maker(),
    }


def _changed(name: str, before: float | None, now: float | None) -> str:
    """A note where a number of the same frames has become another one."""
    if before is not None and now is not None:
        same = isclose(before, now, rel_tol=SAME, abs_tol=1e-9)
    else:
        same = before is now
    return "" if same else f"{name} was {before} when it was measured before"
