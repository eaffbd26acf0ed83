"""A filled table as text cells: for each line ours, its interval, the published value, and what lies between."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.filled import Filled, Line
from evaluation.numbers import chance, number, signed
from evaluation.pairs import Difference
from evaluation.papers import PaperColumn, Value

BEST, SECOND = 1, 2
DASH = "-"


@dataclass(frozen=True)
class Shown:
    """`place` 1 is the best of its kind, 2 the second, 0 anything else."""

    text: str
    place: int = 0


@dataclass(frozen=True)
class Part:
    label: str
    cells: Sequence[Shown]


@dataclass(frozen=True)
class Block:
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Grid:
    title: str
    head: Sequence[str]
    blocks: Sequence[Block]
    notes: Sequence[str] = field(default_factory=tuple)
    missing: Sequence[str] = field(default_factory=tuple)


def main_grid(
    filled: Filled, marks: Mapping[str, str], notes: Sequence[str] = (), missing: Sequence[str] = ()
) -> Grid:
    """`marks` says by line why it has no rows."""
    columns = filled.table.columns
    ours = {column.key: filled.ranks(column, published=False) for column in columns}
    theirs = {column.key: filled.ranks(column, published=True) for column in columns}
    blocks = [_block(line, columns, (ours, theirs), marks.get(line.key, "")) for line in filled.lines]
    head = [*(column.head for column in columns), "mean rank"]
    source = f"{filled.table.title}: {filled.table.about}"
    return Grid(source, head, blocks, tuple(notes), tuple(missing))


Ranks = Mapping[str, Mapping[str, float]]


def _block(line: Line, columns: Sequence[PaperColumn], ranks: tuple[Ranks, Ranks], mark: str) -> Block:
    ours, theirs = ranks
    parts = []
    if line.cells:
        shown = [_ours(line, column, ours[column.key].get(line.key)) for column in columns]
        parts.append(Part(f"ours, n={line.done}{_failed(line)}", [*shown, _mean_rank(line, columns, ours)]))
        spread = [Shown(_interval(line, column)) for column in columns]
        parts.append(Part("95% interval", [*spread, Shown("")]))
    else:
        parts.append(Part(f"ours: {mark or 'no number'}", [Shown(DASH)] * len(columns) + [Shown("")]))
    if line.published:
        shown = [
            _published(line.published[column.key], column, theirs[column.key].get(line.key))
            for column in columns
        ]
        parts.append(Part("published", [*shown, _mean_rank(line, columns, theirs)]))
        if line.cells:
            apart = [Shown(_apart(line, column)) for column in columns]
            parts.append(Part("difference", [*apart, Shown("")]))
    return Block(line.title, parts)


def _failed(line: Line) -> str:
    return f", {line.failures} failed" if line.failures else ""


def _ours(line: Line, column: PaperColumn, rank: float | None) -> Shown:
    cell = line.cells.get(column.key)
    if cell is None:
        return Shown(DASH)
    return Shown(number(cell.mean) + (f" (n={cell.n})" if cell.n < line.done else ""), _place(rank))


def _interval(line: Line, column: PaperColumn) -> str:
    cell = line.cells.get(column.key)
    if cell is None or not math.isfinite(cell.low):
        return DASH
    return f"[{number(cell.low)}, {number(cell.high)}]"


def _published(value: Value, column: PaperColumn, rank: float | None) -> Shown:
    return Shown(written(value, column), _place(rank))


def _apart(line: Line, column: PaperColumn) -> str:
    cell = line.cells.get(column.key)
    return DASH if cell is None or cell.apart is None else signed(cell.apart)


def written(value: Value, column: PaperColumn) -> str:
    """With as many digits as the paper prints; yes and no as signs."""
    if isinstance(value, bool):
        return "✓" if value else "×"
    if value is None or isinstance(value, str):
        return value or DASH
    digits = 1 if column.study and column.better and value >= 20 else 2 if column.study or value >= 1 else 3
    return f"{value:.{digits}f}"


def _mean_rank(line: Line, columns: Sequence[PaperColumn], ranks: Ranks) -> Shown:
    """Over the columns that are measured, not asked of people."""
    found = [ranks[c.key][line.key] for c in columns if not c.study and line.key in ranks[c.key]]
    return Shown(f"{sum(found) / len(found):.1f}" if found else DASH)


def _place(rank: float | None) -> int:
    return 0 if rank is None or rank >= 3 else BEST if rank < 2 else SECOND


def paired_grid(filled: Filled) -> Grid | None:
    """Every line with rows against the reference, task by task; None where there is nothing to compare."""
    if not filled.differences or filled.reference is None:
        return None
    base = filled.line(filled.reference)
    keys = {each.column for each in filled.differences}
    columns = [column for column in filled.table.columns if column.key in keys]
    found = {(each.variant, each.column): each for each in filled.differences}
    blocks = []
    for line in filled.lines:
        mine = [found.get((line.key, column.key)) for column in columns]
        if any(mine):
            blocks.append(_paired_block(line, base, columns, mine))
    notes = (
        f"Ours minus ours of '{base.title}' on the tasks that both finished, with 95% bootstrap intervals over clips; "
        f"p: by turning the signs of whole clips, corrected after Holm for all {len(filled.differences)} comparisons. "
        "Marked where the interval leaves out 0 and there are six clips or more.",
        "Published: the difference of the two published values, which says nothing of its own spread.",
    )
    return Grid(f"Compared with {base.title}", [column.head for column in columns], blocks, notes)


def _paired_block(
    line: Line, base: Line, columns: Sequence[PaperColumn], found: Sequence[Difference | None]
) -> Block:
    most = max(each.n for each in found if each)
    means = [_difference(each, most) for each in found]
    spread = [
        Shown(f"[{number(each.low)}, {number(each.high)}]" if each and math.isfinite(each.low) else DASH)
        for each in found
    ]
    chances = [Shown(chance(each.p_adjusted) if each else DASH) for each in found]
    parts = [Part(f"ours, n={most}", means), Part("95% interval", spread), Part("corrected", chances)]
    if line.published and base.published:
        theirs = [Shown(_published_apart(line, base, column)) for column in columns]
        parts.append(Part("published", theirs))
    return Block(line.title, parts)


def _difference(found: Difference | None, most: int) -> Shown:
    if found is None:
        return Shown(DASH)
    few = f" (n={found.n})" if found.n < most else ""
    return Shown(signed(found.mean) + few, BEST if found.clear else 0)


def _published_apart(line: Line, base: Line, column: PaperColumn) -> str:
    mine, other = line.published.get(column.key), base.published.get(column.key)
    if not isinstance(mine, int | float) or not isinstance(other, int | float):
        return DASH
    return signed(round(mine - other, 6))
