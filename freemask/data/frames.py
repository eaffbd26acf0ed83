"""Which frames of a source become the clip: decided here, once, for every kind of source."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from jaxtyping import Float
from torch import Tensor

from freemask.errors import UserError
from freemask.settings import Spellings

Item = TypeVar("Item")
AUTO = "auto"  # no number is asked for: FEW, or all of a shorter clip
FEW = 8  # what the embedded model was trained on
SLACK = 1e-3  # seconds; some containers round times to a thousandth


@dataclass(frozen=True)
class Footage:
    """What a reader hands back: the chosen frames after geometry, where in the source each of them stood,
    the upright size of the source before geometry, the rate of the chosen frames, and the number of frames
    of the whole source where it is known without decoding them all."""

    frames: Float[Tensor, "f 3 h w"]
    indices: tuple[int, ...]
    size: tuple[int, int]
    fps: float
    total: int | None = None


@dataclass(frozen=True)
class FrameRange:
    """Frames start, start + stride, ... `count` of them, exactly; all when count is None; FEW, or all
    of a shorter clip, when it is AUTO.

    With `fps` the source is first brought to that rate by its time stamps (at each moment the frame then on
    screen), and start, stride and count count frames of that rate. A source is never slowed down: an fps
    above the source's own would only repeat frames, and is refused. Pictures carry no rate: a folder of them
    is taken to show `folder_fps`.
    """

    start: int = 0
    stride: int = 1
    count: Annotated[int | Literal["auto"] | None, Spellings({AUTO: FEW})] = None
    fps: float | int | None = None
    folder_fps: float | int = 8.0

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("stride", 1), ("count", 1)):
            value = getattr(self, name)
            if name == "count" and value in (None, AUTO):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"frames: `{name}` must be a whole number from {least} up", came=repr(value))
        for name in ("fps", "folder_fps"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < 1e4):
                raise UserError(f"frames: `{name}` must be a number above 0", came=repr(value))

    @property
    def exact(self) -> int | None:
        """The number that a clip must have."""
        return self.count if isinstance(self.count, int) else None

    def rate(self, source_fps: float | int, name: str) -> float:
        """Frames per second of the chosen frames."""
        if self.fps is not None and self.fps > source_fps * 1.01:
            raise UserError(
                f"{name}: the asked rate is above the clip's own, so frames would be repeated",
                came=f"fps={self.fps:g}",
                expected=f"at most {source_fps:g}",
                todo="leave fps out to take the frames as they are",
            )
        return (self.fps or source_fps) / self.stride

    def choose(
        self, timed: Iterable[tuple[float | int, Item]], source_fps: float | int, name: str
    ) -> Iterator[tuple[int, Item]]:
        """(position in the source, item) of each chosen frame, read no further than needed.

        `timed` holds (seconds, item) in order of display.
        """
        tally = _Tally()
        pick = self._by_position if self.fps is None else self._by_time
        for found, item in pick(tally.count(timed), source_fps):
            tally.taken += 1
            yield found, item
            if tally.taken == (FEW if self.count == AUTO else self.count):
                return
        if not tally.taken or self.exact is not None:
            self._refuse(name, tally, source_fps)

    def _by_position(
        self, timed: Iterable[tuple[float | int, Item]], source_fps: float | int
    ) -> Iterator[tuple[int, Item]]:
        for position, (_, item) in enumerate(timed):
            if position >= self.start and (position - self.start) % self.stride == 0:
                yield position, item

    def _by_time(
        self, timed: Iterable[tuple[float | int, Item]], source_fps: float | int
    ) -> Iterator[tuple[int, Item]]:
        """A frame is on screen from its time until the next one's; the last one for one frame's duration."""
        assert self.fps is not None
        step, due = self.stride / self.fps, self.start / self.fps
        origin, shown, until = 0.0, None, 0.0
        for position, (seconds, item) in enumerate(timed):
            origin = origin if shown else seconds
            while shown and due < seconds - origin - SLACK:
                yield shown
                due += step
            shown, until = (position, item), seconds - origin + 1 / source_fps
        while shown and due < until - SLACK:
            yield shown
            due += step

    def _refuse(self, name: str, tally: "_Tally", source_fps: float | int) -> None:
        if not tally.read:
            raise UserError(f"{name}: holds no frames", came="0 frames", expected="at least one")
        rate = f" at fps={self.fps:g}" if self.fps is not None else ""
        need = f", count={self.exact}" if self.exact is not None else ""
        fewest = self.start + 1 + self.stride * ((self.exact or 1) - 1)
        raise UserError(
            f"{name}: the clip is too short",
            came=f"{tally.read} frames at {source_fps:g} per second, which give {tally.taken} of those asked",
            expected=f"start={self.start}, stride={self.stride}{need}: at least {fewest} frames{rate}",
            todo="ask for fewer frames, a smaller start or a smaller stride",
        )


@dataclass
class _Tally:
    read: int = 0
    taken: int = 0

    def count(self, timed: Iterable[tuple[float | int, Item]]) -> Iterator[tuple[float | int, Item]]:
        for pair in timed:
            self.read += 1
            yield pair


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
