"""One static page per run that works from disk: the tables, then every task with its videos and sheets."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evaluation.comparison import Comparison
from evaluation.metric import Column
from evaluation.paired import Paired
from evaluation.render import difference_cells, fact, number, title
from evaluation.table import Summary

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent) }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1250px; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin: 0 0 .4rem } h3 { font-size: 1rem; margin: 1rem 0 0 }
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
    first = rows[0]
    about = f"method {first['method']}, {first['steps']} steps, seed {first['seed']}"
    articles = [_article([row], summary.columns) for row in rows]
    return _whole(name, rows, about, [_table(summary), _definitions(summary), *articles])


def page_of_variants(name: str, found: Comparison, rows: Sequence[Mapping[str, Any]]) -> str:
    """Every task once, with the variants below each other."""
    body = [_table(found.summary), _differences(found.paired)]
    for kind, part in found.kinds.items():
        inside = _table(part.summary) + _differences(part.paired)
        body.append(f"<details><summary>{_text(kind)}</summary>{inside}</details>")
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        tasks.setdefault(row["task"], []).append(row)
    articles = [_article(each, found.summary.columns) for each in tasks.values()]
    about = f"{len(tasks)} clips and prompts in {len(found.summary.methods)} variants"
    return _whole(name, rows, about, [*body, _definitions(found.summary), *articles])


def _whole(name: str, rows: Sequence[Mapping[str, Any]], about: str, body: Sequence[str]) -> str:
    head = [f"<h1>{_text(name)}</h1>", f'<p class="quiet">{_about(rows, about)}</p>']
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(name)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join([*head, *body])
        + "\n</body></html>\n"
    )


def _text(words: object) -> str:
    return html.escape(str(words))


def _about(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    done = sum(row["status"] == "done" for row in rows)
    first = rows[0]
    dirty = " with local changes" if first["dirty"] else ""
    return _text(
        f"{len(rows)} {'edits' if 'variant' in first else 'tasks'}, {done} done, {len(rows) - done} failed; {about}, "
        f"commit {str(first['commit'])[:12]}{dirty}, {first['device']}, {first['dtype']}"
    )


def _table(summary: Summary) -> str:
    head = [summary.by, "n", "failures", *(title(column) for column in summary.columns), "s / clip"]
    lines = []
    for method in summary.methods.to_dict("records"):
        cells = [str(method["method"]), str(method["n"]), str(method["failures"])]
        cells += [_cell(summary, str(method["method"]), column) for column in summary.columns]
        seconds = method["seconds"]
        cells += ["" if seconds is None or seconds != seconds else f"{seconds:.1f}"]
        lines.append(cells)
    return _grid(head, lines)


def _differences(found: Paired | None) -> str:
    if found is None or not found.differences:
        return ""
    said = f"Difference to {found.reference} on the tasks that both finished, with 95 % intervals over clips."
    head, lines = difference_cells(found, clear="\0{}\1")
    return f'<p class="quiet">{_text(said)}</p>' + _grid(head, lines)


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_bold(_text(cell))}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + row(head, "th") + "".join(row(line, "td") for line in lines) + "</table>"


def _bold(escaped: str) -> str:
    return escaped.replace("\0", "<b>").replace("\1", "</b>")


def _cell(summary: Summary, method: str, column: Column) -> str:
    found = summary.value(method, column.name)
    return number(float(str(found["mean"]))) if found else ""


def _definitions(summary: Summary) -> str:
    entries = (
        f'<dt>{_text(title(column))}</dt><dd class="quiet">{_text(column.description)}</dd>'
        for column in summary.columns
    )
    return "<dl>" + "".join(entries) + "</dl>"


def _article(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """One task: its prompts, and what came of it in each variant."""
    row = rows[0]
    head = (
        f"<h2>{_text(row['task'])} <span class='quiet'>{_text(row['kind'])}</span></h2>"
        f"<p>{_text(row['source'])} → <b>{_text(row['target'])}</b></p>"
    )
    return f"<article>{head}" + "".join(_outcome(each, columns) for each in rows) + "</article>"


def _outcome(row: Mapping[str, Any], columns: Sequence[Column]) -> str:
    parts = [f"<h3>{_text(row['variant'])}</h3>"] if "variant" in row else []
    if row["status"] == "failed":
        parts.append(f"<pre class='failed'>{_text(row['message'])}</pre>")
    numbers = [
        f"{column.name} {number(row['metrics'][column.name])}"
        for column in columns
        if row["metrics"].get(column.name) is not None
    ]
    parts.append(f"<p class='quiet'>{_text(' · '.join(numbers))}</p>")
    facts = [f"{name} {fact(value)}" for name, value in row.get("facts", {}).items()]
    if facts:
        parts.append(f"<p class='quiet'>{_text(' · '.join(facts))}</p>")
    files = {kind: quote(str(Path(path).as_posix())) for kind, path in row.get("files", {}).items()}
    if "video" in files:
        parts.append(f'<video src="{files["video"]}" controls loop muted preload="metadata"></video>')
    if "sheet" in files:
        parts.append(f'<img src="{files["sheet"]}" loading="lazy" alt="frames of {_text(row["task"])}">')
    return "".join(parts)
