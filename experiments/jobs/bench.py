"""One task from clip to row: edit, check, measure. A failure is a row too."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from torch import Tensor

from evaluation.case import Case
from evaluation.suite import Suite
from experiments.jobs import seeds, thrift
from experiments.jobs.head import head
from experiments.jobs.outcome import Outcome as Outcome
from experiments.jobs.outcome import is_mask
from experiments.jobs.outcome import keep_files as keep_files
from experiments.runs import environment
from freemask import memory
from freemask.errors import UserError
from freemask.types import Backbone, DataSource, Edit, EditTask, Method, Progress, silent

# For the makers of libraries, not for readers of a row.
CHORES = (DeprecationWarning, FutureWarning, PendingDeprecationWarning, ResourceWarning)
SPENT = "out of memory"  # the stage that the seconds of a first try go to


@dataclass
class Bench:
    """Everything a worker needs. `about` goes into every row (method's name, steps, identity)."""

    backbone: Backbone
    method: Method
    suite: Suite
    seed: int
    about: Mapping[str, Any]

    def edit(self, task: EditTask, data: DataSource, progress: Progress = silent) -> Outcome:
        """Never raises for a task's own fault: look at the row's status."""
        outcome = Outcome(task, self._head(task))
        retried = None
        with memory.Meter(self.backbone.device) as meter, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if not self._enough(self.method, outcome, data, progress):
                spent, message = sum(outcome.seconds.values()), outcome.row["message"]
                outcome = Outcome(task, self._head(task), seconds={SPENT: spent})
                meter.stages.clear()
                thrift.free()
                with thrift.thrifty(self.backbone, self.method) as (method, changed):
                    self._enough(method, outcome, data, progress, todo=thrift.TODO)
                retried = {"message": message, "changed": changed}
        texts = [*outcome.warnings, *(str(each.message) for each in caught if _worth_telling(each))]
        outcome.row |= {
            "warnings": list(dict.fromkeys(texts)),
            "seconds": outcome.seconds,
            "peak": meter.record(),
            "peak_rss_gb": meter.whole.rss_gb,
            "peak_gpu_gb": meter.whole.gpu_gb,
            "retried": retried,
            "finished": datetime.now(UTC).isoformat(timespec="microseconds"),
        }
        return outcome

    def _enough(
        self, method: Method, outcome: Outcome, data: DataSource, progress: Progress, todo: str = ""
    ) -> bool:
        """One try; False where memory ran out. The error dies here, and with it the tensors that it holds."""
        try:
            self._work(method, outcome, data, progress)
        except Exception as error:
            enough = not thrift.ran_out(error)
            outcome.fail(error, "" if enough else todo)
            return enough
        return True

    def _work(self, method: Method, outcome: Outcome, data: DataSource, progress: Progress) -> None:
        task = outcome.task
        with outcome.timed("load"):
            outcome.clip = clip = data.clip(task)
            outcome.oracle, region = data.oracle(task), data.region(task)
            flow = exact_flow(data, task)
        started = perf_counter()
        try:
            with memory.stage("edit"):
                edit = method(self.backbone, clip, task, seeds.generator(self.seed, task.id), progress)
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
                mask=outcome.masks().get("mask"),
                flow=flow,
            )
            measured = self.suite(case)
        shape, facts = list(clip.frames.shape), dict(edit.facts)
        outcome.row |= {"status": "done", "frames": shape, "facts": facts, **measured.row()}

    def _head(self, task: EditTask) -> dict[str, Any]:
        device = environment.device_name(str(self.backbone.device))
        dtype = str(self.backbone.dtype).removeprefix("torch.")
        return head(task, self.about, seed=self.seed, device=device, dtype=dtype)


def exact_flow(data: DataSource, task: EditTask) -> Sequence[Tensor] | None:
    """The source's motion, of a data source that knows it (as `Case.flow`)."""
    known = getattr(data, "flow", None)
    return None if known is None else known(task)


def _refuse_broken(edit: Edit) -> None:
    frames = edit.frames
    for name, each in edit.extras.items():
        grid = (len(frames), *frames.shape[-2:])
        if is_mask(name) and (tuple(each.shape) != grid or not bool(((each >= 0) & (each <= 1)).all())):
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
