"""A summary as Markdown, CSV, or aligned text for the terminal."""

import math

import pandas as pd

from evaluation.metric import Column
from evaluation.numbers import fact as fact
from evaluation.numbers import number as number
from evaluation.numbers import signed
from evaluation.paired import Difference, Paired
from evaluation.table import Summary

EXTRAS = (
    ("seconds", "s / clip", "{:.1f}"),
    ("peak_rss_gb", "RSS GB", "{:.2f}"),
    ("peak_gpu_gb", "GPU GB", "{:.2f}"),
)


def markdown(summary: Summary) -> str:
    return f"{markdown_table(summary)}\n\n{footnote(summary)}\n"


def markdown_table(summary: Summary) -> str:
    return _piped(*_grid(summary, best="**{}**"))


def markdown_differences(found: Paired) -> str:
    """Bold where the interval leaves out 0."""
    return _piped(*difference_cells(found, clear="**{}**"))


def text_differences(found: Paired, width: int = 100) -> str:
    """A star where the interval leaves out 0."""
    return "\n".join(_fitted(*difference_cells(found, clear="{}*"), width))


def difference_cells(found: Paired, clear: str) -> tuple[list[str], list[list[str]]]:
    """A head and a line per variant: n, then mean and interval of each column, and which way it points."""
    head = [f"minus {found.reference}", "n", *(title(column) for column in found.columns)]
    lines = []
    for variant in found.variants:
        cells = [found.value(variant, column.name) for column in found.columns]
        most = max(each.n for each in cells if each)
        shown = [
            _difference(each, column, clear, most) for each, column in zip(cells, found.columns, strict=True)
        ]
        lines.append([variant, str(most), *shown])
    return head, lines


def _difference(found: Difference | None, column: Column, clear: str, most: int) -> str:
    if found is None:
        return "-"
    shown = clear.format(signed(found.mean)) if found.clear else signed(found.mean)
    if math.isfinite(found.low):
        shown += f" [{number(found.low)}, {number(found.high)}]"
    if found.clear and column.higher_is_better is not None:
        shown += " better" if (found.mean > 0) is column.higher_is_better else " worse"
    return shown + (f" (n={found.n})" if found.n < most else "")


def _piped(head: list[str], lines: list[list[str]]) -> str:
    head = [cell.replace("|", "\\|") for cell in head]
    body = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    rule = [":--"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def text(summary: Summary, width: int = 100) -> str:
    """The best of a column is marked with a star. A table wider than `width` is turned, one line per number; where
    that is too wide as well, it has no intervals."""
    shown = _fitted(*_grid(summary, best="{}*"), width)
    return "\n".join([*shown, "", footnote(summary)]) + "\n"


def _fitted(head: list[str], lines: list[list[str]], width: int) -> list[str]:
    short = [[cell.split(" [")[0] for cell in line] for line in lines]
    ways = [_aligned([head, *lines]), _aligned(_turned(head, lines))]
    ways += [_aligned([head, *short]), _aligned(_turned(head, short))]
    shown = next((each for each in ways if len(each[0]) <= width), ways[-1])
    return [line.rstrip() for line in shown]


def _turned(head: list[str], lines: list[list[str]]) -> list[list[str]]:
    return [list(line) for line in zip(head, *lines, strict=True)]


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    rule = "  ".join("-" * width for width in widths)
    rows = []
    for first, *others in lines:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        rows.append("  ".join([first.ljust(widths[0]), *cells]))
    return [rows[0], rule, *rows[1:]]


def csv(summary: Summary) -> str:
    """One line per method; full precision; NAME.mean, NAME.low, NAME.high, NAME.n for each column."""
    wide = summary.methods.set_index("method")
    for column in summary.columns:
        part = summary.values[summary.values.column == column.name].set_index("method")
        part = part[["mean", "low", "high", "n"]].add_prefix(f"{column.name}.")
        wide = wide.join(part.astype({f"{column.name}.n": "Int64"}))
    return wide.to_csv(index_label=summary.by)


def footnote(summary: Summary) -> str:
    """What every reader of the numbers must know, and what each column is."""
    lines = [
        "Mean [95% bootstrap interval over rows]; n counts finished edits, failures enter no mean. "
        "(n=..) where a column has fewer values."
    ]
    lines += [f"{c.name}: {c.description}." for c in summary.columns if c.description]
    return "\n".join(lines)


def title(column: Column) -> str:
    return " ".join(part for part in (column.name, column.arrow, column.unit) if part)


def _grid(summary: Summary, best: str) -> tuple[list[str], list[list[str]]]:
    extras = [extra for extra in EXTRAS if bool(summary.methods[extra[0]].notna().to_numpy().any())]
    broken = bool(summary.methods["metric_failures"].any())
    head = [summary.by, "n", "failures", *(["metric errors"] if broken else [])]
    head += [title(column) for column in summary.columns]
    head += [name for _, name, _ in extras]
    lines = []
    for method in summary.methods.to_dict("records"):
        line = [str(method["method"]), str(method["n"]), str(method["failures"])]
        line += [str(method["metric_failures"])] if broken else []
        line += [_cell(summary, method, column, best) for column in summary.columns]
        line += ["-" if pd.isna(method[key]) else style.format(method[key]) for key, _, style in extras]
        lines.append(line)
    return head, lines


def _cell(summary: Summary, method: dict, column: Column, best: str) -> str:
    cell = summary.value(str(method["method"]), column.name)
    if not cell:
        return "-"
    mean, low, high, n = (float(cell[key]) for key in ("mean", "low", "high", "n"))
    shown = best.format(number(mean)) if cell["best"] else number(mean)
    if math.isfinite(low):
        shown += f" [{number(low)}, {number(high)}]"
    return shown + (f" (n={int(n)})" if n < method["n"] else "")
