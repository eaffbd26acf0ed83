"""FiVE-Bench: 100 videos, 420 pairs of prompts of six kinds of edits, and a mask for each frame.

    root/edit_prompt/edit1_FiVE.json ... edit6_FiVE.json
    root/images/<video name>/00001.jpg ...      or root/videos/<video name>.mp4 where there are no images
    root/bmasks/<video name>/00001.jpg ...      under the names of the images; white: what the edit is about

Each JSON file is a list of entries with video_name, source_prompt, target_prompt and editing_type_id; square
brackets in the prompts are marks, and are taken out. Other fields (save_dir, negative_prompt, questions) are passed
over. Checked against the authors' evaluation and editing scripts and the folder tree of their README (repository
Harvard-AI-and-Robotics-Lab/FiVE-Bench: evaluation/evaluate.py, models/wan-edit/edit.py); the data were not at hand.

Kinds: 1 rigid and 2 non-rigid replacement -> shape, 3 colour and 4 material -> attribute, 6 removal -> shape with
words that go, 5 addition -> shape; an addition has no source word, so that masks of attention cannot find it, and it
is left out unless asked for. Words are read off the prompts (`changed.py`). Masks are JPEG pictures: what is lighter
than half counts (the authors' evaluation takes everything above 0, and with it the blur around the edges).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Bool
from torch import Tensor

from freemask.data.changed import edited_words
from freemask.data.files import Files
from freemask.data.folder import list_images
from freemask.data.frames import Footage, FrameRange
from freemask.data.geometry import Geometry
from freemask.data.images import read_half
from freemask.data.names import fault, within
from freemask.data.paths import existing, existing_folder
from freemask.data.task_fill import slug
from freemask.data.task_rows import Complaint, Row, decoded
from freemask.data.tasks import collect
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Clip, EditTask

KIND_OF = {1: "shape", 2: "shape", 3: "attribute", 4: "attribute", 5: "shape", 6: "shape"}
KINDS = {str(number): number for number in KIND_OF}
NEEDED = ("video_name", "source_prompt", "target_prompt")


class Five(Files):
    """`edits` are the numbers of the kinds of edits, 1 to 6."""

    def __init__(
        self,
        root: Annotated[str | Path, Effect.PLACE],
        *,
        edits: Sequence[int] = (1, 2, 3, 4, 6),
        clips: Sequence[str] | None = None,
        geometry: Geometry | None = None,
        frames: FrameRange | None = None,
    ) -> None:
        self._edits, self._home = check_edits(edits), existing_folder(root)
        prompts = existing_folder(self._home / "edit_prompt")
        super().__init__(root, prompts, clips=clips, geometry=geometry, frames=frames)

    def clip(self, task: EditTask) -> Clip:
        footage, mask = self.footage(task), self.region(task)
        names = ["object"] if mask is not None else []
        names += list(task.words) if mask is not None and len(task.words) == 1 else []
        masks = {name: mask for name in names if mask is not None}
        return Clip(id=task.clip, frames=footage.frames, masks=masks, fps=footage.fps)

    def region(self, task: EditTask) -> Bool[Tensor, "f h w"] | None:
        paths = mask_paths(self._home, task.clip)
        if paths is None:
            return None
        footage = self.footage(task)
        masks = torch.stack([_sized(paths, index, footage) for index in footage.indices])
        return self.geometry.masks(masks)

    def _read(self, tasks: str | Path) -> list[EditTask]:
        return read_prompts(Path(tasks), self._home, self._edits)


def check_edits(edits: Sequence[int]) -> tuple[int, ...]:
    wrong = [edit for edit in edits if edit not in KIND_OF or isinstance(edit, bool)]
    if wrong or not edits:
        raise UserError(
            "FiVE-Bench has six kinds of edits", came=f"edits={list(edits)}", expected="some of 1 to 6"
        )
    return tuple(edits)


def read_prompts(folder: Path, root: Path, edits: Sequence[int]) -> list[EditTask]:
    """Tasks of the files `edit1_FiVE.json`, ... of the chosen kinds."""
    tasks: list[EditTask] = []
    taken: set[str] = set()
    for edit in edits:
        path = existing(folder / f"edit{edit}_FiVE.json")
        complaints: list[Complaint] = []
        rows = list(_rows(_entries(path), edit, root, taken, complaints))
        tasks += collect(path, rows, complaints, unit="entry").tasks
    return tasks


def mask_paths(root: Path, clip: str) -> list[Path] | None:
    """One mask for each frame of the clip, or None where the clip has none."""
    folder = within(root, f"bmasks/{Path(clip).stem}")
    if not folder.is_dir():
        return None
    masks, frames = list_images(folder), root / clip
    if not frames.is_dir():
        return masks
    drawn = {path.stem: path for path in masks}
    stems = [path.stem for path in list_images(frames)]
    lacking = [stem for stem in stems if stem not in drawn]
    if lacking:
        raise UserError(
            f"{folder}: masks and frames do not match",
            came=f"{len(masks)} masks for {len(stems)} frames; missing: {', '.join(lacking[:5])}",
            expected="one mask for each frame, under the same name",
        )
    return [drawn[stem] for stem in stems]


def _sized(paths: Sequence[Path], index: int, footage: Footage) -> Bool[Tensor, "h w"]:
    if index >= len(paths):
        raise UserError(
            f"{paths[0].parent}: masks and frames do not match",
            came=f"{len(paths)} masks",
            expected=f"{index + 1} or more",
        )
    mask = read_half(paths[index])
    if tuple(mask.shape) != footage.size:
        raise UserError(
            f"{paths[index]}: the mask does not have the size of the clip",
            came=f"{mask.shape[1]}x{mask.shape[0]}",
            expected=f"{footage.size[1]}x{footage.size[0]}",
        )
    return mask


def _entries(path: Path) -> list[object]:
    text, complaints = decoded(path)
    if complaints:
        raise UserError(f"{path}: cannot be read", came=complaints[0][1])
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON", came=error, todo="download it again") from error
    if not isinstance(found, list):
        raise UserError(f"{path}: not a list of edits", came=type(found).__name__, expected="a JSON list")
    return found


def _rows(
    entries: Sequence[object], edit: int, root: Path, taken: set[str], complaints: list[Complaint]
) -> Iterator[Row]:
    """An entry may say its own kind; else it is that of its file."""
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            complaints.append((number, "an edit must be an object with fields"))
            continue
        lacking = [name for name in NEEDED if not isinstance(entry.get(name), str) or not entry[name].strip()]
        if lacking:
            complaints.append((number, f"field '{lacking[0]}' is missing, empty or not text"))
        kind = KINDS.get(str(entry.get("editing_type_id", edit)))
        if kind is None:
            complaints.append((number, f"editing_type_id {entry['editing_type_id']!r} is none of 1 to 6"))
        elif not lacking:
            yield _row(number, entry, kind, root, taken)


def _row(number: int, entry: Mapping[str, str], edit: int, root: Path, taken: set[str]) -> Row:
    name = entry["video_name"].strip()
    source, target = (_plain(entry[each]) for each in ("source_prompt", "target_prompt"))
    frames, video = f"images/{name}", f"videos/{name}.mp4"
    use_video = not fault(name) and not (root / frames).exists() and (root / video).is_file()
    id, again = f"{slug(name)}-edit{edit}", 1
    while id.lower() in taken:
        again += 1
        id = f"{slug(name)}-edit{edit}-{again}"
    taken.add(id.lower())
    values: dict[str, object] = {"id": id, "clip": video if use_video else frames, "kind": KIND_OF[edit]}
    return Row(number, values | {"source": source, "target": target, "words": edited_words(source, target)})


def _plain(prompt: str) -> str:
    return " ".join(prompt.replace("[", "").replace("]", "").split())
