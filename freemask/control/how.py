"""How several ControlNets are used: what each is shown, how strongly it acts, and when."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from freemask.attention.rewire import entries
from freemask.control.images import Images
from freemask.errors import UserError
from freemask.types import Entry, NoisePath, Time

Strength = float | int | Sequence[float | int]
Window = Sequence[float | int] | Sequence[Sequence[float | int]]
WHOLE = (0.0, 1.0)  # the path from noise (0) to a picture (1)
EXACT = 9  # digits to which 1 - 0.9 is a tenth


@dataclass(frozen=True)
class How:
    """One entry for each ControlNet. `shown` makes the images that nobody gave; where it is None they must be given.
    `windows` are shares of the path. `into_middle`: the last addition on the way down is seen by the middle block too,
    as in diffusers before 0.15. `look`: whom frames look at in their self-attention; empty: at themselves."""

    shown: tuple[Images | None, ...] = ()
    strengths: tuple[float, ...] = ()
    windows: tuple[tuple[float, float], ...] = ()
    into_middle: bool = False
    look: tuple[Entry, ...] = ()

    @classmethod
    def of(
        cls,
        count: int,
        strength: Strength = 1,
        window: Window = WHOLE,
        *,
        into_middle: bool = False,
        attention: str | Sequence[Entry] = "frame",
    ) -> "How":
        """As settings say it: once for all, or once for each of so many."""
        strengths = _each("control_strength", strength, count, one=not isinstance(strength, Sequence))
        windows = _each("control_window", window, count, one=bool(window) and not _many(window))
        wrong = [each for each in strengths if not each >= 0]
        if wrong:
            came = f"model.control_strength: {wrong[0]}"
            raise UserError("A ControlNet acts with no such strength.", came=came, expected="0 or more")
        pairs = tuple(_pair(each) for each in windows)
        return cls((None,) * count, tuple(map(float, strengths)), pairs, into_middle, entries(attention))

    def showing(self, shown: Sequence[Images | None]) -> "How":
        return replace(self, shown=tuple(shown))

    def acting(self, t: Time, path: NoisePath) -> list[bool]:
        """Which ControlNets act at a time, whoever calls with how many steps; in diffusers, windows end with steps."""
        return [_latest(start, path, t) and _earliest(end, path, t) for start, end in self.windows]

    @property
    def identity(self) -> list[str]:
        """What counts in the identity of a model, nothing where all is as usual. What is shown counts where it is
        given."""
        strengths = [f"strengths {self.strengths}"] if any(each != 1 for each in self.strengths) else []
        windows = [f"windows {self.windows}"] if any(each != WHOLE for each in self.windows) else []
        middle = ["into the middle"] * (self.into_middle and bool(self.strengths))
        looks = [f"looks {self.look}"] if self.look and self.strengths else []
        return middle + strengths + windows + looks


def _latest(start: float, path: NoisePath, t: Time) -> bool:
    return start == 0 or t < path.drawn(round(1 - start, EXACT))


def _earliest(end: float, path: NoisePath, t: Time) -> bool:
    return end == 1 or t >= path.drawn(round(1 - end, EXACT))


def _many(window: Window) -> bool:
    return any(isinstance(each, Sequence) for each in window)


def _each(name: str, said: Any, count: int, *, one: bool) -> tuple[Any, ...]:
    if one:
        return (said,) * count
    if len(said) != count:
        raise UserError(
            f"'{name}' must be said of each ControlNet, or once for all.",
            came=f"{len(said)} for {count} ControlNets",
            expected=f"one, or a list of {count}",
        )
    return tuple(said)


def _pair(window: Any) -> tuple[float, float]:
    pair = tuple(window) if isinstance(window, Sequence) else (window,)
    if len(pair) != 2 or not 0 <= pair[0] < pair[1] <= 1:
        raise UserError(
            "A ControlNet acts in no such window.",
            came=f"model.control_window: {list(pair)}",
            expected="where it begins and where it ends, as shares of the path from noise (0) to a picture (1),"
            " such as [0,0.4]; a list of such pairs for several",
        )
    return float(pair[0]), float(pair[1])
