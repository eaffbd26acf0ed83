"""Read a manifest of videos that other code has made. Every bad line is named in one error.

Fields of an entry: `edited` (the edited video or its folder of frames) and `method` (whose it is; may be given once on
the command line), and what was edited: `task`, the id of a task of data=..., or `clip` (the source video or folder),
`source`, `target` and, where wanted, `kind`, `words`, `region`, `edits`, `level` and `id`, as in a task list. Paths are
absolute or relative to the manifest. `notes` is passed over. The file is a list in YAML or JSON, or CSV with the fields
as columns.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.config.fingerprint import digest
from experiments.jobs.variants import NAME
from freemask.data.paths import existing
from freemask.data.task_check import Complain, check_row
from freemask.data.task_fill import filled, slug
from freemask.data.task_rows import Complaint, Row, decoded, read_rows
from freemask.errors import UserError, nearest
from freemask.types import EditTask

OWN = ("id", "clip", "source", "target", "words", "kind", "region", "edits", "level")
FIELDS = ("method", "edited", "task", *OWN, "notes")
MANIFESTS = (".csv", ".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Entry:
    """`id` is that of a task of the data, unless it has a task of its `own`, with a clip that it names."""

    method: str
    edited: Path
    said: str  # the path as the manifest has it
    id: str
    own: EditTask | None
    line: int


@dataclass
class Reading:
    """One pass over the rows of a manifest, and the complaints on the way."""

    base: Path
    method: str | None
    complaints: list[Complaint] = field(default_factory=list)

    def entry(self, row: Row) -> Entry:
        def complain(name: str, message: str) -> None:
            self.complaints.append((row.at(name), f"{name}: {message}"))

        for name in sorted(set(row.values) - set(FIELDS)):
            complain(name, f"there is no such field; {nearest(name, FIELDS)}")
        texts: dict[str, str] = {}
        for name in ("method", "edited", "task"):
            value = row.values.get(name, "")
            if not isinstance(value, str):
                complain(name, f"a text was expected, not {value!r}; put it in quotes")
            texts[name] = value.strip() if isinstance(value, str) else ""
        method = texts["method"] or self.method or ""
        if not method:
            complain("method", "is missing; name it here, or for all entries with method_name=NAME")
        elif not NAME.fullmatch(method):
            complain("method", f"{method[:80]!r} cannot name a folder: up to 100 letters, digits, - _ or +")
        edited = self._edited(texts["edited"], complain)
        own = None if texts["task"] else self._own(row)
        if texts["task"] and (both := sorted(set(OWN) & set(row.values))):
            own_fields = ", ".join(both)
            complain("task", f"names a task of the data, which has its own {own_fields}; leave out either")
        return Entry(method, edited, texts["edited"], own.id if own else texts["task"], own, row.line)

    def _edited(self, text: str, complain: Complain) -> Path:
        path = self.base / Path(text).expanduser() if text else self.base
        if not text:
            complain("edited", "is missing; the edited video or its folder of frames was expected")
        elif "\0" in text or not path.exists():
            complain("edited", f"there is no {text!r} (looked for {str(path)!r})")
        return path

    def _own(self, row: Row) -> EditTask:
        if "clip" not in row.values:
            said = "what was edited? `task` (an id of the data), or `clip`, `source`, `target`"
            self.complaints.append((row.line, said))
            return EditTask("", "", "", "", {}, "")
        values = {name: value for name, value in row.values.items() if name in OWN}
        told = filled(Row(row.line, values, row.lines))
        told.values.setdefault("id", _id(told))
        task, _, found = check_row(told, self.base, listed=False)
        self.complaints += found
        clip = self.base / Path(task.clip).expanduser()
        if task.clip and ("\0" in task.clip or not clip.exists()):
            said = f"clip: there is no {task.clip!r} (looked for {str(clip)!r})"
            self.complaints.append((row.at("clip"), said))
        return task


def read_manifest(path: str | Path, method: str | None = None) -> list[Entry]:
    path = existing(path)
    if path.suffix.lower() not in MANIFESTS:
        came, expected = (
            path.suffix or "no ending",
            f"a file that ends in {', '.join(MANIFESTS)}, or a folder",
        )
        raise UserError(f"{path}: no manifest by its name", came=came, expected=expected)
    rows, complaints = json_rows(path) if path.suffix.lower() == ".json" else read_rows(path)
    reading = Reading(path.parent.resolve(), method, list(complaints))
    entries = [reading.entry(row) for row in rows]
    if not entries and not reading.complaints:
        reading.complaints.append((1, "holds no entries"))
    seen: dict[tuple[str, str], Entry] = {}
    for each in entries:
        twin = seen.setdefault((each.method, each.id.lower()), each)
        if twin is not each and each.id:
            said = f"'{each.method}' has an edit of '{each.id}' in line {twin.line} already"
            reading.complaints.append((each.line, said))
    refuse(path, reading.complaints)
    return entries


def with_tasks(path: str | Path, entries: Sequence[Entry], known: Mapping[str, EditTask]) -> list[EditTask]:
    """The task of each entry; those that name one of the data are looked up there."""
    missing = [
        (each.line, f"task: the data has no task '{each.id}'; {nearest(each.id, known)[:300]}")
        for each in entries
        if each.own is None and each.id not in known
    ]
    refuse(path, missing)
    return [known[each.id] if each.own is None else each.own for each in entries]


def refuse(path: str | Path, complaints: Sequence[Complaint]) -> None:
    if complaints:
        lines = "\n".join(f"  line {line}: {message}" for line, message in sorted(set(complaints)))
        count = len({line for line, _ in complaints})
        wrong = f"{path}: {count} bad line{'s' * (count > 1)} in the manifest\n{lines}"
        expected = f"fields {', '.join(FIELDS)}"
        raise UserError(wrong, expected=expected, todo="freemask evaluate --help shows an example")


def json_rows(path: Path) -> tuple[list[Row], list[Complaint]]:
    """A list of objects, each with the line it begins in."""
    twice: list[str] = []

    def pairs(found: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in found]
        twice.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)
        return {name: value for name, value in found if value is not None}

    text, wrong = decoded(path)
    if wrong:
        return [], wrong
    try:
        json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        return [], [(getattr(error, "lineno", 1), f"not JSON: {getattr(error, 'msg', 'nested too deeply')}")]
    at = _blank(text, 0)
    if text[at] != "[":
        return [], [(1, "a list of entries was expected: [{...}, {...}]")]
    rows, complaints, decoder = [], [], json.JSONDecoder(object_pairs_hook=pairs)
    at = _blank(text, at + 1)
    while text[at] != "]":
        line = text.count("\n", 0, at) + 1
        value, at = decoder.raw_decode(text, at)
        complaints += [(line, f"{name}: is there twice") for name in twice]
        twice.clear()
        if isinstance(value, dict):
            rows.append(Row(line, value))
        else:
            complaints.append((line, f"an entry {{...}} was expected, not {value!r}"))
        at = _blank(text, at)
        at = _blank(text, at + 1) if text[at] == "," else at
    return rows, complaints


def _blank(text: str, at: int) -> int:
    while text[at].isspace():
        at += 1
    return at


def _id(row: Row) -> str:
    """The same for every method that edited this clip with these prompts."""
    values = {name: each for name, each in row.values.items() if each != {} or name not in row.guessed}
    mark = digest([str(values.get(key)) for key in ("clip", "source", "target", "words", "kind")])[:6]
    return f"{slug(Path(str(values['clip'])).name)}-{slug(str(values.get('kind', '')))}-{mark}"
