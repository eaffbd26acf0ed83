"""One static page per run that works from disk: the table, then every task with its video and sheet."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evaluation.metric import Column
from evaluation.render import number, title
from evaluation.table import Summary

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent) }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1250px; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin: 0 0 .4rem }
table { display: block; overflow-x: auto; border-collapse: collapse;
  margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: right }
th:first-child, td:first-child { text-align: left }
article { border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin: 1rem 0 }
video, img { max-width: 100%; display: block; margin: .6rem 0; image-rendering: pixelated; background: white }
p { margin: .2rem 0 } .quiet { opacity: .7; font-size: .9em } .failed { color: #c0262d }
pre { white-space: pre-wrap }
"""


def page(name: str, summary: Summary, rows: Sequence[Mapping[str, Any]]) -> str:
    body = [
        f"<h1>{_text(name)}</h1>",
        f'<p class="quiet">{_about(rows)}</p>',
        _table(summary),
        "<dl>" + "".join(_definition(column) for column in summary.columns) + "</dl>",
        *(_task(row, summary.columns) for row in rows),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(name)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _text(words: object) -> str:
    return html.escape(str(words))


def _about(rows: Sequence[Mapping[str, Any]]) -> str:
    done = sum(row["status"] == "done" for row in rows)
    first = rows[0]
    dirty = " with local changes" if first["dirty"] else ""
    return _text(
        f"{len(rows)} tasks, {done} done, {len(rows) - done} failed; method {first['method']}, "
        f"{first['steps']} steps, seed {first['seed']}, commit {str(first['commit'])[:12]}{dirty}, "
        f"{first['device']}, {first['dtype']}"
    )


def _table(summary: Summary) -> str:
    head = ["method", "n", "failures", *(title(column) for column in summary.columns), "s / clip"]
    lines = []
    for method in summary.methods.to_dict("records"):
        cells = [str(method["method"]), str(method["n"]), str(method["failures"])]
        cells += [_cell(summary, str(method["method"]), column) for column in summary.columns]
        cells += ["" if method["seconds"] is None else f"{method['seconds']:.1f}"]
        lines.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    return (
        "<table><tr>"
        + "".join(f"<th>{_text(cell)}</th>" for cell in head)
        + "</tr>"
        + "".join(lines)
        + "</table>"
    )


def _cell(summary: Summary, method: str, column: Column) -> str:
    found = summary.value(method, column.name)
    return number(float(str(found["mean"]))) if found else ""


def _definition(column: Column) -> str:
    return f'<dt>{_text(title(column))}</dt><dd class="quiet">{_text(column.description)}</dd>'


def _task(row: Mapping[str, Any], columns: Sequence[Column]) -> str:
    parts = [
        f"<h2>{_text(row['task'])} <span class='quiet'>{_text(row['kind'])}</span></h2>",
        f"<p>{_text(row['source'])} → <b>{_text(row['target'])}</b></p>",
    ]
    if row["status"] == "failed":
        parts.append(f"<pre class='failed'>{_text(row['message'])}</pre>")
    numbers = [
        f"{column.name} {number(row['metrics'][column.name])}"
        for column in columns
        if row["metrics"].get(column.name) is not None
    ]
    parts.append(f"<p class='quiet'>{_text(' · '.join(numbers))}</p>")
    files = {kind: quote(str(Path(path).as_posix())) for kind, path in row.get("files", {}).items()}
    if "video" in files:
        parts.append(f'<video src="{files["video"]}" controls loop muted preload="metadata"></video>')
    if "sheet" in files:
        parts.append(f'<img src="{files["sheet"]}" loading="lazy" alt="frames of {_text(row["task"])}">')
    return "<article>" + "".join(parts) + "</article>"
