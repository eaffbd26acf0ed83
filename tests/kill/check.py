"""What must be true of a run after all that was done to it: every task once, and the numbers of an undisturbed run."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.runs.rows import RowIndex
from experiments.runs.status import RunStatus

# When, how long, how much memory, and which files had changed by then: everything else must be equal.
HOST = (
    "writer",
    "finished",
    "seconds",
    "metric_seconds",
    "peak_rss_gb",
    "peak_gpu_gb",
    "peak",
    "commit",
    "dirty",
)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(RowIndex(folder).news())


def faults(undisturbed: Path, killed: Path) -> list[str]:
    """Nothing, where the killed run is as good as the other."""
    wanted = {row["task"]: row for row in rows_of(undisturbed)}
    found = rows_of(killed)
    last = {row["task"]: row for row in found}
    said = [
        f"{task} was done {n} times" for task, n in Counter(row["task"] for row in found).items() if n != 1
    ]
    said += [f"{task} is missing" for task in wanted.keys() - last.keys()]
    said += [f"{task} is in no list" for task in last.keys() - wanted.keys()]
    for task in wanted.keys() & last.keys():
        said += [f"{task}: {field}" for field in differing(wanted[task], last[task])]
    status = RunStatus.read(killed)
    (tally,) = status.variants.values()
    if tally.left != 0 or tally.of("done") + tally.of("failed") != len(wanted):
        counts = f"{tally.of('done')} done, {tally.of('failed')} failed, {tally.left} left"
        said.append(f"status: {counts} of {len(wanted)}")
    return said


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Fields that are not the same, down into the nested ones."""
    fields = sorted({*one, *other} - set(HOST))
    return [
        f"{field}: {one.get(field)!r} and {other.get(field)!r}"
        for field in fields
        if (field in one) is not (field in other) or one[field] != other[field]
    ]
