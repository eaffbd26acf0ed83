"""`freemask evaluate`: measure stored frames again, or for the first time what somebody else's code has made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from evaluation.suite import Suite
from experiments.cli.verb import PATHS, Verb
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.options import Keys
from experiments.engines.base import Engine
from experiments.engines.start import Order, carry_out, named_folder
from experiments.jobs import outside
from experiments.jobs.evaluate import data_of, not_measured, plan_of, what_is_left
from experiments.jobs.manifest import read_manifest, with_tasks
from experiments.report.results import finish
from experiments.runs.record import Record
from experiments.runs.run import Run, find
from freemask.data.task_fill import slug
from freemask.errors import UserError

VERB = Verb(
    "measure the stored frames of a run again, or videos that other people's code made",
    prompts=("name", "method_name"),
    paths=("run", "manifest", *PATHS),
    positional="run",
    examples=(
        "freemask evaluate demo metric=st_modulator",
        "freemask evaluate runs/demo redo=true",
        "freemask evaluate manifest=theirs/edits.csv method_name=tokenflow",
        "freemask evaluate manifest=edits.yaml data=davis data.tasks=tasks.yaml name=rivals",
    ),
    keys=(
        "run=NAME          a run whose frames were kept (keep=all), or its folder; new rows, old ones stay",
        "metric=SUITE      what to measure; numbers that are there already are not measured again",
        "redo=true         measure everything again",
        "data=...          left out, the data of the run; for a manifest, the data whose tasks it names",
        "manifest=FILE     a list (.csv, .yaml, .json) of edited videos or folders of frames:",
        "                    edited,method,task",
        "                    out/1.mp4,tokenflow,world-10000000-attribute",
        "                  or, instead of task, columns clip,source,target,words,kind (and region, id)",
        "                  other sizes are brought to the source's, of other lengths the shorter counts",
        "method_name=NAME  the method of entries that name none",
        "name=NAME         the folder below paths.runs for a manifest's rows",
        "keep=all|none     whether frames, videos and sheets of a manifest stay",
    ),
)


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/evaluate.yaml."""

    run: str | None
    manifest: str | None
    name: str | None
    method_name: str | None
    redo: bool
    keep: Literal["all", "none"]
    retry: Literal["failed"] | None

    def __post_init__(self) -> None:
        if (self.run is None) is (self.manifest is None):
            raise UserError(
                "what is to be measured?",
                came="a run and a manifest" if self.run is not None else "neither a run nor a manifest",
                expected="the folder of a run, or a list of videos made by other code",
                todo="freemask evaluate RUN, or freemask evaluate manifest=FILE; --help shows both",
            )
        for key in ("name", "method_name"):
            if self.run is not None and getattr(self, key) is not None:
                wrong = f"{key} belongs to a manifest"
                came = f"run={self.run} {key}={getattr(self, key)}"
                raise UserError(wrong, came=came, expected="the rows of a run keep the names that they have")


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    engine: Engine = build(config["runner"], "runner")
    if options.manifest is not None:
        return _measure_manifest(config, options, options.manifest, engine)
    chosen = any(each.lstrip("+").startswith(("data=", "data.")) for each in flags.get("overrides", ()))
    return _measure_run(config, options, engine, own_data=not chosen)


def _measure_run(config: Mapping[str, Any], options: Options, engine: Engine, *, own_data: bool) -> int:
    run = Run.open(find(str(options.run), config["paths"]["runs"]))
    if not run.holds_rows:
        wrong = f"{run.folder} holds no rows"
        todo = "freemask run name=NAME, and freemask evaluate NAME"
        raise UserError(wrong, came=run.folder, expected="the folder of a run", todo=todo)
    data = data_of(run, config["data"], own_data=own_data)
    items, ready, left = what_is_left(run, config["metric"], options.redo)
    if ready:
        print(f"{ready} have every number of this suite already (redo=true measures them again)")
    for line in not_measured(left):
        print(line)
    if not items:
        return 0 if ready else 1
    plan = plan_of(run, items, {"data": data, "metric": config["metric"]})
    again = options.redo or options.retry is not None
    order = Order(plan, run.folder, run.record.reference, redo=again, whole=options.redo, unit="edits")
    ended = carry_out(order, config, engine)
    if not ended.speaks:
        return 0
    failed = [row for row in ended.rows if (row.get("evaluation") or {}).get("status") != "done"]
    finish(run, list(run.rows()), 0, run.record.reference)
    messages = ((row.get("evaluation") or {}).get("message", "not measured yet") for row in failed)
    for line in not_measured(zip((row["task"] for row in failed), messages, strict=True)):
        print(line)
    print(f"{len(ended.rows) - len(failed)} measured, {len(left) + len(failed)} not")
    return 0 if len(failed) < len(ended.rows) or ready else 1


def _measure_manifest(config: Mapping[str, Any], options: Options, manifest: str, engine: Engine) -> int:
    entries = read_manifest(manifest, options.method_name)
    Suite(build(config["metric"], "metric"))
    known = config["data"] if any(each.own is None for each in entries) else None
    data = {task.id: task for task in build(known, "data").tasks()} if known else {}
    tasks = with_tasks(manifest, entries, data)
    folder = named_folder(config, options.name or f"outside-{slug(Path(manifest).stem)}")
    plan = outside.plan_of(config, entries, tasks, Path(manifest).expanduser().resolve().parent)
    reference = Record.seen(folder).reference or plan.variants[0].name
    again = options.redo or options.retry is not None
    order = Order(plan, folder, reference, keep=options.keep, redo=again, whole=options.redo, unit="videos")
    ended = carry_out(order, config, engine)
    return finish(ended.run, ended.rows, ended.left, reference) if ended.speaks else 0
