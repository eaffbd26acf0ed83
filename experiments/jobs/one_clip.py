"""The task of `freemask edit`: a file with prompts, or a clip that the data knows, with its own prompts or others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from experiments.config.build import build
from experiments.config.early import refuse_without_prompts
from experiments.config.options import Keys
from experiments.jobs.beyond import filmed
from experiments.jobs.edit import fit
from freemask.data.captions import Captions, completed, wanted
from freemask.data.frames import AUTO, FrameRange
from freemask.data.geometry import Geometry
from freemask.data.held import HeldClip, footage_of
from freemask.data.one import OneClip
from freemask.data.paths import existing
from freemask.data.regions import with_regions
from freemask.data.tasks import check_task
from freemask.errors import UserError, nearest
from freemask.types import Clip, DataSource, EditTask, Kind


@dataclass(frozen=True)
class Cut(Keys):
    """What is taken of a file, in the plain keys of a verb."""

    frames: int | None
    start: int
    stride: int
    size: int | Sequence[int] | None
    crop: str

    def __post_init__(self) -> None:
        if not isinstance(self.size, int | None) and len(self.size) != 2:
            raise UserError(
                "size is one number or two", came=self.size, expected="size=320 or size=[320,576]"
            )

    def taken(self) -> tuple[Geometry, FrameRange]:
        short, sides = (self.size, (None, None)) if isinstance(self.size, int | None) else (None, self.size)
        geometry = Geometry(short_side=short, height=sides[0], width=sides[1], crop=self.crop)
        return geometry, FrameRange(start=self.start, stride=self.stride, count=self.frames)


@dataclass(frozen=True)
class Wish:
    """What was asked for; None where nothing was said. From Python a clip may be one that is in memory."""

    clip: str | Clip | None
    source: str | None
    target: str | None
    words: str | Mapping[str, str] | None
    kind: str | None
    geometry: Geometry
    frames: FrameRange
    edits: str | Sequence[Any] | None = None

    def task(
        self, data: Callable[[], DataSource], captions: Callable[[], Captions] | None = None
    ) -> tuple[EditTask, DataSource]:
        """The task, and where its clip comes from: a file, or a clip that the data knows. `captions` makes who says
        what a clip shows whose source prompt is `auto`."""
        asked = {key: getattr(self, key) for key in ("source", "target", "kind", "words", "edits")}
        clip = self.clip
        if isinstance(clip, Clip) or (clip is not None and Path(clip).expanduser().exists()):
            name = clip.id if isinstance(clip, Clip) else clip
            refuse_without_prompts(name, {key: asked[key] for key in ("source", "target")})
            says = captions() if captions is not None and wanted(asked) else None
            if isinstance(clip, Clip):
                one = HeldClip(clip, asked, self.geometry, self.frames, says)
            else:
                taken = self.frames if says is None else reach(self.frames)
                one = OneClip(clip, asked, self.geometry, taken, says)
            return one.task, one
        source = data()
        task = _known(clip, source.tasks())
        if (self.geometry, self.frames) != (Geometry(), FrameRange()):
            raise UserError(
                "frames, start, stride, size and crop are for a file; the data cut their clips themselves",
                came=f"a clip of the data, {task.clip}",
                expected="a file, or none of these keys",
                todo="data.frames=... and data.size=... where the data have them: freemask list data",
            )
        if all(value is None for value in asked.values()):
            return task, source
        prompts = {key: getattr(task, key) for key in ("source", "target") if asked[key] is None}
        held, found = source.clip(task), {}
        if captions is not None and wanted(asked):
            asked, found = completed({**asked, **prompts}, captions(), footage_of(held))
            prompts = {}
        own = check_task({**asked, **prompts, "id": f"{task.id}-own", "clip": task.clip}, found=found)
        return own, Changed(own, with_regions(held, own, footage_of(held), Geometry()), filmed(source))


@dataclass(frozen=True)
class Asked(Cut):
    """What is asked of one edit, in the plain keys of a verb."""

    clip: str | None
    source: str | None
    target: str | None
    words: str | None
    edits: str | Sequence[Any] | None
    kind: Kind | None

    def wish(self) -> Wish:
        return Wish(self.clip, self.source, self.target, self.words, self.kind, *self.taken(), self.edits)


@dataclass(frozen=True)
class Changed:
    """A known clip under other prompts than its own: there is no true answer to them."""

    task: EditTask
    footage: Clip
    filmed: bool

    def tasks(self) -> Sequence[EditTask]:
        return [self.task]

    def clip(self, task: EditTask) -> Clip:
        return self.footage

    def oracle(self, task: EditTask) -> Float[Tensor, "f 3 h w"] | None:
        return None

    def region(self, task: EditTask) -> Bool[Tensor, "f h w"] | None:
        return None


def made(config: Mapping[str, Any]) -> tuple[Callable[[], DataSource], Callable[[], Captions]]:
    """Where a wish finds the data, and who says what a clip shows, when it needs them."""
    return (lambda: build(config["data"], "data")), (lambda: build(config["captions"], "captions"))


def read(one: OneClip, frames: int | None, backbone: Any) -> OneClip:
    """Decides size and frames of a file. What is in memory is taken whole."""
    fit(one, backbone)
    if not isinstance(one, HeldClip):
        one.frames = reach(replace(one.frames, count=frames))
    return one


def reach(asked: FrameRange) -> FrameRange:
    """Of a file, where no number of frames is asked for, a few."""
    return replace(asked, count=asked.count or AUTO)


def _known(clip: str | None, tasks: Sequence[EditTask]) -> EditTask:
    for task in tasks:
        if clip in (None, task.id, task.clip):
            return task
    if Path(clip or "").suffix or "/" in (clip or ""):
        existing(clip or "")
    names = {task.clip for task in tasks} | {task.id for task in tasks}
    expected = f"a file or folder, or a clip of the data: {nearest(clip or '', names)}"
    raise UserError(f"there is no clip '{clip}'", came=f"clip={clip}", expected=expected)
