"""`freemask run`: edit a task list with one method or several variants; leave rows, videos, a table, a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from evaluation.suite import Suite
from experiments import choices
from experiments.bench import Bench
from experiments.build import build, check_arguments
from experiments.compose import plain
from experiments.identity import identity_of
from experiments.lanes import Ears, Lane, Worker, by_model
from experiments.loggers.base import Guarded
from experiments.progress import reporting
from experiments.results import Results, finish
from experiments.runner import Runner
from experiments.variants import Variant, keep_record, record_of, reference_of, unused, variants_of
from freemask.errors import UserError, nearest
from freemask.types import KINDS, DataSource, EditTask

KEEP, SAMPLE = ("all", "sample", "none"), 8


@dataclass(frozen=True)
class Options:
    """The plain keys of conf/run.yaml."""

    seed: int
    limit: int | None
    keep: str
    retry: str | None
    name: str | None
    kind: str | None

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

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Options":
        given = {key: config[key] for key in ("seed", "limit", "keep", "retry", "name", "kind")}
        check_arguments(cls, given)
        return cls(**given)


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config, overrides = plain(cfg), flags.get("overrides", ())
    options, variants = Options.of(config), variants_of(cfg, overrides)
    reference = reference_of(config, variants)
    runner, data = build(config["runner"], "runner"), build(config["data"], "data")
    tasks = list(data.tasks())
    wanted = chosen(tasks, options)
    identities = [identity_of(each.config, tasks) for each in variants]
    record = record_of(variants, identities)
    folder = _folder(config, variants[0], record["identity"], bool(flags.get("multirun")))
    keep_record(folder, variants, reference)
    lanes = [Lane.open(*each, folder, options.retry) for each in zip(variants, identities, strict=True)]
    mine = runner.share(wanted)
    left, every = sum(lane.needs(task) for lane in lanes for task in mine), len(wanted) * len(lanes)
    results = Results(folder, {lane.variant.name: lane.store for lane in lanes}, reference)
    with reporting(left) as reporter:
        logger = Guarded(build(config["logger"], "logger"), reporter.say)
        logger.start(folder, record)
        notes = [f"{every - left} of {every} tasks need no work here"] if left < every else []
        for line in [*unused(variants, overrides), *notes]:
            reporter.say(line)
        kept = {"all": wanted, "sample": wanted[:SAMPLE], "none": ()}[options.keep]
        ears = Ears(reporter, logger, {task.id for task in kept}, left)
        for group in by_model(lanes):
            _work(group, mine, data, runner, ears)
        logger.end(results.rows(wanted))
    return finish(results, wanted)


def _work(
    lanes: Sequence[Lane], tasks: Sequence[EditTask], data: DataSource, runner: Runner, ears: Ears
) -> None:
    """All that these lanes have left, with one model."""
    todo = [task for task in tasks if any(lane.needs(task) for lane in lanes)]
    if todo:
        ears.reporter.busy("loading the model")
        benches = _benches(lanes)
        fit(data, benches[0].backbone)
        pairs = list(zip(lanes, benches, strict=True))
        runner(todo, lambda writer: Worker(pairs, data, writer, ears))


def chosen(tasks: Sequence[EditTask], options: Options) -> list[EditTask]:
    kept = [task for task in tasks if options.kind in (None, task.kind)][: options.limit]
    if not kept:
        kinds = sorted({task.kind for task in tasks})
        raise UserError("no task is left to do", came=f"task={options.kind}", expected=nearest("", kinds))
    return kept


def make_bench(config: Mapping[str, Any], about: Mapping[str, Any]) -> Bench:
    """Small parts first, so that a mistake shows before the model is loaded."""
    method = build(config["method"], "method")
    suite = Suite(build(config["metric"], "metric"))
    backbone = build(config["model"], "model")
    return Bench(backbone, method, suite, config["seed"], {**_facts(config, backbone), **about})


def _benches(lanes: Sequence[Lane]) -> list[Bench]:
    """One model and one suite of metrics for all of them."""
    first = make_bench(lanes[0].variant.config, lanes[0].about())
    benches = [first]
    for lane in lanes[1:]:
        config = lane.variant.config
        about = {**_facts(config, first.backbone), **lane.about()}
        method = build(config["method"], "method")
        benches.append(replace(first, method=method, seed=config["seed"], about=about))
    return benches


def _facts(config: Mapping[str, Any], backbone: Any) -> dict[str, Any]:
    return {
        "method": method_name(config),
        "steps": config["method"].get("steps"),
        "model": backbone.identity,
    }


def fit(data: DataSource, backbone: Any) -> None:
    """Clips that are read from files come in sizes that the model can take."""
    asked = getattr(data, "geometry", None)
    if asked is not None:
        vars(data)["geometry"] = asked.fitted(multiple=backbone.multiple, native=backbone.native)


def method_name(config: Mapping[str, Any]) -> str:
    """As the user calls it; the class's name where that is not plain."""
    target = config["method"]["_target_"]
    known = [
        each.name
        for each in choices.group("method")
        if choices.content("method", each.name).get("_target_") == target
    ]
    return known[0] if len(known) == 1 else target.rpartition(".")[2].lower()


def _one_of(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(f"{key} cannot be '{value}'", came=f"{key}={value}", expected=nearest(value, choices))


def _folder(config: Mapping[str, Any], first: Variant, identity: str, swept: bool) -> Path:
    """A sweep's runs go into folders of their own, each named after what it is."""
    own = f"{method_name(config) if first.name is None else 'variants'}-{identity[:8]}"
    asked = config["name"]
    name = own if asked is None else f"{asked}/{own}" if swept else asked
    return Path(config["paths"]["runs"]).expanduser() / name
