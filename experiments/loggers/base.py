"""What a logger is, and the guard that keeps its failures away from the run."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.config.fingerprint import leaves

# The parts of a row that hold facts by name; any other list or table stays one cell.
NESTED = ("metrics", "seconds", "peak", "facts")
PLOTTED = ("metrics/", "seconds/", "peak/")
SHOWN = ("peak_rss_gb", "peak_gpu_gb")


class Logger:
    """Does nothing; others say more. `files` are paths of a task's video and sheet, where kept."""

    def start(self, folder: Path, record: Mapping[str, Any]) -> None:
        """The run's folder, and its identity record."""

    def row(self, row: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        """A row that was just written. One without a status is a point of a curve (`freemask calibrate`)."""

    def end(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """All rows of the run, this start's and earlier ones'. Called once, also where nothing was left to do."""

    def close(self) -> None:
        """Nothing will be asked of it again: the end, or a failure. Must not fail where `start` did."""


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
        self._try(self._logger.close)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            failed, self._logger = self._logger, Logger()
            lines = str(error).splitlines() or [type(error).__name__]
            name = type(failed).__name__
            self._say(f"logger {name} stopped ({lines[0]}); the run goes on, its rows are complete")
            with suppress(Exception):
                failed.close()


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as cells by column: what it measured as `part/name`, other lists and tables as JSON."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        if key in NESTED and isinstance(value, Mapping):
            out |= {f"{key}/{name}": _cell(each) for name, each in leaves(value, "/")}
        else:
            out[key] = _cell(value)
    return out


def table(
    rows: Sequence[Mapping[str, Any]], left_out: Sequence[str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns that occur in any row, and the rows as cells."""
    lines = [flat({key: row[key] for key in row if key not in left_out}) for row in rows]
    return list(dict.fromkeys(column for line in lines for column in line)), lines


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """What of a row can be plotted."""
    return {
        name: value
        for name, value in flat(row).items()
        if (name.startswith(PLOTTED) or name in SHOWN)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    }


def is_point(row: Mapping[str, Any]) -> bool:
    return "status" not in row


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list | tuple) else value
