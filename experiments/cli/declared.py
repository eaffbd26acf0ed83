"""What a verb's class Options declares: the annotations of its fields, read without importing what the verb imports."""

import ast
import builtins
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from experiments.cli.verbs import ROOM

OURS = ("experiments.", "freemask.", "evaluation.")


@cache
def annotations(verb: str) -> dict[str, Any]:
    tree = _tree(f"{ROOM}.{verb}")
    options = [each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == "Options"]
    fields = [each for cls in options for each in cls.body if isinstance(each, ast.AnnAssign)]
    return {ast.unparse(each.target): _value(each.annotation, tree) for each in fields}


def _value(annotation: ast.expr, tree: ast.Module) -> Any:
    """`Literal["all", "none"] | None` as it would be where it stands."""
    names = {each.id for each in ast.walk(annotation) if isinstance(each, ast.Name)} - {*vars(builtins)}
    return eval(
        compile(ast.Expression(annotation), ROOM, "eval"), {name: _named(name, tree) for name in names}
    )


def _named(name: str, tree: ast.Module) -> Any:
    """A name of our own is looked for where it is from. What is no plain data, such as a class, may be anything."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return _value(node.value, tree)
        if isinstance(node, ast.ImportFrom) and node.module and name in [each.name for each in node.names]:
            ours = f"{node.module}.".startswith(OURS)
            return _named(name, _tree(node.module)) if ours else getattr(import_module(node.module), name)
    return Any


def _tree(module: str) -> ast.Module:
    top, *inner, name = module.split(".")
    return ast.parse(files(top).joinpath(*inner, f"{name}.py").read_text(encoding="utf-8"))
