"""The page of a run: one HTML file, its script and styles inside, its data inside where there is little of it."""

import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from experiments.report.gather import PIECE, Gathered, Variant
from experiments.report.numbers import settled
from experiments.report.values import safe_json
from experiments.runs.rows import write_text
from freemask.errors import UserError

# For pages that are no report of edits, such as a calibration's.
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
SCRIPTS = (
    *("numbers", "plots", "view", "tables", "overview", "costs", "thumbs", "cases"),
    *("reel", "player", "case", "problems", "main"),
)
INLINE = 1_000_000  # bytes of data up to which the page is one file


@dataclass
class Page:
    """What the page says besides the rows: its title, which variant the others are compared with, remarks."""

    title: str
    reference: str | None = None
    notices: Sequence[str] = ()


def write_page(path: Path, page: Page, gathered: Gathered) -> None:
    """The data lies in NAME.data beside NAME.html where there is much of it; an earlier page's is removed."""
    data = {"core": safe_json(_core(page, gathered))}
    data |= {f"details-{index}": text for index, text in enumerate(gathered.details())}
    build = hashlib.sha256("".join(data.values()).encode()).hexdigest()[:12]
    beside = sum(map(len, data.values())) > INLINE
    folder = path.parent / f"{path.stem}.data"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for name, text in data.items() if beside else ():
            write_text(folder / f"{build}-{name}.js", _given(name, text))
        write_text(path, document(page, data, build, folder.name if beside else None))
        _remove_old(folder, build if beside else "")
    except OSError as error:
        raise UserError(
            "cannot write the page", came=f"{path}: {error.strerror}", todo="out=FOLDER names another place"
        ) from error


def document(page: Page, data: Mapping[str, str], build: str, beside: str | None) -> str:
    """`beside` names the folder that the data is fetched from; None puts it into the page."""
    title = html.escape(page.title)
    given = "" if beside else "\n".join(_given(name, text) for name, text in data.items())
    head = {"build": build, "beside": beside, "piece": PIECE, "title": page.title}
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_asset('report.css')}</style></head>\n<body>\n"
        f"<header><h1>{title}</h1><p id='about' class='quiet'></p></header>\n"
        f"{_asset('report.html')}"
        f'<script>\n"use strict";\n{_asset("core.js")}freemask.start({safe_json(head)});\n{given}\n</script>\n'
        f'<script>\n"use strict";\n{_scripts()}</script>\n</body></html>\n'
    )


def page_of_rows(
    title: str, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Any], reference: str | None = None
) -> tuple[Page, Gathered]:
    """Of rows whose files are named from the page's own folder, told apart by variant, or by method."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row.get("variant") or row.get("method") or "edits"), []).append(row)
    gathered = Gathered()
    gathered.describe(columns)
    for name, group in groups.items():
        gathered.add(Variant(name), group)
    return Page(title, reference, notices_of(gathered)), gathered


def leave_page(
    folder: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any], reference: str | None = None
) -> None:
    """What `freemask run` leaves as index.html; `freemask report` makes the same of all that lies in the folder."""
    write_page(folder / "index.html", *page_of_rows(folder.name, rows, columns, reference))


def notices_of(gathered: Gathered) -> list[str]:
    """What a reader must know before the means are believed."""
    commits = sorted({each.rstrip("+")[:12] for each in gathered.commits})
    found = []
    if len(commits) > 1:
        found.append(f"These rows come from {len(commits)} commits: {', '.join(commits)}.")
    if any(each.endswith("+") for each in gathered.commits):
        found.append("Some rows were made with local changes that no commit holds.")
    for key in ("steps", "model", "device", "dtype"):
        for each in gathered.variants:
            values = each.about.get(key) or []
            if len(values) > 1:
                found.append(f"{each.name}: rows with different {key}: {', '.join(map(str, values))}.")
    return found


def _core(page: Page, gathered: Gathered) -> dict[str, Any]:
    names = [each.name for each in gathered.variants]
    reference = names.index(page.reference) if page.reference in names else 0
    made = datetime.now(UTC).isoformat(timespec="seconds")
    numbers = settled(gathered.measured(), reference)
    return gathered.core(reference) | {"notices": page.notices, "settled": numbers, "made": made}


def _given(name: str, text: str) -> str:
    return f'freemask.give("{name}", {text});'


@cache
def _asset(name: str) -> str:
    return (files("experiments") / "report" / "assets" / name).read_text(encoding="utf-8")


def _scripts() -> str:
    return "".join(_asset(f"{name}.js") for name in SCRIPTS)


def _remove_old(folder: Path, build: str) -> None:
    if not folder.is_dir():
        return
    for each in folder.glob("*-*.js"):
        if not build or not each.name.startswith(build):
            each.unlink()
    if not build and not any(folder.iterdir()):
        folder.rmdir()
