"""The values that rows hold, one for each task: seeds are averaged first, and an edit found twice counts once. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from freemask.statistics import Interval, mean, quotient

Row = Mapping[str, Any]
# task -> (its clip, its value)
Values = dict[str, tuple[str, float]]


class Parts(NamedTuple):
    """Of a column that is one mean over another; both of the same tasks."""

    above: Values
    below: Values

    def of(self, tasks: Sequence[str]) -> tuple[list[float], list[float]]:
        return [self.above[task][1] for task in tasks], [self.below[task][1] for task in tasks]


def distinct(rows: Iterable[Row]) -> list[Row]:
    """Of several rows of one task, seed and configuration the last one finished, wherever they lie."""
    found: dict[tuple, Row] = {}
    for row in rows:
        key = tuple(str(row.get(each)) for each in ("task", "seed", "run"))
        if key not in found or str(row.get("finished", "")) >= str(found[key].get("finished", "")):
            found.pop(key, None)
            found[key] = row
    return list(found.values())


def values_of(rows: Iterable[Row], column: str, scale: float | int = 1) -> Values:
    """Of one line's finished rows. Every seed weighs the same, and so does every task."""
    measured = (
        (row["task"], str(row.get("clip")), value * scale)
        for row in rows
        if row.get("status") == "done" and (value := (row.get("metrics") or {}).get(column)) is not None
    )
    return averaged(measured)


def averaged(measured: Iterable[tuple[Any, str, float]]) -> Values:
    """Of (task, its clip, a value), one value for each task."""
    found: dict[str, tuple[str, list[float]]] = {}
    for task, clip, value in measured:
        found.setdefault(str(task), (clip, []))[1].append(float(value))
    return {task: (clip, sum(values) / len(values)) for task, (clip, values) in found.items()}


def parts_of(rows: Collection[Row], above: tuple[str, float | int], below: tuple[str, float | int]) -> Parts:
    """`above` and `below` are a column's name and what its numbers are multiplied with."""
    top, bottom = values_of(rows, *above), values_of(rows, *below)
    both = [task for task in top if task in bottom]
    return Parts({task: top[task] for task in both}, {task: bottom[task] for task in both})


def mean_of(values: Values) -> Interval | None:
    if not values:
        return None
    return mean([value for _, value in values.values()], [clip for clip, _ in values.values()])


def quotient_of(parts: Parts) -> Interval | None:
    """None where nothing is below."""
    tasks = list(parts.above)
    return quotient(*parts.of(tasks), [parts.above[task][0] for task in tasks]) if tasks else None


def common(lines: Mapping[str, Values]) -> dict[str, float]:
    """The mean of each line over the tasks that all of them have, rounded to what equal means share; empty where no
    task is common. Only such means can be ranked: a line that failed on the hard tasks would look better."""
    held = [set(values) for values in lines.values()]
    tasks = sorted(set.intersection(*held)) if held else []
    if not tasks:
        return {}
    sums = {name: sum(values[task][1] for task in tasks) for name, values in lines.items()}
    return {name: float(f"{total / len(tasks):.12g}") for name, total in sums.items()}
