"""What a paper's table still lacks, line by line, and the command that would produce it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation.tables.filled import Filled, Line
from evaluation.tables.papers import PaperLine, PaperTable
from experiments.config import choices
from experiments.config.explained import chosen_by

NO_METHOD, NO_ROWS, NO_NUMBERS = "no method yet", "not run yet", "every edit failed"


@dataclass(frozen=True)
class Lack:
    """`mark` is shown in the table itself; `command` is empty where none would help."""

    line: str
    title: str
    mark: str
    why: str
    command: str = ""


def lacking(filled: Filled, wanted: int | None) -> list[Lack]:
    """`wanted`: how many tasks a line should have; None: as many as the longest has."""
    table = filled.table
    experiment = content(table.experiment)
    variants: Mapping[str, Any] = experiment.get("variants") or {}
    most = wanted or max((len(line.tasks) for line in filled.lines), default=0)
    found = []
    for spec in table.lines:
        line = filled.line(spec.key)
        if not line.rows:
            found.append(_no_rows(table, spec, variants))
        else:
            found += _unfinished(table, line, spec.key in variants, most)
    return found + _unmeasured(filled)


def content(experiment: str | None) -> dict[str, Any]:
    known = {each.name for each in choices.group("experiment")}
    return choices.content("experiment", experiment) if experiment in known else {}


def _no_rows(table: PaperTable, spec: PaperLine, variants: Mapping[str, Any]) -> Lack:
    run = f"freemask run experiment={table.experiment}"
    if spec.key in variants:
        return Lack(spec.key, spec.title, NO_ROWS, "no rows", f"{run} only=[{spec.key}]")
    if variants and _known(spec.method):
        own = f"\"variants={{{spec.key}:['method={spec.method}']}}\""
        why = f"the method is here, but {table.experiment} has no variant of that name"
        return Lack(spec.key, spec.title, NO_ROWS, why, f"{run} {own}")
    lack = no_method(spec)
    command = f"freemask evaluate manifest=LIST.csv method_name={spec.key} name={spec.key}"
    return replace(lack, why=f"{lack.why}; of videos by its authors' code", command=command)


def no_method(spec: PaperLine) -> Lack:
    if _known(spec.method):
        return Lack(
            spec.key, spec.title, NO_ROWS, f"the method '{spec.method}' has no part in this table yet"
        )
    return Lack(spec.key, spec.title, NO_METHOD, f"there is no conf/method/{spec.method}.yaml")


def _known(method: str) -> bool:
    return method in {each.name for each in choices.group("method")}


def _unfinished(table: PaperTable, line: Line, listed: bool, most: int) -> list[Lack]:
    found = []
    command = f"freemask run experiment={table.experiment} only=[{line.key}]" if listed else ""
    mark = "" if line.cells else NO_NUMBERS
    if len(line.tasks) < most:
        why = f"{len(line.tasks)} of {most} tasks have a row"
        found.append(Lack(line.key, line.title, mark, why, command))
    if line.failures:
        again = f"{command} retry=failed" if command else ""
        why = f"{line.failures} of {len(line.rows)} edits failed"
        found.append(Lack(line.key, line.title, mark, why, again))
    return found


def _unmeasured(filled: Filled) -> list[Lack]:
    """Columns that no row has, or not the rows of some line."""
    found = []
    finished = [line for line in filled.lines if line.done]
    for column in filled.table.columns:
        without = [line for line in finished if column.key not in line.cells]
        if column.family is None or column.cost or not without:
            continue
        named = filled.chosen.get(column.key, f"a column '{column.ours}'")
        whose = ", ".join(each.title for each in without)
        why = f"no line has {named}" if len(without) == len(finished) else f"{whose} lack {named}"
        store = without[0].rows[0].get("store", "RUN")
        command = f"freemask evaluate {store} metric={_metric(filled.table)}"
        found.append(Lack(f"column:{column.key}", f"column {column.title}", "", why, command))
    return found


def _metric(table: PaperTable) -> str:
    """The suite that the table's experiment measures."""
    known = {each.name for each in choices.group("experiment")}
    chosen = chosen_by("experiment", table.experiment) if table.experiment in known else {}
    return chosen.get("metric", "default")


def missing(lacks: Sequence[Lack]) -> list[str]:
    """A line for each, with the command that would produce it."""
    return [f"{each.title}: {each.why}" + (f": {each.command}" if each.command else "") for each in lacks]
