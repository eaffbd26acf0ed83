"""Inspect a source of clips below one folder (own files, Pexels, TGVE, FiVE): its list, every clip, every mask."""

import glob
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from freemask.data.audit import Audit
from freemask.data.captions import Told
from freemask.data.files import Files, keep_clips, told_by
from freemask.data.five import Five, check_edits, mask_paths, read_prompts
from freemask.data.frames import FrameRange
from freemask.data.names import within
from freemask.data.paths import existing_folder
from freemask.data.pexels import Pexels, find_manifest
from freemask.data.regions import remarks
from freemask.data.shipped import list_path
from freemask.data.tasks import read_list
from freemask.data.tgve import COLUMNS, Tgve, find_sheet, read_sheet
from freemask.errors import UserError
from freemask.types import EditTask, Progress, silent

# Whole benchmarks, as published: videos and pairs of prompts.
WHOLE = {Tgve: (76, 304), Five: (100, 420)}
TGVE_SIZE, TGVE_FRAMES = (480, 480), (32, 128)
Arguments = Mapping[str, Any]


def audit_files(source: type[Files], arguments: Arguments, progress: Progress = silent) -> Audit:
    """`arguments` are those of the source's constructor."""
    audit = Audit()
    root = Path(arguments["root"]).expanduser()
    if not root.is_dir():
        audit.add(root, "there is no such folder", "name the folder of the data: data.root=FOLDER")
        return audit
    try:
        listed = _LISTS[source](root, arguments)
        audit.tasks = keep_clips(listed, arguments.get("clips"))
    except (UserError, OSError) as error:
        audit.refused(root, error)
        return audit
    by_clip: dict[str, list[EditTask]] = {}
    for task in audit.tasks:
        by_clip.setdefault(task.clip, []).append(task)
    here = _present(audit, root, by_clip)
    if here:
        _open_all(audit, source, dict(arguments) | {"clips": [glob.escape(clip) for clip in here]}, progress)
    if source in WHOLE and not arguments.get("clips"):
        _compare(audit, root, len(by_clip), WHOLE[source])
    return audit


def _present(audit: Audit, root: Path, clips: Mapping[str, Sequence[EditTask]]) -> list[str]:
    here, lacking = [], []
    for clip in clips:
        try:
            (here if within(root, clip).exists() else lacking).append(clip)
        except (UserError, OSError) as error:
            audit.refused(clip, error)
    if lacking:
        audit.add(
            root, f"{len(lacking)} of {len(clips)} clips of the list are not there: {', '.join(lacking)}"
        )
    return here


def _open_all(audit: Audit, source: type[Files], arguments: Arguments, progress: Progress) -> None:
    try:
        opened = source(**arguments)
    except (UserError, OSError) as error:
        audit.refused(arguments["root"], error)
        return
    seen: set[str] = set()
    unmasked: list[str] = []
    tasks = opened.tasks()
    for index, task in enumerate(tasks):
        progress("edits", index, len(tasks))
        try:
            if task.clip not in seen:
                seen.add(task.clip)
                audit.frames += len(opened.clip(task).frames)
                _measure(audit, opened, task)
                if isinstance(opened, Five) and mask_paths(opened.root, task.clip) is None:
                    unmasked.append(task.clip)
            for each in remarks(task, opened.clip(task)) if task.edits else ():
                audit.add(task.id, each, grave=False)
            opened.region(task)
        except (UserError, OSError) as error:
            audit.refused(task.clip, error)
    progress("edits", len(tasks), len(tasks))
    if unmasked:
        audit.add(
            opened.root / "bmasks",
            f"{len(unmasked)} clips have no masks: {', '.join(unmasked)}",
            "unpack bmasks.zip there",
        )


def _measure(audit: Audit, opened: Files, task: EditTask) -> None:
    """What TGVE promises about its videos."""
    if not isinstance(opened, Tgve):
        return
    size, total = opened.footage(task).size, opened.footage(task).total
    if size != TGVE_SIZE:
        audit.add(task.clip, f"frames of {size[1]}x{size[0]}; TGVE's are 480x480", grave=False)
    if total is not None and total not in TGVE_FRAMES:
        audit.add(task.clip, f"{total} frames; TGVE's videos have 32 or 128", "unpack the clip again")


def _compare(audit: Audit, root: Path, clips: int, whole: tuple[int, int]) -> None:
    if clips < whole[0]:
        audit.add(root, f"the list names {clips} videos; the whole benchmark has {whole[0]}", grave=False)


def _files(root: Path, arguments: Arguments) -> list[EditTask]:
    return list(read_list(arguments["tasks"], told=_told(root, arguments)).tasks)


def _pexels(root: Path, arguments: Arguments) -> list[EditTask]:
    manifest = arguments.get("manifest")
    path = list_path(manifest) if manifest else find_manifest(root)
    return list(read_list(path, manifest=True, told=_told(root, arguments)).tasks)


def _told(root: Path, arguments: Arguments) -> Told | None:
    return told_by(arguments.get("captions"), root, arguments.get("frames") or FrameRange())


def _tgve(root: Path, arguments: Arguments) -> list[EditTask]:
    sheet = find_sheet(root, arguments.get("sheet"))
    return read_sheet(sheet, root, arguments.get("edits", tuple(COLUMNS)))


def _five(root: Path, arguments: Arguments) -> list[EditTask]:
    edits = check_edits(arguments.get("edits", (1, 2, 3, 4, 6)))
    return read_prompts(existing_folder(root / "edit_prompt"), root, edits)


_LISTS: dict[type[Files], Callable[[Path, Arguments], list[EditTask]]] = {
    Files: _files,
    Pexels: _pexels,
    Tgve: _tgve,
    Five: _five,
}
