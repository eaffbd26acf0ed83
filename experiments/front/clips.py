"""Everything that can stand for a clip, and the model that it is fitted to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from experiments.runs.progress import reporting
from freemask.errors import UserError
from freemask.types import Clip, Progress, silent

ClipLike = str | Path | Clip | Tensor | np.ndarray | Image.Image
Words = str | Sequence[str] | Mapping[str, str]
Show = Literal["bar"] | Progress | None


def clip_or_name(clip: ClipLike | None) -> str | Clip | None:
    """A path stays a path: it is opened when the size is known."""
    if isinstance(clip, Image.Image):
        clip = np.asarray(clip.convert("RGB"))[None]
    if isinstance(clip, np.ndarray):
        clip = _of_array(clip)
    if isinstance(clip, Tensor):
        return Clip("clip", checked("clip", clip))
    if isinstance(clip, Clip):
        return replace(clip, frames=checked(clip.id, clip.frames))
    if clip is None or isinstance(clip, str):
        return clip
    if isinstance(clip, Path):
        return str(clip)
    expected = (
        "a path, a picture of PIL, an array of frames, height, width, 3, a tensor of frames, 3, height, width"
    )
    raise UserError("this is no clip", came=f"a value of type {type(clip).__name__}", expected=expected)


def _of_array(frames: np.ndarray) -> Tensor:
    """Pictures as most libraries have them: bytes, or floats in 0..1, with the colours last."""
    if frames.ndim not in (3, 4) or frames.shape[-1] != 3:
        expected = "frames, height, width, 3 (or one picture without the first)"
        raise UserError("this array is no clip", came=f"the shape {frames.shape}", expected=expected)
    found = torch.from_numpy(np.array(frames if frames.ndim == 4 else frames[None]))
    return (found / 255 if frames.dtype == np.uint8 else found).permute(0, 3, 1, 2)


def checked(name: str, frames: Tensor) -> Tensor:
    """Float frames in 0..1 on the CPU."""
    wrong, shape = f"the frames of '{name}' cannot be used", tuple(frames.shape)
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in shape:
        todo = "frames.permute(0, 3, 1, 2) brings the channels of `f h w 3` to their place"
        expected = "frames, 3, height, width"
        raise UserError(wrong, came=f"a tensor of shape {shape}", expected=expected, todo=todo)
    if not frames.is_floating_point():
        came, expected = f"values of type {frames.dtype}", "floats in 0..1"
        raise UserError(wrong, came=came, expected=expected, todo="frames.float() / 255")
    low, high = (float(value) for value in frames.aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # not a number is neither
        came, expected = f"values in {low:g}..{high:g}", "finite values in 0..1"
        raise UserError(wrong, came=came, expected=expected)
    return frames.detach().float().cpu().clamp(0, 1)


@contextmanager
def showing(show: Show) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """What long loops report to, and what tells of a stage of unknown length."""
    if show == "bar":
        with reporting(1) as reporter:
            yield reporter.stage, reporter.busy
        return
    if show is not None and not callable(show):
        expected = 'progress="bar", progress=None, or a function of (stage, done, total)'
        raise UserError("progress cannot be shown so", came=repr(show), expected=expected)
    report = silent if show is None else show
    yield report, lambda stage: report(stage, 0, 1)
