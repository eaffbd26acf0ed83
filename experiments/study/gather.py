"""What people are asked about: the edits of some runs, those tasks that every method has finished and kept."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.runs.rows import Row, latest
from experiments.runs.sources import Source, sources_of
from freemask.errors import UserError, nearest


@dataclass(frozen=True)
class Edits:
    """Of one method: what it is called here and in its rows, the identity of its configuration, its rows by task."""

    name: str
    variant: str
    run: str
    folder: Path
    rows: dict[str, Row]


@dataclass(frozen=True)
class Material:
    """`reference` is the name of the method that the others are compared with. `notes` say what was left out."""

    methods: Sequence[Edits]
    tasks: Sequence[str]
    reference: str
    notes: Sequence[str]

    def row(self, task: str) -> Row:
        return self.methods[0].rows[task]


def gather(
    folders: Sequence[Path],
    variants: Sequence[str] | None,
    reference: str | None,
    tasks: Sequence[str] | None,
) -> Material:
    sources = sources_of(folders)
    every = [each for each in map(_edits, sources) if each.rows]
    names = [each.name for each in every]
    for name in variants or ():
        _known("variants", name, names)
    methods = [each for each in every if each.name in (variants or names)]
    if not methods:
        raise UserError(
            "nothing here can be shown to people",
            came=", ".join(map(str, folders)),
            expected="edits that were kept with their videos",
            todo="freemask run ... keep=all",
        )
    used = [each.name for each in methods]
    if reference is not None:
        _known("reference", reference, used)
    known = reference or sources[0].run.record.reference
    shared = sorted(set.intersection(*(set(each.rows) for each in methods)))
    for task in tasks or ():
        _known("tasks", task, shared)
    kept = [task for task in shared if tasks is None or task in tasks]
    if not kept:
        came = f"{', '.join(f'{each.name}: {len(each.rows)}' for each in methods)}"
        expected = "a task that all of them have finished and kept"
        raise UserError("these methods have no task in common", came=came, expected=expected)
    seen = {task for each in methods for task in each.rows}
    notes = (
        [
            f"{len(seen) - len(shared)} of {len(seen)} tasks are left out: not every method has finished and kept them"
        ]
        if len(shared) < len(seen)
        else []
    )
    return Material(methods, kept, known if known in used else used[0], notes)


def drawn(material: Material, sets: int | None, seed: int) -> list[str]:
    """So many tasks, by the seed; all, where that is asked for."""
    tasks = list(material.tasks)
    if sets is None:
        return tasks
    if sets > len(tasks):
        expected = f"at most {len(tasks)}, which all methods have finished and kept"
        todo = "design.sets=null takes all; freemask run ... keep=all keeps the videos of all"
        came = f"design.sets={sets}"
        raise UserError("there are fewer sets than that", came=came, expected=expected, todo=todo)
    return sorted(random.Random(seed).sample(tasks, sets))


def _edits(source: Source) -> Edits:
    rows = {
        task: row
        for task, row in latest(source.folder).items()
        if row["status"] == "done" and _kept(source.folder, row)
    }
    first = next(iter(rows.values()), None)
    called = "" if first is None else str(first.get("variant") or first.get("method") or "")
    name = source.label or called or source.folder.name
    return Edits(name, called, "" if first is None else str(first.get("run", "")), source.folder, rows)


def _kept(folder: Path, row: Row) -> bool:
    files = row.get("files") or {}
    return any(kind in files and (folder / files[kind]).is_file() for kind in ("frames", "edited"))


def _known(key: str, asked: str, names: Sequence[str]) -> None:
    if asked not in names:
        raise UserError(f"there is no '{asked}' here", came=f"{key}={asked}", expected=nearest(asked, names))
