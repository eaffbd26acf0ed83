"""What every row begins with, whoever writes it; loads no torch."""

from collections.abc import Mapping
from typing import Any

from experiments.runs import environment
from freemask.types import EditTask


def head(
    task: EditTask, about: Mapping[str, Any], *, seed: int | None, device: str, dtype: str | None
) -> dict[str, Any]:
    """A row is a failure without numbers until it is told otherwise."""
    return {
        "task": task.id,
        "clip": task.clip,
        "kind": task.kind,
        "source": task.source,
        "target": task.target,
        "words": dict(task.words),
        **about,
        "status": "failed",
        "message": "",
        "metrics": {},
        "facts": {},
        "seed": seed,
        **maker(),
        "device": device,
        "dtype": dtype,
    }


def maker() -> dict[str, Any]:
    """The code that made the numbers."""
    commit, dirty = environment.commit()
    return {"commit": commit, "dirty": dirty, "versions": environment.versions()}
