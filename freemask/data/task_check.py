"""What one task must fulfil: turns the fields of a row into an EditTask and a list of complaints."""

import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from freemask.data.captions import AUTO
from freemask.data.names import fault, id_fault
from freemask.data.pairs import read_pairs
from freemask.data.paths import path_below
from freemask.data.task_edits import FORM, Written, clashes, written
from freemask.data.task_fill import filled
from freemask.data.task_rows import Complaint, Row
from freemask.errors import nearest
from freemask.types import KINDS, EditTask, LocalEdit
from freemask.words import bare, holds

FIELDS = ("id", "clip", "source", "target", "words", "kind", "region", "objects", "assets", "edits", "level")
LEVELS = ("class", "instance", "part")
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
    text = {name: _text(row, name, complain, empty) for name in (*NEEDED, "kind", "level")}
    text["id"] = unicodedata.normalize("NFC", text["id"])
    if wrong := id_fault(text["id"]):
        complain("id", wrong)
    if listed and text["clip"] and (wrong := fault(text["clip"])):
        complain("clip", f"clip {wrong}")
    for name, known in (("kind", KINDS), ("level", LEVELS)):
        _check_known(name, text[name], known, partial(complain, name))
    for name in ("source", "target"):
        _check_prompt(name, text[name], complain)
    tell = (
        (lambda message: None) if "edits" in row.values else partial(complain, "words")
    )  # told of the edits
    words = _words(_pairs(row, "words", complain), text, tell)
    assets = _assets(row, base, complain, listed=listed)
    objects = _objects(row, complain)
    before = len(found)
    edits = _edits(row, text, complain, (base, listed))
    together = {old: new for each in edits for old, new in each.words.items()}
    if edits and words != together and len(found) == before:
        complain("words", "words are not those of the edits; leave them out, or write the same in both")
    edit = (text["source"], text["target"], words, text["kind"], assets, dict(row.guessed))
    return EditTask(text["id"], text["clip"], *edit, edits, text["level"]), objects, found


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
    if name == "source" and prompt.strip() == AUTO:
        complain(
            name,
            "source=auto: nobody here looks at clips; the data do (data=folder, davis, pexels), and edit",
        )
    odd = next((sign for sign in prompt if not sign.isprintable()), None)
    if odd is not None:
        complain(name, f"field '{name}' holds {odd!r}; a prompt is one line of printable text")


def _check_known(name: str, said: str, known: Sequence[str], complain: Callable[[str], None]) -> None:
    if said and said not in known:
        complain(f"unknown {name} '{said}'; {nearest(said, known)}")


def _words(
    pairs: Mapping[Any, Any], text: Mapping[str, str], complain: Callable[[str], None]
) -> dict[str, str]:
    checked: dict[str, str] = {}
    for old, new in pairs.items():
        if not isinstance(old, str) or not isinstance(new, str):
            complain(f"words must be text, not {old!r} -> {new!r}; put them in quotes")
            continue
        for word, side in ((old, "source"), (new, "target")):
            if not word.strip() and side == "target":
                continue  # the target leaves the word out: its object is to go
            if not word.strip():
                complain(
                    f"nothing stands before the arrow of '-> {new.strip()}'; say which word of the source prompt it is"
                    " about (only an edit of the kind style needs none)"
                )
            elif text[side] and not holds(text[side], word):
                complain(_unknown(word, side, text[side]))
        checked[old.strip()] = new.strip()
    return checked


def _unknown(word: str, side: str, prompt: str) -> str:
    return f"'{word}' is not in the {side} prompt, whose words are: {', '.join(map(bare, prompt.split()))}"


def _edits(
    row: Row, text: Mapping[str, str], complain: Complain, home: tuple[Path, bool]
) -> tuple[LocalEdit, ...]:
    """`home`: where paths begin, and whether they must stay there."""
    if "edits" not in row.values:
        return ()
    said = written(row.values["edits"])
    if not said:
        complain("edits", f"edits: at least one was expected, such as `{FORM}`")
    several, edits = len(said) > 1, []
    whole = None if "kind" in row.guessed else text["kind"]
    for number, each in enumerate(said, 1):
        name = f"edit {number}: " if several else "edits: "

        def at(message: str, field: str = f"edits[{number}]", name: str = name) -> None:
            complain(field, name + message)

        edits.append(_edit(replace(each, kind=each.kind or whole), text, at, home))
    for number, clash in clashes([each.words for each in edits], text):
        complain(f"edits[{number}]", clash)
    return tuple(edits)


def _edit(
    said: Written, text: Mapping[str, str], complain: Callable[[str], None], home: tuple[Path, bool]
) -> LocalEdit:
    for wrong in said.faults:
        complain(wrong)
    kind, pairs = said.kind or said.read()[0], said.words
    if kind == "style":  # of the whole frame, where it says no word of the source
        for look in said.looks():
            if look and not holds(text["target"], look):
                complain(_unknown(look, "target", text["target"]))
        pairs = {old: new for old, new in pairs.items() if not isinstance(old, str) or old.strip()}
    elif not said.words and not said.faults:
        complain("it has no words; say which of the source prompt it is about")
    words = _words(pairs, text, complain)
    _check_known("kind", str(kind), KINDS, complain)
    if said.region is not None and kind == "style" and not words:
        complain("it has a region, but no words: a style of a part says which part, such as car->car")
    region = "" if said.region is None else path_below(said.region, home, complain)
    return LocalEdit(words, str(kind), region)


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

        def at(message: str, field: str = field) -> None:
            complain(field, f"{field}: {message}")

        if not isinstance(name, str):
            at(f"a name was expected, not {name!r}")
        elif path := path_below(value, (base, listed), at):
            assets[name] = path
    return assets


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
