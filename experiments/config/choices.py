"""What can be chosen: the option files below conf, with the facts in their first comment lines."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import yaml

from freemask.errors import UserError, nearest


@dataclass(frozen=True)
class Option:
    """One YAML of a group. `facts` holds the other leading `# key: value` comments (licence, get)."""

    name: str
    description: str
    facts: dict[str, str] = field(default_factory=dict)


@cache
def groups() -> dict[str, tuple[Option, ...]]:
    """Every group below conf and its options; an option in a subfolder is called folder/name."""
    found = {}
    for folder in sorted(files("conf").iterdir(), key=lambda each: each.name):
        if folder.is_dir() and not folder.name.startswith(("_", ".")):
            options = tuple(_options(folder, ""))
            if options:
                found[folder.name] = options
    return found


def group(name: str) -> tuple[Option, ...]:
    if name not in groups():
        raise UserError(
            f"there is no group '{name}'", came=name, expected=nearest(name, groups()), todo="freemask list"
        )
    return groups()[name]


def option(group_name: str, name: str) -> Option:
    known = {each.name: each for each in group(group_name)}
    if name not in known:
        raise UserError(
            f"'{name}' is no {group_name}",
            came=f"{group_name}={name}",
            expected=nearest(name, known),
            todo=f"freemask list {group_name}",
        )
    return known[name]


def content(group_name: str, name: str) -> dict:
    """An option's YAML as plain values, nothing followed."""
    file = files("conf") / group_name / f"{name}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def _options(folder: Traversable, prefix: str) -> Iterator[Option]:
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.is_dir():
            yield from _options(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            facts = _facts(entry.read_text(encoding="utf-8"))
            yield Option(prefix + entry.name[:-5], facts.pop("description", ""), facts)


def _facts(text: str) -> dict[str, str]:
    facts = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        key, colon, value = line[1:].partition(":")
        if colon and key.strip().isidentifier():
            facts[key.strip()] = value.strip()
    return facts
