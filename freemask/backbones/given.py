"""Checks of what a stream is given, before the network would fail on it with words of its own."""

from torch import Tensor

from freemask.errors import UserError


def must_be(name: str, value: Tensor, axes: str, *allowed: tuple[int | None, ...]) -> None:
    """Refuse any other shape; None stands for any length. `axes` names the axes of the first of the shapes."""
    if any(_fits(tuple(value.shape), each) for each in allowed):
        return
    raise UserError(
        f"What is given as '{name}' has the wrong shape.",
        came=_words(tuple(value.shape)),
        expected=f"{' or '.join(map(_words, allowed))} ({axes})",
    )


def text_must_be(name: str, text: Tensor, width: int, frames: int) -> None:
    """One for all frames, or one for each."""
    must_be(name, text, "frames, tokens, width", (None, width), (frames, None, width))


def must_lie(name: str, value: Tensor, least: float | int, most: float | int) -> None:
    low, high = (float(each) for each in value.detach().aminmax())
    if not least <= low <= high <= most:
        raise UserError(
            f"What is given as '{name}' must be in {least:g}..{most:g}.", came=f"{low:.3g}..{high:.3g}"
        )


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        other in (None, length) for length, other in zip(shape, wanted, strict=True)
    )


def _words(shape: tuple[int | None, ...]) -> str:
    return " x ".join("any" if length is None else str(length) for length in shape) or "a number"
