"""Who makes a frame of the two beside it: their mean, RIFE, or the clip's own flow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from freemask.data.paths import existing
from freemask.errors import UserError
from freemask.interpolation import rife
from freemask.interpolation.carried import Carried
from freemask.interpolation.interleaved import Neighbours, Remade, beside
from freemask.optical import sources
from freemask.settings import Effect
from freemask.types import Clip

SAFE = ".safetensors"


@runtime_checkable
class Interpolator(Protocol):
    """`name` is for the row, `warnings` say what it is not."""

    @property
    def name(self) -> str: ...

    @property
    def warnings(self) -> Sequence[str]: ...

    def check(self, clip: Callable[[], Clip]) -> None:
        """Refuses, before any model is there, what cannot be had. The clip's size is not yet the final one."""
        ...

    def on(self, clip: Clip, device: str) -> Remade:
        """For edits of this clip."""
        ...


@dataclass(frozen=True)
class Average:
    """A weighted mean: what moves is seen twice, more faintly."""

    left: float | int = 0.5
    name = "average"
    warnings = ()

    def __post_init__(self) -> None:
        if not 0 <= self.left <= 1:
            raise UserError("'left' is a share.", came=self.left, expected="0 to 1")

    def check(self, clip: Callable[[], Clip]) -> None:
        pass

    def on(self, clip: Clip, device: str) -> Remade:
        return self.mean

    def mean(self, frames: Float[Tensor, "f 3 h w"], made_of: Neighbours) -> Float[Tensor, "k 3 h w"]:
        left, right = beside(frames, made_of)
        return self.left * left + (1 - self.left) * right


@dataclass(frozen=True)
class Rife:
    """Follows what moves (`freemask.interpolation.rife`)."""

    weights: Annotated[str | None, Effect.FILES] = None
    allow_pickle: Annotated[bool, Effect.NONE] = False
    name = "rife"
    warnings = ()

    def check(self, clip: Callable[[], Clip]) -> None:
        self.path()

    def path(self) -> Path:
        if self.weights is None:
            raise UserError(
                "the weights of RIFE, which would make frames between others, are not named",
                came="interpolation.weights=null",
                expected="flownet.pkl of RIFE HDv3 (MIT licence), or its tensors as .safetensors",
                todo="interpolation.weights=PATH, or interpolation=average, which needs none",
            )
        found = existing(self.weights)
        if found.suffix != SAFE and not self.allow_pickle:
            raise UserError(
                "the weights of RIFE are a pickled file",
                came=found,
                expected=f"a {SAFE} file",
                todo="interpolation.allow_pickle=true reads the tensors of such a file too",
            )
        return found

    def on(self, clip: Clip, device: str) -> Remade:
        network = rife.load(self.path(), device)
        return lambda frames, made_of: rife.between(network, *beside(frames, made_of), device)


@dataclass(frozen=True)
class Flow:
    """Along the flow of the clip, which the edit is taken to share: as the data knows it, otherwise RAFT's.
    `weights` are RAFT's."""

    weights: Annotated[str | None, Effect.FILES] = None
    name = "flow"
    warnings = ()

    def check(self, clip: Callable[[], Clip]) -> None:
        if len(clip().frames) > 1:
            sources.Auto(self.weights).check(clip)

    def on(self, clip: Clip, device: str) -> Remade:
        return Carried.of(sources.Auto(self.weights)(clip, device))


@dataclass(frozen=True)
class Auto:
    """RIFE where its weights are named, otherwise the mean, which a warning says."""

    weights: Annotated[str | None, Effect.FILES] = None
    allow_pickle: Annotated[bool, Effect.NONE] = False

    @property
    def chosen(self) -> Average | Rife:
        return Average() if self.weights is None else Rife(self.weights, self.allow_pickle)

    @property
    def name(self) -> str:
        return self.chosen.name

    @property
    def warnings(self) -> Sequence[str]:
        said = "frames are smoothed by the mean of their neighbours, not by RIFE (interpolation.weights=PATH)"
        return (said,) if self.weights is None else ()

    def check(self, clip: Callable[[], Clip]) -> None:
        self.chosen.check(clip)

    def on(self, clip: Clip, device: str) -> Remade:
        return self.chosen.on(clip, device)
