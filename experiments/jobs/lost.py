"""The row of a task that no worker lived to finish."""

from datetime import UTC, datetime
from typing import Any

from experiments.jobs.benches import method_name
from experiments.jobs.head import head
from experiments.jobs.lanes import Lane
from freemask.types import EditTask


def lost_row(lane: Lane, task: EditTask, message: str) -> dict[str, Any]:
    """Has every field that a failed row has; what only the worker knew is empty."""
    config = lane.variant.config
    method, model = config["method"], config["model"]
    about = {"method": method_name(config), "steps": method.get("steps"), "model": "", **lane.about()}
    device, dtype = str(model.get("device", "")), str(model.get("dtype", ""))
    return head(task, about, seed=config["seed"], device=device, dtype=dtype) | {
        "message": message,
        "where": "",
        "warnings": [],
        "seconds": {},
        "peak": {},
        "peak_rss_gb": None,
        "peak_gpu_gb": None,
        "retried": None,
        "finished": datetime.now(UTC).isoformat(timespec="microseconds"),
        "files": {},
    }
