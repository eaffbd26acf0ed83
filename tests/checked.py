"""jaxtyping's check of types and axes at a fraction of its price, which was a third of all tests: arguments are
checked once and not again beside the result, and the check of a function within another is made once, not by call.

What is refused is refused by jaxtyping itself, in its own words."""

import inspect
from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any, get_args, get_origin

import jaxtyping
from jaxtyping import AbstractArray, TypeCheckError, _decorator
from jaxtyping._storage import pop_shape_memo, push_shape_memo

theirs = _decorator.jaxtyped
Check = Callable[..., object]
_known: dict[tuple, tuple[object, Check | None, Check | None]] = {}


def install() -> None:
    """Before the first module is imported whose axes are checked."""
    jaxtyping.jaxtyped = _decorator.jaxtyped = jaxtyped


def jaxtyped(fn: Any = _decorator._sentinel, *, typechecker: Any = _decorator._sentinel) -> Any:
    if isinstance(fn, FunctionType) and callable(typechecker) and not hasattr(fn, "__no_type_check__"):
        return _checked(fn, typechecker)
    return theirs(fn, typechecker=typechecker)


def _checked(fn: FunctionType, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    arguments, result = _checks(fn, typechecker)

    @wraps(fn)
    def checked(*given: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        push_shape_memo({})
        try:
            if arguments is None or _holds(arguments, *given, **named):
                found = fn(*given, **named)
                if result is not None:
                    try:
                        result(found)
                    except Exception as error:
                        said = f"the result of {fn.__module__}.{fn.__qualname__}: {error}"
                        raise TypeCheckError(said) from None
                return found
        finally:
            pop_shape_memo()
        return theirs(fn, typechecker=typechecker)(*given, **named)

    return checked


def _holds(check: Check, *given: Any, **named: Any) -> bool:
    try:
        check(*given, **named)
    except Exception:
        return False
    return True


def _checks(fn: FunctionType, typechecker: Callable[..., Any]) -> tuple[Check | None, Check | None]:
    """Of the arguments and of the result; None where nothing is said of them."""
    if "<locals>" not in fn.__qualname__:
        return _made(fn, typechecker)
    defaults = (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values())
    said = (each for name, annotation in fn.__annotations__.items() for each in (name, _alike(annotation)))
    key = (fn.__code__, *said, *map(id, defaults))
    try:
        if key not in _known:
            _known[key] = (defaults, *_made(fn, typechecker))  # kept, so that their ids stay theirs
    except TypeError:  # an annotation that cannot be a key
        return _made(fn, typechecker)
    return _known[key][1:]


def _alike(annotation: Any) -> Any:
    """The same for annotations that say the same: jaxtyping makes a class of its own each time."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return annotation.array_type, annotation.dtypes, annotation.dim_str
    parts = annotation if isinstance(annotation, list) else get_args(annotation)
    return (get_origin(annotation), *map(_alike, parts)) if parts else annotation


def _made(fn: FunctionType, typechecker: Callable[..., Any]) -> tuple[Check | None, Check | None]:
    def told(annotation: Any) -> Any:
        return _decorator._destring_annotation(annotation, fn.__globals__)

    given = inspect.signature(fn)
    takes = given.replace(
        parameters=[each.replace(annotation=told(each.annotation)) for each in given.parameters.values()],
        return_annotation=Any,
    )
    gives = inspect.Parameter(
        "result", inspect.Parameter.POSITIONAL_ONLY, annotation=told(given.return_annotation)
    )
    nothing = (Any, inspect.Parameter.empty)

    def check(signature: inspect.Signature) -> Check | None:
        if all(each.annotation in nothing for each in signature.parameters.values()):
            return None
        names = fn.__name__, fn.__qualname__, fn.__module__
        return typechecker(_decorator._make_fn_with_signature(*names, signature, output=False))

    return check(takes), check(inspect.Signature([gives], return_annotation=Any))
