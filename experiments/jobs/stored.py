"""Rows with new numbers, and the stored frames that these are measured on."""

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.suite import Measured, Suite
from experiments.jobs.head import maker
from experiments.runs.store import RunStore
from freemask.errors import UserError
from freemask.types import EditTask

TOLD = ("task", "clip", "source", "target", "kind")
SAME = 1e-4  # relative: what another processor may change in a number of the same frames


@dataclass(frozen=True)
class Stored:
    """An edit on disk: its last row and the file with its frames."""

    store: RunStore
    row: Mapping[str, Any]
    path: Path
    who: str

    def read(self) -> tuple[Float[Tensor, "f 3 h w"], Float[Tensor, "f h w"] | None]:
        """Frames, and the mask where the method had one."""
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                frames, mask = kept["frames"], kept.get("mask")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError("its stored frames cannot be read", came=f"{self.path}: {error}") from error
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise UserError("its stored frames are no frames", came=f"{frames.dtype} of shape {frames.shape}")
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        return pixels, None if mask is None else torch.from_numpy(mask).float() / 255


def complete(row: Mapping[str, Any], suite: Suite) -> bool:
    """Whether every column of the suite has been measured (or found not to apply)."""
    return set(suite.columns) <= set(row.get("metrics") or {})


def measured_again(row: Mapping[str, Any], measured: Measured, suite: Suite) -> dict[str, Any]:
    """The row with new numbers in the place of old ones; other columns stay. `finished` is when a row came to be, by
    which readers find the last one, so the edit's own moment becomes `edited_at`."""
    new: dict[str, Any] = dict(measured.row())
    old = row.get("metrics") or {}
    notes = [each for each in row.get("metric_warnings") or () if not each.startswith(tuple(suite.columns))]
    changed = [_changed(name, old.get(name), value) for name, value in new["metrics"].items() if name in old]
    errors = {
        name: each for name, each in (row.get("metric_errors") or {}).items() if name not in suite.metrics
    }
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    return {
        **row,
        "metrics": {**old, **new["metrics"]},
        "columns": {**(row.get("columns") or {}), **new["columns"]},
        "metric_seconds": {**(row.get("metric_seconds") or {}), **new["metric_seconds"]},
        "metric_errors": {**errors, **new["metric_errors"]},
        "metric_warnings": [*notes, *new["metric_warnings"], *(each for each in changed if each)],
        "edited_at": row.get("edited_at") or row.get("finished"),
        "evaluated": now,
        "evaluated_by": maker(),
        "finished": now,
    }


def task_of(row: Mapping[str, Any]) -> EditTask:
    task, clip, source, target, kind = (str(row.get(key, "")) for key in TOLD)
    return EditTask(task, clip, source, target, dict(row.get("words") or {}), kind)


def writer() -> str:
    return f"evaluate-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"


def _changed(name: str, before: float | None, now: float | None) -> str:
    """A note where a number of the same frames has become another one."""
    if before == now or (
        before is not None and now is not None and isclose(before, now, rel_tol=SAME, abs_tol=1e-9)
    ):
        return ""
    return f"{name} was {before} when it was measured before"
