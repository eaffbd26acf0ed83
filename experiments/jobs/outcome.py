"""What one edit came to: its row, and the pictures of it where it succeeded."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from experiments.jobs import captions
from experiments.jobs.attempt import Attempt
from experiments.jobs.pictures import beside, contact_sheet, outlined, veiled
from experiments.runs.rows import cannot_write
from experiments.runs.store import RunStore
from freemask.data.write import to_bytes, write_video
from freemask.methods.in_turn import AFTER
from freemask.types import Clip, Edit, EditTask

PICTURE = "picture "  # how diagnostics begin that are pictures


@dataclass(kw_only=True)
class Outcome(Attempt):
    """An attempt at a task, and what the pictures are made of where it succeeded."""

    task: EditTask
    clip: Clip | None = None
    edit: Edit | None = None
    oracle: Float[Tensor, "f 3 h w"] | None = None
    said: dict[str, str] = field(
        default_factory=dict
    )  # what was told before the edit: lines by name, and notes

    def masks(self) -> dict[str, Float[Tensor, "f h w"]]:
        """The method's masks by name, 1 where the edit may change pixels."""
        assert self.edit is not None
        return {name: each for name, each in self.edit.extras.items() if is_mask(name)}

    def clips(self) -> dict[str, Float[Tensor, "f 3 h w"]]:
        """What is shown: the source, where it may change, the edit, and the true answer where it is known."""
        assert self.clip is not None and self.edit is not None
        shown = {"source": self.clip.frames}
        for name, mask in self.masks().items():
            draw = veiled if captions.holds_pixels(self.edit.facts) else outlined
            shown[self._panel(name)] = draw(self.clip.frames, mask)
        shown["edited"] = self.edit.frames
        return shown if self.oracle is None else shown | {"true answer": self.oracle}

    def captions(self) -> dict[str, str]:
        assert self.edit is not None
        means = captions.of_mask(self.task, self.edit.facts)
        own = "of this edit alone"  # where each of several has its own
        masks = {self._panel(name): means if name == "mask" else own for name in self.masks()}
        return {"source": self.task.source, **masks, "edited": self.task.target}

    def _panel(self, name: str) -> str:
        """A mask's name in pictures. The page knows it by its first word."""
        assert self.edit is not None
        return name if captions.holds_pixels(self.edit.facts) else f"{name} (attention)"

    def pictures(self) -> dict[str, Float[Tensor, "3 h w"]]:
        """What the method names as pictures of its own."""
        assert self.edit is not None
        named = {name: each for name, each in self.edit.extras.items() if name.startswith(PICTURE)}
        return {name.removeprefix(PICTURE): each.detach().float().cpu() for name, each in named.items()}

    def arrays(self) -> dict[str, Any]:
        """For an npz: masks as bytes, 255 where the edit may change pixels, and what edits have left that others
        followed."""
        assert self.edit is not None
        masks = {
            name: each.detach().float().mul(255).round().byte().cpu().numpy()
            for name, each in self.masks().items()
        }
        left = {name: each for name, each in self.edit.extras.items() if name.startswith(AFTER)}
        return masks | {name: to_bytes(each) for name, each in left.items()}


def is_mask(name: str) -> bool:
    return name.split(" ")[0] == "mask"


def keep_files(store: RunStore, outcome: Outcome) -> dict[str, Path]:
    """Lossless frames of edit and source, two videos and a contact sheet of a task that is done; the row names what
    these show. Pictures that cannot be made lose no numbers; a disk that takes nothing is an error."""
    clip, edit, task = outcome.clip, outcome.edit, outcome.task
    if clip is None or edit is None or outcome.row.get("status") != "done":
        return {}
    try:
        files = {
            "frames": store.file("frames", task.id, ".npz"),
            "source": store.file("sources", f"{task.clip} {list(clip.frames.shape)}", ".npz"),
            "edited": store.file("videos", task.id, ".mp4"),
            "video": store.file("side-by-side", task.id, ".mp4"),
            "sheet": store.file("sheets", task.id, ".png"),
        }
        with whole(files["frames"]) as part:
            arrays: Mapping[str, Any] = outcome.arrays()
            np.savez_compressed(part, frames=to_bytes(edit.frames), **arrays)
        if not files["source"].exists():  # tasks of one clip share it
            with whole(files["source"]) as part:
                np.savez_compressed(part, frames=to_bytes(clip.frames))
        write_video(files["edited"], edit.frames, clip.fps)
        shown = outcome.clips()
        outcome.row["panels"] = list(shown)
        if outcome.masks():
            outcome.row["sought"] = captions.sought(task, edit.facts)
        write_video(files["video"], beside(shown), clip.fps)
        with whole(files["sheet"]) as part:
            contact_sheet(part, shown, outcome.captions(), captions.about(outcome.row))
    except OSError as error:
        raise cannot_write(store.folder, error) from error
    except Exception as error:
        outcome.row["warnings"] = [*outcome.row.get("warnings", ()), f"its pictures cannot be made: {error}"]
        return {}
    return files


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, of the same ending; what was written gets the real name only when it is complete."""
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
