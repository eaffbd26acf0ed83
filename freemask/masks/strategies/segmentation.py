"""Masks that somebody else made: the clip's annotation, or a folder with the output of any segmenter."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d

from freemask.attention.record import Recording
from freemask.data.folder import list_images
from freemask.data.images import SUFFIXES, read_image
from freemask.data.paths import existing_folder
from freemask.errors import UserError
from freemask.masks.ops import resize
from freemask.masks.plan import Keeps, MaskPlan, Subject, Wanted
from freemask.masks.words import annotated
from freemask.settings import Effect
from freemask.types import Clip, EditTask

GREY = 10 / 255  # smoothed masks count from here on
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Segmentation:
    """The same mask at every time. `folder` holds a folder for each task or clip, named after its id, with a
    picture for each of the clip's frames; or, of a single clip, these pictures themselves. None takes the clip's
    annotation.

    A cell of a grid belongs to the mask where at least the share `cover` of it does. `grow` widens masks by a share of
    the frame's shorter side, for new things that are larger than the old ones.
    """

    folder: Annotated[str | None, Effect.FILES] = None
    cover: float | int = 0.5
    stretch: bool = False
    grow: float | int = 0

    def __post_init__(self) -> None:
        if not 0 < self.cover <= 1:
            raise UserError("'cover' is a share", came=f"cover={self.cover}", expected="above 0, at most 1")
        if not 0 <= self.grow <= 1:
            raise UserError("'grow' is a share", came=f"grow={self.grow}", expected="0 to 1")

    @property
    def of_one_clip(self) -> bool:
        """Whether the folder holds pictures, and so serves no other clip."""
        return self.folder is not None and _holds_pictures(existing_folder(self.folder))

    def check(self, task: EditTask, clip: Clip) -> None:
        if self.folder is None:
            annotated(task, clip)
        else:
            self._paths(task, clip)

    def keeps(self, subject: Subject) -> Keeps:
        self._masks(subject)  # before the inversion is made in vain
        return Keeps()

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        masks = self._masks(subject)

        def soft(wanted: Wanted) -> Tensor:
            grid = wanted.grid
            return adaptive_avg_pool2d(masks[None], (grid.height, grid.width))[0]

        origin = self._origin(subject.task, subject.clip)
        return MaskPlan(lambda wanted: (soft(wanted) >= self.cover).float(), {"mask_from": origin}, soft)

    def _origin(self, task: EditTask, clip: Clip) -> str:
        if self.folder is not None:
            return self._own_folder(task, clip).name
        return "region of the edit" if clip.brought & set(task.words) else "annotation"

    def _masks(self, subject: Subject) -> Float[Tensor, "f h w"]:
        masks = self._found(subject)
        reach = round(self.grow * min(masks.shape[1:]))
        return max_pool2d(masks[None], 2 * reach + 1, stride=1, padding=reach)[0] if reach else masks

    def _found(self, subject: Subject) -> Float[Tensor, "f h w"]:
        if self.folder is None:
            return annotated(subject.task, subject.clip).float()
        height, width = subject.clip.frames.shape[2:]
        return torch.stack(
            [self._read(path, height, width) for path in self._paths(subject.task, subject.clip)]
        )

    def _paths(self, task: EditTask, clip: Clip) -> list[Path]:
        """One picture for each frame."""
        own = self._own_folder(task, clip)
        paths, frames = list_images(own), len(clip.frames)
        if len(paths) != frames:
            raise UserError(
                f"{own}: masks and frames do not match",
                came=f"{len(paths)} masks",
                expected=f"one for each of the clip's {frames} frames, in their order",
                todo=f"frames={len(paths)} takes as many frames of a file" if len(paths) > frames else "",
            )
        return paths

    def _own_folder(self, task: EditTask, clip: Clip) -> Path:
        """The one that bears the task's or the clip's name, or the folder itself where it holds pictures."""
        root = existing_folder(self.folder or "")
        names = list(dict.fromkeys([task.id, clip.id]))
        own = next((root / name for name in names if (root / name).is_dir()), None)
        if own is not None:
            return own
        if _holds_pictures(root):
            return root
        raise UserError(
            f"{root}: no masks for this edit",
            came=", ".join(sorted(path.name for path in root.iterdir())[:8]) or "an empty folder",
            expected=f"a folder called {' or '.join(names)} with a picture for each frame, or just these pictures",
        )

    def _read(self, path: Path, height: int, width: int) -> Float[Tensor, "h w"]:
        picture = read_image(path)
        grey = (picture * torch.tensor(LUMA)[:, None, None]).sum(dim=0)
        aspect = (grey.shape[1] * height) / (grey.shape[0] * width)
        if not self.stretch and not 0.95 < aspect < 1.05:
            raise UserError(
                f"{path}: the mask has another shape than the frames",
                came=f"{grey.shape[1]}x{grey.shape[0]}",
                expected=f"{width}x{height}, or the same shape in another size",
                todo="mask.stretch=true if the frames were stretched as well",
            )
        return resize((grey > GREY).float()[None], height, width)[0]


def _holds_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES and path.is_file() for path in folder.iterdir())
