"""The videos that raters see: those of one clip equally long, all written alike, with nothing in them that tells where
they come from."""

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from experiments.jobs.pictures import enlarged
from experiments.runs.rows import Row
from experiments.study.folder import SOURCE
from experiments.study.gather import Edits, Material
from freemask.data.frames import FrameRange
from freemask.data.open import open_footage
from freemask.data.write import to_bytes, write_video
from freemask.errors import UserError

FOLDER = "clips"
NOISE = 4096  # bytes
MOMENT = 946_684_800  # the first second of 2000: files tell no order by their age


def leave(
    page: Path, material: Material, wanted: Mapping[tuple[str, str], Sequence[str]], rng: random.Random
) -> dict[str, str]:
    """`wanted`: opaque names for each (task, method). Gives the file of each name, below the page's folder. They are
    written in no order that says anything."""
    (page / FOLDER).mkdir(parents=True)
    by_task: dict[str, list[tuple[str, str]]] = {}
    for (task, method), names in wanted.items():
        by_task.setdefault(task, []).extend((method, name) for name in names)
    files = {}
    for task in rng.sample(sorted(by_task), len(by_task)):
        methods = sorted({method for method, _ in by_task[task]})
        clips, fps = together(material, task, methods)
        for method, name in rng.sample(sorted(by_task[task]), len(by_task[task])):
            files[name] = _write(page, name, clips[method], fps, rng)
    return files


def together(
    material: Material, task: str, methods: Sequence[str]
) -> tuple[dict[str, Float[Tensor, "f 3 h w"]], float]:
    """Frames by method, as many of each as the shortest has."""
    by_name = {each.name: each for each in material.methods}
    found: dict[str, Tensor] = {}
    for method in methods:
        edits = material.methods[0] if method == SOURCE else by_name[method]
        found[method] = _frames(edits, edits.rows[task], source=method == SOURCE)
    shortest = min(map(len, found.values()))
    fps = _rate(material.methods[0], material.row(task))
    return {method: frames[:shortest] for method, frames in found.items()}, fps


def _frames(edits: Edits, row: Row, *, source: bool) -> Float[Tensor, "f 3 h w"]:
    files, kind = row.get("files") or {}, "source" if source else "frames"
    kept = edits.folder / files[kind] if kind in files else None
    try:
        if kept is not None and kept.is_file():
            with np.load(kept, allow_pickle=False) as arrays:
                return torch.from_numpy(arrays["frames"]).permute(0, 3, 1, 2).float() / 255
        if not source:
            return open_footage(edits.folder / files["edited"]).frames
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(edits, row, f"{kept}: {error}") from error
    raise _unreadable(edits, row, "the clip that was edited was not kept")


def _rate(edits: Edits, row: Row) -> float:
    """Frames a second, as the run's own video of this task has it."""
    file = (row.get("files") or {}).get("edited")
    if file is None or not (edits.folder / file).is_file():
        return 8.0
    return float(open_footage(edits.folder / file, frames=FrameRange(count=1)).fps)


def _write(page: Path, name: str, frames: Float[Tensor, "f 3 h w"], fps: float, rng: random.Random) -> str:
    """With something in it that no player looks at, and without letters: files of the same frames are not the same."""
    shown, noise = enlarged(frames), bytes(each | 0x80 for each in rng.randbytes(rng.randrange(16, NOISE)))
    path = page / FOLDER / f"{name}{'.png' if len(shown) == 1 else '.mp4'}"
    if len(shown) == 1:
        chunks = PngInfo()
        chunks.add(b"noIs", noise)
        Image.fromarray(to_bytes(shown)[0]).save(path, pnginfo=chunks)
    else:
        write_video(path, shown, fps)
        with path.open("ab") as file:
            file.write((len(noise) + 8).to_bytes(4, "big") + b"free" + noise)
    os.utime(path, (MOMENT, MOMENT))
    return f"{FOLDER}/{path.name}"


def _unreadable(edits: Edits, row: Row, came: str) -> UserError:
    return UserError(
        f"the videos of {row['task']} by {edits.name} cannot be shown",
        came=came,
        expected="the files that the run kept of it",
        todo="run it again with keep=all, or leave it out with tasks=[...]",
    )
