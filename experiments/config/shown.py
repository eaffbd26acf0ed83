"""Choices and keys as lines for a terminal: names on the left, what they mean beside them."""

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from experiments.config.choices import Option, option
from experiments.config.explained import Key, chosen_by, keys_of_option

LEFT = 34  # columns for names; a longer one has its line for itself
FACTS = (
    "licence",
    "get",
    "size",
)  # what an option's file says besides, and one wants to know before choosing it


def columns(pairs: Sequence[tuple[str, str]], indent: int = 2, *, short: bool = False) -> list[str]:
    """Two columns, the right one wrapped to the terminal, or cut where it is to be one `short` line."""
    whole = shutil.get_terminal_size((110, 24)).columns
    width = min(LEFT, whole // 3, max((len(left) for left, _ in pairs), default=0))
    space = max(whole - indent - width - 3, 24)
    lines = []
    for left, right in pairs:
        wrapped = [textwrap.shorten(right, space, placeholder=" ...")] if short else _wrapped(right, space)
        if len(left) > width:
            wrapped = ["", *wrapped] if right else [""]
        names = [left, *[""] * (len(wrapped) - 1)]
        lines += [
            f"{'':{indent}}{each:<{width}}  {part}".rstrip()
            for each, part in zip(names, wrapped, strict=True)
        ]
    return lines


def _wrapped(text: str, space: int) -> list[str]:
    return textwrap.wrap(text, space, break_long_words=False, break_on_hyphens=False) or [""]


def keys(found: Iterable[Key]) -> list[str]:
    return columns([(each.typed, each.about) for each in found])


def options(
    found: Iterable[Option], default: str | None = None, *, indent: int = 2, short: bool = False
) -> list[str]:
    """`default` is marked by a star. Where there is room, a licence is told."""
    pairs = []
    for each in found:
        pairs.append((each.name + "*" * (each.name == default), each.description))
        if "licence" in each.facts and not short:
            pairs.append(("", f"licence: {each.facts['licence']}"))
    return columns(pairs, indent, short=short)


def one(group: str, name: str) -> list[str]:
    """All about one option."""
    about = option(group, name)
    lines = [f"{group}={name}: {about.description}"]
    lines += columns([(fact, about.facts[fact]) for fact in FACTS if fact in about.facts])
    if chosen := chosen_by(group, name):
        lines.append(f"  it also chooses {_typed(chosen)}")
    found = keys_of_option(group, name)
    return [*lines, *(["keys", *keys(found)] if found else ["it has no keys"])]


def _typed(chosen: Mapping[str, str]) -> str:
    return " ".join(f"{group}={name}" for group, name in chosen.items())
