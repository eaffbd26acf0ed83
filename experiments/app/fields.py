"""The values of the page's fields, as they come from a browser, in our own terms."""

from collections.abc import Sequence
from math import isfinite, nan
from typing import Any

import numpy as np

from experiments.app.settings import Settings
from experiments.app.visit import STRATEGY, Shown
from freemask.errors import UserError

# In this order they are handed on.
SETTINGS = (
    *("clip", "source", "target", "words", "task", "method", "model", "mask"),
    *("steps", "guidance", "seed", "frames"),
)
SHOWN = ("layer", "time", "threshold", "masks")


def settings_of(given: Sequence[Any]) -> Settings:
    named = dict(zip(SETTINGS, given, strict=True))
    texts = {key: str(named[key] or "") for key in ("clip", "source", "target", "words")}
    numbers = {key: _number(key, named[key]) for key in ("steps", "guidance", "seed", "frames")}
    for key in ("steps", "seed", "frames"):
        if isinstance(numbers[key], float):
            raise UserError(f"{key} is a whole number", came=f"{key}={numbers[key]}", expected="such as 8")
    return Settings(**{**named, **texts, **numbers, "seed": numbers["seed"] or 0})


def _number(key: str, said: object) -> int | float | None:
    """As it was typed; nothing is no number."""
    text = "" if said is None else str(said).strip().replace(",", ".")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not isfinite(value):
        raise UserError(f"{key} is a number", came=text, expected="such as 8, or nothing")
    return int(value) if value.is_integer() else value


def shown_of(given: Sequence[Any]) -> Shown:
    layer, time, threshold, mask = given
    return Shown(place_of(layer), place_of(time), float(threshold), mask or STRATEGY)


def both_of(given: Sequence[Any]) -> tuple[Settings, Shown]:
    return settings_of(given[:-4]), shown_of(given[-4:])


def place_of(counted: float) -> int:
    """People count from 1."""
    return max(0, int(counted) - 1)


def layer_of(canvas: Any) -> np.ndarray | None:
    """What was painted; None where nothing was loaded to paint on."""
    layers = (canvas or {}).get("layers") or []
    return layers[0] if layers else None
