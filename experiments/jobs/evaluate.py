"""The work of `freemask evaluate RUN`: the stored frames of edits, measured again. New rows beside the old ones, which
stay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from evaluation.suite import Suite
from experiments.config.build import build
from experiments.jobs.attempt import Attempt
from experiments.jobs.job import Done, Lane
from experiments.jobs.stored import frames_of, measured_again, task_of
from experiments.jobs.truth import Truth
from experiments.runs.plan import Item, Plan, Variant
from experiments.runs.rows import Brief, Row, now
from freemask.errors import UserError
from freemask.types import DataSource, EditTask, Progress


class EvaluateJob:
    def brief(self, row: Row) -> Brief:
        found = row.get("evaluation") or {}
        return Brief(str(found.get("status", "")), str(row.get("finished", "")), str(found.get("mark", "")))

    def group(self, variant: Variant) -> str:
        return ""

    def load(self, lanes: Sequence[Lane], plan: Plan, device: str | None, progress: Progress) -> "Evaluating":
        config = lanes[0].variant.config
        suite = Suite(build(config["metric"], "metric"))
        rows = [lane.store.latest() for lane in lanes]
        return Evaluating(lanes, suite, Sources(config["data"]), rows)


JOB = EvaluateJob()


@dataclass
class Evaluating:
    lanes: Sequence[Lane]
    suite: Suite
    sources: "Sources"
    rows: Sequence[Mapping[str, Row]]

    def do(self, place: int, item: Item, progress: Progress) -> Done:
        """A failure keeps the numbers that there are."""
        lane, row = self.lanes[place], self.rows[place][item.id]
        attempt = Attempt({"task": item.id, "status": "failed"})
        with attempt.timed("metrics"):
            attempt.work(partial(self._work, lane, row, attempt))
        new = attempt.row if attempt.row["status"] == "done" else row
        told = {"mark": item.mark(lane.variant.name), "status": attempt.row["status"]}
        told |= {"message": attempt.row.get("message", ""), "seconds": attempt.seconds}
        made = {
            **new,
            "evaluation": told,
            "finished": now(),
            "edited_at": row.get("edited_at") or row.get("finished"),
        }
        return Done(made, {}, attempt.columns)  # pyright: ignore[reportArgumentType]

    def _work(self, lane: Lane, row: Row, attempt: Attempt) -> None:
        frames, mask = frames_of(lane.store.folder, row)
        task, truth = self.sources.truth(row)
        measured = self.suite(truth.case(task, frames, mask))
        again = measured_again(row, measured, self.suite)
        attempt.columns |= again.pop("columns", {})
        attempt.row = again  # pyright: ignore[reportAttributeAccessIssue]


class Sources:
    """A run's data. Clips from files come in the size in which a row's model took them: a source for each size. The
    last truth is kept, since all variants of a task come one after the other."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        first = build(config, "data")
        self._known: dict[str, EditTask] = {task.id: task for task in first.tasks()}
        self._geometry = getattr(first, "geometry", None)
        self._each: dict[tuple[int, ...] | None, DataSource] = {None: first}
        self._last: tuple[str, EditTask, Truth] | None = None

    def truth(self, row: Row) -> tuple[EditTask, Truth]:
        task = self._known.get(row["task"])
        if task is None:
            raise UserError("the data has no such task")
        told, known = task_of(row), (task.clip, task.kind, task.source, task.target, dict(task.words))
        if (told.clip, told.kind, told.source, told.target, dict(told.words)) != known:
            raise UserError("the data has another task of this name")
        key = f"{task.id} {row.get('frames')}"
        if self._last is None or self._last[0] != key:
            self._last = key, task, Truth.of(self._sized(row), task)
        return self._last[1:]

    def _sized(self, row: Row) -> DataSource:
        if self._geometry is None:
            return self._each[None]
        height, width = row["frames"][-2:]  # pyright: ignore[reportTypedDictNotRequiredAccess]
        if (height, width) not in self._each:
            made = build(self._config, "data")
            vars(made)["geometry"] = replace(
                self._geometry, short_side=None, height=height, width=width, multiple=1
            )
            self._each[height, width] = made
        return self._each[height, width]
