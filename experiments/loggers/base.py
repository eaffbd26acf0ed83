"""What a logger is, and the guard that keeps its failures away from the run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Logger:
    """Does nothing; others say more. `files` are paths of a task's video and sheet, where kept."""

    def start(self, folder: Path, record: Mapping[str, Any]) -> None:
        """The run's folder, and its identity record."""

    def row(self, row: Mapping[str, Any], files: Mapping[str, Path]) -> None: ...

    def end(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """All rows of the run, this start's and earlier ones'."""


class Guarded:
    """Calls a logger; the first failure is one line of notice, and the logger is left alone from then on."""

    def __init__(self, logger: Logger, say: Callable[[str], None]) -> None:
        self._logger, self._say = logger, say

    def start(self, folder: Path, record: Mapping[str, Any]) -> None:
        self._try(lambda: self._logger.start(folder, record))

    def row(self, row: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        self._try(lambda: self._logger.row(row, files))

    def end(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._try(lambda: self._logger.end(rows))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            name = type(self._logger).__name__
            lines = str(error).splitlines() or [type(error).__name__]
            self._say(f"logger {name} stopped ({lines[0]}); the run goes on, its rows are complete")
            self._logger = Logger()


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its nested parts (metrics, seconds) as `part/name`."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            out |= {f"{key}/{name}": each for name, each in value.items()}
        else:
            out[key] = value
    return out
