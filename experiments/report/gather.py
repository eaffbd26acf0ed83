"""Rows -> what the page is made of: columns of numbers, every text once, and the rest in pieces for later."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from evaluation.tables.comparison import sort_of
from experiments.jobs.explain import explained, others
from experiments.report.made import Made, by_rows
from experiments.report.numbers import settled
from experiments.runs.rows import file_name, numbers

Row = Mapping[str, Any]
TASK = ("task", "clip", "kind", "source", "target")
# What only an open case shows.
LATER = ("facts", "words", "seed", "where", "device", "dtype", "finished", "steps")
ABOUT = ("method", "steps", "model", "run", "device", "dtype", "seed")
PIECE = 1000  # rows whose details lie in one file
MOST = 20  # different values that are listed


@dataclass
class PageVariant:
    """One line of the tables: its rows, the folder that their files are named from, as a link from the page, and what
    the records say that it was made with."""

    name: str
    rows: Sequence[Row]
    base: str = ""
    recorded: Made | None = None
    about: dict[str, Any] = field(init=False)

    @property
    def made(self) -> Made:
        if self.recorded is not None and self.recorded.choices:
            return self.recorded
        return by_rows(self.rows[0] if self.rows else {})

    def __post_init__(self) -> None:
        said = {
            key: dict.fromkeys(str(row[key]) for row in self.rows if row.get(key) is not None)
            for key in ABOUT
        }
        self.about = {key: list(each)[:MOST] for key, each in said.items()}
        self.about["versions"] = self.rows[0].get("versions") if self.rows else None


def core(variants: Sequence[PageVariant], columns: Mapping[str, Any], reference: int) -> dict[str, Any]:
    """What is needed to filter, sort, average and show thumbnails."""
    rows = [row for each in variants for row in each.rows]
    said = [{**row, "kind": sort_of(row)} if row.get("level") else row for row in rows]
    tasks, task = _numbered(tuple(str(row.get(key, "")) for key in TASK) for row in said)
    messages, message = _numbered(str(row.get("message") or "") for row in rows)
    shapes, shape = _numbered(tuple(row.get("frames") or ()) for row in rows)
    panels, panel = _numbered(tuple(row.get("panels") or ()) for row in rows)
    words, sought = _numbered(tuple(row.get("sought") or ()) for row in rows)
    files, file = _numbered(_links(row) for row in rows)
    commits, commit = _numbered(commit_of(row) for row in rows)
    warned = [_warnings(row) for row in rows]
    warnings, warning = _numbered(each for said in warned for each in said)
    one = iter(warning)
    variant = [place for place, each in enumerate(variants) for _ in each.rows]
    done = [int(row["status"] == "done") for row in rows]
    metrics = _series([numbers(row.get("metrics")) for row in rows], 6)
    numbered = {
        "task": task,
        "message": message,
        "shape": shape,
        "panels": panel,
        "sought": sought,
        "files": file,
        "commit": commit,
    }
    peaks = {key: [row.get(f"peak_{key}_gb") for row in rows] for key in ("rss", "gpu")}
    measured: list[dict[str, list]] = [{} for _ in variants]
    for name, values in metrics.items():
        for place, ok, number, value in zip(variant, done, task, values, strict=True):
            if ok and value is not None:
                measured[place].setdefault(name, []).append((number, tasks[number][1], value))
    return {
        "reference": reference,
        "variants": [{"name": each.name, "base": each.base, "about": each.about} for each in variants],
        "columns": [_column(name, columns.get(name) or {}) for name in metrics],
        "messages": messages,
        "shapes": shapes,
        "panels": panels,
        "sought": words,
        "files": [dict(each) for each in files],
        "commits": commits,
        "warnings": warnings,
        **_tasks(tasks),
        "rows": {**numbered, **peaks, "variant": variant, "done": done},
        "stages": _series([numbers(row.get("seconds")) for row in rows], 4),
        "metrics": metrics,
        "noted": {place: [next(one) for _ in said] for place, said in enumerate(warned) if said},
        "settled": settled(measured, reference),
    }


def details(variants: Sequence[PageVariant]) -> list[str]:
    """JSON lists of the rows' other facts, so many rows in each."""
    every = [
        {
            **{key: row[key] for key in LATER if row.get(key) not in (None, "", {})},
            "explained": explained(row),
            "others": others(row.get("facts") or {}),
        }
        for each in variants
        for row in each.rows
    ]
    return [safe_json(every[start : start + PIECE]) for start in range(0, len(every), PIECE)]


def commit_of(row: Row) -> str:
    """With a plus where there were local changes."""
    return str(row.get("commit") or "") + ("+" if row.get("dirty") else "")


def safe_json(value: Any) -> str:
    """For inside a script element: nothing in it ends the element, and every character survives."""
    text = json.dumps(value, separators=(",", ":"), default=str, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _numbered(values: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """Every value once, and of each its number."""
    places: dict[Any, int] = {}
    found = [places.setdefault(each, len(places)) for each in values]
    return list(places), found


def _series(found: Sequence[Mapping[str, float]], digits: int) -> dict[str, list[float | None]]:
    """A list per name with an entry per row."""
    every: dict[str, list[float | None]] = {}
    for place, each in enumerate(found):
        for name, value in each.items():
            if name not in every:
                every[name] = [None] * len(found)
            every[name][place] = float(f"{value:.{digits}g}")
    return every


def _links(row: Row) -> tuple[tuple[str, str], ...]:
    """With {} for what the task's files are called, so that tasks share them."""
    stem = quote(file_name(row["task"]))
    return tuple(
        (kind, quote(str(path), errors="replace").replace(stem, "{}", 1))
        for kind, path in (row.get("files") or {}).items()
        if not (
            kind == "source" and str(path).endswith(".npz")
        )  # nothing to look at, and called after the clip
    )


def _tasks(tasks: Sequence[Sequence[str]]) -> dict[str, Any]:
    ids, clip, kind, source, target = map(list, zip(*tasks, strict=True)) if tasks else ([] for _ in TASK)
    (clips, clip), (kinds, kind) = _numbered(clip), _numbered(kind)
    named = {"id": ids, "clip": clip, "kind": kind, "source": source, "target": target}
    return {
        "tasks": named | {"stem": [quote(file_name(each)) for each in ids]},
        "clips": clips,
        "kinds": kinds,
    }


def _warnings(row: Row) -> list[str]:
    said = [*(row.get("warnings") or ()), *(row.get("metric_warnings") or ())]
    failed = (f"metric {name} failed: {error}" for name, error in (row.get("metric_errors") or {}).items())
    return list(dict.fromkeys([*map(str, said), *failed]))


def _column(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    texts = {key: str(facts.get(key) or "") for key in ("unit", "description", "needs")}
    return {"name": name, "up": facts.get("higher_is_better"), **texts}
