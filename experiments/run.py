"""`freemask run`: edit a task list with one method; leave rows, videos, a table and a page."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from evaluation.suite import Suite
from experiments.bench import Bench, keep_files
from experiments.build import build, check_arguments
from experiments.compose import plain
from experiments.identity import Identity, identity_of
from experiments.loggers.base import Guarded
from experiments.progress import Reporter, reporting
from experiments.results import finish
from experiments.store import RunStore
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

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Options":
        given = {key: config[key] for key in ("seed", "limit", "keep", "retry", "name", "kind")}
        check_arguments(cls, given)
        return cls(**given)


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    runner, data = build(config["runner"], "runner"), build(config["data"], "data")
    tasks = list(data.tasks())
    identity = identity_of(config, tasks)
    store = RunStore.open(_folder(config, options, identity, bool(flags.get("multirun"))), identity)
    wanted = chosen(tasks, options)
    skipped = store.done() | (set() if options.retry else store.failed())
    left = [task for task in runner.share(wanted) if task.id not in skipped]
    with reporting(len(left)) as reporter:
        logger = Guarded(build(config["logger"], "logger"), reporter.say)
        logger.start(store.folder, identity.record())
        if skipped:
            reporter.say(f"{len(wanted) - len(left)} of {len(wanted)} tasks need no work here")
        if left:
            reporter.busy("loading the model")
            bench = make_bench(config, {"run": identity.hash})
            fit(data, bench.backbone)
            keep = {"all": wanted, "sample": wanted[:SAMPLE], "none": ()}[options.keep]
            kept = {task.id for task in keep}
            runner(
                left, lambda writer: Worker(bench, data, store, writer, kept, (reporter, logger), len(left))
            )
        latest = store.latest()
        logger.end([latest[task.id] for task in wanted if task.id in latest])
    return finish(store, wanted)


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
    facts = {
        "method": method_name(config),
        "steps": config["method"].get("steps"),
        "model": backbone.identity,
    }
    return Bench(backbone, method, suite, config["seed"], {**facts, **about})


def fit(data: DataSource, backbone: Any) -> None:
    """Clips that are read from files come in sizes that the model can take."""
    asked = getattr(data, "geometry", None)
    if asked is not None:
        vars(data)["geometry"] = asked.fitted(multiple=backbone.multiple, native=backbone.native)


def method_name(config: Mapping[str, Any]) -> str:
    return config["method"]["_target_"].rpartition(".")[2].lower()


@dataclass
class Worker:
    """Does one task after the other: edit, files, row, log."""

    bench: Bench
    data: DataSource
    store: RunStore
    writer: str
    keep: Collection[str]
    ears: tuple[Reporter, Guarded]
    total: int
    count: int = 0

    def __call__(self, task: EditTask) -> None:
        reporter, logger = self.ears
        outcome = self.bench.edit(task, self.data, reporter.stage)
        files = keep_files(self.store, outcome) if task.id in self.keep else {}
        within = {name: path.relative_to(self.store.folder).as_posix() for name, path in files.items()}
        row: dict[str, Any] = outcome.row | {"files": within}
        self.store.append(self.writer, row)
        logger.row(row, files)
        self.count += 1
        said = row["message"].splitlines()[0] if row["message"] else f"{sum(row['seconds'].values()):.1f} s"
        reporter.task_done(f"[{self.count}/{self.total}] {task.id} {row['status']} ({said})")


def _one_of(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(f"{key} cannot be '{value}'", came=f"{key}={value}", expected=nearest(value, choices))


def _folder(config: Mapping[str, Any], options: Options, identity: Identity, swept: bool) -> Path:
    """A sweep's runs go into folders of their own, each named after what it is."""
    own = f"{method_name(config)}-{identity.hash[:8]}"
    name = own if options.name is None else f"{options.name}/{own}" if swept else options.name
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise UserError("the name is no folder below paths.runs", came=f"name={name}", expected="name=WORD")
    return Path(config["paths"]["runs"]).expanduser() / name
