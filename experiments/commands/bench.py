"""`freemask bench`: what fusion costs in time and memory; leaves every number, a table and a plot."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.fingerprint import Identity
from experiments.config.options import Keys
from experiments.cost import report
from experiments.cost.job import fusing, items_of
from experiments.cost.machine import machine
from experiments.cost.plan import Grid
from experiments.cost.work import MODES
from experiments.engines.base import Engine
from experiments.engines.start import Order, carry_out, named_folder
from experiments.jobs.one_clip import words_of
from experiments.runs.plan import Plan, Variant
from experiments.runs.record import Record
from freemask.data.one import changed_words
from freemask.data.tasks import check_task
from freemask.errors import UserError, nearest
from freemask.types import EditTask

VERB = Verb(
    "measure what fusion costs in time and memory, as ratios to an edit without it",
    prompts=("name", "source", "target", "words"),
    paths=("out", *PATHS),
    json=True,
    examples=(
        "freemask bench what=fusion",
        "freemask bench frames=[2,4,8] steps=[10,20] at_steps=20",
        "freemask bench model=zeroscope at_frames=16 grid_modes=[] method.budget_gb=64",
    ),
    keys=(
        "at_frames= at_steps=     the clip of the table; repeats=N of each time, the best one counts",
        "modes=[plain,recompute,cache_device,cache_host,cache_disk]   of the table",
        "frames=[...] steps=[...] grid_modes=[...]   over which peak memory is measured",
        "size=                    pixels, or [height, width]",
        "method.budget_gb=N       the most that the cache modes may keep",
        "out=FOLDER name=NAME     where the files go: bench-fusion-NAME; the same command continues",
        "fresh=true               forget what an earlier start has measured",
    ),
)

NEEDED = ("plain", "recompute")  # modes with which the others are compared


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/bench.yaml."""

    modes: Sequence[str]
    at_frames: int
    at_steps: int
    repeats: int
    grid_modes: Sequence[str]
    frames: Sequence[int]
    steps: Sequence[int]
    size: int | Sequence[int] | None
    source: str
    target: str
    words: str | None
    kind: str | None
    name: str | None
    out: str
    fresh: bool

    def __post_init__(self) -> None:
        for key, given in (("modes", self.modes), ("grid_modes", self.grid_modes)):
            for mode in given:
                if mode not in MODES:
                    came = f"{key}=[{','.join(given)}]"
                    raise UserError(f"there is no mode '{mode}'", came=came, expected=nearest(mode, MODES))
        for mode in NEEDED:
            if mode not in self.modes:
                raise UserError(
                    f"the table needs the mode '{mode}', with which others are compared",
                    came=f"modes=[{','.join(self.modes)}]",
                    expected=f"modes=[{','.join(NEEDED)},...]",
                )
        for key in ("at_frames", "at_steps", "repeats", "frames", "steps"):
            value = getattr(self, key)
            if min([value] if isinstance(value, int) else value, default=1) < 1:
                raise UserError(f"{key} is too small", came=f"{key}={value}", expected="1 or more")
        if not isinstance(self.size, int | None) and len(self.size) != 2:
            raise UserError("size is one number or two", came=self.size, expected="size=64 or size=[320,576]")
        if self.name is not None and (not self.name or set(self.name) & set("/\\") or self.name[0] == "."):
            raise UserError(
                "the name is no part of a file's name", came=f"name={self.name}", expected="name=WORD"
            )

    def grid(self) -> Grid:
        return Grid(**{each.name: getattr(self, each.name) for each in fields(Grid)})

    def task(self) -> EditTask:
        words = changed_words(self.source, self.target) if self.words is None else words_of(self.words)
        own = {"source": self.source, "target": self.target, "words": words, "kind": self.kind or "attribute"}
        return check_task({"id": "bench", "clip": "pattern", **own})


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    if config["what"].get("bench") != "fusion":
        raise UserError("this is none of the things to measure", expected="what=fusion is what there is")
    options = Options.of(config)
    engine: Engine = build(config["runner"], "runner")
    fusing(build(config["method"], "method"))
    task, cells = options.task(), list(options.grid().cells())
    name = options.name or str(flags["choices"].get("model"))
    folder = named_folder(config, f"bench-fusion-{name}")
    if options.fresh and Record.seen(folder).job == JOB:
        shutil.rmtree(folder)
    variant = _variant(config, options, task, flags["choices"])
    order = Order(Plan(JOB, [variant], items_of(cells)), folder, redo=True, unit="measurements")
    ended = carry_out(order, config, engine)
    if not ended.speaks or ended.left:
        return 0
    path = Path(options.out).expanduser() / f"bench-fusion-{name}.json"
    data = report.data_of(ended.rows, variant.identity.parts)
    said = report.write(path, name, data)
    print(json.dumps(data, indent=1) if flags.get("json") else said)
    return 0


JOB = "experiments.cost.job"


def _variant(
    config: Mapping[str, Any], options: Options, task: EditTask, chosen: Mapping[str, str | None]
) -> Variant:
    """Everything that changes a number is part of the identity: measurements of two commits or machines never share a
    folder."""
    own = {key: value for key, value in asdict(options).items() if key not in ("name", "out", "fresh")}
    own |= {"kind": task.kind, "words": dict(task.words)}
    made = {
        "options": own,
        "model": config["model"],
        "method": config["method"],
        "task": asdict(task),
        "seed": 0,
    }
    method = {key: value for key, value in config["method"].items() if not key.startswith("inversions")}
    parts = {"options": own, "model": config["model"], "method": method, "machine": machine()}
    picked = {group: chosen.get(group) for group in ("method", "model", "mask", "fusion")}
    return Variant(None, (), picked, made, Identity(json.loads(json.dumps(parts, default=str))))
