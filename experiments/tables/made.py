"""What `freemask table` makes of a paper's table: text for readers, cells for a CSV file, and a record."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from evaluation.tables import render
from evaluation.tables.filled import Filled, fill
from evaluation.tables.grid import Grid
from evaluation.tables.paper import main_grid, paired_grid
from evaluation.tables.papers import PaperTable
from evaluation.tables.people import with_people
from experiments.runs.rows import write_text
from experiments.tables.lacking import Lack, lacking, missing
from experiments.tables.notes import notes
from experiments.tables.people import people_of
from experiments.tables.rows import planned, rows_of
from experiments.tables.settings import settings_grid
from freemask.errors import UserError


@dataclass(frozen=True)
class Made:
    table: PaperTable
    grids: Sequence[Grid]
    cells: Sequence[Mapping[str, Any]]
    record: Mapping[str, Any]

    @property
    def json(self) -> str:
        return json.dumps(self.record, indent=1, ensure_ascii=False, allow_nan=False)

    def write(self, out: Path) -> list[Path]:
        cells, name = io.StringIO(), self.table.file_name
        writer = csv.DictWriter(cells, list(self.cells[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.cells)
        labelled = list(zip(self.grids, (1, 2), (name, f"{name}-compared"), strict=False))
        tex = ["% Needs \\usepackage{booktabs} and \\usepackage{amssymb}.\n"]
        tex.append("\n\n".join(render.latex(grid, label) for grid, _, label in labelled) + "\n")
        html = [render.html_table(grid, level) for grid, level, _ in labelled]
        texts = {
            ".md": "\n\n".join(render.markdown(grid, level) for grid, level, _ in labelled) + "\n",
            ".tex": "".join(tex),
            ".csv": cells.getvalue(),
            ".html": render.html_page(self.table.title, html),
            ".json": f"{self.json}\n",
        }
        try:
            for suffix, text in texts.items():
                write_text(out / f"{name}{suffix}", text)
        except OSError as error:
            raise UserError(
                "cannot write the table", came=f"{out}: {error.strerror}", todo="out=FOLDER"
            ) from error
        return [out / f"{name}{suffix}" for suffix in texts]


def of_settings(table: PaperTable) -> Made:
    grid, cells = settings_grid(table)
    said = {"table": table.name, "source": dict(table.source), "cells": cells, "notes": list(grid.notes)}
    return Made(table, [grid], cells, said)


def of_runs(table: PaperTable, runs: Sequence[Path], mixed: Sequence[str], reference: str | None) -> Made:
    filled = fill(table, (row for run in runs for row in rows_of(run)), mixed=mixed, reference=reference)
    filled = with_people(filled, people_of(table, runs))
    lacks = lacking(filled, max((planned(run) or 0 for run in runs), default=0) or None)
    said, second = notes(filled), paired_grid(filled)
    marks = {each.line: each.mark for each in lacks if each.mark}
    grids = [main_grid(filled, marks, said, missing(lacks)), *([second] if second else [])]
    record = _record(filled, lacks, said) | {"runs": [str(run) for run in runs]}
    return Made(table, grids, list(_cells(filled)), record)


def _cells(filled: Filled) -> Iterator[dict[str, Any]]:
    """One for each line and column, in full precision and in the paper's unit."""
    for column in filled.table.columns:
        ours, theirs = filled.ranks(column, published=False), filled.ranks(column, published=True)
        for line in filled.lines:
            cell = _finite(vars(line.cells[column.key])) if column.key in line.cells else {}
            yield {
                **{"line": line.key, "title": line.title, "column": column.key},
                **{"our_column": filled.chosen.get(column.key), "ours": cell.get("mean")},
                **{key: cell.get(key) for key in ("low", "high", "n", "clips", "raters")},
                "failures": line.failures if line.rows else None,
                **{"published": line.published.get(column.key), "difference": cell.get("apart")},
                **{"rank": ours.get(line.key), "published_rank": theirs.get(line.key)},
            }


def _record(filled: Filled, lacks: Sequence[Lack], said: Sequence[str]) -> dict[str, Any]:
    table = filled.table
    lines = [
        {
            **{"line": line.key, "title": line.title, "n": line.done, "failures": line.failures},
            "commits": line.values("commit"),
            "ours": {key: _finite(vars(cell)) for key, cell in line.cells.items()},
            "published": dict(line.published),
        }
        for line in filled.lines
    ]
    return {
        "table": table.name,
        "source": dict(table.source),
        "columns": [asdict(each) | {"our_column": filled.chosen.get(each.key)} for each in table.columns],
        "lines": lines,
        "reference": filled.reference,
        "differences": [_finite(vars(each)) | {"clear": each.clear} for each in filled.differences],
        "missing": [asdict(each) for each in lacks],
        "notes": list(said),
    }


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is not a number becomes null."""
    return {key: None if isinstance(v, float) and not isfinite(v) else v for key, v in values.items()}
