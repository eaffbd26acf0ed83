"""Masks that say what an edit may change, brought to a clip's frames and geometry."""

from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from freemask.data.folder import list_images
from freemask.data.frames import Footage
from freemask.data.geometry import Geometry
from freemask.data.images import read_mask
from freemask.data.paths import existing
from freemask.errors import UserError


def read_region(path: str | Path, footage: Footage, geometry: Geometry) -> Bool[Tensor, "f h w"]:
    """One mask picture for all frames, or a folder with one per frame of the source; white: may change."""
    path = existing(path)
    if not path.is_dir():
        mask = _sized(path, footage)
        return geometry.masks(mask[None]).expand(len(footage.indices), -1, -1).contiguous()
    paths = list_images(path)
    whole, last = footage.total or len(paths), max(footage.indices)
    if len(paths) != whole or last >= len(paths):
        raise UserError(
            f"{path}: masks and frames do not match",
            came=f"{len(paths)} masks",
            expected=f"one for each of the clip's {whole if footage.total else f'{last + 1} or more'} frames",
            todo="or give a single mask picture, used for every frame",
        )
    masks = torch.stack([_sized(paths[index], footage) for index in footage.indices])
    return geometry.masks(masks)


def _sized(path: Path, footage: Footage) -> Bool[Tensor, "h w"]:
    mask = read_mask(path)
    if tuple(mask.shape) != footage.size:
        raise UserError(
            f"{path}: the mask does not have the size of the clip",
            came=f"{mask.shape[1]}x{mask.shape[0]}",
            expected=f"{footage.size[1]}x{footage.size[0]}",
        )
    return mask
