"""`freemask run`: edit a task list with one method or several variants; leave rows, videos, a table, a page."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from omegaconf import DictConfig

from experiments.cli.verb import EDIT, PATHS, Verb
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.identity import digest_of, identity_over
from experiments.config.options import Keys
from experiments.engines.base import Engine, at_least
from experiments.engines.start import Order, carry_out, named_folder, only_frozen, record_of
from experiments.jobs.beforehand import refuse_hopeless
from experiments.jobs.variants import Composition, reference_of, variants_of
from experiments.report.results import finish
from experiments.runs.plan import Item, Plan
from experiments.runs.record import RECORD
from freemask.data.kinds import unsure
from freemask.errors import UserError, nearest
from freemask.types import KINDS, EditTask, Kind

VERB = Verb(
    "edit a task list with one method or several variants; leave rows, videos, a table and a page",
    prompts=("name", *EDIT),
    paths=PATHS,
    positional="name",
    multirun=True,
    joint=True,
    works_on_files=True,
    names={"name": "runs"},
    examples=(
        "freemask run experiment=demo",
        "freemask run method=sdedit data=world data.clips=4 name=first",
        "freemask run experiment=freemask/masks only=[mmc,average] limit=4 method.steps=10",
        "freemask run -m method=ddim,sdedit method.steps=10,20 name=four",
        "freemask run data=folder data.root=clips data.tasks=tasks.yaml model=zeroscope",
    ),
)


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/run.yaml."""

    seed: int
    limit: int | None
    keep: Literal["all", "sample", "none"]
    retry: Literal["failed"] | None
    name: str | None
    kind: Kind | None
    start: bool

    def __post_init__(self) -> None:
        at_least("limit", self.limit, 1)


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    engine: Engine = build(config["runner"], "runner")
    data = build(config["data"], "data")
    tasks = list(data.tasks())
    wanted = chosen(tasks, options)
    command = Composition(cfg, flags["choices"], flags.get("overrides", ()))
    begun = None if options.name is None else named_folder(config, options.name)
    swept = flags.get("variants") or {}
    variants, notes = variants_of(command, partial(identity_over, digest_of(tasks)), begun, swept)
    plan = Plan("edit", variants, [Item(task.id, task.stored()) for task in wanted])
    folder = begun or named_folder(config, _name(plan))
    reference = reference_of(config, variants)
    if not (folder / RECORD).exists():
        refuse_hopeless(variants, data, wanted)
    redo = options.retry is not None
    notes = [*notes, *_unsure(wanted)]
    order = Order(plan, folder, reference, command.overrides, options.keep, redo, notes=notes)
    if flags.get("freeze"):
        only_frozen(order)
        return 0
    if not options.start:
        print(planned(order, wanted) if engine.rank == 0 else "")
        return 0
    ended = carry_out(order, config, engine)
    return finish(ended.run, ended.rows, ended.left, reference) if ended.speaks else 0


def planned(order: Order, wanted: Sequence[EditTask]) -> str:
    """What a start would do."""
    plan, left = only_frozen(order)
    count, rest = len(left), sum(left.values())
    kinds = Counter(task.kind for task in wanted)
    lines = [
        f"{_many(len(wanted) * count, 'edit')}: {_many(len(wanted), 'task')} x {_many(count, 'variant')}, {rest} to do",
        f"tasks:    {', '.join(f'{kinds[kind]} {kind}' for kind in KINDS if kinds[kind])}",
        *(f"variant:  {name} ({left[name]} to do)" for name in left if name is not None),
        *(f"note:     {each.removeprefix('note: ')}" for each in order.notes),
        f"plan:     {os.path.relpath(plan)}",
        "Nothing was edited: the same command without start=false begins.",
    ]
    return "\n".join(lines)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def chosen(tasks: Sequence[EditTask], options: Options) -> list[EditTask]:
    kept = [task for task in tasks if options.kind in (None, task.kind)][: options.limit]
    if not kept:
        kinds = sorted({task.kind for task in tasks})
        raise UserError("no task is left to do", came=f"task={options.kind}", expected=nearest("", kinds))
    return kept


def _unsure(tasks: Sequence[EditTask]) -> list[str]:
    ids = [task.id for task in tasks if unsure(task)]
    few = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    said = f"kind or words were read off the prompts, and not surely: {few}"
    return [f"{said}; freemask doctor tasks=FILE says what to write"] if ids else []


def _name(plan: Plan) -> str:
    """Of a run without a name, after what it is: the method, or what its variants differ in."""
    keys = dict.fromkeys(each.partition("=")[0] for variant in plan.variants for each in variant.overrides)
    what = plan.variants[0].choices.get("method")
    if plan.variants[0].name is not None:
        what = "+".join(["variants", *(key.rpartition(".")[2].strip("+~") for key in keys)])[:60]
    return f"{what}-{record_of(plan)['identity'][:8]}"
