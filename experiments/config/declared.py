"""What a class, or a method that makes one, declares of its fields or arguments, read without importing it.

An annotation that cannot be read this way, or is no plain data, may be anything."""

import ast
import builtins
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any, NamedTuple

OURS = ("experiments", "freemask", "evaluation")
PLAIN = ("typing", "collections.abc", "pathlib")  # modules whose names may be imported to be looked at


class Place(NamedTuple):
    """Something that a module defines, and the module, which says what the names in it mean."""

    node: ast.AST
    tree: ast.Module
    module: str


@cache
def declared(target: str) -> dict[str, Any]:
    """`target`: the whole name, `freemask.methods.ddim.Ddim`. Of a class that is not ours, nothing."""
    found = _found(target)
    if found is None:
        return {}
    body = getattr(found.node, "body", ())
    made = [each for each in body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    maker = made[0] if made else found.node
    if isinstance(maker, ast.FunctionDef):
        arguments = [*maker.args.args, *maker.args.kwonlyargs]
        return {each.arg: _read(each.annotation, found.tree) for each in arguments if each.annotation}
    fields = {each: said for base in reversed(_bases(found)) for each, said in declared(base).items()}
    own = [each for each in body if isinstance(each, ast.AnnAssign)]
    return fields | {ast.unparse(each.target): _read(each.annotation, found.tree) for each in own}


def _found(name: str) -> Place | None:
    """Also where a package hands it on from the module that it is from, or a class has it from another one."""
    home, _, last = name.rpartition(".")
    tree = _tree(home) if home else None
    within = Place(tree, tree, home) if tree else _found(home) if home else None
    if within is None:
        return None
    for node in getattr(within.node, "body", ()):
        if isinstance(node, ast.ImportFrom) and last in [each.name for each in node.names]:
            return _found(f"{node.module}.{last}")
        if last in _names(node):
            return Place(node, within.tree, within.module)
    inherited = (_found(f"{base}.{last}") for base in _bases(within))
    return next(filter(None, inherited), None)


def _bases(place: Place) -> list[str]:
    return [f"{place.module}.{ast.unparse(each)}" for each in getattr(place.node, "bases", ())]


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Assign):
        return [ast.unparse(each) for each in node.targets]
    return [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []


def _read(annotation: ast.expr, tree: ast.Module) -> Any:
    try:
        return _value(annotation, tree)
    except Exception:
        return Any


def _value(node: ast.expr, tree: ast.Module) -> Any:
    """`Literal["all", "none"] | None` as it would be where it stands; what Annotated says besides is left out."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Annotated":
        node = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} - {*vars(builtins)}
    return eval(
        compile(ast.Expression(node), "annotation", "eval"), {name: _named(name, tree) for name in names}
    )


def _named(name: str, tree: ast.Module) -> Any:
    for node in tree.body:
        if name in _names(node):
            return _value(node.value, tree) if isinstance(node, ast.Assign) else Any
        if isinstance(node, ast.ImportFrom) and name in [each.name for each in node.names]:
            if node.module in PLAIN:
                return getattr(import_module(node.module), name)
            found = _found(f"{node.module}.{name}")
            return (
                _value(found.node.value, found.tree) if found and isinstance(found.node, ast.Assign) else Any
            )
    return Any


@cache
def _tree(module: str) -> ast.Module | None:
    """None where it is no module of ours."""
    top, *inner = module.split(".")
    if top not in OURS or not inner:
        return None
    for path in ([*inner, "__init__.py"], [*inner[:-1], f"{inner[-1]}.py"]):
        if (file := files(top).joinpath(*path)).is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None
