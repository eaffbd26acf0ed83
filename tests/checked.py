"""jaxtyping's check of types and axes at a fraction of its price, which was a third of all tests: each argument is
looked at once, functions that name no axes are left to beartype alone, and the check of a function within another is
made once and not whenever that is called."""

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any, get_args, get_origin

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, _decorator
from jaxtyping._storage import pop_shape_memo, push_shape_memo, shape_str

theirs = _decorator.jaxtyped
Function = Callable[..., Any]
CONF = BeartypeConf(violation_type=TypeCheckError)
_known: dict[tuple, tuple[FunctionType, Function]] = {}


def install() -> None:
    """Before the first module is imported whose axes are checked."""
    jaxtyping.jaxtyped = _decorator.jaxtyped = jaxtyped


def jaxtyped(fn: Any = _decorator._sentinel, *, typechecker: Any = _decorator._sentinel) -> Any:
    known = isinstance(fn, FunctionType) and callable(typechecker)
    if not known or hasattr(fn, "__no_type_check__"):
        return theirs(fn, typechecker=typechecker)
    said = {
        name: _decorator._destring_annotation(each, fn.__globals__)
        for name, each in fn.__annotations__.items()
    }
    typed = _typed_within(fn, said) if "<locals>" in fn.__qualname__ else _typed(fn, said)
    if not any(map(_names_axes, said.values())):
        return typed

    @wraps(fn)
    def checked(*given: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        axes = push_shape_memo({})
        try:
            return typed(*given, **named)
        except TypeCheckError as error:
            if not hasattr(error, "__notes__"):
                error.add_note(shape_str(axes))
            raise
        finally:
            pop_shape_memo()

    return checked


def _typed(fn: FunctionType, said: dict[str, Any]) -> Function:
    """`said`: its annotations, those that were strings read as far as they can be by now."""
    like = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    like.__kwdefaults__, like.__annotations__, like.__dict__ = fn.__kwdefaults__, said, {**fn.__dict__}
    like.__module__, like.__qualname__, like.__doc__ = fn.__module__, fn.__qualname__, fn.__doc__
    made = beartype(conf=CONF)(like)
    return fn if made is like else wraps(fn)(made)


def _typed_within(fn: FunctionType, said: dict[str, Any]) -> Function:
    """The check of another function of the same code and annotations, with this one in its place."""
    key = (fn.__code__, *((name, _alike(annotation)) for name, annotation in said.items()))
    try:
        if key not in _known:
            _known[key] = fn, _typed(fn, said)
    except TypeError:  # an annotation that cannot be a key
        return _typed(fn, said)
    first, made = _known[key]
    if first is fn or made is first:  # made for it, or nothing is said of such a function
        return made if first is fn else fn
    again = FunctionType(made.__code__, made.__globals__, made.__name__, made.__defaults__, made.__closure__)
    again.__kwdefaults__ = {
        **(made.__kwdefaults__ or {}),
        "__beartype_func": fn,
    }  # how beartype knows whom to call
    return wraps(fn)(again)


def _names_axes(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(map(_names_axes, annotation if isinstance(annotation, list) else get_args(annotation)))


def _alike(annotation: Any) -> Any:
    """The same for annotations that say the same: jaxtyping makes a class of its own each time."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return annotation.array_type, annotation.dtypes, annotation.dim_str
    parts = annotation if isinstance(annotation, list) else get_args(annotation)
    return (get_origin(annotation), *map(_alike, parts)) if parts else annotation
