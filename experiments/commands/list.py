"""`freemask list`: what can be chosen in each group, with one line of description each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from experiments.cli.verb import Verb
from experiments.config import choices
from freemask.errors import UserError

VERB = Verb(
    "what can be chosen in each group",
    positional="group",
    json=True,
    examples=("freemask list", "freemask list method", "freemask list --json"),
)

# Groups that say how a command runs rather than what it does come last.
LAST = ("experiment", "runner", "logger", "paths")


def main(words: Sequence[str], flags: Mapping[str, str | bool]) -> int:
    wanted = [_group(word) for word in words]
    for name in wanted:
        choices.group(name)
    shown = wanted or sorted(choices.groups(), key=lambda name: (name in LAST, name))
    if flags.get("json"):
        print(json.dumps({name: [asdict(each) for each in choices.group(name)] for name in shown}, indent=2))
        return 0
    for name in shown:
        print(name)
        width = max(len(each.name) for each in choices.group(name))
        for each in choices.group(name):
            print(f"  {each.name:<{width}}  {each.description}")
            if name == "model" and "licence" in each.facts and wanted:
                print(f"  {'':<{width}}  licence: {each.facts['licence']}")
    return 0


def _group(word: str) -> str:
    key, equals, value = word.partition("=")
    if equals and key != "group":
        raise UserError(
            "list takes names of groups",
            came=word,
            expected="freemask list method",
            todo="freemask list --help",
        )
    return value if equals else key
