"""What a figure is made of: frames of finished edits and of their clips, codebooks of calibrations, maps of words."""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.tables.papers import name_of
from experiments.figures.mmc import maps, spread
from experiments.jobs.outcome import is_mask
from experiments.jobs.pictures import veiled
from experiments.runs.rows import Row, latest
from experiments.tables.rows import stores
from freemask.data.write import to_bytes
from freemask.errors import UserError
from freemask.masks.codebook import BOOK, Codebook


@dataclass(frozen=True)
class Kept:
    """A finished edit whose frames are there. `kind` is its level, where its task has one."""

    folder: Path
    line: str
    task: str
    kind: str
    source: str
    target: str
    files: Mapping[str, str]
    metrics: Mapping[str, float | None]

    def value(self, name: str) -> float:
        """Of a metric, whatever network it was measured with; what is not known comes last."""
        found = [each for key, each in self.metrics.items() if key.split("[")[0] == name]
        return found[0] if found and found[0] is not None else float("inf")

    def edited(self, count: int) -> list[np.ndarray]:
        """So many of its frames, evenly spread."""
        return _frames(self.folder / self.files["frames"], count)

    def left(self, name: str, count: int) -> list[np.ndarray] | None:
        """What one of several edits has left that others followed (`after edit 1`)."""
        frames = self.arrays.get(name)
        return None if frames is None else [frames[place] for place in spread(len(frames), count)]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return _stored(self.folder / self.files["frames"])

    def clip(self, count: int) -> list[np.ndarray] | None:
        """The same frames of the source, where they were kept."""
        return _frames(self.folder / self.files["source"], count) if "source" in self.files else None

    def masked(self, count: int) -> list[np.ndarray] | None:
        """And with its mask drawn into them, where it had one."""
        frames, stored = self.clip(count), self.arrays
        masks = next((stored[name] for name in sorted(stored) if is_mask(name)), None)
        if frames is None or masks is None:
            return None
        clip = torch.from_numpy(np.stack(frames)).movedim(-1, 1) / 255
        mask = torch.from_numpy(np.stack([masks[place] for place in spread(len(masks), count)])) / 255
        return list(to_bytes(veiled(clip, mask)))


def kept(runs: Iterable[Path]) -> list[Kept]:
    """In the order of tasks; of several rows of one task and line, the last."""
    last: dict[tuple[str, str], tuple[str, Path, Row]] = {}
    for store in (each for run in runs for each in stores(run)):
        for row in latest(store).values():
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
    kind = str(row.get("level") or row.get("kind") or "")
    source, target = (str(row.get(key) or "") for key in ("source", "target"))
    return Kept(folder, name, row["task"], kind, source, target, paths, row.get("metrics") or {})


def _inside(folder: Path, path: str) -> bool:
    return (folder / path).resolve().is_relative_to(folder.resolve())


def _frames(path: Path, count: int) -> list[np.ndarray]:
    stored = _stored(path)
    if "frames" not in stored:
        raise UserError("stored frames cannot be read", came=f"{path}: none are in it")
    frames = stored["frames"]
    return [frames[place] for place in spread(len(frames), count)]


def _stored(path: Path) -> dict[str, np.ndarray]:
    """By name: frames, and masks if it had any."""
    try:
        with np.load(path) as stored:
            return dict(stored)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError("stored frames cannot be read", came=f"{path}: {error}") from error


def books(runs: Iterable[Path]) -> dict[str, tuple[Codebook, Path]]:
    """By model: of a run of several models, or of a single one."""
    found = {}
    for run in runs:
        for path in [*run.glob(BOOK), *sorted(run.glob(f"*/{BOOK}"))]:
            book = Codebook.read(path)
            found[book.model if path.parent == run else path.parent.name] = (book, path.parent)
    return found


def draw_maps(paths: Sequence[Path], book: Codebook, folder: Path) -> bool:
    """Of the first item whose maps were kept; False where none were."""
    for row in latest(folder).values():
        kept = folder / row.get("files", {}).get("maps", "none")
        if kept.is_file():
            for path in paths:
                title = f"'{row.get('word')}' in: {row.get('source')}"
                maps(path, kept, title, (book.best_site, book.best_time))
            return True
    return False
