"""The work of `freemask evaluate RUN`: the stored frames of edits, measured again. New rows beside the old ones, which
stay."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.suite import Suite
from experiments.config.build import build
from experiments.config.fingerprint import Identity, digest
from experiments.config.identity import counted
from experiments.jobs.attempt import Attempt
from experiments.jobs.job import TOLD, Done, Job, Lane
from experiments.jobs.stored import frames_of, measured_again
from experiments.jobs.truth import Truth
from experiments.runs.plan import Item, Plan, Variant
from experiments.runs.record import Record
from experiments.runs.rows import Brief, Row
from experiments.runs.run import Run
from freemask.errors import UserError
from freemask.types import DataSource, EditTask, Progress


def not_measured(edits: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A line for each reason, from edits that are not measured and why."""
    reasons: dict[str, list[str]] = {}
    for what, why in edits:
        reasons.setdefault((why.splitlines() or ["?"])[0], []).append(what)
    for why, tasks in reasons.items():
        more = f" and {len(tasks) - 20} more" if len(tasks) > 20 else ""
        yield f"not measured, {len(tasks)}: {why}: {', '.join(tasks[:20])}{more}"


def what_is_left(run: Run, metric: Any, redo: bool) -> tuple[list[Item], int, list[tuple[str, str]]]:
    """What is to be measured, how many edits have all numbers already, and what cannot be measured, with the reason."""
    suite, mark = Suite(build(metric, "metric")), digest(metric)
    marks: dict[str, dict[str, str]] = {}
    ready, left = 0, []
    for name, store in run.stores.items():
        for task, row in store.latest().items():
            what, named = task if name is None else f"{name}/{task}", row.get("files", {}).get("frames")
            if row["status"] != "done":
                left.append((what, "the edit failed, there is nothing to measure"))
            elif not redo and set(suite.columns) <= set(row.get("metrics") or {}):
                ready += 1
            elif named is None or not (store.folder / named).is_file():
                left.append((what, "its frames were not kept (keep=all keeps them)"))
            else:
                marks.setdefault(task, {})[name or ""] = mark
    return [Item(task, {}, each) for task, each in sorted(marks.items())], ready, left


def data_of(run: Run, chosen: Mapping[str, Any], *, own_data: bool) -> Mapping[str, Any]:
    """The data of the run; that of the command line must be the same, places aside."""
    plans = [each for each in run.plans() if each.get("job") in ("edit", "outside")]
    known = plans[-1]["variants"][0]["config"].get("data") if plans else None
    if known is None:
        return chosen
    if own_data:
        try:
            build(known, "data")
        except UserError as error:
            wrong = f"the data of {run.folder} cannot be opened: {error.wrong}"
            todo = "name it as for the run: data=... data.root=..."
            raise UserError(wrong, came=error.came, expected=error.expected, todo=todo) from error
        return known
    there, here = counted(known), counted(chosen)
    differing = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))[:4]
    if differing:
        shown = "; ".join(f"data.{key}: {there.get(key)} there, {here.get(key)} here" for key in differing)
        expected = "the data of the run: frames are compared with their own sources"
        todo = "leave out data=... to take the run's own, or give every data setting that the run was given"
        raise UserError(f"{run.folder} was made of other data", came=shown, expected=expected, todo=todo)
    return chosen


def plan_of(run: Run, items: Sequence[Item], config: Mapping[str, Any]) -> Plan:
    """For the variants that have something to measure; they stay what they are."""
    wanted = [name for name in run.stores if any(item.mark(name) is not None for item in items)]
    records = {name: Record.read(run.stores[name].folder) for name in wanted}
    variants = [
        Variant(name, each.overrides, each.choices, config, Identity(each.parts))
        for name, each in records.items()
    ]
    return Plan("evaluate", variants, items)


class EvaluateJob(Job):
    def brief(self, row: Row) -> Brief:
        found = row.get("evaluation") or {}
        return Brief(str(found.get("status", "")), str(row.get("finished", "")), str(found.get("mark", "")))

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
        made = {**new, "evaluation": told, "edited_at": row.get("edited_at") or row.get("finished")}
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
        if _told(row) != _told(task.plain()):
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


def _told(task: Mapping[str, Any]) -> list[Any]:
    """What a row says of its task; regions by their names alone, for folders may move."""
    edits = [{**edit, "region": Path(edit["region"]).name} for edit in task.get("edits") or ()]
    return [edits if key == "edits" else task.get(key) for key in TOLD]
