"""What one task must fulfil: turns the fields of a row into an EditTask and a list of complaints."""

import unicodedata
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from freemask.data.names import fault, id_fault
from freemask.data.pairs import read_pairs
from freemask.data.task_fill import filled
from freemask.data.task_rows import Complaint, Row
from freemask.errors import nearest
from freemask.types import KINDS, EditTask
from freemask.words import bare, holds

FIELDS = ("id", "clip", "source", "target", "words", "kind", "region", "objects", "assets")
NEEDED = ("id", "clip", "source", "target")

Complain = Callable[[str, str], None]  # (field, message)


def check_row(
    row: Row, base: Path, *, listed: bool = True
) -> tuple[EditTask, dict[int, str], list[Complaint]]:
    """The task (meaningless where there are complaints), the names of its clip's objects, the complaints.

    What a list names (`listed`) must lie below its folder; a path that a user typed may lie anywhere.
    """
    row = filled(row)
    found: list[Complaint] = []

    def complain(field: str, message: str) -> None:
        found.append((row.at(field), message))

    for name in sorted(set(row.values) - set(FIELDS)):
        complain(name, f"unknown field '{name}'; {nearest(name, FIELDS)}")
    for name in NEEDED:
        if name not in row.values:
            complain(name, f"field '{name}' is missing or empty")
    empty = () if listed else ("target",)  # typed on purpose; in a list it is a forgotten cell
    text = {name: _text(row, name, complain, empty) for name in (*NEEDED, "kind")}
    text["id"] = unicodedata.normalize("NFC", text["id"])
    if wrong := id_fault(text["id"]):
        complain("id", wrong)
    if listed and text["clip"] and (wrong := fault(text["clip"])):
        complain("clip", f"clip {wrong}")
    if text["kind"] and text["kind"] not in KINDS:
        complain("kind", f"unknown kind '{text['kind']}'; {nearest(text['kind'], KINDS)}")
    for name in ("source", "target"):
        _check_prompt(name, text[name], complain)
    words = _words(row, text, complain)
    assets = _assets(row, base, complain, listed=listed)
    objects = _objects(row, complain)
    edit = (text["source"], text["target"], words, text["kind"], assets, dict(row.guessed))
    return EditTask(text["id"], text["clip"], *edit), objects, found


def _text(row: Row, name: str, complain: Complain, empty: Collection[str]) -> str:
    """`empty` names the fields that may be empty."""
    value = row.values.get(name, "")
    if not isinstance(value, str):
        complain(name, f"field '{name}' must be text, not {_kind(value)} ({value}); put it in quotes")
        return ""
    if name in row.values and not value.strip() and name not in empty:
        complain(name, f"field '{name}' is empty")
        return ""
    return value if name in ("source", "target") else value.strip()


def _check_prompt(name: str, prompt: str, complain: Complain) -> None:
    odd = next((sign for sign in prompt if not sign.isprintable()), None)
    if odd is not None:
        complain(name, f"field '{name}' holds {odd!r}; a prompt is one line of printable text")


def _words(row: Row, text: Mapping[str, str], complain: Complain) -> dict[str, str]:
    checked: dict[str, str] = {}
    for old, new in _pairs(row, "words", complain).items():
        if not isinstance(old, str) or not isinstance(new, str):
            complain("words", f"words must be text, not {old!r} -> {new!r}; put them in quotes")
            continue
        for word, side in ((old, "source"), (new, "target")):
            if not word.strip() and side == "target":
                continue  # the target leaves the word out: its object is to go
            if not word.strip():
                complain("words", f"words: an empty word in '{old}' -> '{new}'")
            elif text[side] and not holds(text[side], word):
                words = ", ".join(map(bare, text[side].split()))
                complain("words", f"'{word}' is not in the {side} prompt, whose words are: {words}")
        checked[old.strip()] = new.strip()
    return checked


def _objects(row: Row, complain: Complain) -> dict[int, str]:
    named: dict[int, str] = {}
    for id, name in _pairs(row, "objects", complain).items():
        number = int(id) if isinstance(id, str) and id.isascii() and id.isdigit() else id
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 256:
            complain("objects", f"objects: '{id}' is not an object's number (1 to 255)")
        elif not isinstance(name, str) or not name.strip():
            complain("objects", f"objects: object {number} must be named by a word, not {name!r}")
        else:
            named[number] = name.strip()
    return named


def _assets(row: Row, base: Path, complain: Complain, *, listed: bool) -> dict[str, str]:
    named = [("assets", *pair) for pair in _pairs(row, "assets", complain).items()]
    if "region" in row.values:
        named.append(("region", "region", row.values["region"]))
    assets: dict[str, str] = {}
    for field, name, value in named:
        if not isinstance(name, str) or not isinstance(value, str) or not value.strip():
            complain(field, f"{field}: a path was expected, not {value!r}")
            continue
        path = base / value.strip()
        wrong = (fault(value.strip()) if listed else None) or _unreachable(path, base if listed else None)
        if wrong:
            complain(field, f"{field}: {wrong}")
        assets[name] = str(path)
    return assets


def _unreachable(path: Path, home: Path | None) -> str | None:
    try:
        if not path.exists():
            return f"there is no '{path.relative_to(home) if home else path.name}' (looked for {path})"
        if home and not path.resolve().is_relative_to(home):
            return f"'{path.relative_to(home)}' is a link that leads out of {home}"
    except (OSError, ValueError) as error:
        return f"{ascii(str(path)[:80])} cannot be looked at: {getattr(error, 'strerror', None) or error}"
    return None


def _pairs(row: Row, field: str, complain: Complain) -> dict[object, object]:
    """A mapping, or a text such as `car->truck; red->blue`."""
    value = row.values.get(field, {})
    if isinstance(value, dict):
        return value
    if not isinstance(value, str):
        complain(field, f"field '{field}' must be a mapping or `a->b; c->d`, not {_kind(value)}")
        return {}
    pairs, faults = read_pairs(value)
    for each in faults:
        complain(field, f"{field}: {each}")
    return {**pairs}


def _kind(value: object) -> str:
    names = {bool: "a yes/no value", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return names.get(type(value), f"a {type(value).__name__}")
