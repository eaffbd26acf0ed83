"""What a mirror was sent already, RUN/loggers/NAME.jsonl: a run that goes on sends nothing twice."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.runs.rows import file_name

FOLDER = "loggers"


class Ledger:
    """Entries in the order in which they were sent, by channel (one for each variant). The number of an entry is its
    step: the same for ever. One process at a time holds the ledger of a run."""

    def __init__(self, run: Path, name: str) -> None:
        self._path = run / FOLDER / f"{file_name(name)}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self.mine = _locked(self._file)
        self._known: dict[str, dict[str, int]] = {}
        self._sure: dict[str, int] = {}
        for line in self._path.read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError):  # a torn line
                self._read(json.loads(line))

    def has(self, channel: str, key: str) -> bool:
        return key in self._channel(channel)

    def count(self, channel: str, prefix: str = "") -> int:
        """How many entries there are whose key begins so."""
        return sum(key.startswith(prefix) for key in self._channel(channel))

    def next(self, channel: str) -> int:
        return max(self._channel(channel).values(), default=-1) + 1

    def add(self, channel: str, key: str) -> None:
        """After it was sent: what is sent twice by a process that dies in between has the same step both times."""
        self._write({"channel": channel, "key": key, "step": self.next(channel)})

    def settle(self, channel: str) -> None:
        """Everything so far has arrived."""
        if self.next(channel) > self._sure.get(channel, 0):
            self._write({"channel": channel, "arrived": self.next(channel)})

    def unsure(self) -> dict[str, dict[str, int]]:
        """By channel, entries that were sent by a process that ended before it knew whether they arrived."""
        found = {
            channel: {key: step for key, step in known.items() if step >= self._sure.get(channel, 0)}
            for channel, known in self._known.items()
        }
        return {channel: entries for channel, entries in found.items() if entries}

    def forget(self, channel: str, key: str) -> None:
        """In this process alone: it will be sent again, under a new step."""
        self._channel(channel)[f"lost {key}"] = self._channel(channel).pop(key)

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._file)
        self._file, self.mine = -1, False

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._file, f"\n{json.dumps(entry)}\n".encode())
        self._read(entry)

    def _read(self, entry: dict[str, Any]) -> None:
        channel = str(entry["channel"])
        if "arrived" in entry:
            self._sure[channel] = int(entry["arrived"])
        else:
            self._channel(channel)[str(entry["key"])] = int(entry["step"])

    def _channel(self, name: str) -> dict[str, int]:
        return self._known.setdefault(name, {})


def key_of(row: Mapping[str, Any]) -> str:
    """An attempt at a task: a task that is done again is another entry."""
    return f"row {row['task']} {row.get('finished', '')}"


def _locked(file: int) -> bool:
    try:
        import fcntl
    except ImportError:  # no such system call: believe that we are alone
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
