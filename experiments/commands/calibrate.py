"""`freemask calibrate`: measure every layer and time of a model against true masks; leave rows, a codebook, figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.config.build import build
from experiments.config.compose import plain, typed
from experiments.config.options import Keys
from experiments.engines.base import Engine, at_least
from experiments.engines.start import Order, carry_out, named_folder
from experiments.jobs.calibrate import Measure
from experiments.jobs.calibration_plan import (
    model_name,
    refuse_without_masks,
    variants_of,
    words_to_measure,
)
from experiments.loggers.base import Guarded
from experiments.report import calibration as results
from experiments.report import install
from experiments.runs.plan import Plan, Variant
from experiments.runs.record import RECORD
from experiments.runs.rows import Row
from freemask.errors import UserError
from freemask.masks.codebook import Codebook
from freemask.masks.mmc import check_floor
from freemask.masks.words import check_heat, check_phrase

VERB = Verb(
    "measure which layer and time give the best masks, and write the codebook that masks look up",
    prompts=("name",),
    paths=("paths.codebooks", *PATHS),
    positional="name",
    multirun=True,
    works_on_files=True,
    names={"name": "runs", "models": "model"},
    examples=(
        "freemask calibrate",
        "freemask calibrate model=zeroscope data=davis data.tasks=tasks.yaml model.device=cuda",
        "freemask calibrate binarise.preset=official overlap=two_class steps=20 limit=10",
        "freemask calibrate install=true",
        "freemask calibrate experiment=freemask/fig1",
    ),
)


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/calibrate.yaml."""

    name: str | None
    steps: int
    phrase: str
    heat: str
    heads: bool
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
        check_heat(self.heat)
        check_floor(self.floor)
        at_least("steps", self.steps, 1)
        at_least("limit", self.limit, 1)
        at_least("maps", self.maps, 0)
        if self.budget <= 0:
            raise UserError("budget is too small", came=f"budget={self.budget}", expected="more than 0")


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    engine: Engine = build(config["runner"], "runner")
    data = build(config["data"], "data")
    tasks = list(data.tasks())
    words = words_to_measure(tasks)[: options.limit]
    variants = variants_of(config, flags["choices"], tasks, options.models or ())
    if not variants:
        return 1
    own = f"calibrate-{variants[0].choices['model']}-{variants[0].identity.hash[:8]}"
    folder = named_folder(config, options.name or ("calibrate" if options.models else own))
    if not (folder / RECORD).exists():
        refuse_without_masks(data, words)
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
        if book is not None:
            left = len(words) - len(rows)
            print(*_installed(options, config, book, variant.folder(folder), flags, left), sep="\n")
    if variants[0].name is not None and books:
        results.together(folder, {str(name): book for name, book in books.items()})
    return 0 if books else 1


def _about(variant: Variant, options: Options) -> dict[str, Any]:
    measure = Measure.of(variant.config)
    return {
        "model": model_name(variant),
        "data": variant.identity.parts["data"],
        "binarise": measure.binarise.settings(),
        "phrase": measure.phrase,
        "heat": measure.kind,
        "overlap": measure.overlap,
        "floor": options.floor,
    }


def _installed(
    options: Options,
    config: Mapping[str, Any],
    book: Codebook,
    folder: Path,
    flags: Mapping[str, Any],
    left: int,
) -> Sequence[str]:
    if options.install:
        return install.not_yet(left) if left else install.install(book, config["paths"]["codebooks"])
    words = [each for each in flags.get("overrides", ()) if not each.startswith("install=")]
    command = f"freemask calibrate {typed(words, (*VERB.prompts, *VERB.paths))}".rstrip()
    return install.how_to_install(book, folder, command)
