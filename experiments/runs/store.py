"""A variant's folder: its record, rows that only ever grow, and the files of each item."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from experiments.config.fingerprint import Identity
from experiments.runs.record import RECORD, Record
from experiments.runs.rows import ROWS, Row, cannot_write, file_name, latest, read
from freemask.errors import UserError


class RunStore:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open(cls, folder: Path, identity: Identity, record: Record | None = None) -> "RunStore":
        """The folder of this configuration: new, or begun earlier by the same one. `record` is what a new one says."""
        if (folder / RECORD).exists():
            identity.compare(Record.read(folder).told, folder)
            return cls(folder)
        if folder.exists() and not folder.is_dir():
            raise UserError(
                "the run's folder is a file", came=folder, expected="a folder", todo="another name=..."
            )
        try:
            (folder / ROWS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
        (record or Record(told=identity.record())).write(folder)
        return cls(folder)

    def append(self, writer: str, row: Row) -> None:
        line = f"{json.dumps(row, ensure_ascii=False, allow_nan=False)}\n".encode()
        path = self.folder / ROWS / f"{file_name(writer)}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                line = b"\n" * _torn(file) + line
                while line:
                    line = line[os.write(file, line) :]
            finally:
                os.close(file)
        except OSError as error:
            raise cannot_write(path, error) from error

    def rows(self) -> Iterator[Row]:
        return read(self.folder)

    def latest(self) -> dict[str, Row]:
        """The last row of each item, in the order of their ids."""
        return latest(self.folder)

    def file(self, kind: str, item: str, suffix: str) -> Path:
        """Where an item's file goes; a name from a task list cannot leave the folder."""
        path = self.folder / kind / f"{file_name(item)}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _torn(file: int) -> bool:
    """Whether the last line has no end, as a write leaves it that a full disk or a kill cut short."""
    if os.lseek(file, 0, os.SEEK_END) == 0:
        return False
    os.lseek(file, -1, os.SEEK_END)
    return os.read(file, 1) != b"\n"
