"""Frames of finished edits for a figure: what runs have kept of them, and of the clips that they began with."""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from evaluation.papers import name_of
from experiments.runs.rows import ROWS, row_files, row_of
from experiments.tables.rows import stores
from freemask.errors import UserError

GAP, LINE, MOST = 6, 22, 8  # as contact sheets are drawn (experiments/sheets.py)
Frames = UInt8[np.ndarray, "f h w 3"]


@dataclass(frozen=True)
class Kept:
    """A finished edit whose frames are there."""

    folder: Path
    line: str
    task: str
    kind: str
    source: str
    target: str
    files: Mapping[str, str]

    def edited(self, count: int) -> list[np.ndarray]:
        """So many of its frames, evenly spread."""
        path = self.folder / self.files["frames"]
        try:
            with np.load(path) as stored:
                frames = stored["frames"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError("stored frames cannot be read", came=f"{path}: {error}") from error
        return [frames[place] for place in _spread(len(frames), count)]

    def clip(self, count: int) -> list[np.ndarray] | None:
        """The same frames of the source, from the first row of the contact sheet."""
        path = self.folder / self.files.get("sheet", "")
        if not path.is_file():
            return None
        first = self.edited(1)[0]
        with Image.open(path) as sheet:
            return _thumbs(np.asarray(sheet.convert("RGB")), self._frames(), first.shape[:2], count)

    def _frames(self) -> int:
        with np.load(self.folder / self.files["frames"]) as stored:
            return len(stored["frames"])


def kept(runs: Iterable[Path]) -> list[Kept]:
    """In the order of tasks; of several rows of one task and line, the last."""
    last: dict[tuple[str, str], tuple[str, Path, Mapping[str, Any]]] = {}
    for store in (each for run in runs for each in stores(run)):
        for path in row_files(store / ROWS):
            with path.open("rb") as file:
                for row in filter(None, map(row_of, file)):
                    key, moment = (name_of(row), row["task"]), str(row.get("finished") or "")
                    if key not in last or moment >= last[key][0]:
                        last[key] = (moment, store, row)
    found = [_kept(name, folder, row) for (name, _), (_, folder, row) in last.items()]
    return sorted((each for each in found if each is not None), key=lambda each: each.task)


def _kept(name: str, folder: Path, row: Mapping[str, Any]) -> Kept | None:
    files = row.get("files")
    if row["status"] != "done" or not isinstance(files, dict) or not isinstance(files.get("frames"), str):
        return None
    paths = {key: each for key, each in files.items() if isinstance(each, str) and _inside(folder, each)}
    if "frames" not in paths or not (folder / paths["frames"]).is_file():
        return None
    kind, source, target = (str(row.get(key) or "") for key in ("kind", "source", "target"))
    return Kept(folder, name, row["task"], kind, source, target, paths)


def _inside(folder: Path, path: str) -> bool:
    return (folder / path).resolve().is_relative_to(folder.resolve())


def _thumbs(sheet: np.ndarray, frames: int, size: Sequence[int], count: int) -> list[np.ndarray] | None:
    """Pictures of a contact sheet's first row. Its columns are all equally wide; a title may stand above."""
    columns = min(MOST, frames)
    wide = (sheet.shape[1] - GAP) // columns - GAP
    high = round(wide * size[0] / size[1])
    top = GAP + LINE
    if wide < 1 or sheet.shape[0] < top + high:
        return None
    shown = [round(place * (columns - 1) / max(1, frames - 1)) for place in _spread(frames, count)]
    lefts = (GAP + place * (wide + GAP) for place in shown)
    return [sheet[top : top + high, left : left + wide] for left in lefts]


def _spread(length: int, count: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, length - 1, min(count, length))})
