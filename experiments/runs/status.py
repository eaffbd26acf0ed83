"""The state of a run as its files tell it: what is done, failed and left, how long the rest takes, who is at work."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.runs.claims import AtWork, present
from experiments.runs.rows import Brief, Row, RowIndex
from experiments.runs.run import Run


@dataclass
class Tally:
    """One variant: its rows counted. `spans`: of each worker's rows, when they were finished and their seconds.
    `asked`: the items of the latest plan of the run's own kind."""

    asked: Collection[str] | None
    last: Mapping[str, Brief]
    rows: int = 0
    edits: float = 0.0
    timed: int = 0
    spans: dict[str, list[tuple[datetime, float]]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, asked: Collection[str] | None) -> "Tally":
        index = RowIndex(folder)
        tally = cls(asked, index.last)
        for row in index.news():
            tally._count(row)
        return tally

    def _count(self, row: Row) -> None:
        self.rows += 1
        # Of an edit that was measured again, the seconds are those of the edit, which has a row of its own.
        spent = sum((row.get("seconds") or {}).values()) + (row.get("measuring") or 0.0)
        seconds = 0.0 if "evaluation" in row else spent
        if row["status"] == "done" and seconds > 0:
            self.edits, self.timed = self.edits + seconds, self.timed + 1
        with suppress(ValueError):
            ended = datetime.fromisoformat(str(row.get("finished", "")))
            self.spans.setdefault(str(row.get("writer", "")), []).append((ended, seconds))

    def of(self, status: str) -> int:
        return sum(each.status == status for each in self.last.values())

    @property
    def left(self) -> int | None:
        return None if self.asked is None else sum(task not in self.last for task in self.asked)

    @property
    def mean(self) -> float | None:
        return self.edits / self.timed if self.timed else None


@dataclass(frozen=True)
class RunStatus:
    """A run's folder as it is now. A plain run has one variant without a name."""

    folder: Path
    job: str
    variants: Mapping[str, Tally]
    workers: Sequence[AtWork]

    @classmethod
    def read(cls, folder: Path) -> "RunStatus":
        run = Run.open(folder)
        asked = _asked_of(run)
        named = run.record.variants
        places = {"": folder} if named is None else {name: folder / name for name in named}
        tallies = {name: Tally.read(place, asked.get(name)) for name, place in places.items()}
        return cls(folder, run.record.job, tallies, list(present(folder)))

    @property
    def doing(self) -> list[dict[str, str]]:
        return [
            {"variant": each.variant or "", "task": each.item, "writer": each.writer}
            for each in self.workers
            if each.item is not None
        ]

    def seconds_left(self) -> float | None:
        """With the workers of now, or with one where there is none; a variant without rows costs what others do."""
        known = [tally.mean for tally in self.variants.values() if tally.mean is not None]
        if not known or any(tally.left is None for tally in self.variants.values()):
            return None
        usual = sum(known) / len(known)
        work = sum((tally.left or 0) * (tally.mean or usual) for tally in self.variants.values())
        return work / max(1, len(self.workers))

    def between(self) -> float | None:
        """Seconds that pass on average between two items of a worker: loading, claims, files. Clocks are read when an
        item ends, so that nothing may look like a little less than nothing."""
        waits = []
        for writer in {writer for tally in self.variants.values() for writer in tally.spans}:
            # Of all variants: a worker goes from one to another.
            mine = sorted(span for tally in self.variants.values() for span in tally.spans.get(writer, ()))
            for (before, _), (after, seconds) in pairwise(mine):
                if seconds > 0:
                    waits.append((after - before).total_seconds() - seconds)
        return max(0.0, sum(waits) / len(waits)) if waits else None

    def record(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "job": self.job,
            "variants": [
                {
                    "name": name or None,
                    "tasks": None if tally.asked is None else len(tally.asked),
                    "done": tally.of("done"),
                    "failed": tally.of("failed"),
                    "left": tally.left,
                    "rows": tally.rows,
                    "seconds_per_edit": tally.mean,
                }
                for name, tally in self.variants.items()
            ],
            "seconds_left": self.seconds_left(),
            "seconds_between": self.between(),
            "workers": [{"writer": each.writer, "host": each.host, "pid": each.pid} for each in self.workers],
            "doing": self.doing,
        }


def _asked_of(run: Run) -> dict[str, list[str]]:
    """The items in the latest plan of each variant; "" for a plain run. What is measured again was done before."""
    asked: dict[str, list[str]] = {}
    for plan in run.plans():
        if plan.get("job") == run.record.job:
            for each in plan["variants"]:
                name = each["name"] or ""
                wanted = [item["id"] for item in plan["items"] if name in (item.get("marks") or {name: ""})]
                asked[name] = wanted
    return asked
