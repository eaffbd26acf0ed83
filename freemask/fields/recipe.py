"""What the recipes of both kinds of fields have in common: numbers that depend on the size of a clip where nobody
says them, the frame that they begin with, and where fits are kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar

from freemask.errors import UserError
from freemask.kept import Kept
from freemask.settings import Effect, declared

BACK = 3  # a way forth and the two products of the way back
SMALL = 128 * 128  # pixels of a frame up to which it is a small one
FRAMES = ("first", "middle", "last")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`released` and `smaller` are what null (None) stands for: in large frames as released, in small ones what was
    chosen on clips of the training split (reports/choices.md). `least`: the smallest number that may be."""

    released: ClassVar[Mapping[str, Any]] = {}
    smaller: ClassVar[Mapping[str, Any]] = {}
    least: ClassVar[Mapping[str, float]] = {}

    iterations: int | None = None
    points: int | None = None
    rate: float | int | None = None
    seed: int = 0
    kept: Annotated[str | None, Effect.NONE] = None
    kept_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        Kept(self.kept, self.kept_gb, "fit")
        if self.rate is not None and not self.rate > 0:
            raise UserError("method.fit.rate is too small", came=self.rate, expected="above 0")
        for name, least in {"iterations": 1, "points": 1, **self.least}.items():
            came = getattr(self, name)
            for each in came if isinstance(came, list | tuple) else [came]:
                if each is not None and not each >= least:
                    raise UserError(
                        f"method.fit.{name} is too small", came=came, expected=f"at least {least:g}"
                    )
        for name, usual in self.released.items():
            came = getattr(self, name)
            if came is not None and isinstance(usual, tuple) and len(came) != len(usual):
                raise UserError(
                    f"method.fit.{name} is {len(usual)} numbers", came=list(came), expected=str(list(usual))
                )

    def for_clip(self, height: int, width: int) -> Any:
        """With every number said."""
        usual = self.smaller if height * width <= SMALL else self.released
        return replace(self, **{name: each for name, each in usual.items() if getattr(self, name) is None})

    def multiplications(self, frames: int, height: int, width: int) -> int:
        """Of the whole fit, of what is known of the clip before: the ways forth and back, without Adam's own."""
        raise NotImplementedError

    def counted(self) -> dict[str, Any]:
        """The settings that change what is fitted."""
        left_out = declared(type(self))
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @property
    def store(self) -> Kept:
        return Kept(self.kept, self.kept_gb, "fit")


def check_frame(name: str, said: str | int | None) -> None:
    if said is not None and not isinstance(said, int) and said not in FRAMES:
        raise UserError(
            f"'{name}' is no frame",
            came=said,
            expected=f"{', '.join(FRAMES)}, or a number (0 is the first, -1 the last)",
        )


def frame_of(name: str, said: str | int, count: int) -> int:
    """Its number."""
    at = (
        {"first": 0, "middle": count // 2, "last": count - 1}.get(said, said)
        if isinstance(said, str)
        else said
    )
    if not isinstance(at, int) or not -count <= at < count:
        raise UserError(
            f"'{name}' is no frame of this clip",
            came=said,
            expected=f"0 to {count - 1}, first, middle or last",
        )
    return at % count
