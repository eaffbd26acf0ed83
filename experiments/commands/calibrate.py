"""`freemask calibrate`: measure every layer and time of a model against true masks; leave rows, a codebook, figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.commands.run import fit
from experiments.config import choices
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.identity import Identity, identity_of
from experiments.config.options import Keys
from experiments.engines.local import Runner, Work
from experiments.jobs.calibration import OVERLAPS, Item, Measure, Worker, items_of, mask_of
from experiments.loggers.base import Guarded
from experiments.report import calibration as results
from experiments.runs.progress import Reporter, reporting
from experiments.runs.store import RunStore
from freemask.backbones.checkpoint import find
from freemask.errors import UserError, nearest
from freemask.masks.codebook import Codebook
from freemask.masks.mmc import check_floor
from freemask.masks.words import check_phrase
from freemask.types import Backbone, DataSource

VERB = Verb(
    "measure which layer and time give the best masks, and write the codebook that masks look up",
    prompts=("name",),
    paths=("paths.codebooks", *PATHS),
    positional="name",
    multirun=True,
    examples=(
        "freemask calibrate",
        "freemask calibrate model=zeroscope data=davis data.tasks=tasks.yaml model.device=cuda",
        "freemask calibrate binarise.preset=official overlap=two_class steps=20 limit=10",
        "freemask calibrate experiment=freemask/fig1",
    ),
    keys=(
        "name=NAME         the folder below paths.runs; the same command continues it",
        "steps=N           of the inversion; the times are measured that it passes",
        "binarise.preset=paper|official   how heat becomes a mask; binarise.threshold=0.3 and more beside it",
        "overlap=foreground|two_class     what a mask is judged by",
        "limit=N           only the first N words of clips",
        "install=false     do not copy the codebook into paths.codebooks",
        "retry=failed      do failed items again",
    ),
)

RETRY = ("failed",)


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/calibrate.yaml."""

    name: str | None
    steps: int
    phrase: str
    overlap: str
    floor: float | int
    budget: float | int
    limit: int | None
    retry: str | None
    seed: int
    maps: int
    install: bool
    models: Sequence[str] | None

    def __post_init__(self) -> None:
        check_phrase(self.phrase)
        check_floor(self.floor)
        for key, value, known in (("overlap", self.overlap, OVERLAPS), ("retry", self.retry, RETRY)):
            if value is not None and value not in known:
                raise UserError(
                    f"{key} cannot be '{value}'", came=f"{key}={value}", expected=nearest(value, known)
                )
        for key, value in (("steps", self.steps), ("limit", self.limit)):
            if value is not None and value < 1:
                raise UserError(f"{key} is too small", came=f"{key}={value}", expected="1 or more")
        if self.budget <= 0 or self.maps < 0:
            came = f"budget={self.budget} maps={self.maps}"
            raise UserError("budget or maps is too small", came=came, expected="above 0, and 0 or more")


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    if options.models:
        return _several(config, options)
    job = Job.of(config, options, None, bool(flags.get("multirun")))
    return 0 if job.run() else 1


def _several(config: Mapping[str, Any], options: Options) -> int:
    """Each model in its own subfolder, those that are not on this machine left out; then one figure."""
    root = _root(config, options.name or "calibrate")
    books: dict[str, Codebook] = {}
    for name in dict.fromkeys(options.models or ()):
        choices.option("model", name)
        print(f"\n{name}")
        model = _here(config, name)
        try:
            _look_for(model)
        except UserError as error:
            print(f"left out: {error.wrong}")
            continue
        book = Job.of({**config, "model": model}, options, root / name, False).run()
        if book is not None:
            books[name] = book
    if not books:
        return 1
    results.together(root, books)
    return 0


def _here(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A model's settings, the network never asked."""
    model = choices.content("model", name)
    return model | {
        key: value
        for key, value in (("local_files_only", True), ("device", config["model"].get("device")))
        if key in model and value is not None
    }


def _look_for(model: Mapping[str, Any]) -> None:
    if model.get("path"):
        keys = ("revision", "allow_pickle")
        find(model["path"], local_files_only=True, **{key: model[key] for key in keys if key in model})


@dataclass(frozen=True)
class Job:
    """The calibration of one model."""

    config: Mapping[str, Any]
    options: Options
    measure: Measure
    data: DataSource
    items: Sequence[Item]
    store: RunStore
    identity: Identity

    @classmethod
    def of(cls, config: Mapping[str, Any], options: Options, folder: Path | None, swept: bool) -> "Job":
        data = build(config["data"], "data")
        tasks = list(data.tasks())
        items, unclear = items_of(tasks)
        for task, why in unclear.items():
            print(f"left out: {task}: {why}")
        if not items:
            raise UserError(
                "no task says which word to look at", came=f"{len(tasks)} tasks", todo="add words to them"
            )
        binarise = build(config["binarise"], "binarise")
        measure = Measure(options.steps, options.phrase, binarise, options.overlap, float(options.budget))
        identity = _identity(config, measure, identity_of({**config, **_NOTHING}, tasks))
        own = f"calibrate-{model_name(config)}-{identity.hash[:8]}"
        name = own if options.name is None else f"{options.name}/{own}" if swept else options.name
        store = RunStore.open(folder or _root(config, name), identity)
        return cls(config, options, measure, data, items[: options.limit], store, identity)

    def run(self) -> Codebook | None:
        """Do what is left, then put together what there is; None where nothing succeeded."""
        runner: Runner = build(self.config["runner"], "runner")
        latest = self.store.latest()
        again = () if self.options.retry is None else ("failed",)
        over = {task for task, row in latest.items() if row["status"] not in again}
        left = [one for one in runner.share([item.one for item in self.items]) if one.id not in over]
        with reporting(len(left), "clips") as reporter:
            logger = Guarded(build(self.config["logger"], "logger"), reporter.say)
            logger.start(self.store.folder, self.identity.record())
            if len(left) < len(self.items):
                reporter.say(f"{len(self.items) - len(left)} of {len(self.items)} items need no work here")
            if left:
                if not latest:
                    _refuse_without_masks(self.data, self.items)
                reporter.busy("loading the model")
                backbone: Any = build(self.config["model"], "model")
                fit(self.data, backbone)
                runner(left, partial(self._worker, backbone, reporter, len(left)))
            rows = self.rows()
            book = results.codebook(rows, self.about(), [item.one.id for item in self.items])
            if book is not None:
                results.log(logger, book)
            logger.end([results.without_tables(row) for row in rows])
        results.finish(self.store, rows, book, len(self.items) - len(rows))
        if book is not None and len(rows) == len(self.items) and self.options.install:
            path = Path(self.config["paths"]["codebooks"]).expanduser() / f"{book.model}-{book.backbone}.json"
            book.write(path)
            print(f"masks find it at:       {path}")
        return book

    def rows(self) -> list[dict[str, Any]]:
        latest = self.store.latest()
        return [latest[item.one.id] for item in self.items if item.one.id in latest]

    def about(self) -> dict[str, Any]:
        return {
            "model": model_name(self.config),
            "data": self.identity.parts["data"],
            "binarise": self.measure.binarise.settings(),
            "phrase": self.measure.phrase,
            "overlap": self.measure.overlap,
            "floor": self.options.floor,
            "seed": self.options.seed,
        }

    def _worker(self, backbone: Backbone, reporter: Reporter, total: int, writer: str) -> Work:
        keep = {item.one.id for item in self.items[: self.options.maps]}
        known = {item.one.id: item for item in self.items}
        return Worker(backbone, self.data, self.measure, self.store, known, keep, reporter, total, writer)


_NOTHING = {"method": {}, "mask": {}, "fusion": {}, "metric": {}}


def _identity(config: Mapping[str, Any], measure: Measure, whole: Identity) -> Identity:
    """Everything that changes a row. The floor and the intervals do not: they come in when rows are put together."""
    how = {key: value for key, value in asdict(measure).items() if key not in ("budget", "binarise")}
    kept = {key: whole.parts[key] for key in ("model", "data")}
    return Identity({**kept, **how, "binarise": measure.binarise.settings()})


def model_name(config: Mapping[str, Any]) -> str:
    """`embedded`, `zeroscope_v2_576w`, `random`: where the weights come from, without the folders before it."""
    model = config["model"]
    path = model.get("path")
    return Path(str(path)).name if path else str(model["_target_"]).rpartition(".")[2]


def _root(config: Mapping[str, Any], name: str) -> Path:
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise UserError("the name is no folder below paths.runs", came=f"name={name}", expected="name=WORD")
    return Path(config["paths"]["runs"]).expanduser() / name


def _refuse_without_masks(data: DataSource, items: Sequence[Item]) -> None:
    """Before the model is loaded: at least one item must have something to be compared with."""
    if not any(_has_mask(data, item) for item in items):
        raise UserError(
            "no clip has a mask of what its task is about",
            came=", ".join(item.one.id for item in items[:5]) + (", ..." if len(items) > 5 else ""),
            expected="clips with annotations, under the words of their tasks: data=world_train, data=davis",
        )


def _has_mask(data: DataSource, item: Item) -> bool:
    try:
        return mask_of(data.clip(item.task), item.word) is not None
    except Exception:
        return True  # a clip that cannot be read becomes a row
