"""What every start of a run does, whatever the kind of work: refuse what does not fit, freeze the plan, let the engine
work, tell loggers and screen, and hand back the last row of every item."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.config.build import build
from experiments.config.fingerprint import digest, refuse_other_version
from experiments.engines.base import Engine, Listener, View
from experiments.jobs.job import Lane, open_lanes
from experiments.loggers.base import Guarded, Logger
from experiments.runs.plan import Launch, Plan
from experiments.runs.progress import reporting
from experiments.runs.record import RECORD, Record
from experiments.runs.rows import Row, now
from experiments.runs.run import Run
from experiments.runs.store import RunStore
from freemask.errors import UserError

Closing = Callable[[list[Row], Guarded], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Order:
    """What a command wants done. `typed`: the overrides of the whole run. `redo`: do again what has failed, or with
    `whole` everything. `unit` is what an item is called on the screen; `closing` makes of the last rows what the
    loggers see at the end."""

    plan: Plan
    folder: Path
    reference: str | None = None
    typed: Sequence[str] = ()
    keep: str = "all"
    redo: bool = False
    whole: bool = False
    unit: str = "tasks"
    notes: Sequence[str] = ()
    closing: Closing = lambda rows, logger: rows


@dataclass(frozen=True)
class Ended:
    """After a start. `rows` are the last ones of the plan's items, files as seen from the run's folder; `left` items
    have none. `speaks`: whether this process is the one that tells the user."""

    run: Run
    rows: list[Row]
    left: int
    speaks: bool


def carry_out(order: Order, config: Mapping[str, Any], engine: Engine) -> Ended:
    prepare(order)
    launch = _launch(order)
    lanes = open_lanes(order.plan, launch)
    mine = engine.share(order.plan.items)
    left, every = sum(lane.needs(item) for lane in lanes for item in mine), order.plan.size
    with reporting(left if engine.rank == 0 else 0, order.unit) as reporter:
        logger = Guarded(build(config["logger"], "logger") if engine.rank == 0 else Logger(), reporter.say)
        logger.start(order.folder, record_of(order.plan))
        ready = [f"{every - left} of {every} {order.unit} need no work here"] if left < every else []
        for line in [*order.notes, *ready] if engine.rank == 0 else ():
            reporter.say(line)
        view = View(launch, lanes, order.plan.items, Listener(reporter, logger, left))
        over = not left or engine.work(view)
        rows = last_rows(order)
        logger.end(order.closing(rows, logger))
    missing = every - len(rows)
    return Ended(Run.open(order.folder), rows, missing, over and (engine.rank == 0 or not missing))


def prepare(order: Order) -> None:
    """A folder that holds something else is refused before anything is written into it."""
    plan, folder = order.plan, order.folder
    plain_run = plan.variants[0].name is None
    known = Record.read(folder) if (folder / RECORD).exists() else None
    if known is not None and known.variants is None:
        refuse_other_version(known.told, folder)
    if known is not None and plan.job not in (known.job, "evaluate"):
        raise UserError(
            f"{folder} holds another kind of run",
            came=f"{plan.job}, where {known.job} was",
            todo="choose another name=...",
        )
    if known is not None and plain_run is (known.variants is not None):
        there, here = ("variants", "one configuration") if plain_run else ("one configuration", "variants")
        raise UserError(
            f"{folder} holds a run of {there}", came=f"a run of {here}", todo="choose another name=..."
        )
    for each in plan.variants:
        place = each.folder(folder)
        if (place / RECORD).exists():
            each.identity.compare(Record.read(place).told, place)
    for each in plan.variants:
        record = Record(plan.job, each.identity.record(), each.choices, each.overrides)
        RunStore.open(each.folder(folder), each.identity, record)
    if not plain_run:
        listed = {
            **((known and known.variants) or {}),
            **{str(each.name): each.overrides for each in plan.variants},
        }
        began = known or Record(plan.job, overrides=order.typed)
        replace(began, variants=listed, reference=order.reference).write(folder)


def told(order: Order) -> dict[str | None, int]:
    """How much each variant has left to do; the plan is frozen, nothing is begun."""
    prepare(order)
    lanes = open_lanes(order.plan, _launch(order))
    return {lane.variant.name: _left(lane, order.plan) for lane in lanes}


def plan_path(order: Order) -> str:
    return os.path.relpath(order.plan.write(order.folder))


def last_rows(order: Order) -> list[Row]:
    """Of the plan's items, variant after variant."""
    found = []
    for variant in order.plan.variants:
        latest = RunStore(variant.folder(order.folder)).latest()
        prefix = "" if variant.name is None else f"{variant.name}/"
        wanted = [item.id for item in order.plan.items if item.mark(variant.name) is not None]
        for row in (latest[item] for item in wanted if item in latest):
            row["files"] = {key: prefix + each for key, each in row.get("files", {}).items()}
            found.append(row)
    return found


def record_of(plan: Plan) -> dict[str, Any]:
    """What the whole run is: one configuration, or several by name, the same in whatever order they are listed."""
    if plan.variants[0].name is None:
        return plan.variants[0].identity.record()
    named = {str(each.name): each.identity for each in plan.variants}
    whole = digest({name: own.hash for name, own in named.items()})
    return {"identity": whole, "parts": {name: own.parts for name, own in named.items()}}


def named_folder(config: Mapping[str, Any], name: str) -> Path:
    """Below paths.runs; a name cannot leave it."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise UserError("the name is no folder below paths.runs", came=f"name={name}", expected="name=WORD")
    return Path(config["paths"]["runs"]).expanduser() / name


def _launch(order: Order) -> Launch:
    """The plan is frozen here: from now on nobody looks at the configuration again."""
    path = order.plan.write(order.folder).resolve()
    launch = Launch(path, order.keep, Path.cwd())
    return replace(launch, redo=now(), whole=order.whole) if order.redo else launch


def _left(lane: Lane, plan: Plan) -> int:
    return sum(lane.needs(item) for item in plan.items)
