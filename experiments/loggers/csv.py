"""rows.csv in the run folder, written at the end from all rows."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.loggers.base import Logger, table
from experiments.runs.rows import write_text

LEFT_OUT = ("columns", "versions")  # the same in every row, and long


class Csv(Logger):
    """Always the whole run: written again, never appended to."""

    def start(self, folder: Path, record: Mapping[str, Any]) -> None:
        self._folder = folder

    def end(self, rows: Sequence[Mapping[str, Any]]) -> None:
        columns, lines = table(rows, LEFT_OUT)
        text = io.StringIO()
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(lines)
        write_text(self._folder / "rows.csv", text.getvalue())
