"""Inspect a data set in DAVIS layout against a task list: folders, clips, counts, sizes, palettes, instances."""

from collections.abc import Sequence
from pathlib import Path

from freemask.data.audit import Audit
from freemask.data.audit_clip import check_clip
from freemask.data.captions import Captions
from freemask.data.davis import chosen, told_by
from freemask.data.davis_layout import DavisLayout
from freemask.data.frames import FrameRange
from freemask.data.geometry import Geometry
from freemask.data.names import within
from freemask.data.tasks import read_list
from freemask.errors import UserError
from freemask.types import EditTask, Progress, silent

ARCHIVE = "DAVIS-2017-trainval-480p.zip (davischallenge.org, DAVIS 2017, Downloads: TrainVal, 480p)"


def audit_davis(  # noqa: PLR0913 - the arguments of Davis
    root: str | Path,
    tasks: str | Path,
    *,
    clips: str | Sequence[str] | None = None,
    resolution: str = "480p",
    single_instance: bool = False,
    geometry: Geometry | None = None,
    frames: FrameRange | None = None,
    captions: Captions | None = None,
    progress: Progress = silent,
) -> Audit:
    audit = Audit()
    layout = _layout(audit, Path(root).expanduser(), resolution)
    try:
        told = None if layout is None else told_by(captions, layout, frames or FrameRange())
        listed = read_list(tasks, told=told)
        audit.tasks = listed.tasks if layout is None else chosen(layout, listed.tasks, clips)
    except (UserError, OSError) as error:
        audit.refused(tasks, error)
        return audit
    if layout is None:
        return audit
    by_clip = _by_folder(audit.tasks)
    lacking = {kind: _lacking(audit, place, by_clip) for kind, place in _places(layout).items()}
    _missing(audit, layout, lacking, len(by_clip))
    for index, (name, edits) in enumerate(by_clip.items()):
        progress("clips", index, len(by_clip))
        if name not in lacking["frames"] and name not in lacking["annotations"]:
            named = listed.objects.get(edits[0].clip, {})
            with_words = any(task.kind in ("shape", "attribute") for task in edits)
            check_clip(audit, layout, name, named, needs_names=with_words and not single_instance)
            _enough(audit, layout, name, frames or FrameRange())
    progress("clips", len(by_clip), len(by_clip))
    return audit


def _layout(audit: Audit, root: Path, resolution: str) -> DavisLayout | None:
    if not root.is_dir():
        audit.add(
            root, "there is no such folder", f"unpack {ARCHIVE}, and name its folder DAVIS as data.root"
        )
        return None
    lacking = [kind for kind in ("JPEGImages", "Annotations") if not (root / kind).is_dir()]
    if lacking:
        deeper = next((path for path in sorted(root.glob("*")) if (path / "JPEGImages").is_dir()), None)
        todo = f"data.root={deeper}" if deeper else f"unpack {ARCHIVE}"
        audit.add(root, f"not in DAVIS layout: there is no folder {' and no folder '.join(lacking)}", todo)
        return None
    try:
        return DavisLayout(root, resolution)
    except (UserError, OSError) as error:
        audit.refused(root, error)
        return None


def _by_folder(tasks: Sequence[EditTask]) -> dict[str, list[EditTask]]:
    found: dict[str, list[EditTask]] = {}
    for task in tasks:
        found.setdefault(Path(task.clip).name, []).append(task)
    return found


def _places(layout: DavisLayout) -> dict[str, Path]:
    return {"frames": layout.pictures, "annotations": layout.drawings}


def _lacking(audit: Audit, place: Path, names: Sequence[str] | dict[str, list[EditTask]]) -> list[str]:
    lacking = []
    for name in names:
        try:
            if not within(place, name).is_dir():
                lacking.append(name)
        except UserError as error:
            audit.refused(place, error)
            lacking.append(name)
    return lacking


def _missing(audit: Audit, layout: DavisLayout, lacking: dict[str, list[str]], count: int) -> None:
    frames, drawn = set(lacking["frames"]), set(lacking["annotations"])
    todo = f"clips of DAVIS come with {ARCHIVE}; data.clips=[...] keeps a part of the list"
    for what, where, names in (
        ("neither frames nor annotations", layout.root, frames & drawn),
        ("no frames", layout.pictures, frames - drawn),
        ("no annotations", layout.drawings, drawn - frames),
    ):
        if names:
            said = ", ".join(sorted(names))
            audit.add(where, f"{len(names)} of {count} clips of the list have {what}: {said}", todo)


def _enough(audit: Audit, layout: DavisLayout, name: str, frames: FrameRange) -> None:
    """Whether the clip is long enough for the frames asked of it."""
    try:
        rate = frames.folder_fps
        frames.rate(rate, name)
        timed = ((index / rate, None) for index in range(len(layout.frames(name))))
        for _ in frames.choose(timed, rate, name):
            pass
    except (UserError, OSError) as error:
        audit.refused(name, error)
