"""`freemask bench what=fusion`: what fusion costs in time and memory; leaves every number, a table and a plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.commands.edit import words_of
from experiments.config import choices
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.identity import Identity
from experiments.config.options import Keys
from experiments.cost import ledger as ledgers
from experiments.cost import report as report
from experiments.cost.ledger import Ledger
from experiments.cost.memory import freed_is_returned
from experiments.cost.plan import Cell, Grid, Measure
from experiments.cost.work import MODES, Edits
from experiments.runs import environment
from experiments.runs.progress import Reporter, reporting
from freemask.data.geometry import Geometry
from freemask.data.one import changed_words
from freemask.data.tasks import check_task
from freemask.errors import UserError, nearest
from freemask.fusion.settings import Fusion
from freemask.methods.invert_fuse import InvertFuse
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

TARGET = "experiments.commands.bench.fusion"  # of conf/what/fusion.yaml
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

    def sides(self, backbone: Any) -> tuple[int, int]:
        """Height and width in pixels."""
        short, sides = (self.size, (None, None)) if isinstance(self.size, int | None) else (None, self.size)
        asked = Geometry(short_side=short, height=sides[0], width=sides[1])
        fit = asked.fitted(multiple=backbone.multiple, native=backbone.native).fit(*backbone.native)
        return fit.height, fit.width


def fusion(run: Mapping[str, Any]) -> None:
    """What `freemask train` finds, which has the group `what` as well."""
    raise UserError(
        "what=fusion trains nothing", came="freemask train what=fusion", todo="freemask bench what=fusion"
    )


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    if config["what"].get("_target_") != TARGET:
        raise UserError("this is none of the things to measure", expected="what=fusion is what there is")
    options = Options.of(config)
    task, method = options.task(), fusing(build(config["method"], "method"))
    path = (
        Path(options.out).expanduser() / f"bench-fusion-{options.name or _model_name(config['model'])}.json"
    )
    cells = list(options.grid().cells())
    with reporting(len(cells), "measurements") as reporter:
        reporter.busy("loading the model")
        with freed_is_returned():  # from the start, for what the allocator kept before it would use again
            backbone: Any = build(config["model"], "model")
            edits = Edits(backbone, method, task, *options.sides(backbone))
            identity = _identity(config, options, edits)
            ledger = Ledger.open(path, identity, _about(edits), fresh=options.fresh)
            left = ledger.missing(cells)
            if len(left) < len(cells):
                reporter.say(f"{len(cells) - len(left)} of {len(cells)} measurements are there already")
            measure = Measure(edits)
            _fill(ledger, [cell for cell in left if cell.what == "memory"], measure, reporter)
        _fill(ledger, [cell for cell in left if cell.what != "memory"], measure, reporter)
        if left or not ledger.data["finished"]:
            report.write(ledger, edits)
    print(json.dumps(ledger.data, indent=1) if flags.get("json") else report.text(ledger))
    return 0


def _fill(ledger: Ledger, cells: Sequence[Cell], measure: Measure, reporter: Reporter) -> None:
    for cell in cells:
        reporter.busy(cell.name)
        found = measure(cell)
        ledger.put(cell, found)
        reporter.task_done(f"{cell.name}: {report.short(found)}")


def fusing(method: Any) -> InvertFuse:
    if not isinstance(method, InvertFuse):
        came, todo = type(method).__name__, "method=freemask or method=fatezero"
        raise UserError("this method fuses nothing", came=came, expected="one that does", todo=todo)
    if not isinstance(method.fusion, Fusion):
        raise UserError(
            "without fusion there is nothing to measure", came="fusion=none", todo="fusion=official"
        )
    return method


def _identity(config: Mapping[str, Any], options: Options, edits: Edits) -> Identity:
    """Everything that changes a number: measurements of two commits or machines are not mixed."""
    own = {key: value for key, value in asdict(options).items() if key not in ("name", "out", "fresh")}
    method = {key: value for key, value in config["method"].items() if not key.startswith("inversions")}
    parts = {
        "options": own | {"kind": edits.task.kind, "words": edits.task.words},
        "method": method,
        "model": config["model"],
        "backbone": edits.backbone.identity,
        "machine": ledgers.machine(edits.backbone),
    }
    return Identity(json.loads(json.dumps(parts, default=str)))


def _about(edits: Edits) -> dict[str, Any]:
    backbone, method = edits.backbone, edits.method
    assert isinstance(method.fusion, Fusion)
    return {
        **ledgers.machine(backbone),
        "fusion": {"variant": method.fusion.variant, **method.fusion.parts},
        "masks": type(method.mask).__name__ if method.fusion.masks(edits.task.kind) else "none",
        "guidance": method.guidance,
        "dirty": environment.commit()[1],
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "gpu": backbone.device.type == "cuda",
        "size": [edits.height, edits.width],
        "latents": list(backbone.encode(edits.clip(1).frames).shape[1:]),
        **ledgers.abilities(),
    }


def _model_name(model: Mapping[str, Any]) -> str:
    """The option of conf/model, or the folder that its weights come from."""
    for each in choices.group("model"):
        known = choices.content("model", each.name)
        if all(known.get(key) == model.get(key) for key in ("_target_", "path")):
            return each.name
    path = model.get("path")
    return Path(str(path)).name if path else str(model["_target_"]).rpartition(".")[2]
