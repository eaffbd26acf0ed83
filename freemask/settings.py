"""What a setting does to a result, said where the setting stands: `device: Annotated[str, Effect.NONE] = "cpu"`.

A setting that says nothing counts with its value: runs that differ in it are different runs. So a method, a mask or a
model needs none of this; it only declares what may change without another result.
"""

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, get_args, get_origin


class Effect(Enum):
    NONE = "it changes no number: speed, memory, caches, permissions; it does not count"
    PLACE = "it says where something lies that counts in another way; it does not count"
    FILES = "the content of the file or folder counts, not its place"
    SAID = "it counts where something is said; without, all is as before there was such a setting"
    CODEBOOK = "the codebook that is found counts, not its place"


@dataclass(frozen=True, eq=False)
class Spellings:
    """Several ways to write one value: they count as the one that each stands for."""

    meaning: Mapping[Any, Any]

    def __call__(self, value: Any) -> Any:
        return self.meaning.get(value, value) if isinstance(value, Hashable) else value


def parameters(maker: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Of a class or a function, by name; without what the annotations say besides the type."""
    found = inspect.signature(maker).parameters
    return {name: each.replace(annotation=_type(each.annotation)) for name, each in found.items()}


def declared(maker: Callable[..., Any]) -> dict[str, Effect | Spellings]:
    """The parameters that say what they do to a result."""
    try:
        found = inspect.signature(maker, eval_str=True).parameters
    except (NameError, TypeError, ValueError):  # annotations that cannot be read declare nothing
        return {}
    said = {name: _said(each.annotation) for name, each in found.items()}
    return {name: each for name, each in said.items() if each is not None}


def _type(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _said(annotation: Any) -> Effect | Spellings | None:
    if get_origin(annotation) is not Annotated:
        return None
    return next((each for each in get_args(annotation)[1:] if isinstance(each, Effect | Spellings)), None)
