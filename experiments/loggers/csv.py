"""rows.csv in the run folder, written at the end from all rows."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.loggers.base import Logger, flat
from experiments.runs.rows import write_text

LEFT_OUT = ("columns", "versions")  # the same in every row, and long


class Csv(Logger):
    """Always the whole run: written again, never appended to."""

    def __init__(self) -> None:
        self._folder = Path()

    def start(self, folder: Path, record: Mapping[str, Any]) -> None:
        self._folder = folder

    def end(self, rows: Sequence[Mapping[str, Any]]) -> None:
        table = [flat({key: row[key] for key in row if key not in LEFT_OUT}) for row in rows]
        columns = list(dict.fromkeys(key for row in table for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(table)
        write_text(self._folder / "rows.csv", text.getvalue())
