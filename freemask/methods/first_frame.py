"""Where methods that animate a picture get the edited first frame: a file, an editor of pictures, the true answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from freemask.data.images import read_image
from freemask.data.paths import existing
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Backbone, Clip, EditTask, Method, Progress, silent

AUTO = "auto"  # instead of a device: the one on which the clip is edited
ASSET = "first_frame"  # what it is called among a task's own files


@dataclass(frozen=True)
class Picture:
    """A first frame, what is worth a warning, and facts for the row. `mask`: which pixels its editor may have changed,
    where a mask held the others."""

    frame: Float[Tensor, "3 h w"]
    warnings: Sequence[str] = ()
    facts: Mapping[str, str | float | int | bool | None] = field(default_factory=dict)
    mask: Float[Tensor, "h w"] | None = None


@runtime_checkable
class FirstFrame(Protocol):
    """`check` refuses, before any model is there, what cannot be; `knowing` is for those that may see the true answer
    where the data has one."""

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None: ...

    def knowing(self, answer: Float[Tensor, "f 3 h w"] | None) -> "FirstFrame": ...

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Picture: ...


class Plain:
    """What those have in common that need neither be checked nor know anything."""

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        pass

    def knowing(self, answer: Float[Tensor, "f 3 h w"] | None) -> Any:
        return self


@dataclass(frozen=True)
class Unedited(Plain):
    """The clip's own."""

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Picture:
        said = (
            "the first frame is the clip's own: only the prompt asks for a change (first_frame=... edits it)"
        )
        return Picture(clip.frames[0], () if task.source == task.target else (said,), {"first_frame": "own"})


@dataclass(frozen=True)
class FromFile(Plain):
    """`path`: a picture, {clip} being the name of the clip; None: the file that the task list names `first_frame`."""

    path: Annotated[str | None, Effect.FILES] = None

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        read_image(self.place(task))

    def place(self, task: EditTask) -> Path:
        named = task.assets.get(ASSET) if self.path is None else self.path.replace("{clip}", task.clip)
        if named is None:
            raise UserError(
                "the edited first frame is needed",
                came=f"no path, and no asset '{ASSET}' in the task list",
                expected="a picture",
                todo="first_frame.path=EDITED.png ({clip} in it stands for each clip's name)",
            )
        place = existing(named)
        if place.is_dir():
            wrong = "the edited first frame is a folder"
            raise UserError(
                wrong, came=place, expected="a picture", todo=f"first_frame.path={place}/NAME.png"
            )
        return place

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Picture:
        place = self.place(task)
        frame, (height, width) = read_image(place), clip.frames.shape[-2:]
        facts = {"first_frame": f"file {place.name}"}
        if tuple(frame.shape[-2:]) == (height, width):
            return Picture(frame, (), facts)
        said = f"the edited first frame of {frame.shape[2]}x{frame.shape[1]} was brought to {width}x{height}"
        return Picture(resized(frame, height, width), (said,), facts)


@dataclass(frozen=True)
class TrueAnswer(Plain):
    """That of the true answer, where the data knows it: a bound for measuring, not an edit."""

    frame: Float[Tensor, "3 h w"] | None = None

    def knowing(self, answer: Float[Tensor, "f 3 h w"] | None) -> "TrueAnswer":
        return TrueAnswer(None if answer is None else answer[0])

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        self.known()

    def known(self) -> Float[Tensor, "3 h w"]:
        if self.frame is None:
            raise UserError(
                "the true answer of this edit is not known",
                came="first_frame=truth",
                expected="an edit of the embedded world (data=world)",
                todo="first_frame=file, or an editor: freemask list first_frame",
            )
        return self.frame

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Picture:
        said = "the first frame is that of the true answer: a bound, no edit"
        return Picture(self.known(), (said,), {"first_frame": "truth", "first_frame_bound": True})


@dataclass(frozen=True)
class Edited(Plain):
    """Edited by another method on another model, which is loaded for it and let go afterwards: `model` makes one on a
    device. None: on the model of the edit itself."""

    model: Callable[..., Any] | None
    method: Method

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        check = getattr(self.method, "check", None)
        if check is not None:
            check(task, lambda: only(clip(), 0))

    def check_model(self, model: Mapping[str, Any]) -> None:
        """`model`: the configuration of the edit's own."""
        check = getattr(self.method, "check_model", None)
        if self.model is None and check is not None:
            check(model)

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Picture:
        first = only(clip, 0)
        model = backbone
        if self.model is not None:
            asked = getattr(self.model, "keywords", {}).get("device", AUTO)
            model = self.model(device=str(backbone.device) if asked == AUTO else asked)
        edit = self.method(model, first, task, rng, progress)
        warnings = [f"first frame: {warning}" for warning in edit.warnings]
        name = type(self.method).__name__
        facts = {"first_frame": name, "first_frame_model": model.identity}
        held = "latents" in str(edit.facts.get("mask_acts_on", ""))
        return Picture(
            edit.frames[0], warnings, facts, (edit.extras["mask"][0] > 0.5).float() if held else None
        )


def only(clip: Clip, at: int, frame: Float[Tensor, "3 h w"] | None = None, alike: bool = True) -> Clip:
    """One frame as a clip. `frame`: another picture in its place; one of another size has no annotation, nor one that
    is not `alike`."""
    masks = {name: each[at : at + 1] for name, each in clip.masks.items()}
    depth = None if clip.depth is None else clip.depth[at : at + 1]
    own = clip.frames[at] if frame is None else frame
    if not alike or own.shape != clip.frames[at].shape:
        masks, depth = {}, None
    return replace(clip, frames=own[None], masks=masks, depth=depth, conditions={}, flow=None)


def resized(frame: Float[Tensor, "3 h w"], height: int, width: int) -> Float[Tensor, "3 oh ow"]:
    """As the authors do: Lanczos, whatever the shape was."""
    image = Image.fromarray((frame * 255).round().byte().permute(1, 2, 0).numpy())
    made = np.array(image.resize((width, height), Image.Resampling.LANCZOS), np.float32) / 255
    return torch.from_numpy(made).permute(2, 0, 1)
