"""Read a folder of frames, or one picture, as footage.

Frames are ordered by name with numbers counted (2 before 10). System files (names that begin with a dot,
Thumbs.db, desktop.ini) and notes (txt, md, json, yaml, csv) are passed over; anything else that is not a
picture is an error, as are two pictures of one name and pictures of different sizes.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from freemask.data.frames import Footage, FrameRange
from freemask.data.geometry import Geometry
from freemask.data.images import SUFFIXES, read_image
from freemask.errors import UserError

JUNK = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}
NOTES = {".txt", ".md", ".json", ".yaml", ".yml", ".csv"}


def natural(path: Path) -> tuple[tuple[bool, int, str], ...]:
    """Sorting key that counts the numbers in a name."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts if part)


def list_images(folder: Path) -> list[Path]:
    images, strange = [], []
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name.lower() in JUNK or path.suffix.lower() in NOTES:
            continue
        (images if path.is_file() and path.suffix.lower() in SUFFIXES else strange).append(path)
    images.sort(key=natural)
    if strange:
        names = ", ".join(sorted(path.name + "/" * path.is_dir() for path in strange)[:5])
        raise UserError(
            f"{folder}: holds something that is not a frame",
            came=f"{names}{', ...' if len(strange) > 5 else ''} beside {len(images)} pictures",
            expected=f"pictures only ({' '.join(SUFFIXES)})",
            todo="name the folder that holds the frames themselves" if not images else "move it elsewhere",
        )
    if not images:
        raise UserError(f"{folder}: holds no pictures", expected=f"pictures ({' '.join(SUFFIXES)})")
    stems: dict[str, Path] = {}
    for path in images:
        if path.stem in stems:
            raise UserError(
                f"{folder}: two frames of one name", came=f"{stems[path.stem].name} and {path.name}"
            )
        stems[path.stem] = path
    return images


def read_folder(
    folder: str | Path,
    geometry: Geometry | None = None,
    frames: FrameRange | None = None,
) -> Footage:
    return read_images(list_images(Path(folder)), str(folder), geometry, frames)


def read_images(
    paths: Sequence[Path],
    name: str,
    geometry: Geometry | None = None,
    frames: FrameRange | None = None,
) -> Footage:
    """Pictures in the given order, shown at the rate that `frames` gives to folders."""
    geometry, frames = geometry or Geometry(), frames or FrameRange()
    rate = frames.folder_fps
    fps = frames.rate(rate, name)
    kept, indices, first, size = [], [], None, (0, 0)
    for position, path in frames.choose(((i / rate, path) for i, path in enumerate(paths)), rate, name):
        picture = read_image(path)
        here = (picture.shape[-2], picture.shape[-1])
        first, size = first or path, size if first else here
        if here != size:
            raise UserError(
                f"{name}: frames differ in size",
                came=f"{path.name} is {here[1]}x{here[0]}",
                expected=f"{size[1]}x{size[0]}, as {first.name}",
            )
        kept.append(geometry.frames(picture[None])[0])
        indices.append(position)
    return Footage(torch.stack(kept), tuple(indices), size, fps, total=len(paths))
