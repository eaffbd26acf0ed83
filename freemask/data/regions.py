"""Masks that say what an edit may change, brought to a clip's frames and geometry."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
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
from freemask.masks.words import located
from freemask.types import Clip, EditTask

Region = Bool[Tensor, "f h w"] | None


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


def with_regions(clip: Clip, task: EditTask, footage: Footage, geometry: Geometry) -> Clip:
    """The clip with the regions of a task's edits among its annotations, under the words of the edits: whoever looks
    for what a word means finds a file as it finds an annotation."""
    masks, brought = dict(clip.masks), set(clip.brought)
    for one in task.each if task.edits else ():
        path = one.assets.get("region")
        if path is None:
            continue
        mask = read_region(path, footage, geometry)
        full = mask if bool(mask.any()) else read_region(path, footage, Geometry())  # a small one may lack it
        if not bool(full.any()):
            what = f"{path}: the region of '{', '.join(one.words)}' is empty"
            raise UserError(
                what, came=f"no white pixel in {len(mask)} frames", expected="white where it may change"
            )
        names = [*one.words, *located(one)]
        masks |= dict.fromkeys(names, mask)
        brought |= set(names)
    return replace(clip, masks=masks, brought=frozenset(brought))


def united(regions: Sequence[Region]) -> Region:
    """What several edits together may change; unknown where that of one is."""
    known = [each for each in regions if each is not None]
    return torch.stack(known).any(dim=0) if known and len(known) == len(regions) else None


def remarks(task: EditTask, clip: Clip) -> list[str]:
    """What is allowed of the regions that a task's edits name, and may be a mistake."""
    named = [next(iter(edit.words)) for edit in task.edits if edit.region]
    found = []
    for name in named:
        empty = int((~clip.masks[name].flatten(1).any(dim=1)).sum())
        found += [f"the region of '{name}' is empty in {empty} of {len(clip.frames)} frames"] if empty else []
    for a, b in combinations(named, 2):
        both = int((clip.masks[a] & clip.masks[b]).sum())
        least = min(int(clip.masks[name].sum()) for name in (a, b))
        found += (
            [f"the regions of '{a}' and '{b}' overlap: {both / least:.0%} of the smaller one"] if both else []
        )
    return found


def _sized(path: Path, footage: Footage) -> Bool[Tensor, "h w"]:
    mask = read_mask(path)
    if tuple(mask.shape) != footage.size:
        raise UserError(
            f"{path}: the mask does not have the size of the clip",
            came=f"{mask.shape[1]}x{mask.shape[0]}",
            expected=f"{footage.size[1]}x{footage.size[0]}",
        )
    return mask
