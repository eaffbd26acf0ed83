"""`freemask table NAME`: a paper's table from the rows of runs, beside what the paper printed, in every format."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from evaluation.tables import render
from evaluation.tables.filled import Cell, Filled, fill
from evaluation.tables.grid import Grid
from evaluation.tables.paper import main_grid, paired_grid
from evaluation.tables.papers import PaperTable, read
from experiments.cli.verb import Verb
from experiments.config.compose import plain
from experiments.config.options import Keys
from experiments.runs.garbage import seldom_collected
from experiments.runs.rows import write_text
from experiments.tables.lacking import Lack, content, lacking
from experiments.tables.notes import missing, notes
from experiments.tables.rows import folders, planned, rows_of, stores
from freemask.errors import UserError

VERB = Verb(
    "a paper's table from the rows of runs: ours, the published value, the difference, what is missing",
    prompts=("name", "reference", "out"),
    paths=("paths.runs",),
    positional="name",
    json=True,
    examples=(
        "freemask table freemask/2",
        "freemask table fatezero/1 runs=[fatezero-table1] reference=sdedit",
        "freemask table freemask/2 runs=[freemask-table2,tokenflow] out=paper",
    ),
    keys=(
        "NAME              which table; without it, a list of them",
        "runs=[A,B]        whose rows; left out, those of the table's own experiment (experiment=freemask/table2)",
        "out=FOLDER        where the .md, .tex, .csv, .html and .json go",
        "reference=LINE    the line that the others are compared with, task by task",
        "mixed=[commit]    average rows of one line that differ in commit, run, steps, model, device, dtype, frames",
    ),
)

HEAD = ["line", "title", "column", "our_column", "ours", "low", "high", "n", "clips", "failures"]
HEAD += ["published", "difference", "rank", "published_rank"]

# What the rows of one line may differ in, as `evaluation.tables.filled.UNIFORM` has it.
Mixed = Literal["commit", "run", "steps", "model", "device", "dtype", "frames"]


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/table.yaml."""

    name: str | None
    runs: str | Sequence[str] | None
    out: str
    reference: str | None
    mixed: Mixed | Sequence[Mixed]

    @property
    def allowed(self) -> list[str]:
        return [self.mixed] if isinstance(self.mixed, str) else list(self.mixed)


@seldom_collected()
def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    table = read(options.name)
    if table.kind == "words":
        record, grids, lines = _words(table)
    else:
        record, grids, lines = _numbers(table, options, Path(config["paths"]["runs"]).expanduser())
    kept = _leave(table, Path(options.out).expanduser(), grids, lines, record)
    if flags.get("json"):
        print(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False))
        return 0
    print("\n\n".join(render.text(grid) for grid in grids))
    print("\nfiles: " + ", ".join(str(path) for path in kept))
    return 0


def _words(table: PaperTable) -> tuple[dict[str, Any], list[Grid], list[list[Any]]]:
    from experiments.tables.settings import settings_grid

    grid, records = settings_grid(table)
    record = {"table": table.name, "source": dict(table.source), "cells": records, "notes": list(grid.notes)}
    lines = [list(records[0]), *(list(each.values()) for each in records)]
    return record, [grid], lines


def _numbers(
    table: PaperTable, options: Options, runs: Path
) -> tuple[dict[str, Any], list[Grid], list[list[Any]]]:
    found = _found(table, options, runs)
    rows = [row for run in found for row in rows_of(run)]
    filled = fill(table, rows, mixed=options.allowed, reference=options.reference)
    lacks = lacking(filled, max((planned(run) or 0 for run in found), default=0) or None)
    said = notes(filled)
    marks = {each.line: each.mark for each in lacks if each.mark}
    second = paired_grid(filled)
    grids = [main_grid(filled, marks, said, missing(lacks)), *([second] if second else [])]
    record = _record(filled, lacks, said) | {"runs": [str(run) for run in found]}
    return record, grids, [HEAD, *_lines(filled)]


def _found(table: PaperTable, options: Options, runs: Path) -> list[Path]:
    """The runs asked for, or the one that the table's experiment makes where it is there."""
    if options.runs is not None:
        asked = [options.runs] if isinstance(options.runs, str) else list(options.runs)
        return folders(runs, asked)
    usual = runs / str(content(table.experiment).get("name") or table.file_name)
    return [usual] if stores(usual) else []


def _leave(
    table: PaperTable,
    out: Path,
    grids: Sequence[Grid],
    lines: Sequence[Sequence[Any]],
    record: Mapping[str, Any],
) -> list[Path]:
    cells = io.StringIO()
    csv.writer(cells, lineterminator="\n").writerows(lines)
    labels = [table.file_name, f"{table.file_name}-compared"]
    texts = {
        ".md": "\n\n".join(render.markdown(grid, min(place + 1, 2)) for place, grid in enumerate(grids))
        + "\n",
        ".tex": "% Needs \\usepackage{booktabs} and \\usepackage{amssymb}.\n"
        + "\n\n".join(render.latex(grid, label) for grid, label in zip(grids, labels, strict=False))
        + "\n",
        ".csv": cells.getvalue(),
        ".html": render.html_page(
            table.title, [render.html_table(grid, min(place + 1, 2)) for place, grid in enumerate(grids)]
        ),
        ".json": json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }
    paths = [out / f"{table.file_name}{suffix}" for suffix in texts]
    try:
        for path, text in zip(paths, texts.values(), strict=True):
            write_text(path, text)
    except OSError as error:
        raise UserError(
            "cannot write the table", came=f"{out}: {error.strerror}", todo="out=FOLDER"
        ) from error
    return paths


def _lines(filled: Filled) -> list[list[Any]]:
    """One for each line and column, in full precision and in the paper's unit."""
    found = []
    for column in filled.table.columns:
        ours, theirs = filled.ranks(column, published=False), filled.ranks(column, published=True)
        for line in filled.lines:
            cell = line.cells.get(column.key)
            numbers = [_finite(getattr(cell, key, None)) for key in ("mean", "low", "high", "n", "clips")]
            chosen = filled.chosen.get(column.key)
            head = [line.key, line.title, column.key, chosen, *numbers, line.failures if line.rows else None]
            apart = cell.apart if cell else None
            ranked = [ours.get(line.key), theirs.get(line.key)]
            found.append([*head, line.published.get(column.key), apart, *ranked])
    return found


def _record(filled: Filled, lacks: Sequence[Lack], said: Sequence[str]) -> dict[str, Any]:
    table = filled.table
    lines = [
        {
            "line": line.key,
            "title": line.title,
            "n": line.done,
            "failures": line.failures,
            "commits": line.values("commit") if line.rows else [],
            "ours": {key: _cell(cell) for key, cell in line.cells.items()},
            "published": dict(line.published),
        }
        for line in filled.lines
    ]
    return {
        "table": table.name,
        "source": dict(table.source),
        "columns": [
            asdict(column) | {"our_column": filled.chosen.get(column.key)} for column in table.columns
        ],
        "lines": lines,
        "reference": filled.reference,
        "differences": [
            {key: _finite(value) for key, value in vars(each).items()} | {"clear": each.clear}
            for each in filled.differences
        ],
        "missing": [asdict(each) for each in lacks],
        "notes": list(said),
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {key: _finite(value) for key, value in vars(cell).items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value
