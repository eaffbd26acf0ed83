"""One task from clip to row: edit, check, measure, keep the pictures. A failure is a row too."""

import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from evaluation.case import Case
from evaluation.suite import Suite
from experiments import environment, memory, seeds
from experiments.sheets import beside, contact_sheet, veiled
from experiments.store import RunStore
from freemask.data.write import to_bytes, write_video
from freemask.errors import UserError
from freemask.types import Backbone, Clip, DataSource, Edit, EditTask, Method, Progress, silent

# For the makers of libraries, not for readers of a row.
CHORES = (DeprecationWarning, FutureWarning, PendingDeprecationWarning, ResourceWarning)


@dataclass
class Bench:
    """Everything a worker needs. `about` goes into every row (method's name, steps, identity)."""

    backbone: Backbone
    method: Method
    suite: Suite
    seed: int
    about: Mapping[str, Any]

    def edit(self, task: EditTask, data: DataSource, progress: Progress = silent) -> "Outcome":
        """Never raises for a task's own fault: look at the row's status."""
        outcome = Outcome(task, self._head(task))
        memory.reset_peaks()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self._work(outcome, data, progress)
            except Exception as error:
                outcome.fail(error)
        texts = [*outcome.warnings, *(str(each.message) for each in caught if _worth_telling(each))]
        outcome.row |= {
            "warnings": list(dict.fromkeys(texts)),
            "seconds": outcome.seconds,
            "peak_rss_gb": memory.peak_rss_gb(),
            "peak_gpu_gb": memory.peak_gpu_gb(),
            "finished": datetime.now(UTC).isoformat(timespec="microseconds"),
        }
        return outcome

    def _work(self, outcome: "Outcome", data: DataSource, progress: Progress) -> None:
        task = outcome.task
        with outcome.timed("load"):
            outcome.clip = clip = data.clip(task)
            outcome.oracle, region = data.oracle(task), data.region(task)
        started = perf_counter()
        try:
            edit = self.method(self.backbone, clip, task, seeds.generator(self.seed, task.id), progress)
        finally:
            outcome.seconds["edit"] = perf_counter() - started
        # Stages never overlap, so that their sum is the task's time: `edit` is what the method did not name.
        rest = outcome.seconds["edit"] - sum(edit.seconds.values())
        outcome.seconds |= {"edit": max(0.0, rest), **edit.seconds}
        outcome.edit = edit
        outcome.warnings += edit.warnings
        _refuse_broken(edit)
        with outcome.timed("metrics"):
            progress("metrics", 0, 1)
            case = Case(
                source=clip.frames.cpu(),
                edited=edit.frames.detach().float().cpu(),
                task=task,
                oracle=outcome.oracle,
                region=region,
                masks=clip.masks,
            )
            measured = self.suite(case)
        shape, facts = list(clip.frames.shape), dict(edit.facts)
        outcome.row |= {"status": "done", "frames": shape, "facts": facts, **measured.row()}

    def _head(self, task: EditTask) -> dict[str, Any]:
        commit, dirty = environment.commit()
        return {
            "task": task.id,
            "clip": task.clip,
            "kind": task.kind,
            "source": task.source,
            "target": task.target,
            "words": dict(task.words),
            **self.about,
            "status": "failed",
            "message": "",
            "metrics": {},
            "facts": {},
            "seed": self.seed,
            "commit": commit,
            "dirty": dirty,
            "versions": environment.versions(),
            "device": environment.device_name(str(self.backbone.device)),
            "dtype": str(self.backbone.dtype).removeprefix("torch."),
        }


@dataclass
class Outcome:
    """A row, and what the pictures are made of where the edit succeeded."""

    task: EditTask
    row: dict[str, Any]
    clip: Clip | None = None
    edit: Edit | None = None
    oracle: Float[Tensor, "f 3 h w"] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = perf_counter() - started

    def fail(self, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        known = isinstance(error, UserError)
        self.row |= {
            "status": "failed",
            "message": str(error) if known else f"{type(error).__name__}: {error}",
            "where": "" if known else f"{Path(where.filename).name}:{where.lineno}",
        }

    def masks(self) -> dict[str, Float[Tensor, "f h w"]]:
        """The method's masks by name, 1 where the edit may change pixels."""
        assert self.edit is not None
        return {name: each for name, each in self.edit.extras.items() if _is_mask(name)}

    def clips(self) -> dict[str, Float[Tensor, "f 3 h w"]]:
        """What is shown: the source, where it may change, the edit, and the true answer where it is known."""
        assert self.clip is not None and self.edit is not None
        veiled_by = {name: veiled(self.clip.frames, each) for name, each in self.masks().items()}
        shown = {"source": self.clip.frames, **veiled_by, "edited": self.edit.frames}
        return shown if self.oracle is None else shown | {"true answer": self.oracle}

    def captions(self) -> dict[str, str]:
        return {
            "source": self.task.source,
            "edited": self.task.target,
            **dict.fromkeys(self.masks(), "clear inside the mask"),
        }

    def arrays(self) -> dict[str, Any]:
        """Masks as bytes, 255 where the edit may change pixels, for an npz."""
        return {
            name: each.detach().float().mul(255).round().byte().cpu().numpy()
            for name, each in self.masks().items()
        }


def keep_files(store: RunStore, outcome: Outcome) -> dict[str, Path]:
    """Lossless frames, two videos and a contact sheet of a task that is done."""
    clip, edit, task = outcome.clip, outcome.edit, outcome.task
    if clip is None or edit is None or outcome.row["status"] != "done":
        return {}
    files = {
        "frames": store.file("frames", task.id, ".npz"),
        "edited": store.file("videos", task.id, ".mp4"),
        "video": store.file("videos", task.id, ".side-by-side.mp4"),
        "sheet": store.file("sheets", task.id, ".png"),
    }
    with files["frames"].open("wb") as file:
        np.savez_compressed(file, frames=to_bytes(edit.frames), **outcome.arrays())
    write_video(files["edited"], edit.frames, clip.fps)
    write_video(files["video"], beside(outcome.clips()), clip.fps)
    contact_sheet(files["sheet"], outcome.clips(), outcome.captions())
    return files


def _is_mask(name: str) -> bool:
    return name.split(" ")[0] == "mask"


def _refuse_broken(edit: Edit) -> None:
    frames = edit.frames
    for name, each in edit.extras.items():
        grid = (len(frames), *frames.shape[-2:])
        if _is_mask(name) and (tuple(each.shape) != grid or not bool(((each >= 0) & (each <= 1)).all())):
            raise ValueError(f"'{name}' is no mask of {grid} in 0..1, but {tuple(each.shape)}")
    if not bool(frames.isfinite().all()):
        raise UserError(
            "the edit holds values that are not numbers", came="NaN or infinity", todo="model.dtype=float32"
        )
    if float(frames.max()) < 1 / 255:
        raise UserError(
            "the edit is black", came="every pixel is 0", todo="model.dtype=float32, or less guidance"
        )


def _worth_telling(caught: warnings.WarningMessage) -> bool:
    return not issubclass(caught.category, CHORES)
