"""A paper's table filled from rows: means of ours beside the published values, and whether the two can be compared."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.cells import Cell as Cell
from evaluation.cells import Row, cells_of, compared, parts_of_column, scaled
from evaluation.chosen import choose, obstacles
from evaluation.pairs import Difference, adjusted, difference
from evaluation.papers import PaperColumn, PaperTable, Value, name_of
from evaluation.quotients import quotient_difference
from evaluation.statistics import ranks
from freemask.errors import UserError

WORLD = re.compile(r"world-\d+")
# What the rows of one line must agree in, and what it is called.
UNIFORM = {"commit": "commits", "run": "configurations", "steps": "numbers of steps"}


@dataclass(frozen=True)
class Line:
    """A line of the paper, or (`published` is empty) one that only our rows have."""

    key: str
    title: str
    published: Mapping[str, Value]
    cells: Mapping[str, Cell] = field(default_factory=dict)
    rows: Sequence[Row] = ()

    @property
    def done(self) -> int:
        return sum(row["status"] == "done" for row in self.rows)

    @property
    def failures(self) -> int:
        return len(self.rows) - self.done

    @property
    def tasks(self) -> set[str]:
        return {row["task"] for row in self.rows}

    @property
    def of_world(self) -> bool:
        """Whether any of its clips is one of the embedded world's."""
        return any(_of_world(row) for row in self.rows)

    def values(self, key: str) -> list[str]:
        """What the rows say under a key, each once."""
        return sorted({str(row.get(key)) for row in self.rows})


@dataclass(frozen=True)
class Filled:
    """`chosen`: our column for each of the paper's. `obstacles`: why a column's numbers are not compared with the
    published ones; a line of clips of the embedded world never is. `differences` are to the `reference`."""

    table: PaperTable
    lines: Sequence[Line]
    chosen: Mapping[str, str]
    obstacles: Mapping[str, str]
    reference: str | None
    differences: Sequence[Difference]

    def line(self, key: str) -> Line:
        return next(each for each in self.lines if each.key == key)

    def ranks(self, column: PaperColumn, published: bool) -> dict[str, float]:
        """Of the lines that have a number there, 1 for the best."""
        if column.better is None:
            return {}
        found = {}
        for line in self.lines:
            value = line.published.get(column.key) if published else None
            cell = None if published else line.cells.get(column.key)
            number = cell.mean if cell else value
            if isinstance(number, int | float) and not isinstance(number, bool):
                found[line.key] = float(number)
        ranked = ranks(list(found.values()), column.higher)
        return {key: rank for key, rank in zip(found, ranked, strict=True) if rank is not None}


def fill(
    table: PaperTable,
    rows: Iterable[Row],
    *,
    mixed: Collection[str] = (),
    reference: str | None = None,
    seed: int = 0,
) -> Filled:
    """Rows that no line of the paper claims make lines of their own, after the paper's. Rows of several commits,
    configurations or step counts are averaged only where `mixed` says so."""
    groups = _grouped(table, list(rows))
    for title, found in groups.values():
        _refuse_mixtures(title, found, mixed)
    chosen = choose(table.columns, [row for _, found in groups.values() for row in found])
    why_not = obstacles(table.columns, chosen)
    published = {line.key: table.published(line) for line in table.lines}
    lines = []
    for key, (title, found) in groups.items():
        values = published.get(key, {})
        cells = cells_of(table.columns, found, chosen, seed)
        comparable = not any(_of_world(row) for row in found)
        cells = {k: compared(cell, values.get(k), comparable and not why_not[k]) for k, cell in cells.items()}
        lines.append(Line(key, title, values, cells, found))
    reference = _reference(table, lines, reference)
    apart = _differences(table.columns, lines, chosen, reference, seed)
    return Filled(table, lines, chosen, why_not, reference, apart)


def _grouped(table: PaperTable, rows: Sequence[Row]) -> dict[str, tuple[str, list[Row]]]:
    groups: dict[str, tuple[str, list[Row]]] = {line.key: (line.title, []) for line in table.lines}
    owner: dict[tuple, str] = {}
    looked_at = {"variant", "method", *(key for line in table.lines for key in line.rows)}
    for row in rows:
        said = tuple((key, row.get(key)) for key in sorted(looked_at))
        if said not in owner:
            owner[said] = next((line.key for line in table.lines if line.has(row)), f"own:{name_of(row)}")
        key = owner[said]
        groups.setdefault(key, (name_of(row), []))[1].append(row)
    return groups


def _refuse_mixtures(title: str, rows: Sequence[Row], mixed: Collection[str]) -> None:
    for key, called in UNIFORM.items():
        found = {str(row.get(key)) for row in rows}
        if len(found) > 1 and key not in mixed:
            raise UserError(
                f"the rows of '{title}' come from {len(found)} {called}, and will not be averaged unasked",
                came=", ".join(f"{each[:12]} ({_count(rows, key, each)} rows)" for each in sorted(found)),
                expected=f"one {key} in each line",
                todo=f"choose one run with runs=[NAME], or allow it with mixed=[{key}]",
            )


def _count(rows: Sequence[Row], key: str, value: str) -> int:
    return sum(str(row.get(key)) == value for row in rows)


def _of_world(row: Row) -> bool:
    return WORLD.match(str(row.get("clip"))) is not None


def _reference(table: PaperTable, lines: Sequence[Line], asked: str | None) -> str | None:
    """The line asked for by key or title, else the table's own; None where it has no rows."""
    measured = {line.key: line for line in lines if line.cells}
    if asked is None:
        return table.reference if table.reference in measured else None
    for key, line in measured.items():
        if asked in (key, line.title):
            return key
    raise UserError(
        "the reference has no rows in this table",
        came=f"reference={asked}",
        expected=", ".join(line.title if key.startswith("own:") else key for key, line in measured.items())
        or "a line with rows",
    )


def _differences(
    columns: Sequence[PaperColumn],
    lines: Sequence[Line],
    chosen: Mapping[str, str],
    reference: str | None,
    seed: int,
) -> list[Difference]:
    """In the paper's unit; p-values corrected for all of them."""
    base = next((line for line in lines if line.key == reference), None)
    if base is None:
        return []
    found = []
    for column in columns:
        name = chosen.get(column.key)
        if name is None or column.better is None:
            continue
        others = [line for line in lines if line.key != reference and column.key in line.cells]
        if column.ratio:
            parts = {
                line.key: parts_of_column(columns, column, chosen, line.rows) for line in (base, *others)
            }
            found += [
                quotient_difference(line.key, column.key, parts[base.key], parts[line.key], seed=seed)
                for line in others
            ]
            continue
        there = scaled(base.rows, name, column.scale)
        for line in others:
            here = scaled(line.rows, name, column.scale)
            found.append(difference(line.key, column.key, there, here, seed=seed))
    return adjusted([each for each in found if each is not None])
