"""Optical flow that somebody else estimated, read from files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from freemask.data.folder import natural
from freemask.data.paths import existing
from freemask.errors import UserError
from freemask.optical.ops import seen_there
from freemask.types import OpticalFlow

MAGIC = b"PIEH"  # of Middlebury's .flo files: the bytes of 202021.25
FORTH, BACK = "forward", "backward"
FORMS = (
    ".npz or .npy (pairs, 2, height, width), a .flo file, or a folder of these, one for each pair of frames"
)


def read(path: str | Path) -> OpticalFlow:
    """`path` holds the flow from each frame to the next, in pixels (x, y). An .npz or a folder may hold it under the
    name forward, beside the flow back under the name backward: then it is known what is hidden in the next frame."""
    place = existing(path)
    parts = _parts(place)
    forth, back = (None if part is None else _checked(place, part) for part in parts)
    assert forth is not None
    if back is None:
        return OpticalFlow(forth, None, str(place.name))
    if back.shape != forth.shape:
        raise UserError(
            f"{place}: the flow back does not belong to the flow forth",
            came=f"{tuple(back.shape)} and {tuple(forth.shape)}",
            expected="the same shape",
        )
    return OpticalFlow(forth, seen_there(forth, back), str(place.name))


def _parts(place: Path) -> tuple[np.ndarray, np.ndarray | None]:
    if not place.is_dir():
        return _file(place)
    if (place / FORTH).is_dir():
        back = place / BACK
        return _pairs(place / FORTH), _pairs(back) if back.is_dir() else None
    return _pairs(place), None


def _pairs(folder: Path) -> np.ndarray:
    """One file for each pair, ordered by name with numbers counted."""
    files = sorted((each for each in folder.iterdir() if each.suffix in (".flo", ".npy")), key=natural)
    if not files:
        raise UserError(f"{folder}: holds no flow", expected=FORMS)
    found = [_file(each)[0] for each in files]
    if any(each.shape[1:] != found[0].shape[1:] for each in found):
        sizes = sorted({str(each.shape[1:]) for each in found})
        raise UserError(f"{folder}: flow of several sizes", came=", ".join(sizes), expected="one size")
    return np.concatenate(found)


def _file(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        if path.suffix == ".flo":
            return _flo(path), None
        if path.suffix in (".npy", ".npz"):
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return _four(loaded), None
            with loaded:
                return _four(loaded[FORTH]), _four(loaded[BACK]) if BACK in loaded else None
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path}: no flow can be read from it", came=error, expected=FORMS) from error
    raise UserError(f"{path}: no file of flow", came=path.suffix or "no suffix", expected=FORMS)


def _flo(path: Path) -> np.ndarray:
    with open(path, "rb") as stream:
        if stream.read(4) != MAGIC:
            raise ValueError("no .flo file: it does not begin as one")
        width, height = np.fromfile(stream, "<i4", 2).tolist()
        values = np.fromfile(stream, "<f4")
    if width < 1 or height < 1 or values.size != 2 * width * height:
        raise ValueError(f"{values.size} values for {width}x{height}")
    return values.reshape(1, height, width, 2).transpose(0, 3, 1, 2)


def _four(values: np.ndarray) -> np.ndarray:
    return values[None] if values.ndim == 3 else values


def _checked(place: Path, values: np.ndarray) -> Float[Tensor, "g 2 h w"]:
    shaped = values.ndim == 4 and values.shape[1] == 2 and 0 not in values.shape
    floats = np.issubdtype(values.dtype, np.floating)
    if not shaped or not floats or not np.isfinite(values).all():
        raise UserError(
            f"{place}: this is no flow",
            came=f"{values.dtype} of shape {tuple(values.shape)}"
            + (", with values that are no numbers" if shaped and floats else ""),
            expected="floats (pairs of frames, 2, height, width): offsets in pixels, x before y",
        )
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def fitting(flow: OpticalFlow, size: Sequence[int], clip: str) -> OpticalFlow:
    """The flow, where it is that of a clip of so many frames, height and width."""
    frames, height, width = size
    pairs, _, high, wide = flow.forth.shape
    if (pairs, high, wide) != (frames - 1, height, width):
        raise UserError(
            f"the flow does not fit the clip '{clip}'",
            came=f"{flow.origin}: {pairs} pairs of frames of {wide}x{high}",
            expected=f"{frames - 1} pairs of {width}x{height}: the clip's frames as they are edited",
            todo="frames=, size= and crop= say which they are; or flow=raft, which needs no file",
        )
    return flow
