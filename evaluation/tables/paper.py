"""The grids of a filled table: each line's ours, its interval, the published value, and what lies between; and the
differences of all lines to one of them."""

from collections.abc import Mapping, Sequence

from evaluation.stats.paired import Difference
from evaluation.tables.filled import Cell, Filled, Line
from evaluation.tables.grid import BEST, DASH, SECOND, Block, Grid, Part, Shown
from evaluation.tables.numbers import chance, number, signed
from evaluation.tables.papers import PaperColumn, Value
from evaluation.tables.run import INTERVAL, ranged


def main_grid(
    filled: Filled, marks: Mapping[str, str], notes: Sequence[str] = (), missing: Sequence[str] = ()
) -> Grid:
    """`marks` says by line why it has no rows."""
    columns = filled.table.columns
    blocks = [_block(filled, line, marks.get(line.key, "")) for line in filled.lines]
    head = [*(column.head for column in columns), "mean rank"]
    source = f"{filled.table.title}: {filled.table.about}"
    return Grid(source, head, blocks, tuple(notes), tuple(missing))


def _block(filled: Filled, line: Line, mark: str) -> Block:
    columns, parts = filled.table.columns, []
    if line.cells:
        places, rank = _standing(filled, line, published=False)
        shown = [_ours(line, column, places.get(column.key)) for column in columns]
        parts.append(Part(f"ours, n={line.done}{_failed(line)}", [*shown, rank]))
        spread = [Shown(_interval(line.cells.get(column.key))) for column in columns]
        parts.append(Part("95% interval", [*spread, Shown("")]))
    else:
        parts.append(Part(f"ours: {mark or 'no number'}", [Shown(DASH)] * len(columns) + [Shown("")]))
    if line.published:
        places, rank = _standing(filled, line, published=True)
        shown = [Shown(written(line.published[c.key], c), _place(places.get(c.key))) for c in columns]
        parts.append(Part("published", [*shown, rank]))
        if line.cells:
            apart = [Shown(_apart(line, column)) for column in columns]
            parts.append(Part("difference", [*apart, Shown("")]))
    return Block(line.title, parts)


def _standing(filled: Filled, line: Line, *, published: bool) -> tuple[dict[str, int], Shown]:
    """The line's place in each column, and its mean rank over those that are measured, not asked of people."""
    places, ranks = {}, []
    for column in filled.table.columns:
        place = filled.places(column, published).get(line.key)
        if place is None:
            continue
        places[column.key] = place
        if not column.study:
            ranks.append(filled.ranks(column, published)[line.key])
    return places, Shown(f"{sum(ranks) / len(ranks):.1f}" if ranks else DASH)


def _failed(line: Line) -> str:
    return f", {line.failures} failed" if line.failures else ""


def _ours(line: Line, column: PaperColumn, place: int | None) -> Shown:
    cell = line.cells.get(column.key)
    if cell is None:
        return Shown(DASH)
    return Shown(number(cell.mean) + (f" (n={cell.n})" if cell.n < line.done else ""), _place(place))


def _interval(found: Cell | Difference | None) -> str:
    return (ranged(found.low, found.high).strip() if found else "") or DASH


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


def _place(place: int | None) -> int:
    return place if place in (BEST, SECOND) else 0


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
        f"Ours minus ours of '{base.title}' on the tasks that both finished. {INTERVAL}; p: two-sided, of no "
        f"difference, by the same t, corrected after Holm for all {len(filled.differences)} comparisons. Marked where "
        "that p is at most .05.",
        "Published: the difference of the two published values, which says nothing of its own spread.",
    )
    return Grid(f"Compared with {base.title}", [column.head for column in columns], blocks, notes)


def _paired_block(
    line: Line, base: Line, columns: Sequence[PaperColumn], found: Sequence[Difference | None]
) -> Block:
    most = max(each.n for each in found if each)
    means = [_difference(each, most) for each in found]
    spread = [Shown(_interval(each)) for each in found]
    chances = [Shown(chance(each.p_adjusted) if each else DASH) for each in found]
    parts = [Part(f"ours, n={most}", means), Part("95% interval", spread), Part("corrected p", chances)]
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
