"""`freemask table NAME`: a paper's table from the rows of runs, beside what the paper printed, in every format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from evaluation.tables import render
from evaluation.tables.papers import PaperTable, read
from experiments.cli.verb import Verb
from experiments.config.compose import plain
from experiments.config.options import Keys
from experiments.tables.lacking import content
from experiments.tables.made import of_runs, of_settings
from experiments.tables.rows import folders, stores

VERB = Verb(
    "a paper's table from the rows of runs: ours, the published value, the difference, what is missing",
    prompts=("name", "reference", "out"),
    paths=("paths.runs",),
    positional="name",
    json=True,
    reads_rows=True,
    names={"name": "tables", "runs": "runs"},
    examples=(
        "freemask table freemask/2",
        "freemask table fatezero/1 runs=[fatezero-table1] reference=sdedit",
        "freemask table freemask/2 runs=[freemask-table2,tokenflow] out=paper",
    ),
)

# What the rows of one line may differ in, as `evaluation.tables.filled.UNIFORM` has it.
Mixed = Literal["commit", "run", "steps", "model", "device", "dtype", "frames"]


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/table.yaml."""

    name: str | None
    runs: str | Sequence[str] | None
    out: str
    reference: str | None
    mixed: Mixed | Sequence[Mixed]


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    table = read(options.name)
    if table.kind == "words":
        made = of_settings(table)
    else:
        found = _runs(table, options.runs, Path(config["paths"]["runs"]).expanduser())
        mixed = [options.mixed] if isinstance(options.mixed, str) else options.mixed
        made = of_runs(table, found, mixed, options.reference)
    kept = made.write(Path(options.out).expanduser())
    if flags.get("json"):
        print(made.json)
    else:
        print("\n\n".join(render.text(grid) for grid in made.grids))
        print("\nfiles: " + ", ".join(str(path) for path in kept))
    return 0


def _runs(table: PaperTable, asked: str | Sequence[str] | None, runs: Path) -> list[Path]:
    """The runs asked for, or the one that the table's experiment makes where it is there."""
    if asked is not None:
        return folders(runs, [asked] if isinstance(asked, str) else asked)
    usual = runs / str(content(table.experiment).get("name") or table.file_name)
    return [usual] if stores(usual) else []
