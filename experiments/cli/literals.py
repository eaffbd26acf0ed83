"""The words that a verb's key may be, as its class Options declares them by `Literal`: read, not imported."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from experiments.cli.verbs import ROOM

OURS = ("experiments.", "freemask.")


@cache
def words_of(verb: str, key: str) -> tuple[str, ...]:
    """Nothing where any other value will do."""
    tree = _tree(f"{ROOM}.{verb}")
    options = [each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == "Options"]
    fields = [each for cls in options for each in cls.body if isinstance(each, ast.AnnAssign)]
    found = (
        word for each in fields if ast.unparse(each.target) == key for word in _words(each.annotation, tree)
    )
    return tuple(dict.fromkeys(found))


def _words(annotation: ast.expr, tree: ast.Module) -> Iterator[str]:
    """Also of a Literal that has a name of its own, in this module or in the one that it is from."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            yield from (str(each.value) for each in ast.walk(node.slice) if isinstance(each, ast.Constant))
        elif isinstance(node, ast.Name):
            yield from _named(node.id, tree)


def _named(name: str, tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            yield from _words(node.value, tree)
        elif isinstance(node, ast.ImportFrom) and name in [each.name for each in node.names]:
            module = str(node.module)
            yield from _named(name, _tree(module)) if f"{module}.".startswith(OURS) else ()


def _tree(module: str) -> ast.Module:
    package, _, name = module.rpartition(".")
    return ast.parse(files(package).joinpath(f"{name}.py").read_text(encoding="utf-8"))
