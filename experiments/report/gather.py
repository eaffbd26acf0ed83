"""Rows -> what the page is made of: columns of numbers, every text once, and the rest in pieces for later."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote

from experiments.report.values import Texts, items, mapping, numbers, rounded, safe_json, spread

Row = Mapping[str, Any]
TASK = ("task", "clip", "kind", "source", "target")
LATER = (
    "facts",
    "words",
    "seed",
    "where",
    "device",
    "dtype",
    "finished",
    "steps",
)  # what only an open case shows
ABOUT = ("method", "steps", "model", "run", "device", "dtype", "seed")
STEMS = ("sheet", "frames", "edited", "video")  # the files whose names say how a task's files are called
PIECE = 1000  # rows whose details lie in one file
MOST = 20  # different values that are listed


@dataclass
class Variant:
    """One line of the tables: where its rows are from, and what all of them say."""

    name: str
    base: str = ""  # the folder that its files are named from, as a link from the page
    about: dict[str, Any] = field(default_factory=dict)


class _Slim(NamedTuple):
    """A row without what others say as well."""

    finished: str
    task: int
    done: bool
    message: int
    shape: int
    panels: int
    files: int
    commit: int
    warnings: tuple[int, ...]
    seconds: tuple[tuple[int, float], ...]
    peaks: tuple[float | None, float | None]
    metrics: tuple[tuple[int, float], ...]
    details: str


class Gathered:
    """Takes rows variant by variant; of several rows of one task and seed the last one counts."""

    def __init__(self) -> None:
        self.variants: list[Variant] = []
        self.columns: dict[str, dict[str, Any]] = {}
        self._rows: list[list[_Slim]] = []
        self._tasks, self._stages, self._metrics, self._warnings = Texts(), Texts(), Texts(), Texts()
        self._messages, self._shapes, self._panels, self._files, self._commits = (Texts() for _ in range(5))
        self._stem_of: dict[int, str] = {}

    @property
    def count(self) -> int:
        return sum(map(len, self._rows))

    @property
    def failures(self) -> int:
        return sum(not row.done for rows in self._rows for row in rows)

    @property
    def commits(self) -> list[str]:
        return [each for each in self._commits.values if each]

    def add(self, variant: Variant, rows: Iterable[Row]) -> int:
        last: dict[tuple[str, str], _Slim] = {}
        for row in rows:
            if not isinstance(row.get("metrics"), Mapping):
                continue
            slim, key = self._slim(row), (row["task"], str(row.get("seed")))
            if key not in last or slim.finished >= last[key].finished:
                last[key] = slim
                _note(variant.about, row)
        if last:
            self.variants.append(variant)
            self._rows.append([last[key] for key in sorted(last)])
        return len(last)

    def describe(self, columns: Mapping[str, Any]) -> None:
        """What the columns of rows mean."""
        for name, facts in columns.items():
            if name not in self.columns and isinstance(facts, Mapping):
                self.columns[name] = dict(facts)

    def _slim(self, row: Row) -> _Slim:
        told = tuple(str(row.get(key, "")) for key in TASK)
        task, shape, panels = self._tasks.number(told), items(row.get("frames")), items(row.get("panels"))
        later = {key: row[key] for key in LATER if row.get(key) not in (None, "", {})}
        return _Slim(
            finished=str(row.get("finished", "")),
            task=task,
            done=row["status"] == "done",
            message=self._messages.number(str(row.get("message") or "")),
            shape=self._shapes.number(shape, str(shape)),
            panels=self._panels.number(panels, str(panels)),
            files=self._plan(task, mapping(row.get("files"))),
            commit=self._commits.number(str(row.get("commit") or "") + ("+" if row.get("dirty") else "")),
            warnings=tuple(dict.fromkeys(self._warnings.number(each) for each in _warnings(row))),
            seconds=numbers(row.get("seconds"), self._stages, 4),
            peaks=(rounded(row.get("peak_rss_gb"), 4), rounded(row.get("peak_gpu_gb"), 4)),
            metrics=numbers(row.get("metrics"), self._metrics, 6),
            details=safe_json(later),
        )

    def _plan(self, task: int, files: Mapping[str, Any]) -> int:
        """Links with {} for what all of a task's files are called, so that tasks share them."""
        paths = {kind: each for kind, each in files.items() if isinstance(each, str) and each}
        if paths.get("source", "").endswith(".npz"):  # nothing to look at, and called after the clip
            del paths["source"]
        named = next((PurePosixPath(paths[kind]).name for kind in STEMS if kind in paths), "")
        stem = self._stem_of.setdefault(task, named.rpartition(".")[0] or named) if named else ""
        plan = tuple((kind, _template(each, stem)) for kind, each in paths.items())
        return self._files.number(plan)

    def core(self, reference: int) -> dict[str, Any]:
        """What is needed to filter, sort, average and show thumbnails."""
        order = [row for rows in self._rows for row in rows]
        rows: dict[str, list] = {
            key: [getattr(row, key) for row in order]
            for key in ("task", "message", "shape", "panels", "files", "commit")
        }
        rows |= {"variant": [index for index, mine in enumerate(self._rows) for _ in mine]}
        rows |= {"done": [int(row.done) for row in order]}
        rows |= {"rss": [row.peaks[0] for row in order], "gpu": [row.peaks[1] for row in order]}
        return {
            "reference": reference,
            "variants": [vars(each) for each in self.variants],
            "columns": [_column(name, self.columns.get(name, {})) for name in self._metrics.values],
            "messages": self._messages.values,
            "shapes": self._shapes.values,
            "panels": self._panels.values,
            "files": [{kind: _link(part) for kind, part in plan} for plan in self._files.values],
            "commits": self._commits.values,
            "warnings": self._warnings.values,
            **self._core_of_tasks(),
            "rows": rows,
            "stages": spread(self._stages.values, [row.seconds for row in order]),
            "metrics": spread(self._metrics.values, [row.metrics for row in order]),
            "noted": {index: row.warnings for index, row in enumerate(order) if row.warnings},
        }

    def _core_of_tasks(self) -> dict[str, Any]:
        clips, kinds = Texts(), Texts()
        columns = [list(each) for each in zip(*self._tasks.values, strict=True)] or [[] for _ in TASK]
        names = ("id", "clip", "kind", "source", "target")
        named: dict[str, list[Any]] = dict(zip(names, columns, strict=True))
        named["clip"] = [clips.number(each) for each in named["clip"]]
        named["kind"] = [kinds.number(each) for each in named["kind"]]
        stems = [self._stem_of.get(index) for index in range(len(named["id"]))]
        named["stem"] = [each if each is None else quote(_bytes(each)) for each in stems]
        return {"tasks": named, "clips": clips.values, "kinds": kinds.values}

    def measured(self) -> list[dict[str, list[tuple[int, str, float]]]]:
        """By variant and column: the task, its clip and the value of every edit that is done."""
        names, tasks = self._metrics.values, self._tasks.values
        found: list[dict[str, list[tuple[int, str, float]]]] = []
        for rows in self._rows:
            mine: dict[str, list[tuple[int, str, float]]] = {}
            for row in (each for each in rows if each.done):
                for name, value in row.metrics:
                    mine.setdefault(names[name], []).append((row.task, tasks[row.task][1], value))
            found.append(mine)
        return found

    def details(self) -> list[str]:
        """JSON lists of the rows' other facts, so many rows in each."""
        every = [row.details for rows in self._rows for row in rows]
        return [f"[{','.join(every[start : start + PIECE])}]" for start in range(0, len(every), PIECE)]


def _template(path: str, stem: str) -> tuple[str, str] | str:
    """What stands before and after the stem."""
    before, found, after = path.partition(stem) if stem else (path, "", "")
    return (before, after) if found and stem not in after else path


def _link(part: tuple[str, str] | str) -> str:
    return quote(_bytes(part)) if isinstance(part, str) else "{}".join(quote(_bytes(each)) for each in part)


def _bytes(path: str) -> bytes:
    """A file name as it is on disk, be it text or not."""
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return path.encode("utf-8", "replace")


def _warnings(row: Row) -> list[str]:
    errors = mapping(row.get("metric_errors"))
    said = [*items(row.get("warnings")), *items(row.get("metric_warnings"))]
    return [*map(str, said), *(f"metric {name} failed: {error}" for name, error in errors.items())]


def _note(about: dict[str, Any], row: Row) -> None:
    """Every thing that the rows of a variant say."""
    for key in ABOUT:
        value, known = row.get(key), about.setdefault(key, [])
        if value is not None and value not in known and len(known) < MOST:
            known.append(value)
    about.setdefault("versions", row.get("versions"))


def _column(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    up = facts.get("higher_is_better")
    texts = {key: str(facts.get(key) or "") for key in ("unit", "description", "needs")}
    return {"name": name, "up": up if isinstance(up, bool) else None, **texts}
