"""Start a command, kill real processes of it at random points, start it again, until it has nothing left to do."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.runs.claims import present
from experiments.runs.rows import RowIndex
from experiments.runs.status import RunStatus

MOST = 60  # launches; a run that needs more is broken


@dataclass
class Hunt:
    """`start` begins the user's command and returns its process. Kills are at random points: some while a process
    only starts, most after a random number of edits, at a random moment of the next."""

    start: Callable[[], Any]
    run: Path
    tasks: int
    kills: int
    rng: random.Random
    longest: float = 1.0
    log: list[dict[str, Any]] = field(default_factory=list)
    launches: int = 0
    code: int | None = None

    def __post_init__(self) -> None:
        self._index = RowIndex(self.run)
        # After how many rows each kill comes, spread over the whole run; -1 is a kill while the command starts.
        # Not over its last quarter: a run that ends first has nobody left to kill.
        after = sorted(self.rng.sample(range(self.tasks * 3 // 4), self.kills))
        self._after = [-1 if self.rng.random() < 1 / 8 else each for each in after]

    def go(self) -> None:
        while self.code != 0 or not self.finished():
            if self.launches == MOST:
                raise RuntimeError(f"{self.run}: not finished after {MOST} launches: {self.log[-3:]}")
            process = self.start()
            self.launches += 1
            while process.poll() is None:
                if len(self.log) < self.kills and self.rows() < self.tasks:
                    self._wait(process)
                    self._kill(process)
                else:
                    time.sleep(0.1)
            self.code = process.poll()

    def rows(self) -> int:
        self._index.refresh()
        return len(self._index.last)

    def finished(self) -> bool:
        return self.rows() >= self.tasks and not list(present(self.run))

    def _wait(self, process: Any) -> None:
        after = self._after[len(self.log)]
        while after >= 0 and process.poll() is None and (not self._workers() or self.rows() < after):
            time.sleep(0.02)
        until = time.monotonic() + self.rng.uniform(0, self.longest)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)

    def _workers(self) -> list[int]:
        return [each.pid for each in present(self.run)]

    def _kill(self, process: Any) -> None:
        if process.poll() is not None:
            return
        pid = self.rng.choice([process.pid, *self._workers()])
        doing = [each["task"] for each in RunStatus.read(self.run).doing if _pid(each["writer"]) == pid]
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        whom = "the command" if pid == process.pid else "a worker"
        self.log.append({"rows": self.rows(), "launch": self.launches, "whom": whom, "in_hand": doing})
        while _there(pid):
            time.sleep(0.01)


def command(words: Sequence[str], folder: Path) -> Callable[[], subprocess.Popen[bytes]]:
    """Starts it as a user would, its output appended to a file."""

    def start() -> subprocess.Popen[bytes]:
        with (folder / "output.txt").open("ab") as output:
            return subprocess.Popen(words, cwd=folder, stdout=output, stderr=output)

    return start


def _pid(writer: str) -> int:
    return int(writer.rpartition("-")[2])


def _there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
