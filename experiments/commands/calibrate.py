"""`freemask calibrate`: measure every layer and time of a model against true masks; leave rows, a codebook, figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.config import choices
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.identity import Identity, digest_of, identity_over
from experiments.config.options import Keys
from experiments.engines.base import Engine
from experiments.engines.start import Order, carry_out, named_folder
from experiments.jobs.calibrate import Measure, Word, mask_of, words_of
from experiments.loggers.base import Guarded
from experiments.report import calibration as results
from experiments.runs.plan import Plan, Variant
from experiments.runs.record import RECORD
from experiments.runs.rows import Row
from freemask.backbones.checkpoint import find
from freemask.errors import UserError
from freemask.masks.codebook import Codebook
from freemask.masks.mmc import check_floor
from freemask.masks.words import check_phrase
from freemask.types import DataSource, EditTask

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


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/calibrate.yaml."""

    name: str | None
    steps: int
    phrase: str
    overlap: Literal["foreground", "two_class"]
    floor: float | int
    budget: float | int
    limit: int | None
    retry: Literal["failed"] | None
    maps: int
    install: bool
    models: Sequence[str] | None

    def __post_init__(self) -> None:
        check_phrase(self.phrase)
        check_floor(self.floor)
        for key, value in (("steps", self.steps), ("limit", self.limit)):
            if value is not None and value < 1:
                raise UserError(f"{key} is too small", came=f"{key}={value}", expected="1 or more")
        if self.budget <= 0 or self.maps < 0:
            came = f"budget={self.budget} maps={self.maps}"
            raise UserError("budget or maps is too small", came=came, expected="above 0, and 0 or more")


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    engine: Engine = build(config["runner"], "runner")
    data = build(config["data"], "data")
    tasks = list(data.tasks())
    words = _words(tasks)[: options.limit]
    variants = _variants(config, options, flags["choices"], tasks)
    if not variants:
        return 1
    own = f"calibrate-{variants[0].choices['model']}-{variants[0].identity.hash[:8]}"
    name = options.name or ("calibrate" if options.models else own)
    folder = named_folder(config, f"{name}/{own}" if flags.get("multirun") and options.name else name)
    if not (folder / RECORD).exists():
        _refuse_without_masks(data, words)
    books: dict[str | None, Codebook] = {}

    def closing(rows: list[Row], logger: Guarded) -> list[dict[str, Any]]:
        for variant in variants:
            mine = [row for row in rows if row.get("variant") == variant.name]
            book = results.codebook(mine, _about(variant, options), len(words))
            if book is not None:
                books[variant.name] = book
                results.log(logger, book)
        return [results.without_tables(row) for row in rows]

    plan = Plan("calibrate", variants, [each.item(place < options.maps) for place, each in enumerate(words)])
    reference = variants[0].name
    order = Order(plan, folder, reference, redo=options.retry is not None, unit="items", closing=closing)
    ended = carry_out(order, config, engine)
    if not ended.speaks:
        return 0
    for variant in variants:
        rows = [row for row in ended.rows if row.get("variant") == variant.name]
        book = books.get(variant.name)
        results.finish(variant.folder(folder), folder, rows, book, len(words) - len(rows))
        if book is not None and len(rows) == len(words) and options.install:
            _install(config, book)
    if variants[0].name is not None and books:
        results.together(folder, {str(name): book for name, book in books.items()})
    return 0 if books else 1


def _words(tasks: Sequence[EditTask]) -> list[Word]:
    words, unclear = words_of(tasks)
    for task, why in unclear.items():
        print(f"left out: {task}: {why}")
    if not words:
        raise UserError(
            "no task says which word to look at", came=f"{len(tasks)} tasks", todo="add words to them"
        )
    return words


def _variants(
    config: Mapping[str, Any], options: Options, chosen: Mapping[str, str | None], tasks: Sequence[EditTask]
) -> list[Variant]:
    """One for each model; those that are not on this machine are left out."""

    def variant(name: str | None, model: Mapping[str, Any], option: str | None) -> Variant:
        own = {key: config[key] for key in ("data", "steps", "phrase", "binarise", "overlap", "budget")}
        made = {**own, "model": model}
        picked = {"model": option, "data": chosen.get("data")}
        return Variant(name, (), picked, made, _identity(made, Measure.of(made), picked, tasks))

    if not options.models:
        return [variant(None, config["model"], chosen.get("model"))]
    return [variant(name, model, name) for name, model in _here(config, options.models)]


def _here(config: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Models by name with their settings; the network is never asked."""
    for name in dict.fromkeys(names):
        choices.option("model", name)
        model = choices.content("model", name)
        own = (("local_files_only", True), ("device", config["model"].get("device")))
        model |= {key: value for key, value in own if key in model and value is not None}
        try:
            if model.get("path"):
                keys = {key: model[key] for key in ("revision", "allow_pickle") if key in model}
                find(model["path"], local_files_only=True, **keys)
        except UserError as error:
            print(f"left out: {name}: {error.wrong}")
            continue
        yield name, model


def _identity(
    config: Mapping[str, Any], measure: Measure, chosen: Mapping[str, str | None], tasks: Sequence[EditTask]
) -> Identity:
    """Everything that changes a row."""
    whole = identity_over(digest_of(tasks), {**config, "method": {}, "metric": {}}, chosen)
    return Identity({**{key: whole.parts[key] for key in ("model", "data")}, **measure.parts()})


def _about(variant: Variant, options: Options) -> dict[str, Any]:
    measure = Measure.of(variant.config)
    return {
        "model": model_name(variant),
        "data": variant.identity.parts["data"],
        "binarise": measure.binarise.settings(),
        "phrase": measure.phrase,
        "overlap": measure.overlap,
        "floor": options.floor,
    }


def model_name(variant: Variant) -> str:
    """`embedded`, `zeroscope_v2_576w`, `random`: where the weights come from, without the folders before it."""
    model = variant.config["model"]
    path = model.get("path")
    return Path(str(path)).name if path else str(variant.choices["model"])


def _install(config: Mapping[str, Any], book: Codebook) -> None:
    path = Path(config["paths"]["codebooks"]).expanduser() / f"{book.model}-{book.backbone}.json"
    book.write(path)
    print(f"masks find it at:       {path}")


def _refuse_without_masks(data: DataSource, words: Sequence[Word]) -> None:
    """Before the model is loaded: at least one item must have something to be compared with."""
    if not any(_has_mask(data, each) for each in words):
        raise UserError(
            "no clip has a mask of what its task is about",
            came=", ".join(each.one.id for each in words[:5]) + (", ..." if len(words) > 5 else ""),
            expected="clips with annotations, under the words of their tasks: data=world_train, data=davis",
        )


def _has_mask(data: DataSource, word: Word) -> bool:
    try:
        return mask_of(data.clip(word.task), word.word) is not None
    except Exception:
        return True  # a clip that cannot be read becomes a row
