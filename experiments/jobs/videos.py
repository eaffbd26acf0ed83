"""A folder of videos that other code has made, as the entries of a manifest: names are matched to tasks of the data.

FOLDER/<task>.mp4            or FOLDER/<task>/0001.png ...: the method is given, or called as the folder
FOLDER/<method>/<task>.mp4   or FOLDER/<method>/<task>/0001.png ...: several methods
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.jobs.manifest import Entry
from experiments.jobs.variants import NAME
from freemask.data import images, video
from freemask.data.folder import natural
from freemask.data.names import same_name
from freemask.data.task_fill import slug
from freemask.errors import UserError, nearest

# How a video may be called, the strictest way first. What two tasks have in common names neither.
SPELLINGS: tuple[Callable[[str], str], ...] = (str, same_name, lambda name: same_name(slug(name)))


@dataclass
class Found:
    """`notes` are lines for the user: what matched nothing, either way, and what was passed over."""

    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def holds_videos(folder: Path) -> bool:
    return any(True for _, _ in _videos(folder))


def read_videos(folder: Path, ids: Sequence[str], method: str | None = None) -> Found:
    """One entry for each video whose name is that of a task; none at all is an error."""
    found, doubles = Found(), []
    by_method = _by_method(folder, method)
    strange: list[str] = []
    for name, videos in by_method.items():
        entries: dict[str, Entry] = {}
        for said, path in videos.items():
            id = _task(path.name if path.is_dir() else path.stem, ids)
            if id is None:
                strange.append(f"{said}: no task has this name; {nearest(path.stem, ids)[:300]}")
            elif id in entries:
                doubles.append(f"{entries[id].said} and {said}")
            else:
                entries[id] = Entry(name, path.resolve(), said, id, None, 0)
        found.entries += entries.values()
        if entries and (missing := [id for id in ids if id not in entries]):
            found.notes.append(f"{name}: no video for {len(missing)} of {len(ids)} tasks: {_few(missing)}")
    if doubles:
        wrong, came = f"{folder}: two videos of one task and method", _few(doubles)
        raise UserError(wrong, came=came, expected="one of them")
    if not found.entries:
        raise UserError(
            f"{folder}: no video is called as a task of the data",
            came=_few([said for videos in by_method.values() for said in videos]) or "no videos",
            expected=f"the id of a task, such as {ids[0]}.mp4, or a folder of frames: {_few(ids, 5)}",
            todo="name the data that was edited: data=... data.root=... data.tasks=...",
        )
    found.notes += strange
    return found


def _by_method(folder: Path, method: str | None) -> dict[str, dict[str, Path]]:
    """The videos of each method, by their paths below the folder."""
    found: dict[str, dict[str, Path]] = {}
    for own, path in _videos(folder):
        videos = found.setdefault(own or method or folder.resolve().name, {})
        videos[str(path.relative_to(folder))] = path
    if found and method is not None and method not in found:
        came, expected = f"method_name={method}", f"the folders in it name the methods: {', '.join(found)}"
        raise UserError(f"{folder}: no video lies in it itself", came=came, expected=expected)
    wrong = [name for name in found if not NAME.fullmatch(name)]
    if wrong:
        raise UserError(
            f"{folder}: a method's name must be able to name a folder",
            came=", ".join(map(repr, wrong)),
            expected="up to 100 letters, digits, - _ or +",
            todo="method_name=NAME, or other names for the folders in it",
        )
    return found


def _videos(folder: Path) -> Iterator[tuple[str, Path]]:
    """Videos and folders of frames, each with the folder that it lies in, its method, or with nothing."""
    for path in _sorted(folder):
        if _is_video(path):
            yield "", path
        elif path.is_dir():
            yield from ((path.name, each) for each in _sorted(path) if _is_video(each))


def _sorted(folder: Path) -> list[Path]:
    return sorted((each for each in folder.iterdir() if not each.name.startswith(".")), key=natural)


def _is_video(path: Path) -> bool:
    """Or a folder of frames. Beside folders or videos, pictures are no frames."""
    if not path.is_dir():
        return path.suffix.lower() in video.SUFFIXES
    within = _sorted(path)
    pictures = any(each.suffix.lower() in images.SUFFIXES for each in within)
    return pictures and not any(each.is_dir() or _is_video(each) for each in within)


def _task(name: str, ids: Sequence[str]) -> str | None:
    for spelt in SPELLINGS:
        like = [id for id in ids if spelt(id) == spelt(name)]
        if like:
            return like[0] if len(like) == 1 else None
    return None


def _few(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
