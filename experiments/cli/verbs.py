"""The verbs of the `freemask` command, found among the modules of `experiments/commands`.

The head of a module is read, not run: help and completion need not wait for what a verb imports."""

import ast
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from importlib.resources import files
from typing import Any

from experiments.cli import verb as head
from experiments.cli.verb import Verb

ROOM = "experiments.commands"


def main_of(name: str) -> Callable[[Any, Mapping[str, Any]], int]:
    """Imports the verb's module with all that it needs."""
    return import_module(f"{ROOM}.{name}").main


def _found() -> dict[str, Verb]:
    names = sorted(each.name[:-3] for each in files(ROOM).iterdir() if each.name.endswith(".py"))
    read = {name: _head(files(ROOM).joinpath(f"{name}.py").read_text(encoding="utf-8")) for name in names}
    known = {each.name.removesuffix(".yaml") for each in files("conf").iterdir()}
    return {
        name: replace(verb, config=name if name in known else None) for name, verb in read.items() if verb
    }


def _head(source: str) -> Verb | None:
    """The value of `VERB = Verb(...)`, made of texts and of the names in `experiments/cli/verb.py`."""
    if "\nVERB = " not in source:
        return None
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERB":
            return eval(compile(ast.Expression(node.value), "VERB", "eval"), vars(head).copy())
    return None


VERBS = _found()
