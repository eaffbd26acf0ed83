"""The row of a task that no worker lived to finish."""

from datetime import UTC, datetime
from typing import Any

from experiments import environment
from experiments.benches import method_name
from experiments.lanes import Lane
from freemask.types import EditTask


def lost_row(lane: Lane, task: EditTask, message: str) -> dict[str, Any]:
    """Has every field that a failed row has; what only the worker knew is empty."""
    config = lane.variant.config
    commit, dirty = environment.commit()
    return {
        "task": task.id,
        "clip": task.clip,
        "kind": task.kind,
        "source": task.source,
        "target": task.target,
        "words": dict(task.words),
        "method": method_name(config),
        "steps": config["method"].get("steps"),
        "model": "",
        **lane.about(),
        "status": "failed",
        "message": message,
        "where": "",
        "metrics": {},
        "facts": {},
        "seed": config["seed"],
        "commit": commit,
        "dirty": dirty,
        "versions": environment.versions(),
        "device": str(config["model"].get("device", "")),
        "dtype": str(config["model"].get("dtype", "")),
        "warnings": [],
        "seconds": {},
        "peak_rss_gb": None,
        "peak_gpu_gb": None,
        "peak": {},
        "retried": None,
        "finished": datetime.now(UTC).isoformat(timespec="microseconds"),
        "files": {},
    }
