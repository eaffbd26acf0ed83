"""The page's table of variants: in which options and settings they differ, what is the same for all, each one whole."""

import json
from collections.abc import Sequence
from typing import Any

from experiments.report.made import GROUPS, Made

ALWAYS = ("method.steps", "seed")  # told even where they follow from an option
UNSAID = "?"


def table(made: Sequence[Made]) -> dict[str, Any]:
    """A cell is a text, "" for what a variant does not have, or None where that is not recorded."""
    keys = differing(made)
    same = [key for key in (*GROUPS, *ALWAYS) if key not in keys]
    told = {key: cell for key in same if made and (cell := _cell(made[0], key))}
    return {
        "keys": keys,
        "cells": [[_cell(each, key) for key in keys] for each in made],
        "same": list(told.items()),
        "each": [
            {"command": one.command, "whole": one.whole, "config": one.config, "identity": one.identity}
            for one in made
        ],
    }


def differing(made: Sequence[Made]) -> list[str]:
    """Options first. A setting that follows from an option is not among them: only where two variants with that option
    differ in it, or where it was typed."""
    counts = dict.fromkeys(key for each in made for key in each.counts)
    typed = [
        key
        for key in dict.fromkeys(key for each in made for key in each.typed)
        if len({each.typed.get(key) for each in made}) > 1
    ]
    options = [key for key in GROUPS if len({each.choices.get(key, UNSAID) for each in made}) > 1]
    settings = [key for key in counts if _unlike(key, made, typed)]
    others = [key for key in typed if not any(_covers(key, each) for each in counts)]
    return [*options, *settings, *others]


def _unlike(key: str, made: Sequence[Made], typed: Sequence[str]) -> bool:
    values: dict[Any, set[str]] = {}
    for each in made:
        if each.whole_known or key in ALWAYS:
            value = json.dumps(each.counts[key], default=str) if key in each.counts else ""
            values.setdefault(each.choices.get(key.partition(".")[0]), set()).add(value)
    if key in ALWAYS or any(_covers(each, key) for each in typed):
        return len(set().union(*values.values())) > 1
    return any(len(each) > 1 for each in values.values())


def _covers(typed: str, key: str) -> bool:
    return key == typed or key.startswith(f"{typed}.")


def _cell(made: Made, key: str) -> str | None:
    if key in GROUPS:
        return (made.choices[key] or "") if key in made.choices else None
    if key in made.shown or key in made.typed:
        return made.shown.get(key, made.typed.get(key))
    return "" if made.whole_known else None
