"""The study columns of a paper's table, from what people said of the same edits that its lines are of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evaluation.stats.values import Row
from evaluation.tables.filled import Cell, Filled, Line
from evaluation.tables.papers import name_of

Made = tuple[str, str]  # a variant, or a method without one, and the identity of its configuration


@dataclass(frozen=True)
class People:
    """`cells`: by what was made and the column. `said`: who was asked, in sentences that go on after "ours, "."""

    cells: Mapping[Made, Mapping[str, Cell]]
    said: Sequence[str]


def made(row: Row) -> Made:
    return name_of(row), str(row.get("run", ""))


def with_people(filled: Filled, people: People | None) -> Filled:
    """Lines of other edits than people were asked about stay without."""
    if people is None:
        return filled
    studied = [column.key for column in filled.table.columns if column.study]
    found = {line.key: _cells(line, people, studied) for line in filled.lines}
    lines = [replace(line, cells={**line.cells, **found[line.key]}) for line in filled.lines]
    ours = {
        key: {line: cells[key].mean for line, cells in found.items() if key in cells}
        for key in studied
        if any(key in cells for cells in found.values())
    }
    rows = {made(row) for line in filled.lines for row in line.rows}
    strange = [name for name, run in people.cells if (name, run) not in rows]
    more = (
        [f"People were also asked about {', '.join(strange)}: these edits are not in this table."]
        if strange
        else []
    )
    return replace(filled, lines=lines, ours={**filled.ours, **ours}, people=[*people.said, *more])


def _cells(line: Line, people: People, studied: Sequence[str]) -> dict[str, Cell]:
    for key in dict.fromkeys(made(row) for row in line.rows):
        if key in people.cells:
            return {column: cell for column, cell in people.cells[key].items() if column in studied}
    return {}
