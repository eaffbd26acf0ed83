"""What every row begins with, whoever writes it; loads no torch."""

from collections.abc import Mapping
from typing import Any

from experiments import environment
from freemask.types import EditTask


def head(task: EditTask, about: Mapping[str, Any], *, seed: int, device: str, dtype: str) -> dict[str, Any]:
    """A row is a failure without numbers until it is told otherwise."""
    commit, dirty = environment.commit()
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
        "commit": commit,
        "dirty": dirty,
        "versions": environment.versions(),
        "device": device,
        "dtype": dtype,
    }
