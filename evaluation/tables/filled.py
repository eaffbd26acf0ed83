"""A paper's table filled from rows: means of ours beside the published values, and whether the two can be compared."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from evaluation.stats.many import better_than, ranks
from evaluation.stats.paired import Difference, adjusted
from evaluation.stats.values import Row, distinct
from evaluation.tables.cells import Cell as Cell
from evaluation.tables.cells import Measured, comparable
from evaluation.tables.chosen import choose, obstacles
from evaluation.tables.papers import PaperColumn, PaperTable, Value, name_of
from evaluation.tables.summary import said_of, values_of_key
from freemask.errors import UserError

WORLD = re.compile(r"world-\d+")
# What the rows of one line must agree in, and what it is called.
UNIFORM = {
    "commit": "commits",
    "run": "configurations",
    "steps": "numbers of steps",
    "model": "models",
    "device": "devices",
    "dtype": "number formats",
    "frames": "numbers of frames",
}


@dataclass(frozen=True)
class Line:
    """A line of the paper, or (`published` is empty) one that only our rows have. `copies`: rows of edits that other
    folders hold as well, which count once."""

    key: str
    title: str
    published: Mapping[str, Value]
    cells: Mapping[str, Cell] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    copies: int = 0

    @property
    def done(self) -> int:
        """Tasks, of which several seeds count as one."""
        return len({row["task"] for row in self.rows if row["status"] == "done"})

    @property
    def failures(self) -> int:
        return sum(row["status"] != "done" for row in self.rows)

    @property
    def tasks(self) -> set[str]:
        return {row["task"] for row in self.rows}

    @property
    def of_world(self) -> bool:
        """Whether any of its clips is one of the embedded world's."""
        return any(WORLD.match(str(row.get("clip"))) for row in self.rows)

    def values(self, key: str) -> list[str]:
        return values_of_key(self.rows, key)


@dataclass(frozen=True)
class Filled:
    """`chosen`: our column for each of the paper's. `obstacles`: why a column's numbers are not compared with the
    published ones; a line of clips of the embedded world never is. `differences` are to the `reference`. `ours`: by
    column, each line's number over the tasks that all lines have. `nameless`: rows that do not say what made them.
    `people`: sentences about those whose answers fill the study columns."""

    table: PaperTable
    lines: Sequence[Line]
    chosen: Mapping[str, str]
    obstacles: Mapping[str, str]
    reference: str | None
    differences: Sequence[Difference]
    ours: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    nameless: int = 0
    people: Sequence[str] = ()

    def line(self, key: str) -> Line:
        return next(each for each in self.lines if each.key == key)

    def ranks(self, column: PaperColumn, published: bool) -> dict[str, float]:
        """Of the lines that have a number there, 1 for the best; equal ones share the mean of their places."""
        found = self._numbers(column, published)
        ranked = ranks(list(found.values()), column.higher)
        return {key: rank for key, rank in zip(found, ranked, strict=True) if rank is not None}

    def places(self, column: PaperColumn, published: bool) -> dict[str, int]:
        """1 for every line that none is better than, 2 for those that one is better than, and so on."""
        found = self._numbers(column, published)
        every = list(found.values())
        return {key: 1 + better_than(value, every, column.higher) for key, value in found.items()}

    def _numbers(self, column: PaperColumn, published: bool) -> Mapping[str, float]:
        if column.better is None:
            return {}
        if not published:
            return self.ours.get(column.key, {})
        told = {line.key: line.published.get(column.key) for line in self.lines}
        return {
            k: float(v) for k, v in told.items() if isinstance(v, int | float) and not isinstance(v, bool)
        }


def fill(
    table: PaperTable, rows: Iterable[Row], *, mixed: Collection[str] = (), reference: str | None = None
) -> Filled:
    """Rows that no line of the paper claims make lines of their own, after the paper's. Rows that differ in what
    `UNIFORM` names are averaged only where `mixed` says so. Rows that do not say which options they were made with are
    left out."""
    every = list(rows)
    told = [row for row in every if row.get("choices")]
    groups = _grouped(table, told)
    chosen = choose(table.columns, told)
    why_not = obstacles(table.columns, chosen)
    published = {line.key: table.published(line) for line in table.lines}
    lines, measured = [], {}
    for key, (title, found) in groups.items():
        once = distinct(found)
        line = Line(key, title, published.get(key, {}), {}, once, len(found) - len(once))
        _refuse_mixtures(line, mixed)
        measured[key] = Measured(table.columns, once, chosen)
        cells = measured[key].cells()
        if not line.of_world:
            cells = {k: c if why_not[k] else c.beside(line.published.get(k)) for k, c in cells.items()}
        lines.append(replace(line, cells=cells))
    reference = _reference(table, lines, reference)
    apart = _differences(table.columns, measured, reference)
    ours = {column.key: comparable(measured, column) for column in table.columns}
    return Filled(table, lines, chosen, why_not, reference, apart, ours, len(every) - len(told))


def _grouped(table: PaperTable, rows: Sequence[Row]) -> dict[str, tuple[str, list[Row]]]:
    """A line of the paper takes the rows of one variant: the one of its own name, or the only one there is."""
    claimed: dict[str, dict[str, list[Row]]] = {line.key: {} for line in table.lines}
    own: dict[str, list[Row]] = {}
    for row in rows:
        line = table.line_of(row)
        place = own if line is None else claimed[line.key]
        place.setdefault(_title(table, row) if line is None else name_of(row), []).append(row)
    groups: dict[str, tuple[str, list[Row]]] = {}
    for line in table.lines:
        named = claimed[line.key]
        mine = line.key if line.key in named else next(iter(named)) if len(named) == 1 else None
        groups[line.key] = (line.title, named.pop(mine) if mine is not None else [])
        for name, found in named.items():
            own.setdefault(name, []).extend(found)
    return groups | {f"own:{name}": (name, found) for name, found in own.items()}


def _title(table: PaperTable, row: Row) -> str:
    """Of a line of its own; with the choices that keep it from being a line of the paper."""
    asked = {g for line in table.lines if line.method == row["choices"].get("method") for g in line.choices}
    said = ", ".join(f"{group}={row['choices'].get(group)}" for group in sorted(asked))
    return name_of(row) + (f" ({said})" if said and not row.get("variant") else "")


def _refuse_mixtures(line: Line, mixed: Collection[str]) -> None:
    for key, called in UNIFORM.items():
        found = line.values(key)
        if len(found) > 1 and key not in mixed:
            counts = {each: sum(said_of(row, key) == each for row in line.rows) for each in found}
            raise UserError(
                f"the rows of '{line.title}' come from {len(found)} {called}, and will not be averaged unasked",
                came=", ".join(f"{each} ({count} rows)" for each, count in counts.items()),
                expected=f"one {key} in each line",
                todo=f"choose one run with runs=[NAME], or allow it with mixed=[{key}]",
            )


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
    columns: Sequence[PaperColumn], lines: Mapping[str, Measured], reference: str | None
) -> list[Difference]:
    """In the paper's unit; p-values corrected for all of them."""
    if reference is None:
        return []
    found = [
        line.apart(key, column.key, lines[reference])
        for column in columns
        if column.better is not None
        for key, line in lines.items()
        if key != reference
    ]
    return adjusted([each for each in found if each is not None])
