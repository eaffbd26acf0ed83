"""Rows as they lie on disk, read without loading torch: one line at a time, and only what is new."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

RECORD, ROWS = "run.json", "rows"


class Brief(NamedTuple):
    """What of a task's last row decides whether there is work left."""

    status: str
    finished: str


class RowIndex:
    """The last row of each task in brief, kept up to date at the price of what was written since the last look."""

    def __init__(self, folder: Path) -> None:
        self.last: dict[str, Brief] = {}
        self._rows = folder / ROWS
        self._read: dict[str, int] = {}

    def refresh(self) -> None:
        for _ in self.news():
            pass

    def news(self) -> Iterator[dict[str, Any]]:
        """Every whole row that was not there at the last look."""
        for path in row_files(self._rows):
            with path.open("rb") as file:
                file.seek(self._read.get(path.name, 0))
                for line in file:
                    row = row_of(line)
                    if row is None and not line.endswith(b"\n"):
                        break  # somebody is writing it, or was killed: the next row begins with a line break
                    self._read[path.name] = self._read.get(path.name, 0) + len(line)
                    if row is not None:
                        self._keep(row)
                        yield row

    def _keep(self, row: dict[str, Any]) -> None:
        brief = Brief(row["status"], str(row.get("finished", "")))
        known = self.last.get(row["task"])
        if known is None or known.finished <= brief.finished:
            self.last[row["task"]] = brief


def row_files(rows: Path) -> list[Path]:
    return sorted(rows.glob("*.jsonl"))


def row_of(line: bytes) -> dict[str, Any] | None:
    """None for a line that is torn or is no row."""
    if not line.strip():
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and isinstance(row.get("task"), str) and isinstance(row.get("status"), str)
    return row if whole else None


def file_name(text: str) -> str:
    """The text itself where it is a harmless file name, otherwise a tame one that is still unique."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", text):
        return text
    tame = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip(".-")[:80]
    return f"{tame or 'task'}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def write_text(path: Path, text: str) -> None:
    """All or nothing: a reader never sees half a file, and two writers never share one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
