"""A run's folder: its identity, rows that only ever grow, and the files of each task."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.config.identity import Identity
from experiments.runs.rows import RECORD as RECORD
from experiments.runs.rows import file_name, row_files, row_of
from experiments.runs.rows import write_text as write_text
from freemask.errors import UserError

ALIKE = {"columns", "versions", "commit", "device", "message", "run", "model"}


class RunStore:
    """Rows are JSON lines, one file per writer. Readers take the last row of a task and skip torn lines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open(cls, folder: Path, identity: Identity) -> "RunStore":
        """The folder of this run: new, or begun earlier by the same configuration."""
        store = cls(folder)
        record = folder / RECORD
        if record.exists():
            identity.compare(_read_record(record), folder)
            return store
        if folder.exists() and not folder.is_dir():
            raise UserError(
                "the run's folder is a file", came=folder, expected="a folder", todo="another name=..."
            )
        try:
            (folder / "rows").mkdir(parents=True, exist_ok=True)
            write_text(record, json.dumps(identity.record(), indent=2, ensure_ascii=False))
        except OSError as error:
            raise UserError(
                "cannot write the run", came=f"{folder}: {error.strerror}", todo="paths.runs=FOLDER"
            ) from error
        return store

    def append(self, writer: str, row: Mapping[str, Any]) -> None:
        # The line break before the record keeps it whole after a line that a killed process left torn.
        line = f"\n{json.dumps(row, ensure_ascii=False, allow_nan=False)}\n".encode()
        path = self.folder / "rows" / f"{file_name(writer)}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                while line:
                    line = line[os.write(file, line) :]
            finally:
                os.close(file)
        except OSError as error:
            raise UserError(
                "a row cannot be written",
                came=f"{path}: {error.strerror}",
                expected="a folder with space left in it",
                todo="make room, then the same command goes on: all earlier rows are whole",
            ) from error

    def rows(self) -> Iterator[dict[str, Any]]:
        """What all rows have alike lies in memory once: there may be a hundred thousand."""
        alike: dict[str, Any] = {}
        for path in row_files(self.folder / "rows"):
            with path.open("rb") as file:
                for row in filter(None, map(row_of, file)):
                    for key in ALIKE & row.keys():
                        row[key] = alike.setdefault(f"{key} {row[key]}", row[key])
                    yield row

    def latest(self) -> dict[str, dict[str, Any]]:
        """The last row of each task, in the order of the tasks' ids."""
        last: dict[str, dict[str, Any]] = {}
        for row in self.rows():
            known = last.get(row["task"])
            if known is None or known.get("finished", "") <= row.get("finished", ""):
                last[row["task"]] = row
        return dict(sorted(last.items()))

    def done(self) -> set[str]:
        return {task for task, row in self.latest().items() if row["status"] == "done"}

    def failed(self) -> set[str]:
        return {task for task, row in self.latest().items() if row["status"] == "failed"}

    def file(self, kind: str, task: str, suffix: str) -> Path:
        """Where a task's file goes; a name from a task list cannot leave the folder."""
        path = self.folder / kind / f"{file_name(task)}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(record["parts"], dict)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            "the run's record cannot be read",
            came=path,
            expected="the file that `freemask run` wrote",
            todo="another name=...",
        ) from error
    return record
