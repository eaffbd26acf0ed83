"""`freemask edit`: one clip or picture and its prompts; what it leaves is decided in `edit_folder`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float
from omegaconf import DictConfig
from torch import Tensor

from experiments.cli.verb import EDIT, PATHS, Verb
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.options import Keys
from experiments.config.variants import Variant, unused
from experiments.jobs.benches import fit, make_bench
from experiments.jobs.edit_folder import folder_of, hash_of, leave, tell
from experiments.loggers.base import Guarded
from experiments.runs.progress import reporting
from experiments.runs.store import RunStore
from freemask.data.frames import FrameRange
from freemask.data.geometry import Geometry
from freemask.data.one import OneClip, changed_words
from freemask.data.paths import existing
from freemask.data.tasks import check_task
from freemask.errors import UserError, nearest
from freemask.types import KINDS, Backbone, Clip, DataSource, EditTask

VERB = Verb(
    "edit one clip and leave the mp4, a side-by-side and a contact sheet",
    prompts=("source", "target", "words", *EDIT),
    paths=("clip", "out", *PATHS),
    positional="clip",
    multirun=True,
    examples=(
        "freemask edit",
        'freemask edit clip=my.mp4 --source "a red car, driving" --target "a blue car, driving"',
        "freemask edit clip=frames/ source='a bear' target='a lion' words=bear:lion task=shape",
        'freemask edit my.mp4 --source "a cat" --target "a dog" model=zeroscope method.steps=50',
    ),
    keys=(
        "clip=PATH         a video, a folder of frames, a picture, or a clip of data=...",
        "source= target=   the two prompts, as plain text (or --source, --target)",
        "words=car:truck   which word becomes which; left out, it is read off the prompts",
        "out=FOLDER        where the results go",
        "frames= start= stride= size=   which frames of a file, and how large",
        "method=freemask mask=agreement fusion=paper   how; freemask list shows what else there is",
        "method.steps=N    seed=N",
    ),
)

FRAMES = 8  # of a file, unless frames= says otherwise: what the embedded model was trained on


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/edit.yaml."""

    clip: str | None
    source: str | None
    target: str | None
    words: str | None
    kind: str | None
    seed: int
    out: str | None
    frames: int | None
    start: int
    stride: int
    size: int | Sequence[int] | None
    crop: str

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise UserError(f"there is no kind '{self.kind}'", expected=nearest(self.kind, KINDS))
        if not isinstance(self.size, int | None) and len(self.size) != 2:
            raise UserError(
                "size is one number or two", came=self.size, expected="size=320 or size=[320,576]"
            )

    def geometry(self) -> Geometry:
        short, sides = (self.size, (None, None)) if isinstance(self.size, int | None) else (None, self.size)
        return Geometry(short_side=short, height=sides[0], width=sides[1], crop=self.crop)

    def range(self) -> FrameRange:
        return FrameRange(start=self.start, stride=self.stride, count=self.frames)


@dataclass(frozen=True)
class Changed:
    """A known clip under other prompts than its own: there is no true answer to them."""

    task: EditTask
    footage: Clip

    def tasks(self) -> Sequence[EditTask]:
        return [self.task]

    def clip(self, task: EditTask) -> Clip:
        return self.footage

    def oracle(self, task: EditTask) -> Float[Tensor, "f 3 h w"] | None:
        return None

    def region(self, task: EditTask) -> Bool[Tensor, "f h w"] | None:
        return None


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    task, data = wanted(options, config)
    build(config["method"], "method")  # a mistake in it shows before anything is looked up or loaded
    with reporting(1) as reporter:
        for line in unused([Variant(None, (), cfg, config)], flags.get("overrides", ())):
            reporter.say(line)
        logger = Guarded(build(config["logger"], "logger"), reporter.say)
        reporter.busy("loading the model")
        bench = make_bench(config, {"run": hash_of(config, task)})
        reporter.busy("reading the clip")
        if isinstance(data, OneClip):
            data = read(data, options.frames, bench.backbone)
        fit(data, bench.backbone)
        folder = folder_of(config, options.out, task)
        logger.start(folder, {"identity": bench.about["run"], "parts": config})
        outcome = bench.edit(task, data, reporter.stage)
        files = leave(folder, outcome)
        row = outcome.row | {"files": {name: path.name for name, path in files.items()}}
        RunStore(folder).append("edit", row)
        logger.row(row, files)
        logger.end([row])
    return tell(folder, row, files)


def wanted(options: Options, config: Mapping[str, Any]) -> tuple[EditTask, DataSource]:
    """The task, and where its clip comes from: a file, or a clip that the data knows."""
    asked = {key: getattr(options, key) for key in ("source", "target", "kind")}
    asked["words"] = None if options.words is None else words_of(options.words)
    if options.clip is not None and Path(options.clip).expanduser().exists():
        _need_prompts(options)
        one = OneClip(options.clip, asked, options.geometry(), options.range())
        return one.task, one
    source = build(config["data"], "data")
    task = _known(options.clip, source.tasks())
    if all(value is None for value in asked.values()):
        return task, source
    prompts = {key: asked[key] or getattr(task, key) for key in ("source", "target")}
    words = asked["words"] or changed_words(**prompts)
    kind = options.kind or (task.kind if words else "style")
    own = {"id": f"{task.id}-own", "clip": task.clip, "kind": kind, "words": words, **prompts}
    return check_task(own), Changed(check_task(own), source.clip(task))


def words_of(text: str) -> dict[str, str]:
    """`car:truck, road:snow`, or with -> and ; as task lists have it. `car:` alone: the target leaves the car out."""
    pairs: dict[str, str] = {}
    for part in re.split(r"[;,]", text.strip().removeprefix("{").removesuffix("}")):
        found = re.fullmatch(r"\s*([^:>]+?)\s*(?:->|:)\s*([^:>]*?)\s*", part)
        if not found:
            raise UserError(
                f"cannot read '{part.strip()}' as words",
                came=f"words={text}",
                expected="car:truck, road:snow",
            )
        pairs[found[1]] = found[2]
    return pairs


def read(one: OneClip, frames: int | None, backbone: Backbone) -> OneClip:
    """Decides size and frames of a file, and whether it can be read. Without frames=, a clip shorter than FRAMES is
    taken whole."""
    fit(one, backbone)
    one.frames = replace(one.frames, count=frames or FRAMES)
    try:
        one.clip(one.task)
    except UserError:
        if frames is not None:
            raise
        one.frames = replace(one.frames, count=None)
        if len(one.clip(one.task).frames) >= FRAMES:
            raise
    return one


def _need_prompts(options: Options) -> None:
    for key in ("source", "target"):
        if getattr(options, key) is None:
            raise UserError(
                f"the {key} prompt is needed",
                came=f"clip={options.clip} alone",
                expected="what the clip shows, and what it is to show",
                todo='add --source "..." --target "..."',
            )


def _known(clip: str | None, tasks: Sequence[EditTask]) -> EditTask:
    for task in tasks:
        if clip in (None, task.id, task.clip):
            return task
    if Path(clip or "").suffix or "/" in (clip or ""):
        existing(clip or "")
    names = {task.clip for task in tasks} | {task.id for task in tasks}
    raise UserError(
        f"there is no clip '{clip}'",
        came=f"clip={clip}",
        expected=f"a file or folder, or a clip of the data: {nearest(clip or '', names)}",
    )
