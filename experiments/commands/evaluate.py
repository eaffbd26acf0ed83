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
from experiments.jobs.manifest import Entry, read_manifest, with_tasks
from experiments.jobs.videos import holds_videos, read_videos
from experiments.report.results import finish
from experiments.runs.record import RECORD, Record
from experiments.runs.rows import ROWS
from experiments.runs.run import Run, below, find
from freemask.data.paths import existing
from freemask.data.task_fill import slug
from freemask.errors import UserError
from freemask.types import EditTask

VERB = Verb(
    "measure the stored frames of a run again, or videos that other people's code made",
    prompts=("name", "method_name"),
    paths=("run", "manifest", *PATHS),
    positional="run",
    names={"run": "runs"},
    examples=(
        "freemask evaluate demo metric=st_modulator",
        "freemask evaluate runs/demo redo=true",
        "freemask evaluate theirs/videos data=folder data.root=clips data.tasks=tasks.yaml method_name=tokenflow",
        "freemask evaluate manifest=theirs/edits.csv method_name=tokenflow",
        "freemask evaluate manifest=edits.yaml data=davis data.tasks=tasks.yaml name=rivals",
    ),
    notes=(
        "data=... left out is the data of the run; for videos by others, it is the data whose tasks they are.",
        "A manifest lists edited videos, or folders of their frames:",
        "    edited,method,task",
        "    out/1.mp4,tokenflow,world-10000000-attribute",
        "or, instead of task, columns clip,source,target (and words, kind, region, id).",
        "Or it is a folder of such videos, called as the tasks of the data: FOLDER/TASK.mp4, or for several methods",
        "FOLDER/METHOD/TASK.mp4 (run=FOLDER means the same).",
        "Other sizes are brought to the source's, of other lengths the shorter counts. To compare them with edits of a",
        "run, give the size of these: data.geometry.height=320 data.geometry.width=576 (rows name it as frames).",
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

    def refuse_names(self) -> None:
        for key in ("name", "method_name"):
            if getattr(self, key) is not None:
                wrong = f"{key} belongs to a manifest or a folder of videos"
                came = f"run={self.run} {key}={getattr(self, key)}"
                raise UserError(wrong, came=came, expected="the rows of a run keep the names that they have")


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    engine: Engine = build(config["runner"], "runner")
    if options.manifest is not None:
        return _measure_outside(config, options, existing(options.manifest), engine)
    folder = find(str(options.run), config["paths"]["runs"])
    if next(below(folder, (RECORD, ROWS)), None) is None and holds_videos(folder):
        return _measure_outside(config, options, folder, engine)
    options.refuse_names()
    chosen = any(each.lstrip("+").startswith(("data=", "data.")) for each in flags.get("overrides", ()))
    return _measure_run(config, options, Run.open(folder), engine, own_data=not chosen)


def _measure_run(
    config: Mapping[str, Any], options: Options, run: Run, engine: Engine, *, own_data: bool
) -> int:
    if not run.holds_rows:
        wrong = f"{run.folder} holds no rows"
        todo = "freemask run name=NAME, and freemask evaluate NAME"
        expected = "the folder of a run, or of videos called as tasks"
        raise UserError(wrong, came=run.folder, expected=expected, todo=todo)
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


def _measure_outside(config: Mapping[str, Any], options: Options, place: Path, engine: Engine) -> int:
    """`place` is a manifest, or a folder of videos."""
    Suite(build(config["metric"], "metric"))
    entries, tasks, notes = _entries(config["data"], place, options.method_name)
    home = place.resolve()
    folder = named_folder(
        config, options.name or f"outside-{slug(home.name if home.is_dir() else home.stem)}"
    )
    plan = outside.plan_of(config, entries, tasks, home.parent)
    reference = Record.seen(folder).reference or plan.variants[0].name
    again = options.redo or options.retry is not None
    doing = {"keep": options.keep, "redo": again, "whole": options.redo, "unit": "videos", "notes": notes}
    ended = carry_out(Order(plan, folder, reference, **doing), config, engine)
    if not ended.speaks:
        return 0
    code = finish(ended.run, ended.rows, ended.left, reference)
    for line in outside.remarks(ended.rows, config["data"]):
        print(line)
    return code


def _entries(
    data: Mapping[str, Any], place: Path, method: str | None
) -> tuple[list[Entry], list[EditTask], list[str]]:
    """What was edited, and what there is to say of it. The data are not asked where all entries have their own."""
    if place.is_dir():
        known = _tasks(data)
        found = read_videos(place, list(known), method)
        return found.entries, [known[each.id] for each in found.entries], found.notes
    entries = read_manifest(place, method)
    known = _tasks(data) if any(each.own is None for each in entries) else {}
    return entries, with_tasks(place, entries, known), []


def _tasks(data: Mapping[str, Any]) -> dict[str, EditTask]:
    return {task.id: task for task in build(data, "data").tasks()}
