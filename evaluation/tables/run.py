"""The tables of a run: means line by line, and differences to a reference."""

import math
from typing import TYPE_CHECKING, Any

from evaluation.column import Column
from evaluation.stats.paired import Difference
from evaluation.tables.comparison import Paired
from evaluation.tables.grid import BEST, DASH, Grid, Shown, lines_of
from evaluation.tables.numbers import chance, number, signed
from evaluation.tables.summary import Line, Summary

if TYPE_CHECKING:
    from pandas import DataFrame

EXTRAS = (
    ("seconds", "s / clip", "{:.1f}"),
    ("peak_rss_gb", "host GB", "{:.2f}"),
    ("peak_gpu_gb", "GPU GB", "{:.2f}"),
)
INTERVAL = "95% interval over clips: Student's t, the more cautious of plain and corrected for skewness"
MEANS = (
    f"Mean over tasks [{INTERVAL}]; n counts finished tasks, of which seeds are averaged first; failures enter no "
    "mean. (n=..) where a column has fewer values. Best (* or bold): over the tasks that all lines have; it is not "
    "tested."
)
APART = (
    "Difference to '{}' over the tasks that both finished: mean [{}]. p: two-sided, of no difference, by the same t; "
    "corrected after Holm for all {} comparisons of this table. Marked, and called better or worse, where that p is "
    "at most .05."
)


def means_grid(summary: Summary, *, noted: bool = True, title: str = "") -> Grid:
    """`noted`: with what every reader of the numbers must know, and what each column is."""
    extras = [each for each in EXTRAS if any(getattr(line, each[0]) is not None for line in summary.lines)]
    broken = any(line.metric_failures for line in summary.lines)
    head = ["n", "failures", *(["metric errors"] if broken else []), *map(headed, summary.columns)]
    lines = {}
    for line in summary.lines:
        counts = [line.n, line.failures, *([line.metric_failures] if broken else [])]
        cells = [Shown(str(each)) for each in counts]
        cells += [_mean(summary, line, column) for column in summary.columns]
        costs = ((getattr(line, key), style) for key, _, style in extras)
        cells += [Shown(DASH if value is None else style.format(value)) for value, style in costs]
        lines[line.name] = cells
    notes = [
        MEANS,
        *summary.notes,
        *(f"{c.name}: {c.description}." for c in summary.columns if c.description),
    ]
    head += [name for _, name, _ in extras]
    return Grid(title, head, lines_of(lines), notes if noted else (), corner=summary.by)


def differences_grid(found: Paired, *, noted: bool = True, title: str = "") -> Grid:
    lines = {}
    for variant in found.variants:
        cells = [found.value(variant, column.name) for column in found.columns]
        most = max(each.n for each in cells if each)
        shown = [_apart(each, c, most) for each, c in zip(cells, found.columns, strict=True)]
        lines[variant] = [Shown(str(most)), *shown]
    notes = [APART.format(found.reference, INTERVAL, len(found.differences))]
    head = ["n", *map(headed, found.columns)]
    return Grid(title, head, lines_of(lines), notes if noted else (), corner=f"minus {found.reference}")


def headed(column: Column) -> str:
    return " ".join(part for part in (column.name, column.arrow, column.unit) if part)


def frame(summary: Summary) -> "DataFrame":
    """One line per method; full precision; NAME.mean, NAME.low, NAME.high, NAME.n for each column."""
    from pandas import DataFrame  # only where a table is asked for: an edit need not wait for it

    keys = ("n", "edits", "failures", "metric_failures", "seconds", "peak_rss_gb", "peak_gpu_gb")
    lines = []
    for line in summary.lines:
        cells: dict[str, Any] = {summary.by: line.name, **{key: getattr(line, key) for key in keys}}
        for column in summary.columns:
            value = summary.value(line.name, column.name)
            cells |= {
                f"{column.name}.{part}": _known(value.get(part)) for part in ("mean", "low", "high", "n")
            }
        lines.append(cells)
    return DataFrame(lines, dtype=object)


def csv(summary: Summary) -> str:
    return frame(summary).to_csv(index=False, lineterminator="\n")


def _known(value: float | int | None) -> float | int | None:
    return None if value is None or math.isnan(value) else value


def _mean(summary: Summary, line: Line, column: Column) -> Shown:
    found = line.cells.get(column.name)
    if found is None:
        return Shown(DASH)
    few = f" (n={found.n})" if found.n < line.n else ""
    best = BEST if line.name in summary.best[column.name] else 0
    return Shown(number(found.value) + ranged(found.low, found.high) + few, best)


def ranged(low: float, high: float) -> str:
    return f" [{number(low)}, {number(high)}]" if math.isfinite(low) else ""


def _apart(found: Difference | None, column: Column, most: int) -> Shown:
    if found is None:
        return Shown(DASH)
    shown = signed(found.mean) + ranged(found.low, found.high) + f" {chance(found.p_adjusted)}"
    if found.clear and column.higher_is_better is not None:
        shown += " better" if (found.mean > 0) is column.higher_is_better else " worse"
    return Shown(shown + (f" (n={found.n})" if found.n < most else ""), BEST if found.clear else 0)
