"""Rows -> means with intervals, line by line. Tables come only from rows, and always show n and failures."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.column import Column
from evaluation.stats.many import better_than
from evaluation.stats.values import Row, Values, common, mean_of, values_of
from freemask.errors import UserError
from freemask.statistics import Interval

# What the rows of one line may differ in only if the reader is told.
TOLD = ("commit", "run", "steps", "model", "device", "dtype", "frames")
TUNED = "Seconds of a tuning count in every edit that rests on it, though it was made once."


@dataclass(frozen=True)
class Line:
    """`n` tasks are done, in so many `edits` where there are several seeds; seconds are a mean, peaks the highest."""

    name: str
    n: int
    edits: int
    failures: int
    metric_failures: int
    seconds: float | None
    peak_rss_gb: float | None
    peak_gpu_gb: float | None
    cells: Mapping[str, Interval]


@dataclass(frozen=True)
class Summary:
    """`by` is the rows' key that told the lines apart; `best` names, for each column, the lines that are best over the
    tasks that all lines with a value have. `notes` say over what mixtures a line averages."""

    lines: Sequence[Line]
    columns: Sequence[Column]
    best: Mapping[str, Collection[str]]
    by: str = "method"
    notes: Sequence[str] = ()

    def value(self, name: str, column: str) -> dict[str, Any]:
        """Mean, low, high, n, clips and best; empty where there is none."""
        found = next((line.cells.get(column) for line in self.lines if line.name == name), None)
        if found is None:
            return {}
        known = {
            "mean": found.value,
            "low": found.low,
            "high": found.high,
            "n": found.n,
            "clips": found.clips,
        }
        return known | {"best": name in self.best[column]}


def summarise(
    rows: Iterable[Row],
    columns: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    by: str = "method",
    mixed: Collection[str] = (),
) -> Summary:
    """Average over tasks, per `by`. Of several rows of one line, task and seed, the last one counts; several seeds of
    a task are averaged first. Rows of different commits, or of one line with different steps, are refused unless
    `mixed` names the key. `columns` says by name what the columns are. Failed rows enter no mean."""
    kept = latest(rows, by)
    if not kept:
        raise UserError(
            "there are no rows to make a table of", expected="at least one row", todo="freemask run"
        )
    _refuse_mixtures(kept, by, mixed)
    groups: dict[str, list[Row]] = {}
    for row in kept:
        groups.setdefault(str(row.get(by)), []).append(row)
    known = columns_of(kept, columns or {})
    values = {name: _values(group) for name, group in groups.items()}
    used = [name for name in known if any(name in each for each in values.values())]
    shown = [known[name] for name in used]
    best = {column.name: _best(column, values) for column in shown}
    notes = [note for name, group in groups.items() for note in mixtures(name, group)]
    notes += [TUNED] if any("tuning_seconds" in (row.get("facts") or {}) for row in kept) else []
    return Summary([_line(name, groups[name], values[name]) for name in groups], shown, best, by, notes)


def latest(rows: Iterable[Row], by: str = "method") -> list[Row]:
    found: dict[tuple, Row] = {}
    for row in rows:
        key = (row.get(by), row.get("task"), row.get("seed"))
        found.pop(key, None)
        found[key] = row
    return list(found.values())


def columns_of(rows: Sequence[Row], columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Column]:
    """What is said of them, in the order of `columns`; rows may say it themselves. Others have only their name."""
    facts: dict[str, Mapping[str, Any]] = dict(columns)
    told: Any = None
    for row in rows:
        if row.get("columns") and row["columns"] is not told:
            told = row["columns"]
            facts |= {name: each for name, each in told.items() if name not in facts}
    named = dict.fromkeys([*facts, *(name for row in rows for name in row.get("metrics") or {})])
    return {name: Column.of(name, facts.get(name, {})) for name in named}


def mixtures(title: str, rows: Collection[Row]) -> list[str]:
    """What the finished rows of a line differ in, although they are averaged."""
    done = [row for row in rows if row.get("status") == "done"]
    found = []
    for key in TOLD:
        values = sorted({said_of(row, key) for row in done if row.get(key) is not None})
        if len(values) > 1:
            found.append(
                f"{title} averages over {len(values)} different values of {key}: {', '.join(values)}."
            )
    return found


def said_of(row: Row, key: str) -> str:
    """What a row says under a key, short: of frames how many, of a device its name, whichever of several it was."""
    value = row.get(key)
    if key == "frames" and isinstance(value, Sequence) and not isinstance(value, str):
        return str(value[0]) if value else ""
    if key == "device":
        return str(value or "").partition(" (")[2].rstrip(")") or str(value or "")
    return "" if value is None else str(value)[:12]


def values_of_key(rows: Iterable[Row], key: str) -> list[str]:
    """What the finished rows say under a key, each once; what none of them says is not known."""
    return sorted({said_of(row, key) for row in rows if row.get("status") == "done"} - {""})


def _refuse_mixtures(rows: Sequence[Row], by: str, mixed: Collection[str]) -> None:
    scopes: dict[tuple[str, str], set] = {}
    for row in rows:
        scopes.setdefault(("commit", ""), set()).add(row.get("commit"))
        scopes.setdefault(("steps", f" of {by} '{row.get(by)}'"), set()).add(row.get("steps"))
    for (key, scope), found in scopes.items():
        if len(found) > 1 and key not in mixed:
            raise UserError(
                f"these rows{scope} cannot be averaged: they differ in {key}",
                came=", ".join(sorted(str(value) for value in found)),
                expected=f"one {key}",
                todo=f"choose the rows of one {key}, or allow it with mixed=[{key}]",
            )


def _values(rows: Sequence[Row]) -> dict[str, Values]:
    names = dict.fromkeys(name for row in rows for name in row.get("metrics") or {})
    found = {name: values_of(rows, name) for name in names}
    return {name: values for name, values in found.items() if values}


def seconds_of(row: Row) -> float | None:
    """What an edit took. A tuning that several rows rest on counts in each of them, and whole where it was killed and
    went on."""
    stages, tuning = row.get("seconds") or {}, (row.get("facts") or {}).get("tuning_seconds")
    if not stages:
        return None
    return sum(stages.values()) + (0 if tuning is None else max(0, tuning - stages.get("tuning", 0)))


def _line(name: str, rows: Sequence[Row], values: Mapping[str, Values]) -> Line:
    done = [row for row in rows if row.get("status") == "done"]
    seconds = [spent for row in done if (spent := seconds_of(row)) is not None]

    def peak(key: str) -> float | None:
        return max((float(row[key]) for row in done if row.get(key) is not None), default=None)

    return Line(
        name=name,
        n=len({row.get("task") for row in done}),
        edits=len(done),
        failures=len(rows) - len(done),
        metric_failures=sum(len(row.get("metric_errors") or {}) for row in done),
        seconds=sum(seconds) / len(seconds) if seconds else None,
        peak_rss_gb=peak("peak_rss_gb"),
        peak_gpu_gb=peak("peak_gpu_gb"),
        cells={name: found for name, each in values.items() if (found := mean_of(each)) is not None},
    )


def _best(column: Column, values: Mapping[str, Mapping[str, Values]]) -> list[str]:
    """Where at least two lines have the column and its direction is known."""
    held = {name: each[column.name] for name, each in values.items() if column.name in each}
    if column.higher_is_better is None or len(held) < 2:
        return []
    means = common(held)
    every = list(means.values())
    return [name for name, mean in means.items() if not better_than(mean, every, column.higher_is_better)]
