"""What every start of a run does, whatever the kind of work: refuse what does not fit, freeze the plan, let the engine
work, tell loggers and screen, and hand back the last row of every item."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.config.build import build
from experiments.config.fingerprint import digest, refuse_other_version
from experiments.engines.base import Engine, View, left
from experiments.jobs.job import open_lanes
from experiments.loggers.base import Guarded, Logger
from experiments.runs import books
from experiments.runs.plan import Launch, Plan
from experiments.runs.progress import reporting
from experiments.runs.record import RECORD, Record
from experiments.runs.rows import Row, latest, now
from experiments.runs.run import Run, seen_from_run
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
    order = prepare(order)
    launch = _launch(order)
    lanes = open_lanes(order.plan, launch)
    todo, every = left(lanes, engine.share(order.plan.items)), order.plan.size
    with reporting(todo if engine.rank == 0 else 0, order.unit) as reporter:
        logger = Guarded(build(config["logger"], "logger") if engine.rank == 0 else Logger(), reporter.say)
        logger.start(order.folder, record_of(order.plan))
        ready = [f"{every - todo} of {every} {order.unit} need no work here"] if todo < every else []
        for line in [*order.notes, *ready] if engine.rank == 0 else ():
            reporter.say(line)
        view = View(launch, lanes, order.plan.items, reporter, logger, todo)
        over = not todo or engine.work(view)
        rows = last_rows(order)
        logger.end(order.closing(rows, logger))
    missing = every - len(rows)
    return Ended(Run.open(order.folder), rows, missing, over and (engine.rank == 0 or not missing))


def prepare(order: Order) -> Order:
    """A folder that holds something else is refused before anything is written into it. Codebooks are kept there, and
    the order that comes back looks them up there."""
    plan, folder = order.plan, order.folder
    plain_run = plan.variants[0].name is None
    known = Record.read(folder) if (folder / RECORD).exists() else None
    if known is not None and known.variants is None:
        refuse_other_version(known.told, folder)
    if known is not None and plan.job not in (known.job, "evaluate"):
        wrong = f"{folder} holds another kind of run"
        raise UserError(wrong, came=f"{plan.job}, where {known.job} was", todo="choose another name=...")
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
        books.keep(each, each.folder(folder))
    if not plain_run:
        began = known or Record(plan.job, overrides=order.typed)
        listed = dict(began.variants or {}) | {str(each.name): each.overrides for each in plan.variants}
        replace(began, variants=listed, reference=order.reference).write(folder)
    return replace(order, plan=books.pinned(plan, folder))


def only_frozen(order: Order) -> tuple[Path, dict[str | None, int]]:
    """The plan's place, and how much each variant has left to do; nothing is begun."""
    order = prepare(order)
    launch = _launch(order)
    lanes = open_lanes(order.plan, launch)
    return launch.plan, {lane.variant.name: left([lane], order.plan.items) for lane in lanes}


def last_rows(order: Order) -> list[Row]:
    """Of the plan's items, variant after variant."""
    found: list[Row] = []
    for variant in order.plan.variants:
        last = latest(variant.folder(order.folder))
        wanted = [item.id for item in order.plan.items if item.mark(variant.name) is not None]
        found += [seen_from_run(last[item], variant.name) for item in wanted if item in last]
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
