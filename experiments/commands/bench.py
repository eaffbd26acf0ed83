"""`freemask bench`: what a method costs in time and memory; leaves every number, a table and a plot."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.config.build import build
from experiments.config.compose import composed, plain
from experiments.config.fingerprint import Identity
from experiments.config.options import Keys
from experiments.cost import report, speed_report
from experiments.cost.job import SETTING, cells_of, with_something_to_measure
from experiments.cost.machine import PLAIN, machine
from experiments.cost.rungs import asked, name_of
from experiments.cost.work import FREE, Mode, annotated, clip_of, modes_of
from experiments.engines.base import Engine, at_least
from experiments.engines.start import Order, carry_out, named_folder
from experiments.runs.plan import Item, Plan, Variant
from experiments.runs.record import Record
from experiments.runs.rows import file_name
from freemask.data.tasks import check_task
from freemask.errors import UserError
from freemask.methods.invert_fuse import InvertFuse
from freemask.types import EditTask, Method

VERB = Verb(
    "measure what a method costs in time and memory, as ratios to a plain edit",
    prompts=("name", "source", "target", "words", "edits"),
    paths=("out", *PATHS),
    json=True,
    examples=(
        "freemask bench",
        "freemask bench method=tokenflow steps=[10] at_steps=10",
        "freemask bench frames=[2,4,8] steps=[10,20] at_steps=20",
        "freemask bench model=zeroscope at_frames=16 grid_modes=[] method.budget_gb=64",
        "freemask bench what=speed",
        "freemask bench what=speed model=wan model.weights=random frames=[17,33] at_steps=50",
    ),
    notes=(
        "what=speed needs no file and no network: on a GPU it builds Zeroscope with random weights (what=speed_full),",
        "in under four minutes; elsewhere it takes the model that ships, or any other that is named.",
    ),
)

SPEED, FULL = "speed", "speed_full"
JOB, SPEED_JOB = "experiments.cost.job", "experiments.cost.speed"
UNCOUNTED = ("name", "out", "fresh")
OF_SPEED, OF_COST = ("seconds", "sizes"), ("at_frames", "repeats", "steps", "size", "grid_modes")
SIZE = (64, 64)  # of the clip that a method is asked about before a model says how large it is
GRID: tuple[Mode, ...] = (
    "plain",
    "recompute",
    "cache_host",
    "edit",
    "bare",
)  # whose memory is measured where nobody says


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/bench.yaml."""

    seconds: float | int
    sizes: Sequence[int | tuple[int, int]] | None
    modes: Sequence[Mode] | None
    at_frames: int
    at_steps: int
    repeats: int
    grid_modes: Sequence[Mode] | None
    frames: Sequence[int]
    steps: Sequence[int]
    size: int | tuple[int, int] | None
    source: str
    target: str
    words: str | None
    edits: str | None
    kind: str | None
    name: str | None
    out: str
    fresh: bool

    def __post_init__(self) -> None:
        for key in ("at_frames", "at_steps", "repeats", "frames", "steps", "seconds"):
            value = getattr(self, key)
            at_least(key, min([value] if isinstance(value, int | float) else value, default=1), 1)
        if self.name is not None and file_name(self.name) != self.name:
            wrong = "the name is no part of a file's name"
            raise UserError(wrong, came=f"name={self.name}", expected="name=WORD")

    def asked(self, method: Method, what: str) -> dict[str, Sequence[str]]:
        """The modes that are measured of this method, those first with which the others are compared."""
        known = modes_of(method)
        for key in ("modes", "grid_modes"):
            for mode in getattr(self, key) or ():
                if mode not in known and not (mode == FREE and isinstance(method, InvertFuse)):
                    wrong = "this method is not measured in this way"
                    raise UserError(
                        wrong, came=f"{key}: {mode}", expected=", ".join(known), todo=f"{key}=null"
                    )
        if what == SPEED:
            return {"modes": list(dict.fromkeys([*known[:2], *(self.modes or ())]))}
        more = known if self.modes is None else self.modes
        grid = [mode for mode in GRID if mode in known] if self.grid_modes is None else self.grid_modes
        return {"modes": list(dict.fromkeys([*known[:2], *more])), "grid_modes": grid}

    def task(self) -> EditTask:
        own = {key: getattr(self, key) for key in ("source", "target", "words", "edits", "kind")}
        return check_task({"id": "bench", "clip": "pattern", **own})


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    choices, typed = flags["choices"], flags.get("overrides", ())
    if choices["what"] in (SPEED, FULL):
        made = composed("bench", presets(typed, str(choices["what"])))
        cfg, choices = made.cfg, made.choices
    what = SPEED if choices["what"] == FULL else str(choices["what"])
    config = plain(cfg)
    options = Options.of(config)
    engine: Engine = build(config["runner"], "runner")
    method = with_something_to_measure(build(config["method"], "method"))
    if (check := getattr(method, "check", None)) is not None:
        task = options.task()
        check(task, lambda: annotated(clip_of(options.at_frames, *SIZE), task))  # before anything is measured
    if (tuning := choices.get("tuning")) not in (None, "none"):
        raise UserError(
            "what is measured here is a method, on the model as it is",
            came=f"tuning={tuning}",
            todo=f"freemask tune tuning={tuning} says what a tuning takes in time and memory",
        )
    variant = _variant(config, options, options.asked(method, what), choices)
    name = options.name or str(choices.get("model"))
    about = "fusion" if isinstance(method, InvertFuse) else str(choices.get("method"))
    way = str(choices.get("speed"))
    stem = f"bench-{f'{SPEED}-' if what == SPEED else ''}{about}-{name}{'' if way == PLAIN else f'-{way}'}"
    measured = _speed if what == SPEED else _cost
    job, items = measured(variant.config["options"])
    folder = named_folder(config, stem)
    if options.fresh and Record.seen(folder).job == job:
        shutil.rmtree(folder)
    order = Order(Plan(job, [variant], [Item(SETTING), *items]), folder, redo=True, unit="measurements")
    ended = carry_out(order, config, engine)
    if not ended.speaks or ended.left:
        return 0
    of = speed_report if what == SPEED else report
    data = of.data_of(items, ended.rows, variant.identity.parts)
    said = of.write(Path(options.out).expanduser() / f"{stem}.json", name, data)
    print(json.dumps(data, indent=1) if flags.get("json") else said)
    return 0


def _cost(options: Mapping[str, Any]) -> tuple[str, list[Item]]:
    return JOB, [Item(cell.name, asdict(cell)) for cell in cells_of(options)]


def _speed(options: Mapping[str, Any]) -> tuple[str, list[Item]]:
    rungs = asked(options["modes"], options["frames"], options["sizes"])
    return SPEED_JOB, [Item(name_of(each), each) for each in rungs]


def presets(typed: Sequence[str], what: str) -> list[str]:
    """With what nobody says: the full size on a GPU, unless a model is named; the time of the masks, unless one is."""
    keys = {each.lstrip("+").partition("=")[0] for each in typed}
    full = what == FULL or (torch.cuda.is_available() and not keys & {"model", "experiment"})
    share = [] if keys & {"mask", "mask.share", "mask.time", "experiment"} else ["mask.share=0.5"]
    others = (each for each in typed if not each.startswith("what="))
    return [*share, *others, f"what={FULL if full else SPEED}"]


def _variant(
    config: Mapping[str, Any],
    options: Options,
    modes: Mapping[str, Sequence[str]],
    chosen: Mapping[str, str | None],
) -> Variant:
    """Everything that changes a number is part of the identity: measurements of two commits or machines never share a
    folder."""
    task = options.task()
    unused = OF_SPEED if "grid_modes" in modes else OF_COST
    own = {key: value for key, value in asdict(options).items() if key not in (*UNCOUNTED, *unused)}
    own |= {**modes, "kind": task.kind, "words": dict(task.words)}
    made = {"options": own, "model": config["model"], "method": config["method"], "speed": config["speed"]}
    method = {key: value for key, value in config["method"].items() if not key.startswith("inversions")}
    parts = {**made, "method": method, "machine": machine()}
    picked = {group: chosen.get(group) for group in ("method", "model", "mask", "fusion")}
    identity = Identity(json.loads(json.dumps(parts, default=str)))
    return Variant(None, (), picked, {**made, "task": task.stored(), "seed": 0}, identity)
