"""`freemask status`: what of a run is done, failed and left, how long the rest takes, and who is at work. No torch."""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.cli.verb import Verb
from experiments.runs.claims import CLAIMS
from experiments.runs.garbage import seldom_collected
from experiments.runs.presence import Owner, present
from experiments.runs.rows import RECORD, ROWS, row_files, row_of
from freemask.errors import UserError, nearest

VERB = Verb(
    "how far runs are: done, failed, left, time to go, and who is at work",
    paths=("paths.runs",),
    positional="name",
    json=True,
    examples=("freemask status", "freemask status NAME", "freemask status runs/sweep --json"),
    keys=(
        "name=NAME|FOLDER  one run, or all below a folder; without it every run",
        "paths.runs=FOLDER where the runs are",
    ),
)

PLANS = "plans"
DEEP = 4  # folders below paths.runs in which runs are looked for: a sweep's lie in a folder of their own


@dataclass
class Tally:
    """One variant: its rows counted. `edits` and `gaps` are seconds of the same rows: in the edit, and from row to
    row of one worker. `asked`: the tasks of the latest plan."""

    asked: Collection[str] | None
    last: dict[str, tuple[str, str]] = field(default_factory=dict)
    rows: int = 0
    edits: float = 0.0
    timed: int = 0
    worked: float = 0.0
    gaps: float = 0.0

    def read(self, folder: Path) -> None:
        for path in row_files(folder / ROWS):
            spans = []
            with path.open("rb") as file:
                for row in filter(None, map(row_of, file)):
                    spans.append(self._count(row))
            for (before, _), (after, seconds) in pairwise(spans):
                if before is not None and after is not None and seconds > 0:
                    self.worked += seconds
                    self.gaps += (after - before).total_seconds()

    def _count(self, row: Mapping[str, Any]) -> tuple[datetime | None, float]:
        finished = str(row.get("finished", ""))
        known = self.last.get(row["task"])
        if known is None or known[1] <= finished:
            self.last[row["task"]] = row["status"], finished
        self.rows += 1
        seconds = sum((row.get("seconds") or {}).values())
        if row["status"] == "done" and seconds > 0:
            self.edits, self.timed = self.edits + seconds, self.timed + 1
        try:
            return datetime.fromisoformat(finished), seconds
        except ValueError:
            return None, seconds

    def of(self, status: str) -> int:
        return sum(each == status for each, _ in self.last.values())

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
    variants: Mapping[str, Tally]
    workers: Sequence[Owner]
    doing: Sequence[Mapping[str, str]]

    @classmethod
    def read(cls, folder: Path) -> "RunStatus":
        asked = _asked_of(folder)
        named = _record(folder).get("variants")
        places = {name: folder / name for name in named} if isinstance(named, Mapping) else {"": folder}
        tallies = {}
        for name, place in places.items():
            tallies[name] = Tally(asked.get(name))
            tallies[name].read(place)
        workers = list(present(folder))
        return cls(folder, tallies, workers, list(_doing(places, workers)))

    def seconds_left(self) -> float | None:
        """With the workers of now, or with one where there is none; a variant without rows costs what others do."""
        known = [tally.mean for tally in self.variants.values() if tally.mean is not None]
        if not known or any(tally.left is None for tally in self.variants.values()):
            return None
        usual = sum(known) / len(known)
        work = sum((tally.left or 0) * (tally.mean or usual) for tally in self.variants.values())
        return work / max(1, len(self.workers))

    def overhead(self) -> float | None:
        """What passes between a worker's edits, as a share of the edits: loading, claims, videos beside them."""
        worked = sum(tally.worked for tally in self.variants.values())
        gaps = sum(tally.gaps for tally in self.variants.values())
        return gaps / worked - 1 if worked else None

    def record(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
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
            "overhead": self.overhead(),
            "workers": [
                {"writer": each.writer, "host": each.host.partition(":")[0], "pid": each.pid}
                for each in self.workers
            ],
            "doing": list(self.doing),
        }


def find(place: Path) -> Iterator[Path]:
    """The runs at and below a folder; what lies in a run is not searched."""
    for here, folders, files in os.walk(place):
        folders.sort()
        if RECORD in files:
            folders.clear()
            yield Path(here)
        elif len(Path(here).relative_to(place).parts) >= DEEP:
            folders.clear()


def _record(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _asked_of(folder: Path) -> dict[str, list[str]]:
    """The tasks in the latest plan of each variant; "" for a plain run."""
    asked = {}
    for path in sorted((folder / PLANS).glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        try:
            plan = json.loads(path.read_text(encoding="utf-8"))
            tasks = [task["id"] for task in plan["tasks"]]
            asked |= {each["name"] or "": tasks for each in plan["variants"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return asked


def _doing(places: Mapping[str, Path], workers: Sequence[Owner]) -> Iterator[dict[str, str]]:
    living = {each.writer for each in workers}
    for name, place in places.items():
        for path in sorted((place / CLAIMS).glob("*")):
            owner = Owner.read(path)
            if owner is not None and owner.writer in living:
                yield {"variant": name, "task": path.name.rpartition(".")[0], "writer": owner.writer}


@seldom_collected()
def main(words: Sequence[str], flags: Mapping[str, Any]) -> int:
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    strange = sorted(set(given) - {"name", "paths.runs"})
    if strange:
        raise UserError(
            f"there is no key '{strange[0]}' in 'status'",
            came=strange[0],
            expected="a run's name or folder, and paths.runs=FOLDER",
            todo="freemask status --help",
        )
    runs = Path(given.get("paths.runs") or os.environ.get("FREEMASK_RUNS") or "runs").expanduser()
    found = [RunStatus.read(folder) for folder in _found(given.get("name"), runs)]
    if flags.get("json"):
        print(json.dumps([each.record() for each in found], indent=1))
    else:
        from experiments.commands.status_text import told

        print(
            "\n\n".join(told(each, whole=given.get("name") is not None) for each in found)
            or f"no runs in {runs}"
        )
    return 0


def _found(name: str | None, runs: Path) -> list[Path]:
    if name is None:
        return list(find(runs))
    for place in (runs / name, Path(name).expanduser()):
        if place.is_dir() and (found := list(find(place))):
            return found
    known = [folder.relative_to(runs).as_posix() for folder in find(runs)]
    raise UserError(
        "there is no such run", came=name, expected=nearest(name, known) if known else f"a run in {runs}"
    )
