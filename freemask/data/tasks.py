"""Read task lists: which clip is edited how. Every bad line is named in one error.

Fields of a task: `id` (names the output folder), `clip`, `source` and `target` (prompts, kept to the last
blank), `words` (source word or phrase -> target word or phrase), `kind` (style, attribute, shape,
background); and, where wanted, `region` (a mask picture, or a folder with one mask per frame of the clip,
white where the edit may change pixels), `objects` (number in the annotation -> word) and `assets`
(name -> file). Paths are relative to the list and stay below its folder. `words` may be left out for style
edits.

A YAML file is a list of such tasks, or clips with several edits each:
    bear: {source: a bear walks, targets: [{kind: shape, target: a lion walks, words: {bear: lion}}]}
whose ids, where not given, are made of clip and kind. A CSV file has the fields as columns and writes pairs
as `car->truck; red->blue`. A manifest is a list whose field `clip` is called `file`, whose ids may be left
out, and which may carry the columns in NOTED, which are passed over.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from freemask.data.names import same_name
from freemask.data.shipped import list_path
from freemask.data.task_check import check_row
from freemask.data.task_rows import Complaint, Row, read_rows
from freemask.errors import UserError
from freemask.types import EditTask

NOTED = ("url", "author", "photographer", "license", "title", "width", "height", "fps", "duration", "notes")
ENDING = re.compile(r"\.(mp4|mov|mkv|webm|avi|m4v|gif|png|jpe?g)$", re.IGNORECASE)


@dataclass(frozen=True)
class TaskList:
    """Tasks in the order of the file; names of annotated objects by clip, then by number."""

    tasks: tuple[EditTask, ...]
    objects: Mapping[str, Mapping[int, str]]


def read_tasks(path: str | Path) -> list[EditTask]:
    return list(read_list(path).tasks)


def read_list(path: str | Path, *, manifest: bool = False) -> TaskList:
    path = list_path(path)
    if path.is_dir():
        raise UserError(f"{path}: a folder, where a task list was expected", expected="a .yaml or .csv file")
    rows, complaints = read_rows(path)
    rows = _named([_from_manifest(row, complaints) for row in rows] if manifest else rows)
    return collect(path, rows, complaints)


def collect(
    path: Path, rows: Sequence[Row], complaints: Sequence[Complaint] = (), unit: str = "line"
) -> TaskList:
    """The tasks of checked rows, or one error that names every bad one. A row's `line` counts `unit`s."""
    found = list(complaints)
    tasks: dict[str, tuple[int, EditTask]] = {}
    objects: dict[str, dict[int, str]] = {}
    for row in rows:
        task, named, wrong = check_row(row, path.parent.resolve())
        found += wrong
        twin = tasks.setdefault(same_name(task.id), (row.line, task))
        if task.id and twin[1] is not task:
            found.append((row.at("id"), f"id '{task.id}' is already that of {unit} {twin[0]}"))
        for number, name in named.items():
            if objects.setdefault(task.clip, {}).setdefault(number, name) != name:
                known = objects[task.clip][number]
                found.append(
                    (row.at("objects"), f"object {number} of '{task.clip}' is called '{known}' above")
                )
    if not rows and not found:
        found.append((1, "holds no tasks"))
    _refuse(path, found, unit)
    return TaskList(tuple(task for _, task in tasks.values()), objects)


def check_task(fields: Mapping[str, object], base: Path | None = None) -> EditTask:
    """One task given in code or on the command line, under the same rules as a line of a list."""
    row = Row(0, {name: value for name, value in fields.items() if value is not None})
    task, _, found = check_row(row, (base or Path()).resolve(), listed=False)
    if found:
        raise UserError(
            "the edit cannot be done as described\n" + "\n".join(f"  {text}" for _, text in found)
        )
    return task


def slug(name: str) -> str:
    """A name for a folder, made of a clip's path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ENDING.sub("", name)).strip("-.")[:80] or "clip"


def _refuse(path: Path, complaints: list[Complaint], unit: str) -> None:
    if not complaints:
        return
    lines = "\n".join(f"  {unit} {line}: {message}" for line, message in sorted(set(complaints)))
    count = len({line for line, _ in complaints})
    many = {"entry": "entries"}.get(unit, f"{unit}s") if count > 1 else unit
    raise UserError(f"{path}: {count} bad {many} in the task list\n{lines}")


def _named(rows: Sequence[Row]) -> list[Row]:
    """Ids for the rows of forms that need none: clip-kind, clip-kind-2, ..."""
    taken = {same_name(str(row.values["id"])) for row in rows if "id" in row.values}
    named = []
    for row in rows:
        if not row.numbered or "id" in row.values:
            named.append(row)
            continue
        stem = f"{slug(str(row.values.get('clip', '')))}-{slug(str(row.values.get('kind', '')))}"
        id, number = stem, 1
        while same_name(id) in taken:
            number += 1
            id = f"{stem}-{number}"
        taken.add(same_name(id))
        named.append(replace(row, values=row.values | {"id": id}))
    return named


def _from_manifest(row: Row, complaints: list[Complaint]) -> Row:
    values = {name: value for name, value in row.values.items() if name not in NOTED}
    lines = dict(row.lines)
    if "file" in values and "clip" in values:
        complaints.append((row.at("file"), "both 'file' and 'clip' are given"))
    if "file" in values:
        values["clip"] = values.pop("file")
        lines["clip"] = row.at("file")
    return Row(row.line, values, lines, numbered=True)
