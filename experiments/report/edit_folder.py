"""The folder of one edit: its name, the videos or the picture left in it, and what the terminal says of them."""

import json
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from evaluation.column import Column
from evaluation.tables.numbers import fact, number
from experiments.config.identity import Identity, counted, files_of, method_of, tuning_of
from experiments.jobs.captions import about
from experiments.jobs.explain import asked, explained, others
from experiments.jobs.outcome import Outcome
from experiments.jobs.pictures import GAP, PAPER, beside, contact_sheet, with_lines
from experiments.runs.plan import Variant
from experiments.runs.record import RECORD
from experiments.runs.rows import file_name
from experiments.runs.store import RunStore
from freemask.data import images, video
from freemask.data.task_fill import slug
from freemask.data.write import to_bytes, write_frames, write_video
from freemask.errors import UserError
from freemask.types import EditTask

# Places, what the method refers to, and who says what the clip shows (the prompt itself counts): no part of what an
# edit is.
NO_PART = (
    "paths",
    "logger",
    "speed",
    "out",
    "mask",
    "fusion",
    "flow",
    "first_frame",
    "interpolation",
    "tuning",
    "task",
    "captions",
)


def folder_of(config: Mapping[str, Any], out: str | None, task: EditTask, variant: Variant) -> Path:
    return place_of(config, out, task, f"{variant.choices['method']}-{variant.identity.hash[:8]}")


def place_of(config: Mapping[str, Any], out: str | None, task: EditTask, what: str) -> Path:
    """Named after the clip's file, not after the way to it: `what` tells apart. Refused where no folder can be: an edit
    would be made that cannot be kept."""
    if out is None:
        name = file_name(f"{slug(Path(task.clip).name)}-{what}")
        place = Path(config["paths"]["runs"]).expanduser() / "edits" / name
    else:
        place = Path(out).expanduser()
    if place.is_file() or (
        place.suffix.lower() in (*video.SUFFIXES, *images.SUFFIXES) and not place.is_dir()
    ):
        came = f"out={place}" + (", a file" if place.is_file() else "")
        expected = "a folder: edited.mp4, the pictures and the row lie in it"
        raise UserError("out names a folder, not a file", came=came, expected=expected)
    if (place / RECORD).exists():
        wrong, expected = (
            "there lies a run, whose tables and page an edit would mix with",
            "a folder of its own",
        )
        raise UserError(wrong, came=f"out={place}", expected=expected, todo="out=FOLDER names another place")
    made: list[Path] = []
    try:
        for each in (*reversed(place.parents), place):
            if not each.exists():
                each.mkdir()
                made.append(each)
    except OSError as error:
        came, todo = f"{place}: {error.strerror}", "out=FOLDER names another place"
        raise UserError("no folder can be made there", came=came, todo=todo) from error
    finally:
        for each in reversed(made):
            each.rmdir()
    return place


def make_room(folder: Path, row: Mapping[str, Any]) -> list[str]:
    """Takes away the files of another edit that lies there, whose row stays; says which."""
    others = sorted(RunStore(folder).rows(), key=lambda each: str(each.get("finished", "")))
    if not others or others[-1].get("run") == row.get("run"):
        return []
    for each in {Path(file).name for other in others for file in (other.get("files") or {}).values()}:
        place = folder / each
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
    return [f"replaces the files of another edit there: {asked(others[-1])}"]


def edit_identity(
    config: Mapping[str, Any], task: EditTask, choices: Mapping[str, str | None] | None = None
) -> Identity:
    """Everything that was said and changes a number, prompts too. `choices` make advice exact."""
    said = {key: counted(each) for key, each in config.items() if key not in NO_PART}
    said |= tuning_of(config)
    said |= {"method": method_of(config, (choices or {}).get("model"))}
    said |= {"prompts": [task.id, task.source, task.target]}
    said |= {"files": files} if (files := files_of(task)) else {}
    return Identity(json.loads(json.dumps(said, default=str)))


def leave(folder: Path, outcome: Outcome) -> dict[str, Path]:
    """Of several frames two videos, of one a picture; of both a sheet, the frames and the masks, and what other
    pictures the method names."""
    if outcome.row["status"] != "done" or outcome.clip is None or outcome.edit is None:
        return {}
    frames, clips = outcome.edit.frames, outcome.clips()
    files = {"frames": folder / "frames", "sheet": folder / "contact-sheet.png"}
    write_frames(files["frames"], frames)
    if len(frames) == 1:
        files["edited"] = folder / "edited.png"
        Image.fromarray(to_bytes(frames)[0]).save(files["edited"])
    else:
        files |= {"edited": folder / "edited.mp4", "video": folder / "side-by-side.mp4"}
        write_video(files["edited"], frames, outcome.clip.fps)
        write_video(files["video"], beside(clips), outcome.clip.fps)
    write_sheet(files["sheet"], outcome)
    if outcome.masks():
        files["masks"] = folder / "masks.npz"
        np.savez_compressed(files["masks"], **outcome.arrays())
    named = {name: files[name] for name in ("edited", "video", "sheet", "frames", "masks") if name in files}
    for name, picture in outcome.pictures().items():
        named[name] = folder / f"{name.replace(' ', '-')}.png"
        Image.fromarray(to_bytes(picture[None])[0]).save(named[name])
    return named


def write_sheet(path: Path, outcome: Outcome) -> None:
    clips = outcome.clips()
    one = all(len(frames) == 1 for frames in clips.values())
    (picture_sheet if one else contact_sheet)(path, clips, outcome.captions(), about(outcome.row))


def picture_sheet(
    path: Path,
    clips: Mapping[str, Float[Tensor, "f 3 h w"]],
    captions: Mapping[str, str],
    about: Sequence[str] = (),
) -> None:
    """The first frames beside each other, and below them the captions in full and what the edit is."""
    row = Image.fromarray(to_bytes(beside({name: frames[:1] for name, frames in clips.items()}))[0])
    sheet = Image.new("RGB", (row.width + 2 * GAP, row.height + GAP), PAPER)
    sheet.paste(row, (GAP, 0))
    lines = [f"{name}: {words}" for name, words in captions.items() if words]
    with_lines(sheet, [*lines, *about]).save(path)


def tell_before(outcome: Outcome) -> None:
    """What is known before the long part."""
    row = outcome.row
    print(asked(row))
    _lines(explained(row))
    _notes(outcome.warnings)
    outcome.said = {**explained(row), **dict.fromkeys(outcome.warnings, "")}


def tell(folder: Path, outcome: Outcome, files: Mapping[str, Path]) -> int:
    """The rest: what came out, and what of the edit was not known before."""
    row = outcome.row
    if row["status"] != "done":
        todo = f"see the row in {folder / 'rows'}, which holds the details"
        raise UserError(f"the edit failed: {row.get('message')}", todo=todo)
    _lines({name: text for name, text in explained(row).items() if outcome.said.get(name) != text})
    for name, value in row.get("metrics", {}).items():
        if value is not None:
            arrow = Column.of(name, outcome.columns.get(name) or {}).arrow
            print(f"  {name:<24} {number(value):<8} {arrow}".rstrip())
    for name, value in others(row.get("facts", {})).items():
        print(f"  {name:<24} {fact(value)}")
    _notes([*row.get("warnings", ()), *row.get("metric_warnings", ())], outcome.said)
    _lines({name: str(path) for name, path in files.items()})
    return 0


def _lines(said: Mapping[str, str]) -> None:
    for name, text in said.items():
        print(f"  {name:<10} {text}")


def _notes(notes: Iterable[str], said: Collection[str] = ()) -> None:
    for note in dict.fromkeys(notes):
        if note not in said:
            print(f"  note: {note}")
