"""Grids as text for a terminal, Markdown, LaTeX (booktabs), HTML."""

import html as escaping
import re
from collections.abc import Callable, Sequence
from textwrap import wrap

from evaluation.tables.grid import BEST, SECOND, Grid, Part, Shown

TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX |= {each: f"\\{each}" for each in "&%$#_{}"}
TEX |= {
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$^\dagger$",
    "✓": r"\checkmark",
    "×": r"$\times$",
    "−": "$-$",
    "<": "$<$",  # in the fonts of plain LaTeX these two are Spanish punctuation
    ">": "$>$",
    "|": "$|$",
    '"': "''",
}
WIDTH = 118
STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 25%, transparent) }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1320px; padding: 0 1rem;
  overflow-wrap: break-word }
h1 { font-size: 1.3rem } h2 { font-size: 1.1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .15rem .7rem; text-align: right; white-space: nowrap } thead th { border-bottom: 1px solid }
th[scope=rowgroup], td.part { text-align: left; vertical-align: top } tbody { border-bottom: 1px solid var(--line) }
.quiet { opacity: .75 } li, p { max-width: 60rem } pre { white-space: pre-wrap } .wide { overflow-x: auto }
img { max-width: 100%; display: block; margin: .6rem 0; background: white } .failed { color: #c0262d }
"""


def text(grid: Grid, width: int | None = None) -> str:
    """The best of its kind has a star, the second an apostrophe. A plain grid that is wider than `width` is turned, one
    line for each number; where that is too wide as well, it has no intervals."""
    lines = [[grid.corner, *grid.head]]
    for block in grid.blocks:
        if not grid.plain:
            lines.append([block.title])
        for part in block.parts:
            first = block.title if grid.plain else f"  {part.label}"
            lines.append([first, *(_marked(each, "{}*", "{}'", str) for each in part.cells)])
    shown = _fitting(lines, width) if grid.plain and width else _aligned(lines)
    return "\n".join([*([grid.title, ""] if grid.title else []), *shown, *_below(grid)])


def _fitting(lines: list[list[str]], width: int) -> list[str]:
    short = [[re.sub(r" \[[^]]*\]", "", cell) for cell in line] for line in lines]
    short[0] = lines[0]
    ways = (_aligned(each) for said in (lines, short) for each in (said, _turned(said)))
    narrow = _aligned(_turned(short))
    return next((each for each in ways if max(map(len, each)) <= width), narrow)


def _turned(lines: list[list[str]]) -> list[list[str]]:
    return [list(line) for line in zip(*lines, strict=True)]


def _aligned(lines: list[list[str]]) -> list[str]:
    """A line of one cell alone is a title, as wide as it likes."""
    whole = max(map(len, lines))
    widths = [max(len(line[k]) for line in lines if len(line) > max(1, k) or k == 0) for k in range(whole)]
    shown = []
    for first, *cells in lines:
        rest = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=False)]
        shown.append("  ".join([first.ljust(widths[0]), *rest]).rstrip())
    shown.insert(1, "  ".join("-" * width for width in widths))
    return shown


def _below(grid: Grid) -> list[str]:
    notes = ["", *(line for note in grid.notes for line in wrap(note, WIDTH, subsequent_indent="  "))]
    lacks = ["", "missing", *(f"  {each}" for each in grid.missing)]
    return (notes if grid.notes else []) + (lacks if grid.missing else [])


def markdown(grid: Grid, level: int = 1) -> str:
    """The best in bold, the second underlined; without a title, no heading."""
    leading = [grid.corner] if grid.plain else [grid.corner, ""]
    rule = [":--"] * len(leading) + ["--:"] * len(grid.head)
    lines = [_row([*leading, *grid.head]), f"| {' | '.join(rule)} |"]
    for block in grid.blocks:
        for place, part in enumerate(block.parts):
            cells = [_marked(each, "**{}**", "<u>{}</u>", str) for each in part.cells]
            first = [f"**{block.title}**" if place == 0 else "", part.label]
            lines.append(_row([*([block.title] if grid.plain else first), *cells]))
    parts = [f"{'#' * level} {grid.title}" if grid.title else "", "\n".join(lines), _listed(grid.notes)]
    parts += ["Missing:", _listed(grid.missing)] if grid.missing else []
    return "\n\n".join(part for part in parts if part)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {each}" for each in lines)


def _marked(each: Shown, best: str, second: str, clean: Callable[[str], str]) -> str:
    style = {BEST: best, SECOND: second}.get(each.place, "{}")
    number, blank, rest = each.text.partition(" ")
    return style.format(clean(number)) + blank + clean(rest)


def latex(grid: Grid, label: str) -> str:
    r"""Needs \usepackage{booktabs} and \usepackage{amssymb}."""
    head = " & ".join(["", "", *(tex(each) for each in grid.head)])
    body = []
    for block in grid.blocks:
        rows = []
        for place, part in enumerate(block.parts):
            first = tex(block.title) if place == 0 else ""
            rows.append(f"    {' & '.join([first, tex(part.label), *_tex_cells(part)])} \\\\")
        body.append("\n".join(rows))
    notes = "\n".join(f"    {tex(note)}\\par" for note in grid.notes)
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering\small",
            rf"  \caption{{{tex(grid.title)}}}",
            rf"  \label{{tab:{label}}}",
            rf"  \begin{{tabular}}{{ll{'r' * len(grid.head)}}}",
            r"    \toprule",
            f"    {head} \\\\",
            r"    \midrule",
            "\n    \\midrule\n".join(body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"  \par\smallskip\parbox{\linewidth}{\footnotesize",
            notes,
            "  }",
            r"\end{table}",
            *(f"% missing: {each}" for each in grid.missing),
        ]
    )


def _tex_cells(part: Part) -> list[str]:
    # Braces around brackets: a cell that begins a row with one would be read as an argument of the line break.
    cells = [_marked(each, r"\textbf{{{}}}", r"\underline{{{}}}", tex) for each in part.cells]
    return [f"{{{cell}}}" if cell.startswith("[") else cell for cell in cells]


def tex(words: str) -> str:
    """A hyphen before a number is a minus."""
    words = re.sub(r"(?<![\w-])-(?=\.?\d)", "−", words)
    return "".join(TEX.get(each, each) for each in words)


def html_table(grid: Grid, level: int = 1) -> str:
    def cells(part: Part) -> str:
        return "".join(
            f"<td>{_marked(each, '<b>{}</b>', '<u>{}</u>', escaping.escape)}</td>" for each in part.cells
        )

    head = "".join(
        f"<th>{escaping.escape(each)}</th>"
        for each in ([grid.corner] if grid.plain else ["", ""]) + [*grid.head]
    )
    bodies = []
    for block in grid.blocks:
        rows = []
        for place, part in enumerate(block.parts):
            title = f'<th scope="rowgroup" rowspan="{len(block.parts)}">{escaping.escape(block.title)}</th>'
            label = "" if grid.plain else f'<td class="part">{escaping.escape(part.label)}</td>'
            rows.append(f"<tr>{title if place == 0 else ''}{label}{cells(part)}</tr>")
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    notes = _items(grid.notes) + (f"<p>Missing</p>{_items(grid.missing)}" if grid.missing else "")
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead>{"".join(bodies)}</table></div>'
    return f"<h{level}>{escaping.escape(grid.title)}</h{level}>{table}{notes}"


def _items(lines: Sequence[str]) -> str:
    return f"<ul class='quiet'>{''.join(f'<li>{escaping.escape(each)}</li>' for each in lines)}</ul>"


def html_page(title: str, parts: Sequence[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaping.escape(title)}</title><style>{re.sub(r' +', ' ', STYLE)}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
