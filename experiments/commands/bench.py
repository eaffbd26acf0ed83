"""`freemask bench`: what fusion costs in time and memory; leaves every number, a table and a plot."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.fingerprint import Identity
from experiments.config.options import Keys
from experiments.cost import report
from experiments.cost.job import SETTING, cells_of, fusing
from experiments.cost.machine import machine
from experiments.cost.work import Mode
from experiments.engines.base import Engine, at_least
from experiments.engines.start import Order, carry_out, named_folder
from experiments.runs.plan import Item, Plan, Variant
from experiments.runs.record import Record
from experiments.runs.rows import file_name
from freemask.data.tasks import check_task
from freemask.errors import UserError
from freemask.types import EditTask

VERB = Verb(
    "measure what fusion costs in time and memory, as ratios to an edit without it",
    prompts=("name", "source", "target", "words"),
    paths=("out", *PATHS),
    json=True,
    examples=(
        "freemask bench",
        "freemask bench frames=[2,4,8] steps=[10,20] at_steps=20",
        "freemask bench model=zeroscope at_frames=16 grid_modes=[] method.budget_gb=64",
    ),
)

NEEDED: tuple[Mode, ...] = ("plain", "recompute")  # modes with which the others are compared
JOB = "experiments.cost.job"


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/bench.yaml."""

    modes: Sequence[Mode]
    at_frames: int
    at_steps: int
    repeats: int
    grid_modes: Sequence[Mode]
    frames: Sequence[int]
    steps: Sequence[int]
    size: int | tuple[int, int] | None
    source: str
    target: str
    words: str | None
    kind: str | None
    name: str | None
    out: str
    fresh: bool

    def __post_init__(self) -> None:
        for key in ("at_frames", "at_steps", "repeats", "frames", "steps"):
            value = getattr(self, key)
            at_least(key, min([value] if isinstance(value, int) else value, default=1), 1)
        if self.name is not None and file_name(self.name) != self.name:
            wrong = "the name is no part of a file's name"
            raise UserError(wrong, came=f"name={self.name}", expected="name=WORD")

    def task(self) -> EditTask:
        own = {key: getattr(self, key) for key in ("source", "target", "words", "kind")}
        return check_task({"id": "bench", "clip": "pattern", **own})


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    engine: Engine = build(config["runner"], "runner")
    fusing(build(config["method"], "method"))
    if (tuning := flags["choices"].get("tuning")) not in (None, "none"):
        raise UserError(
            "what is measured here is fusion, on the model as it is",
            came=f"tuning={tuning}",
            todo=f"freemask tune tuning={tuning} says what a tuning takes in time and memory",
        )
    variant = _variant(config, options, flags["choices"])
    cells = list(cells_of(variant.config["options"]))
    name = options.name or str(flags["choices"].get("model"))
    folder = named_folder(config, f"bench-fusion-{name}")
    if options.fresh and Record.seen(folder).job == JOB:
        shutil.rmtree(folder)
    items = [Item(SETTING), *(Item(cell.name, asdict(cell)) for cell in cells)]
    order = Order(Plan(JOB, [variant], items), folder, redo=True, unit="measurements")
    ended = carry_out(order, config, engine)
    if not ended.speaks or ended.left:
        return 0
    data = report.data_of(cells, ended.rows, variant.identity.parts)
    said = report.write(Path(options.out).expanduser() / f"bench-fusion-{name}.json", name, data)
    print(json.dumps(data, indent=1) if flags.get("json") else said)
    return 0


def _variant(config: Mapping[str, Any], options: Options, chosen: Mapping[str, str | None]) -> Variant:
    """Everything that changes a number is part of the identity: measurements of two commits or machines never share a
    folder."""
    task = options.task()
    own = {key: value for key, value in asdict(options).items() if key not in ("name", "out", "fresh")}
    own |= {"modes": list(dict.fromkeys([*NEEDED, *options.modes]))}
    own |= {"kind": task.kind, "words": dict(task.words)}
    made = {"options": own, "model": config["model"], "method": config["method"]}
    method = {key: value for key, value in config["method"].items() if not key.startswith("inversions")}
    parts = {**made, "method": method, "machine": machine()}
    picked = {group: chosen.get(group) for group in ("method", "model", "mask", "fusion")}
    identity = Identity(json.loads(json.dumps(parts, default=str)))
    return Variant(None, (), picked, {**made, "task": asdict(task), "seed": 0}, identity)
