"""What can be chosen: the option files below conf and in plug-ins, with the facts in their first comment lines."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources.abc import Traversable
from typing import Any

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
    """An option's YAML as plain values, over those of the options of its group that it is built upon."""
    own = pickle.loads(_packed(source(group_name, name)))
    found: dict = {}
    for entry in own.pop("defaults", ()):
        if isinstance(entry, str) and "@" not in entry and entry != "_self_":
            found = _over(found, content(group_name, entry))
    return _over(found, own)


def _over(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _over(below.get(key), each) for key, each in above.items()}


def source(place: str, name: str | None = None) -> str:
    """The YAML of an option as it is written; without a name, of a verb."""
    if name is None:
        return _text(places()[OWN] / f"{place}.yaml")
    return _text(places()[option(place, name).package] / place / f"{name}.yaml")


@cache
def _packed(text: str) -> bytes:
    """A command asks for the same options again and again, and may change what it gets."""
    return pickle.dumps(yaml.safe_load(text) or {})


@cache
def _text(file: Traversable) -> str:
    """Of a file that holds keys: what is wrong with another one is told with its place."""
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text)
    except UnicodeDecodeError as error:
        raise unreadable(str(file), f"no text in UTF-8 ({error.reason})") from error
    except yaml.YAMLError as error:
        raise broken(error, str(file)) from error
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise unreadable(str(file), "no keys with values, such as `steps: 50`", root.start_mark.line + 1)
    for key in () if root is None else _twice(root):
        raise unreadable(str(file), f"the key '{key.value}' is there twice", key.start_mark.line + 1)
    return text


def _twice(node: yaml.Node) -> Iterator[yaml.Node]:
    """Keys that stand in one mapping again: readers of YAML take the last one without a word."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    known = set()
    for key, value in pairs:
        if isinstance(key, yaml.ScalarNode) and key.value in known:
            yield key
        known |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        yield from _twice(value)


def broken(error: Exception, file: str | None = None) -> UserError:
    """What is wrong with a file that is no YAML, where; the error may know which file it was."""
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    said = str(getattr(error, "problem", None) or error)
    if context is not None and mark is not None and context.line != mark.line:
        said += f" ({getattr(error, 'context', None) or 'what it belongs to'}, which began in line {context.line + 1})"
    return unreadable(file or (mark.name if mark is not None else "a file"), said, mark and mark.line + 1)


def unreadable(file: str, said: str, line: int | None = None) -> UserError:
    where = f"{file}, line {line}" if line is not None else file
    return UserError(
        "a file of the configuration cannot be read",
        came=f"{where}: {said}",
        expected="YAML: a `key: value` in each line, each key once, brackets and quotes closed",
        todo="mend the file",
    )


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
            facts = _facts(entry.read_bytes().decode("utf-8", errors="replace"))
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
