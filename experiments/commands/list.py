"""`freemask list`: what can be chosen in each group, with one line of description each, and the keys of a choice."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from experiments.cli.verb import Verb
from experiments.config import choices, shown
from experiments.config.explained import keys_of_option

VERB = Verb(
    "what can be chosen in each group, and the keys of a choice",
    positional="group",
    several=True,
    json=True,
    examples=(
        "freemask list",
        "freemask list method",
        "freemask list method freemask",
        "freemask list --json",
    ),
)

# Groups that say how a command runs rather than what it does come last.
LAST = ("experiment", "runner", "logger", "paths")


def main(words: Sequence[str], flags: Mapping[str, str | bool]) -> int:
    wanted = _wanted(words)
    one = {(group, name): choices.option(group, name) for group, names in wanted.items() for name in names}
    shows = list(wanted) or sorted(choices.groups(), key=lambda name: (name in LAST, name))
    if flags.get("json"):
        print(json.dumps({name: _plain(name, wanted.get(name)) for name in shows}, indent=2))
        return 0
    for name in shows:
        if not wanted.get(name):
            print("\n".join([name, *shown.options(choices.group(name), short=not wanted)]))
    print("\n\n".join("\n".join(shown.one(*each)) for each in one), end="\n" if one else "")
    return 0


def _wanted(words: Sequence[str]) -> dict[str, list[str]]:
    """Groups with the choices named behind them: `method freemask pnp`, or `method=freemask`."""
    found: dict[str, list[str]] = {}
    for word in words:
        first, _, name = word.removeprefix("group=").partition("=")
        if found and first not in choices.groups() and not name:
            found[[*found][-1]].append(first)
        else:
            choices.group(first)
            found.setdefault(first, []).extend([name] if name else [])
    return found


def _plain(group: str, names: Sequence[str] | None) -> list[dict]:
    listed = [each for each in choices.group(group) if not names or each.name in names]
    keys = {each.name: {"keys": [asdict(key) for key in keys_of_option(group, each.name)]} for each in listed}
    return [asdict(each) | (keys[each.name] if names else {}) for each in listed]
