"""Who knows the optical flow of a clip: its data, RAFT, or a file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

from freemask.data.names import CLIP
from freemask.data.paths import existing
from freemask.errors import UserError
from freemask.optical import files, raft
from freemask.optical.ops import seen_there
from freemask.settings import Effect
from freemask.types import Clip, OpticalFlow

RAFT = "raft_large"


@runtime_checkable
class FlowSource(Protocol):
    def check(self, clip: Callable[[], Clip]) -> None:
        """Refuses, before any model is there, a clip whose flow cannot be had. Its size is not yet the final one."""
        ...

    def __call__(self, clip: Clip, device: str) -> OpticalFlow: ...


@dataclass(frozen=True)
class Exact:
    """As the data knows it."""

    def check(self, clip: Callable[[], Clip]) -> None:
        self(clip(), "cpu")

    def __call__(self, clip: Clip, device: str) -> OpticalFlow:
        if clip.flow is None:
            raise UserError(
                "nobody knows how this clip moves",
                came=f"flow=exact for '{clip.id}'",
                expected="a clip of the embedded world, in its own length and size",
                todo="flow=raft estimates it; flow=file flow.path=... reads it",
            )
        return _fitting(clip.flow, clip)


@dataclass(frozen=True)
class Raft:
    """An estimate, of the clip as it is edited. What is hidden is found by going forth and back."""

    weights: Annotated[str | None, Effect.FILES] = None

    def check(self, clip: Callable[[], Clip]) -> None:
        self.path()

    def path(self) -> Path:
        found = raft.usual() if self.weights is None else existing(self.weights)
        if found is None:
            raise UserError(
                "the weights of RAFT, which would estimate the clip's optical flow, are not on this machine",
                came="nothing in torchvision's usual place",
                expected=f"weights under the licence {raft.LICENCE}",
                todo=f"get them with: {raft.GET}\n            "
                "or name their file with flow=raft flow.weights=PATH, or the flow's with flow=file flow.path=PATH",
            )
        return found

    def __call__(self, clip: Clip, device: str) -> OpticalFlow:
        path = self.path()
        forth, back = raft.both_ways(raft.load(path, str(path), device), clip.frames.float().cpu())
        return OpticalFlow(forth, seen_there(forth, back), RAFT)


@dataclass(frozen=True)
class Auto:
    """As the data knows it, otherwise an estimate of RAFT."""

    weights: Annotated[str | None, Effect.FILES] = None

    def check(self, clip: Callable[[], Clip]) -> None:
        if clip().flow is None:
            Raft(self.weights).check(clip)

    def __call__(self, clip: Clip, device: str) -> OpticalFlow:
        return Raft(self.weights)(clip, device) if clip.flow is None else Exact()(clip, device)


@dataclass(frozen=True)
class FromFile:
    """Of a file or folder; {clip} in its path stands for the name of each clip."""

    path: Annotated[str | None, Effect.FILES] = None

    def __post_init__(self) -> None:
        if self.path is None:
            raise UserError(
                "flow=file reads no file", came="flow.path=null", expected=files.FORMS, todo="flow.path=PATH"
            )

    def read(self, clip: Clip) -> OpticalFlow:
        return files.read(str(self.path).replace(CLIP, clip.id))

    def check(self, clip: Callable[[], Clip]) -> None:
        known = clip()
        found = self.read(known)
        files.fitting(found, (len(known.frames), *found.forth.shape[-2:]), known.id)

    def __call__(self, clip: Clip, device: str) -> OpticalFlow:
        return _fitting(self.read(clip), clip)


def _fitting(flow: OpticalFlow, clip: Clip) -> OpticalFlow:
    frames, _, height, width = clip.frames.shape
    return files.fitting(flow, (frames, height, width), clip.id)
