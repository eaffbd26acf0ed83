"""What can be chosen: the option files below conf and in plug-ins, with the facts in their first comment lines."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources.abc import Traversable

import yaml

from experiments.config.plugins import OWN, places
from freemask.errors import UserError, nearest


@dataclass(frozen=True)
class Option:
    """One YAML of a group. `facts` holds the other leading `# key: value` comments (licence, get); `package` is whose
    it is."""

    name: str
    description: str
    facts: dict[str, str] = field(default_factory=dict)
    package: str = OWN


@cache
def groups() -> dict[str, tuple[Option, ...]]:
    """Every group and its options; an option in a subfolder is called folder/name."""
    found: dict[str, dict[str, Option]] = {}
    for package, place in places().items():
        for folder in place.iterdir():
            if folder.is_dir() and not folder.name.startswith(("_", ".")):
                for each in _options(folder, "", package):
                    _add(found.setdefault(folder.name, {}), folder.name, each)
    return {name: tuple(found[name][each] for each in sorted(found[name])) for name in sorted(found)}


def _add(known: dict[str, Option], group_name: str, new: Option) -> None:
    other = known.setdefault(new.name, new)
    if other is not new:
        came = f"one from {other.package}, one from the plug-in {new.package}"
        todo = "rename the plug-in's YAML, or uninstall the plug-in"
        raise UserError(f"there are two of {group_name}={new.name}", came=came, todo=todo)


def group(name: str) -> tuple[Option, ...]:
    if name not in groups():
        hint = nearest(name, groups())
        raise UserError(f"there is no group '{name}'", came=name, expected=hint, todo="freemask list")
    return groups()[name]


def option(group_name: str, name: str) -> Option:
    known = {each.name: each for each in group(group_name)}
    if name not in known:
        came, todo = f"{group_name}={name}", f"freemask list {group_name}"
        raise UserError(f"'{name}' is no {group_name}", came=came, expected=nearest(name, known), todo=todo)
    return known[name]


def content(group_name: str, name: str) -> dict:
    """An option's YAML as plain values, nothing followed."""
    return yaml.safe_load(source(group_name, name)) or {}


def source(place: str, name: str | None = None) -> str:
    """The YAML of an option as it is written; without a name, of a verb."""
    if name is None:
        return (places()[OWN] / f"{place}.yaml").read_text(encoding="utf-8")
    file = places()[option(place, name).package] / place / f"{name}.yaml"
    return file.read_text(encoding="utf-8")


@cache
def defaults(verb: str) -> dict[str, str | None]:
    """The groups that a verb knows, and what is chosen there unless one says otherwise."""
    entries = yaml.safe_load(source(verb))["defaults"]
    named = (item for each in entries if isinstance(each, dict) for item in each.items())
    return {group_name: name for group_name, name in named if not group_name.startswith("override ")}


def offered(verb: str, group_name: str) -> list[Option]:
    """Its options for a verb: experiments are made for one verb, and each says for which."""
    return [each for each in group(group_name) if each.facts.get("verb", verb) == verb]


def _options(folder: Traversable, prefix: str, package: str) -> Iterator[Option]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _options(entry, f"{prefix}{entry.name}/", package)
        elif entry.name.endswith(".yaml"):
            facts = _facts(entry.read_text(encoding="utf-8"))
            yield Option(prefix + entry.name[:-5], facts.pop("description", ""), facts, package)


def _facts(text: str) -> dict[str, str]:
    facts = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        key, colon, value = line[1:].partition(":")
        if colon and key.strip().isidentifier():
            facts[key.strip()] = value.strip()
    return facts
