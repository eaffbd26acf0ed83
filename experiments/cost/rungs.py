"""The ladder of `freemask bench what=speed`: clips of more and more frames, and for how many steps there is time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freemask.data.geometry import Geometry

Size = int | str | Sequence[int]  # the shorter side, height and width, or one of the next two
NATIVE, HALF = "native", "half"  # as the model was made for, and half as high and wide
TRIED = 2  # steps of the edits that warm up, are counted, and say how long a step takes
BESIDE = 3 * TRIED  # steps' worth of time that these take: the first is slow, and so is counting
SHARE = 0.4  # of the time that is left, which the shortest clips may take for all of their steps


@dataclass(frozen=True)
class Rung:
    """One edit: a mode, so many frames of this height and width."""

    mode: str
    frames: int
    height: int
    width: int

    @property
    def work(self) -> int:
        """What time grows with."""
        return self.frames * self.height * self.width


def asked(
    modes: Sequence[str], frames: Sequence[int], sizes: Sequence[Size] | None
) -> Iterator[dict[str, Any]]:
    """What a plan says of each rung, before a model says how large its pictures are. Frames upwards, so that what there
    is no time for is the longest; within them sizes as they were given."""
    for count in sorted(set(frames)):
        for size in (NATIVE, HALF) if sizes is None else sizes:
            for mode in modes:
                yield {
                    "mode": mode,
                    "frames": count,
                    "size": size if isinstance(size, int | str) else [*size],
                }


def name_of(rung: Mapping[str, Any]) -> str:
    size = rung["size"]
    label = "x".join(map(str, size)) if isinstance(size, list) else size
    return f"{rung['mode']} {rung['frames']} frames {label}"


def rung_of(rung: Mapping[str, Any], multiple: int, native: tuple[int, int]) -> Rung:
    """For a model that wants multiples, made for this height and width."""
    size, sides = rung["size"], (None, None)
    if isinstance(size, list):
        size, sides = None, (size[0], size[1])
    elif isinstance(size, str):
        size = min(native) // (2 if size == HALF else 1)
    wanted = Geometry(short_side=size, height=sides[0], width=sides[1])
    fit = wanted.fitted(multiple=multiple, native=native).fit(*native)
    return Rung(rung["mode"], rung["frames"], fit.height, fit.width)


@dataclass(frozen=True)
class Clock:
    """How long all rungs may take together. `left` is in seconds; `ahead` are the rungs from this one on; `shortest` is
    the number of frames of the first ones."""

    left: float
    ahead: Sequence[Rung]
    shortest: int

    def measured(self, steps: int, per_step: float) -> int:
        """How many steps of this rung's edit to measure, of `steps` that it has: a divisor of that number, so that each
        part of an edit has its share. The others are to have as much time for their work as this one."""
        fair = self.left * self.ahead[0].work / sum(each.work for each in self.ahead)
        mates = self._mates()
        allowed = max(fair - BESIDE * per_step, SHARE * self.left / mates if mates else 0.0)
        fitting = [each for each in divisors(steps) if each * per_step <= allowed]
        return max([min(TRIED, steps), *fitting])

    def too_long(self, expected: float | None) -> bool:
        """Whether even trying this rung would take longer than there is time. `expected`: seconds of a step, where a
        smaller rung has told."""
        needed = 0.0 if expected is None else (BESIDE + TRIED) * expected
        return self.left <= 0 or needed > self.left

    def _mates(self) -> int:
        """How many of the shortest clips are to come; none where this is a longer one."""
        frames = [each.frames for each in self.ahead]
        return frames.count(self.shortest) if frames[0] == self.shortest else 0


def divisors(steps: int) -> list[int]:
    return [each for each in range(1, steps + 1) if steps % each == 0]


def told(rung: Rung, before: Mapping[Rung, float]) -> float | None:
    """Seconds of a step, from the largest rung of the same mode that was measured before."""
    same = [each for each in before if each.mode == rung.mode]
    if not same:
        return None
    nearest = max(same, key=lambda each: each.work)
    return before[nearest] * rung.work / nearest.work
