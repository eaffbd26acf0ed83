"""Open whatever a path names (a video file, a folder of frames, one picture) as a Clip."""

from pathlib import Path

from freemask.data import images, video
from freemask.data.folder import read_folder, read_images
from freemask.data.frames import Footage, FrameRange
from freemask.data.geometry import Geometry
from freemask.data.paths import existing
from freemask.errors import UserError
from freemask.types import Clip


def open_clip(
    path: str | Path,
    geometry: Geometry | None = None,
    frames: FrameRange | None = None,
    *,
    id: str | None = None,
) -> Clip:
    footage = open_footage(path, geometry, frames)
    return Clip(id=id or Path(path).stem, frames=footage.frames, fps=footage.fps)


def open_footage(
    path: str | Path, geometry: Geometry | None = None, frames: FrameRange | None = None
) -> Footage:
    path = existing(path)
    check_range(path, frames)
    if path.is_dir():
        return read_folder(path, geometry, frames)
    suffix = path.suffix.lower()
    if suffix in images.SUFFIXES:
        return read_images([path], str(path), geometry, frames)
    if suffix in video.SUFFIXES:
        return video.read_video(path, geometry, frames)
    raise UserError(
        f"{path}: neither a video nor a picture by its name",
        came=suffix or "a name without an ending",
        expected=f"a folder of frames, or one of {' '.join((*video.SUFFIXES, *images.SUFFIXES))}",
    )


def check_range(path: Path, frames: FrameRange | None) -> None:
    """A picture is a clip of one frame: more are refused, for they could only repeat it."""
    picture = path.suffix.lower() in images.SUFFIXES and not path.is_dir()
    if picture and frames is not None and (frames.exact or 1) > 1:
        raise UserError(
            f"{path}: a picture is a clip of one frame",
            came=f"{frames.exact} frames asked of it",
            expected="one frame",
            todo="leave out the number of frames (in a run, data.frames.count=auto), or name a video or a folder",
        )
