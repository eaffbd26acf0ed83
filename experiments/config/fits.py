"""Whether a value from a configuration fits what a constructor or a field says of it. Neither Hydra nor torch."""

import math
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from freemask import settings
from freemask.errors import UserError, nearest

NAMES: dict[Any, str] = {
    **{int: "a whole number", float: "a number", str: "a text", bool: "true or false"},
    **{Path: "a path", types.NoneType: "null"},
}


def check_arguments(maker: Any, arguments: Mapping[str, Any], key: str = "") -> None:
    dot = f"{key}." if key else ""
    parameters = settings.parameters(maker)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for name, value in arguments.items():
        if name not in parameters:
            if takes_any:
                continue
            wrong, came = f"{key or 'this'} has no setting '{name}'", f"{dot}{name}={value}"
            raise UserError(wrong, came=came, expected=nearest(name, parameters))
        check_value(f"{dot}{name}", parameters[name].annotation, value)
    for name, each in parameters.items():
        fixed = each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        if fixed and each.default is each.empty and name not in arguments:
            raise UserError(f"{dot}{name} is needed", came="nothing", expected=_spell(each.annotation))


def check_value(key: str, annotation: Any, value: Any) -> None:
    if not accepts(annotation, value):
        raise _refused(key, annotation, value)


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a value from a configuration fits a constructor's annotation; what is not plain data passes."""
    origin, inner = get_origin(annotation), get_args(annotation)
    kind = origin or annotation
    if kind in (Union, types.UnionType):
        return any(accepts(each, value) for each in inner)
    if kind is Literal:
        return value in inner
    if kind in (None, types.NoneType):
        return value is None
    if kind in (int, float, str, bool):
        return _is_plain(kind, value)
    if kind is Path:
        return isinstance(value, str | Path)
    if kind in (Sequence, list, tuple):
        if not isinstance(value, list | tuple):
            return False
        if kind is tuple and inner and inner[-1] is not ...:
            return len(value) == len(inner) and all(map(accepts, inner, value))
        return all(accepts(inner[0], each) for each in value) if inner else True
    if kind in (Mapping, dict):
        return isinstance(value, Mapping) and (
            not inner or all(accepts(inner[0], key) and accepts(inner[1], value[key]) for key in value)
        )
    return True


def _refused(key: str, annotation: Any, value: Any) -> UserError:
    """Where words are to be chosen from, the nearest is named; otherwise the kind that was expected."""
    words = list(dict.fromkeys(words_of(annotation)))
    values = value if isinstance(value, list | tuple) else [value]
    unknown = [each for each in values if isinstance(each, str) and each not in words]
    if words and unknown:
        came = f"{key}={value}"
        return UserError(f"{key} cannot be '{unknown[0]}'", came=came, expected=nearest(unknown[0], words))
    if isinstance(value, float) and not math.isfinite(value):
        return UserError(f"{key} is not finite", came=f"{key}={value}", expected=_spell(annotation))
    return UserError(f"{key} is of the wrong kind", came=f"{key}={value!r}", expected=_spell(annotation))


def words_of(annotation: Any) -> Iterator[str]:
    """What a text may be, wherever in the annotation it is said."""
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        yield from (each for each in inner if isinstance(each, str))
    else:
        for each in inner:
            yield from words_of(each)


def _is_plain(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _spell(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_spell(each) for each in inner)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if annotation in NAMES:
        return NAMES[annotation]
    if origin is tuple and inner[-1] is not ...:
        return f"a list [{', '.join(map(_spell, inner))}]"
    if inner and origin in (Sequence, list, tuple):
        return f"a list [{_spell(inner[0])}, ...]"
    return str(annotation)
