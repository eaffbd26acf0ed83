"""`freemask run`: edit a task list with one method or several variants; leave rows, videos, a table, a page."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.cli.verb import EDIT, PATHS, Verb
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.identity import identities_of
from experiments.config.options import Keys
from experiments.config.variants import (
    Variant,
    keep_record,
    record_of,
    reference_of,
    refuse_others,
    unused,
    variants_of,
)
from experiments.engines.base import Engine, Floor
from experiments.jobs.bench import Bench as Bench
from experiments.jobs.benches import fit as fit
from experiments.jobs.benches import make_bench as make_bench
from experiments.jobs.benches import method_name
from experiments.jobs.lanes import Ears, Lane, open_lanes
from experiments.loggers.base import Guarded, Logger
from experiments.report.results import Results, finish
from experiments.runs.plan import Launch, Plan
from experiments.runs.progress import reporting
from freemask.errors import UserError, nearest
from freemask.types import KINDS, EditTask

VERB = Verb(
    "edit a task list with one method or several variants; leave rows, videos, a table and a page",
    prompts=("name", *EDIT),
    paths=PATHS,
    positional="name",
    multirun=True,
    examples=(
        "freemask run experiment=demo",
        "freemask run method=sdedit data=world data.clips=4 name=first",
        "freemask run experiment=freemask/masks only=[mmc,average] limit=4 method.steps=10",
        "freemask run -m method=ddim,sdedit method.steps=10,20",
        "freemask run data=folder data.root=clips data.tasks=tasks.yaml model=zeroscope",
    ),
    keys=(
        "name=NAME         the folder below paths.runs; the same command continues it",
        "limit=N           only the first N tasks",
        "task=shape        only the tasks of one kind",
        "variants= reference= only=   several configurations over one task list, compared in pairs",
        "keep=all|sample|none   which videos, sheets and frames stay",
        "retry=failed      do failed tasks again",
        "start=false       freeze the plan and tell what there is to do, nothing more",
        "method.steps=N    seed=N",
    ),
)

KEEP = ("all", "sample", "none")


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/run.yaml."""

    seed: int
    limit: int | None
    keep: str
    retry: str | None
    name: str | None
    kind: str | None
    start: bool

    def __post_init__(self) -> None:
        _one_of("keep", self.keep, KEEP)
        if self.retry is not None:
            _one_of("retry", self.retry, ("failed",))
        if self.kind is not None:
            _one_of("kind", self.kind, KINDS)
        if self.limit is not None and self.limit < 1:
            raise UserError("limit is too small", came=f"limit={self.limit}", expected="1 or more, or null")
        if any(part in ("", ".", "..") for part in ("run" if self.name is None else self.name).split("/")):
            raise UserError(
                "the name is no folder below paths.runs", came=f"name={self.name}", expected="name=WORD"
            )


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config, overrides = plain(cfg), flags.get("overrides", ())
    options, variants = Options.of(config), variants_of(cfg, overrides)
    reference = reference_of(config, variants)
    engine: Engine = build(config["runner"], "runner")
    tasks = list(build(config["data"], "data").tasks())
    wanted = chosen(tasks, options)
    identities = identities_of([each.config for each in variants], tasks)
    record = record_of(variants, identities)
    folder = _folder(config, variants[0], record["identity"], bool(flags.get("multirun")))
    refuse_others(folder, variants, identities)
    keep_record(folder, variants, reference)
    plan = Plan.of(variants, identities, wanted)
    launch = _launch(plan, folder, options)
    lanes = open_lanes(plan, launch)
    if not options.start:
        if engine.rank == 0:
            print(planned(launch, lanes, wanted))
        return 0
    mine = engine.share(wanted)
    left, every = sum(lane.needs(task.id) for lane in lanes for task in mine), len(wanted) * len(lanes)
    results = Results(folder, {lane.variant.name: lane.store for lane in lanes}, reference)
    with reporting(left if engine.rank == 0 else 0) as reporter:
        mirror = build(config["logger"], "logger") if engine.rank == 0 else Logger()
        logger = Guarded(mirror, reporter.say)
        logger.start(folder, record)
        notes = [f"{every - left} of {every} tasks need no work here"] if left < every else []
        for line in [*unused(variants, overrides), *notes] if engine.rank == 0 else ():
            reporter.say(line)
        over = not left or engine.work(Floor(launch, lanes, wanted, Ears(reporter, logger, left)))
        rows = results.rows(wanted)
        logger.end(rows)
    if not over or (engine.rank and results.left(wanted)):
        return 0
    return finish(results, wanted, rows if len(rows) == every else results.rows(wanted))


def _launch(plan: Plan, folder: Path, options: Options) -> Launch:
    """The plan is frozen here: from now on nobody looks at the configuration again."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    path = plan.write(folder).resolve()
    return Launch(path, None if options.retry is None else now, options.keep, Path.cwd())


def planned(launch: Launch, lanes: Sequence[Lane], wanted: Sequence[EditTask]) -> str:
    """What a start would do."""
    left = {lane.variant.name: sum(lane.needs(task.id) for task in wanted) for lane in lanes}
    edits, count, rest = len(wanted) * len(lanes), len(lanes), sum(left.values())
    kinds = Counter(task.kind for task in wanted)
    lines = [
        f"{edits} edits: {len(wanted)} tasks x {count} variant{'s' * (count > 1)}, {rest} to do",
        f"tasks:    {', '.join(f'{kinds[kind]} {kind}' for kind in KINDS if kinds[kind])}",
        *(f"variant:  {name} ({left[name]} to do)" for name in left if name is not None),
        f"plan:     {os.path.relpath(launch.plan, launch.home)}",
        "Nothing was edited: the same command without start=false begins.",
    ]
    return "\n".join(lines)


def chosen(tasks: Sequence[EditTask], options: Options) -> list[EditTask]:
    kept = [task for task in tasks if options.kind in (None, task.kind)][: options.limit]
    if not kept:
        kinds = sorted({task.kind for task in tasks})
        raise UserError("no task is left to do", came=f"task={options.kind}", expected=nearest("", kinds))
    return kept


def _one_of(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(f"{key} cannot be '{value}'", came=f"{key}={value}", expected=nearest(value, choices))


def _folder(config: Mapping[str, Any], first: Variant, identity: str, swept: bool) -> Path:
    """A sweep's runs go into folders of their own, each named after what it is."""
    own = f"{method_name(config) if first.name is None else 'variants'}-{identity[:8]}"
    asked = config["name"]
    name = own if asked is None else f"{asked}/{own}" if swept else asked
    return Path(config["paths"]["runs"]).expanduser() / name
