"""The numbers of a paper's table: means in the paper's unit, intervals, and how far they are from the published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.pairs import Values, values_of
from evaluation.papers import PaperColumn, Value
from evaluation.quotients import Parts, parts_of, quotient
from evaluation.statistics import cluster_bootstrap

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """In the paper's unit. `apart` is ours minus the published value, where the two can be compared."""

    mean: float
    low: float
    high: float
    n: int
    apart: float | None = None


def cells_of(
    columns: Sequence[PaperColumn], rows: Sequence[Row], chosen: Mapping[str, str], seed: int
) -> dict[str, Cell]:
    """Edits of one clip are drawn together: they are not independent."""
    cells = {}
    done = [row for row in rows if row["status"] == "done"]
    for column in columns:
        name = chosen.get(column.key)
        if column.ratio:
            found = quotient(parts_of_column(columns, column, chosen, done), seed=seed) if name else None
            cells |= {column.key: Cell(*found)} if found else {}
            continue
        clips: dict[str, list[float]] = {}
        for row in done if name else ():
            value = row["metrics"].get(name)
            if value is not None:
                clips.setdefault(str(row.get("clip")), []).append(float(value) * column.scale)
        values = [value for each in clips.values() for value in each]
        if values:
            mean = float(np.mean(values))
            cells[column.key] = Cell(mean, *cluster_bootstrap(clips, seed=seed), len(values))
    return cells


def compared(cell: Cell, published: Value, comparable: bool) -> Cell:
    if not comparable or not isinstance(published, int | float) or isinstance(published, bool):
        return cell
    return Cell(cell.mean, cell.low, cell.high, cell.n, cell.mean - published)


def parts_of_column(
    columns: Sequence[PaperColumn], column: PaperColumn, chosen: Mapping[str, str], rows: Sequence[Row]
) -> Parts:
    scale = {each.key: float(each.scale) for each in columns}
    above, below = ((chosen[key], scale[key]) for key in column.ratio)
    return parts_of(rows, above, below)


def scaled(rows: Sequence[Row], name: str, scale: float | int) -> Values:
    return {task: (clip, value * scale) for task, (clip, value) in values_of(rows, name).items()}
