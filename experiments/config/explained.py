"""The keys of a verb and of an option, each with what it is unless one says otherwise, and with the line that explains
it: the comment beside the key in its YAML. Neither Hydra nor torch is needed."""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import yaml

from experiments.config.choices import defaults, groups, option, source
from freemask.errors import UserError

GLOBAL = "# @package _global_"  # Hydra's mark of an option whose keys are written out in full
FEW = 4  # keys in one message
UNSAID = ("_target_", "_partial_", "defaults", "hydra")  # no keys of ours


@dataclass(frozen=True)
class Key:
    """`value` is written as in YAML, and empty where keys below it say what it is. `home`: the class that it is for."""

    name: str
    value: str
    about: str
    home: str = ""

    @property
    def typed(self) -> str:
        return f"{self.name}={self.value}" if self.value else self.name


@cache
def keys_of_verb(verb: str) -> tuple[Key, ...]:
    """Its plain keys; those of its groups belong to their options."""
    found = _written(source(verb), "")
    return tuple(each for each in found if each.name.partition(".")[0] not in defaults(verb))


@cache
def keys_of_option(group: str, name: str) -> tuple[Key, ...]:
    """With those of the options that it is built upon, whose explanations hold until it says another."""
    return tuple(_keys(group, name, f"{group}."))


@cache
def chosen_by(group: str, name: str) -> dict[str, str]:
    """What an option chooses in other groups, by those groups."""
    found: dict[str, str] = {}
    for entry in _defaults(source(group, name)):
        if isinstance(entry, str) and "@" not in entry and entry != "_self_":
            found |= chosen_by(group, entry)
        for key, each in entry.items() if isinstance(entry, dict) else ():
            if key.startswith("override "):
                found[key.removeprefix("override ").partition("@")[0].strip("/ ")] = str(each)
    return found


def keys_of(verb: str, chosen: Mapping[str, str]) -> Iterator[Key]:
    """All keys of a verb and of the options in it: those `chosen`, those that these choose, and the default ones."""
    picked = {group: _known(group, names) for group, names in chosen.items() if group in defaults(verb)}
    along = {
        group: [name]
        for key in picked
        for each in picked[key]
        for group, name in chosen_by(key, each).items()
    }
    usual = {group: _known(group, name or "") for group, name in defaults(verb).items()}
    yield from keys_of_verb(verb)
    for group, names in {**usual, **along, **picked}.items():
        for name in names if group != "experiment" else ():
            yield from keys_of_option(group, name)


def _known(group: str, names: str) -> list[str]:
    """One name, or several for a sweep or in a list."""
    known = [each.name for each in groups()[group]]
    return [each for each in names.strip("[]").split(",") if each in known]


def below(keys: Iterable[Key], word: str) -> list[Key]:
    """The key that is called so, and those that begin with its name and a dot."""
    return [each for each in keys if f"{each.name}.".startswith(f"{word}.")]


def no_key(word: str, verb: str, known: Collection[str], came: str | None = None) -> UserError:
    """Names the options that do have this key, the keys whose last part was typed alone, otherwise the few that are
    spelt like it."""
    if owners := _owners(word):
        group, value = word.partition(".")[0], (came or "").partition("=")[2]
        meant = {name: told for name, about in owners.items() if (told := _near(value, about))} or owners
        wrong, expected = f"there is no key '{word}' here", f"a {group} that has it: {', '.join(meant)}"
        first = next(iter(meant))
        more = f" {word}={meant[first]}" if meant is not owners else ""
        return UserError(wrong, came=came or word, expected=expected, todo=f"{group}={first}{more}")
    named = sorted((each for each in known if not each.endswith("_target_")), key=_outermost)
    near = [each for each in named if each.rpartition(".")[2] == word]
    near = near or difflib.get_close_matches(word, named, n=1, cutoff=0.8)
    near = near or difflib.get_close_matches(word, named, n=FEW, cutoff=0.5)
    wrong, hint = f"there is no key '{word}' in '{verb}'", " or ".join(f"'{each}'" for each in near[:FEW])
    expected = f"did you mean {hint}?" if near else "a key or a group of this verb"
    return UserError(
        wrong, came=came or word, expected=expected, todo=f"freemask {verb} --help shows them all"
    )


def _owners(word: str) -> dict[str, str]:
    """Of a key that one option of a group has and another has not, the options that have it, and what it is there: two
    keys of one name may be for different things."""
    group, dot, _ = word.partition(".")
    if not dot or group not in groups():
        return {}
    every = ((each.name, key) for each in groups()[group] for key in keys_of_option(group, each.name))
    return {name: f"{key.value} {key.about}" for name, key in every if key.name == word}


def _near(value: str, about: str) -> str:
    """The word that a value may have been meant to be, among those that are told of a key."""
    if not re.fullmatch(r"\w+", value):
        return ""
    told = re.findall(r"[a-z_]{3,}", about)
    return next(iter(difflib.get_close_matches(value, told, n=1, cutoff=0.8)), "")


def _outermost(key: str) -> tuple[int, bool, str]:
    """Keys that hold for much first, and of those the model's."""
    return key.count("."), not key.startswith("model."), key


def _keys(group: str, name: str, place: str) -> list[Key]:
    text = source(group, name)
    found: dict[str, Key] = {}
    for home, other, inner in _within(group, text):
        below = [Key(f"{place}{inner}", "", option(home, other).description)] if inner else []
        _merge(found, [*below, *_keys(home, other, f"{place}{inner}." if inner else place)])
    _merge(found, _written(text, "" if text.startswith(GLOBAL) else place))
    return [each for each in found.values() if each.name not in groups()]


def _within(group: str, text: str) -> Iterator[tuple[str, str, str]]:
    """The options that an option is built upon, or has inside: their group, their name, and the key below which they
    stand (none: in its own place)."""
    for entry in _defaults(text):
        if isinstance(entry, str) and entry != "_self_":
            other, _, inner = entry.partition("@")
            yield group, other, inner
        for key, other in entry.items() if isinstance(entry, dict) else ():
            home, _, inner = key.removeprefix("/").partition("@")
            if key.startswith("/") and inner:
                yield home, other, inner


def _merge(found: dict[str, Key], more: Sequence[Key]) -> None:
    for each in more:
        before = found.get(each.name)
        if before is not None:
            each = replace(each, about=each.about or before.about, home=each.home or before.home)
        found[each.name] = each


def _defaults(text: str) -> list:
    return (yaml.safe_load(text) or {}).get("defaults", [])


def _written(text: str, place: str) -> list[Key]:
    root = yaml.compose(text)
    return list(_walked(root, text.splitlines(), place)) if isinstance(root, yaml.MappingNode) else []


def _walked(node: yaml.MappingNode, lines: Sequence[str], place: str) -> Iterator[Key]:
    home = next((value.value for key, value in node.value if key.value == "_target_"), "")
    for key, value in node.value:
        if key.value in UNSAID:
            continue
        below = isinstance(value, yaml.CollectionNode) and not value.flow_style
        deeper = value if below and isinstance(value, yaml.MappingNode) else None
        end = key.end_mark if below else value.end_mark  # behind which the comment stands
        beside = lines[end.line][end.column :].lstrip(": ")
        about = beside[1:].strip() if beside.startswith("#") else ""
        yield Key(f"{place}{key.value}", "" if deeper else _value(value, lines), about, home)
        if deeper:
            yield from _walked(deeper, lines, f"{place}{key.value}.")


def _value(node: yaml.Node, lines: Sequence[str]) -> str:
    start, end = node.start_mark, node.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column]
    if isinstance(node, yaml.SequenceNode):
        return yaml.safe_dump(
            yaml.safe_load(yaml.serialize(node)), default_flow_style=True, width=1000
        ).strip()
    return "..."
