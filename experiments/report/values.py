"""Small things that rows are taken apart with: texts once, numbers short, JSON that is safe inside a page."""

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any


class Texts:
    """Every value once, by its number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._known: dict[Hashable, int] = {}

    def number(self, value: Any, key: Hashable = None) -> int:
        """`key` stands for a value that is no key itself."""
        key = value if key is None else key
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self.values)
            self.values.append(value)
        return found


def safe_json(value: Any) -> str:
    """For inside a script element: nothing in it ends the element, and every character survives."""
    try:
        text = json.dumps(value, separators=(",", ":"), default=str, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def rounded(value: Any, digits: int) -> float | None:
    """None for what is no number."""
    if type(value) not in (float, int) or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def numbers(values: Any, names: Texts, digits: int) -> tuple[tuple[int, float], ...]:
    """Of what is a number: the number of its name, and its value."""
    found = [(names.number(str(name)), rounded(each, digits)) for name, each in mapping(values).items()]
    return tuple((name, each) for name, each in found if each is not None)


def spread(names: Sequence[str], rows: Sequence[tuple[tuple[int, float], ...]]) -> dict[str, list]:
    """A list per name with an entry per row."""
    found: list[list[float | None]] = [[None] * len(rows) for _ in names]
    for index, values in enumerate(rows):
        for name, value in values:
            found[name][index] = value
    return dict(zip(names, found, strict=True))


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
