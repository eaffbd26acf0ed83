"""Read task lists: which clip is edited how. Every bad line is named in one error. docs/tasks.md shows the forms.

Fields of a task: `clip`, `source` and `target` (prompts, kept to the last blank); where they are not to be read off the
prompts, `words` (source word or phrase -> target word or phrase) and `kind` (style, attribute, shape, background);
where it is not to be made of clip and kind, `id` (names the output); and, where wanted, `region` (a mask picture, or a
folder with one mask per frame of the clip, white where the edit may change pixels), `edits` (several in one clip, each
with `words`, `kind` and `region`), `level` (class, instance or part: how fine they are), `objects` (number in the
annotation -> word) and `assets` (name -> file). Paths are relative to the list and stay below its folder.

A YAML file is a list of such tasks, or clips with several edits each:
    bear: {source: a bear walks, targets: [a lion walks, {target: a bear walks in snow, kind: background}]}
    lion: {source: a lion walks, target: a tiger walks}
A CSV file has the fields as columns and writes pairs as `car->truck; red->blue`. A manifest is a list whose field
`clip` is called `file`, and which may carry the columns in NOTED, which are passed over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from freemask.data import captions as said_of
from freemask.data.captions import Told
from freemask.data.names import same_name
from freemask.data.shipped import list_path
from freemask.data.task_check import FIELDS, check_row
from freemask.data.task_fill import filled, named
from freemask.data.task_rows import Complaint, Row, read_rows
from freemask.errors import UserError
from freemask.types import EditTask

SAID = ("source", "target")  # that each task has beside its clip
NOTED = ("url", "author", "photographer", "license", "title", "width", "height", "fps", "duration", "notes")


@dataclass(frozen=True)
class TaskList:
    """Tasks in the order of the file; names of annotated objects by clip, then by number."""

    tasks: tuple[EditTask, ...]
    objects: Mapping[str, Mapping[int, str]]


def read_tasks(path: str | Path) -> list[EditTask]:
    return list(read_list(path).tasks)


def read_list(path: str | Path, *, manifest: bool = False, told: Told | None = None) -> TaskList:
    """`told`: who says what the clips show whose source prompt is `auto`."""
    listed, found = looked_over(path, manifest=manifest, told=told)
    refuse(path, found)
    return listed


def looked_over(
    path: str | Path, *, manifest: bool = False, told: Told | None = None
) -> tuple[TaskList, list[Complaint]]:
    """The good tasks of a list, and what is wrong with its other lines."""
    path = list_path(path)
    if path.is_dir():
        raise UserError(f"{path}: a folder, where a task list was expected", expected="a .yaml or .csv file")
    rows, complaints = read_rows(path)
    if manifest := manifest or any("file" in row.values for row in rows):
        rows = [_from_manifest(row, complaints) for row in rows]
    if wrong := _wrong_header(rows, manifest=manifest):
        return TaskList((), {}), [*complaints, *wrong]
    rows = [row if told is None else _seen(row, told, complaints) for row in rows]
    return _checked(path, named([filled(row) for row in rows]), complaints, "line")


def collect(
    path: Path, rows: Sequence[Row], complaints: Sequence[Complaint] = (), unit: str = "line"
) -> TaskList:
    """The tasks of checked rows, or one error that names every bad one. A row's `line` counts `unit`s."""
    listed, found = _checked(path, rows, complaints, unit)
    refuse(path, found, unit)
    return listed


def _checked(
    path: Path, rows: Sequence[Row], complaints: Sequence[Complaint], unit: str
) -> tuple[TaskList, list[Complaint]]:
    found = list(complaints)
    tasks: dict[str, tuple[int, EditTask]] = {}
    objects: dict[str, dict[int, str]] = {}
    good: list[EditTask] = []
    for row in rows:
        task, names, wrong = check_row(row, path.parent.resolve())
        twin = tasks.setdefault(same_name(task.id), (row.line, task))
        if task.id and twin[1] is not task:
            wrong.append((row.at("id"), f"id '{task.id}' is already that of {unit} {twin[0]}"))
        for number, name in names.items():
            if objects.setdefault(task.clip, {}).setdefault(number, name) != name:
                known = objects[task.clip][number]
                wrong.append(
                    (row.at("objects"), f"object {number} of '{task.clip}' is called '{known}' above")
                )
        good += [] if wrong else [task]
        found += wrong
    if not rows and not found:
        raise UserError(
            f"{path}: the list holds no tasks", came="an empty list", expected="at least one task"
        )
    return TaskList(tuple(good), objects), found


def check_task(
    fields: Mapping[str, object], base: Path | None = None, found: Mapping[str, str] = MappingProxyType({})
) -> EditTask:
    """One task given in code or on the command line, under the same rules as a line of a list. `found`: which fields
    nobody wrote, and how they were found."""
    said = {name: value for name, value in fields.items() if value is not None}
    for name in ("words", "edits"):
        if not str(said.get(name, "none")).strip():
            del said[name]  # words= says as little as no words at all
    row = Row(0, said, guessed=found)
    task, _, wrong = check_row(row, (base or Path()).resolve(), listed=False)
    if wrong:
        raise UserError(
            "the edit cannot be done as described\n" + "\n".join(f"  {text}" for _, text in wrong)
        )
    return task


def refuse(path: str | Path, complaints: Sequence[Complaint], unit: str = "line") -> None:
    if not complaints:
        return
    lines = "\n".join(f"  {unit} {line}: {message}" for line, message in sorted(set(complaints)))
    count = len({line for line, _ in complaints})
    many = {"entry": "entries"}.get(unit, f"{unit}s") if count > 1 else unit
    raise UserError(f"{path}: {count} bad {many} in the task list\n{lines}")


def _seen(row: Row, told: Told, complaints: list[Complaint]) -> Row:
    """With a source prompt, where the clip is to be looked at for it."""
    if not said_of.wanted(row.values):
        return row
    try:
        values, how = told(row.values)
    except UserError as error:
        complaints.append((row.at("source"), f"source=auto: {error.wrong}; {error.todo or error.came}"))
        return row
    return replace(row, values=values, guessed={**row.guessed, **how})


def _from_manifest(row: Row, complaints: list[Complaint]) -> Row:
    values = {name: value for name, value in row.values.items() if name not in NOTED}
    lines = dict(row.lines)
    if "file" in values and "clip" in values:
        complaints.append((row.at("file"), "both 'file' and 'clip' are given"))
    if "file" in values:
        values["clip"] = values.pop("file")
        lines["clip"] = row.at("file")
    return replace(row, values=values, lines=lines)


def _wrong_header(rows: Sequence[Row], *, manifest: bool) -> list[Complaint]:
    """Columns that no task has, or that each needs: told once, and not at each row."""
    if not rows or rows[0].header is None:
        return []
    line, columns = rows[0].header
    clip = "file" if manifest and "clip" not in columns else "clip"
    needed = (clip, *SAID)
    others = [each for each in FIELDS if each not in needed and each != "clip"]
    unknown = [each for each in columns if each not in (*needed, *others, *(NOTED if manifest else ()))]
    missing = [each for each in needed if each not in columns]
    parts = [f"no column {', '.join(missing)}"] * bool(missing)
    parts += [f"unknown column {', '.join(unknown)}"] * bool(unknown)
    known = f"columns are {', '.join(needed)}, and where wanted {', '.join(others)}"
    return [(line, f"{'; '.join(parts)}; {known}")] if parts else []
