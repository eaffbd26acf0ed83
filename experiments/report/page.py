"""The page of a run: one HTML file, its script and styles inside, its data inside where there is little of it."""

import hashlib
import html
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from evaluation.tables import sizes
from experiments.report.gather import PIECE, PageVariant, Row, commit_of, core, details, safe_json
from experiments.report.made import made_by
from experiments.report.variants import table
from experiments.runs.rows import write_text
from experiments.runs.run import Run
from freemask.errors import UserError

# In this order: each uses what is defined in those before it.
SCRIPTS = (
    "numbers plots view tables overview variants costs thumbs cases reel player case problems facts main"
)
INLINE = 1_000_000  # bytes of data up to which the page is one file


def leave_page(
    folder: Path, rows: Sequence[Row], columns: Mapping[str, Any], reference: str | None = None
) -> list[str]:
    """What `freemask run` leaves as index.html; `freemask report` makes the same of all that lies in the folder. Gives
    the remarks at its top."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row.get("variant") or row.get("method") or "edits"), []).append(row)
    recorded = made_by(Run.open(folder))
    variants = [
        PageVariant(name, group, recorded=recorded.get(group[0].get("variant")))
        for name, group in groups.items()
    ]
    notices = notices_of(variants)
    write_page(folder / "index.html", folder.name, variants, columns, reference, notices)
    return notices


def write_page(
    path: Path,
    title: str,
    variants: Sequence[PageVariant],
    columns: Mapping[str, Any],
    reference: str | None,
    notices: Sequence[str],
) -> None:
    """The data lies in NAME.data beside NAME.html where there is much of it; an earlier page's is removed."""
    names = [each.name for each in variants]
    said = core(variants, columns, names.index(reference) if reference in names else 0)
    said |= {"notices": notices, "made": datetime.now(UTC).isoformat(timespec="seconds")}
    data = {"core": safe_json(said), "made": safe_json(table([each.made for each in variants]))}
    data |= {f"details-{index}": text for index, text in enumerate(details(variants))}
    build = hashlib.sha256("".join(data.values()).encode()).hexdigest()[:12]
    beside = sum(map(len, data.values())) > INLINE
    folder = path.parent / f"{path.stem}.data"
    old = list(folder.glob("*-*.js"))
    try:
        for name, text in data.items() if beside else ():
            write_text(folder / f"{build}-{name}.js", _given(name, text))
        write_text(path, _document(title, {} if beside else data, build, folder.name if beside else None))
        for each in old:
            if not beside or not each.name.startswith(build):
                each.unlink()
        if not beside and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise UserError(
            "cannot write the page", came=f"{path}: {error.strerror}", todo="out=FOLDER names another place"
        ) from error


def _document(title: str, data: Mapping[str, str], build: str, beside: str | None) -> str:
    """`beside` names the folder that the data is fetched from; None where `data` is in the page."""
    shown, head = html.escape(title), safe_json({"build": build, "beside": beside, "piece": PIECE})
    given = "\n".join(_given(name, text) for name, text in data.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{shown}</title>\n<style>\n{_asset('report.css')}</style></head>\n<body>\n"
        f"<header><h1>{shown}</h1><p id='about' class='quiet'></p></header>\n{_asset('report.html')}"
        f'<script>\n"use strict";\n{_asset("core.js")}freemask.start({head});\n{given}\n</script>\n'
        f'<script>\n"use strict";\n{"".join(_asset(f"{name}.js") for name in SCRIPTS.split())}</script>\n'
        "</body></html>\n"
    )


def notices_of(variants: Sequence[PageVariant]) -> list[str]:
    """What a reader must know before the means are believed."""
    every = {commit_of(row) for each in variants for row in each.rows} - {""}
    commits = sorted({each.rstrip("+")[:12] for each in every})
    found = sizes.unlike({each.name: each.rows for each in variants})
    if len(commits) > 1:
        found.append(f"These rows come from {len(commits)} commits: {', '.join(commits)}.")
    if any(each.endswith("+") for each in every):
        found.append("Some rows were made with local changes that no commit holds.")
    for key in ("steps", "model", "device", "dtype"):
        for each in variants:
            if len(each.about[key]) > 1:
                found.append(f"{each.name}: rows with different {key}: {', '.join(each.about[key])}.")
    return found


def _given(name: str, text: str) -> str:
    return f'freemask.give("{name}", {text});'


@cache
def _asset(name: str) -> str:
    return (files("experiments") / "report" / "assets" / name).read_text(encoding="utf-8")
