"""Images that were made elsewhere, of any kind: poses, normals, scribbles, depth."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from freemask.data.folder import list_images
from freemask.data.images import read_image
from freemask.data.names import CLIP
from freemask.data.paths import existing_folder
from freemask.errors import UserError
from freemask.types import Clip

ALIKE = 1.05  # how far shapes may be apart before pictures would be stretched visibly


@dataclass(frozen=True)
class Files:
    """A folder with a picture for each frame that is edited, ordered by name with numbers counted; {clip} in it is the
    name of the clip. Larger and smaller ones of the same shape are scaled."""

    folder: str

    def check(self, clip: Clip) -> None:
        self._pictures(clip)

    def __call__(self, clip: Clip, device: str = "cpu") -> Float[Tensor, "f 3 h w"]:
        height, width = clip.frames.shape[-2:]
        found = self._pictures(clip)
        other = {name: each for name, each in found.items() if not _alike(each, height, width)}
        if other:
            raise UserError(
                f"{self._own(clip)}: images of another shape than the frames",
                came=_few([f"{name} {each.shape[2]}x{each.shape[1]}" for name, each in other.items()]),
                expected=f"{width}x{height}, or the same shape in another size",
                todo="make them of the frames as they are edited: size= and crop= say which those are",
            )
        return torch.stack([_sized(each, height, width) for each in found.values()]).to(clip.frames)

    def _own(self, clip: Clip) -> Path:
        return existing_folder(self.folder.replace(CLIP, clip.id))

    def _pictures(self, clip: Clip) -> dict[str, Float[Tensor, "3 _h _w"]]:
        """By name; all that cannot be read are told at once."""
        own, frames = self._own(clip), len(clip.frames)
        paths = list_images(own)
        if len(paths) != frames:
            raise UserError(
                f"{own}: images and frames do not match",
                came=f"{len(paths)} images",
                expected=f"one for each of the {frames} frames of '{clip.id}' that are edited, in their order",
                todo=f"frames={len(paths)} takes as many frames of a file" if len(paths) > frames else "",
            )
        found, wrong = {}, []
        for path in paths:
            try:
                found[path.name] = read_image(path)
            except UserError as error:
                wrong.append(error)
        if wrong:
            raise UserError(
                f"{own}: images that cannot be read", came=_few([each.wrong for each in wrong])
            ) from wrong[0]
        return found


def _alike(picture: Tensor, height: int, width: int) -> bool:
    aspect = (picture.shape[2] * height) / (picture.shape[1] * width)
    return 1 / ALIKE < aspect < ALIKE


def _sized(picture: Tensor, height: int, width: int) -> Float[Tensor, "3 h w"]:
    if tuple(picture.shape[1:]) == (height, width):
        return picture
    scaled = interpolate(picture[None], (height, width), mode="bilinear", antialias=True, align_corners=False)
    return scaled[0].clamp(0, 1)


def _few(lines: list[str]) -> str:
    return "; ".join(lines[:5]) + f"; and {len(lines) - 5} more" * (len(lines) > 5)
