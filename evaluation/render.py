"""A summary as Markdown, CSV, or aligned text for the terminal."""

import math

import pandas as pd

from evaluation.metric import Column
from evaluation.table import Summary

EXTRAS = (
    ("seconds", "s / clip", "{:.1f}"),
    ("peak_rss_gb", "RSS GB", "{:.2f}"),
    ("peak_gpu_gb", "GPU GB", "{:.2f}"),
)


def markdown(summary: Summary) -> str:
    head, lines = _grid(summary, best="**{}**")
    head = [cell.replace("|", "\\|") for cell in head]
    body = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    rule = [":--"] + ["--:"] * (len(head) - 1)
    table = "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))
    return f"{table}\n\n{footnote(summary)}\n"


def text(summary: Summary, width: int = 100) -> str:
    """The best of a column is marked with a star. A table wider than `width` is turned: one line per number."""
    head, lines = _grid(summary, best="{}*")
    shown = _aligned([head, *lines])
    if len(shown[0]) > width:
        shown = _aligned([list(line) for line in zip(head, *lines, strict=True)])
    return "\n".join([*(line.rstrip() for line in shown), "", footnote(summary)]) + "\n"


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
    return wide.to_csv()


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


def number(value: float) -> str:
    """Four digits that say something, without trailing exponents."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def _grid(summary: Summary, best: str) -> tuple[list[str], list[list[str]]]:
    extras = [extra for extra in EXTRAS if bool(summary.methods[extra[0]].notna().to_numpy().any())]
    broken = bool(summary.methods["metric_failures"].any())
    head = ["method", "n", "failures", *(["metric errors"] if broken else [])]
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
