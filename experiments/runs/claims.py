"""One doer for each task of a variant: a small file says who has it in hand. A dead owner's claim counts for nothing.

A claim is `<task>.<number>` in the variant's folder. To take a task whose owner died one creates the next number,
which only one process can do. Whoever then sees another living claim beside his own lets go. So of two that live at
most one holds a task: the later of them to look around finds the other's file. A claim is gone when the task's row is
written; what a killed process leaves behind is passed over, and swept by the next launch."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from experiments.runs.presence import Desk, Owner
from experiments.runs.rows import file_name
from freemask.errors import UserError

CLAIMS = "claims"
TRIES, YOUNG = 3, 30.0  # a claim whose owner cannot be read is believed for so many seconds


class Claims:
    def __init__(self, folder: Path, desk: Desk) -> None:
        self._folder, self._desk = folder / CLAIMS, desk
        self._mine: dict[str, Path] = {}

    def take(self, task: str) -> bool:
        name = file_name(task)
        for attempt in range(TRIES):
            if any(self._lives(path) for _, path in self._listed(name)):
                return False
            if self._create(name) and not any(
                self._lives(path) for _, path in self._listed(name) if path != self._mine[name]
            ):
                return True
            self.drop(task)
            time.sleep(random.uniform(0.005, 0.03) * (attempt + 1))
        return False

    def drop(self, task: str) -> None:
        path = self._mine.pop(file_name(task), None)
        if path is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        for _, path in self._listed(None):
            if not self._lives(path):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _listed(self, name: str | None) -> Iterator[tuple[int, Path]]:
        try:
            found = os.listdir(self._folder)
        except FileNotFoundError:
            return
        for each in found:
            task, _, number = each.rpartition(".")
            if number.isdigit() and name in (None, task):
                yield int(number), self._folder / each

    def _create(self, name: str) -> bool:
        number = 1 + max((number for number, _ in self._listed(name)), default=-1)
        path = self._folder / f"{name}.{number}"
        try:
            self._folder.mkdir(exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(self._desk.owner.text())
        except FileExistsError:
            return False
        except OSError as error:
            raise UserError(
                "cannot write the run",
                came=f"{path}: {error.strerror}",
                expected="a folder with space left in it",
                todo="make room, then the same command goes on: all earlier rows are whole",
            ) from error
        self._mine[name] = path
        return True

    def _lives(self, path: Path) -> bool:
        owner = Owner.read(path)
        if owner is not None:
            return self._desk.alive(owner)
        with suppress(OSError):  # it is being written, or its owner died in that moment
            return self._desk.now() - path.stat().st_mtime < YOUNG
        return False
