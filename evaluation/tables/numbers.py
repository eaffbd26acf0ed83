"""How a number is written in a table."""

import math


def number(value: float) -> str:
    """Four digits that say something, without trailing exponents."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def fact(value: str | float | int | bool | None) -> str:
    """A small value that is no measurement: whole numbers and words as they are."""
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return number(value) if isinstance(value, float) else str(value)


def signed(value: float) -> str:
    return ("" if value < 0 else "+") + number(value)


def chance(p: float | None) -> str:
    """A p-value; small ones by their bound."""
    if p is None or not math.isfinite(p):
        return "p -"
    return "p<0.001" if p < 0.001 else f"p={p:.3f}"
