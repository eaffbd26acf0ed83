"""`freemask edit`: one clip or picture and its prompts; what it leaves is decided in `report/edit_folder.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from experiments.cli.verb import EDIT, PATHS, Verb
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.jobs import beforehand
from experiments.jobs.edit import fit, make_editor
from experiments.jobs.job import head
from experiments.jobs.one_clip import Cut, Wish, made, read
from experiments.jobs.strategies import looked, strategies_of
from experiments.jobs.variants import Composition, unused
from experiments.loggers.base import Guarded
from experiments.report.edit_folder import edit_identity, folder_of, leave, make_room, tell, tell_before
from experiments.report.mask_sheet import about_masks, folder_of_masks, leave_masks, tell_masks
from experiments.runs.plan import Item
from experiments.runs.progress import reporting
from experiments.runs.rows import keep_columns, now
from experiments.runs.store import RunStore
from freemask.data.one import OneClip
from freemask.types import DataSource, EditTask, Kind

VERB = Verb(
    "edit one clip and leave the mp4, a side-by-side and a contact sheet",
    prompts=("source", "target", "words", "edits", *EDIT),
    paths=("clip", "out", *PATHS),
    positional="clip",
    multirun=True,
    works_on_files=True,
    names={"masks": "mask"},
    examples=(
        "freemask edit",
        'freemask edit clip=my.mp4 --source "a red car, driving" --target "a blue car, driving"',
        "freemask edit clip=frames/ source='a bear' target='a lion' words=bear:lion task=shape",
        'freemask edit my.mp4 --source "a cat" --target "a dog" model=zeroscope method.steps=50',
        'freemask edit my.mp4 --source "a cat and a dog" --target "a fox and a pig" edits="cat->fox; dog->pig"',
        "freemask edit masks=all",
    ),
)


@dataclass(frozen=True)
class Options(Cut):
    """The plain keys of conf/edit.yaml."""

    clip: str | None
    source: str | None
    target: str | None
    words: str | None
    edits: str | Sequence[Any] | None
    masks: str | Sequence[str] | None
    kind: Kind | None
    seed: int
    out: str | None

    def wish(self) -> Wish:
        return Wish(self.clip, self.source, self.target, self.words, self.kind, *self.taken(), self.edits)


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    task, data = options.wish().task(*made(config))
    if options.masks is not None:
        return beside_each_other(config, options, flags, task, data)
    command = Composition(cfg, flags["choices"], flags.get("overrides", ()))
    variant = command.variant(None, (), lambda config, choices: edit_identity(config, task, choices))
    beforehand.refuse(config, task, data, options.frames)
    folder = folder_of(config, options.out, task, variant)
    with reporting(1) as reporter:
        for line in unused(command.overrides, [command]):
            reporter.say(line)
        logger = Guarded(build(config["logger"], "logger"), reporter.say)
        reporter.busy("loading the model")
        editor = make_editor(config)
        reporter.busy("reading the clip")
        if isinstance(data, OneClip):
            data = read(data, options.frames, editor.backbone)
        fit(data, editor.backbone)
        logger.start(folder, variant.identity.record())
        editor.began = tell_before
        outcome = editor.edit(head(Item(task.id, task.stored()), variant), task, data, reporter.stage)
        for line in make_room(folder, outcome.row) if outcome.row["status"] == "done" else ():
            reporter.say(f"note: {line}")
        files = leave(folder, outcome)
        outcome.tell(files={name: path.name for name, path in files.items()}, finished=now())
        RunStore(folder).append("edit", outcome.row)
        keep_columns(folder, outcome.columns)
        logger.row(outcome.row, files)
        logger.end([outcome.row])
    return tell(folder, outcome, files)


def beside_each_other(
    config: Mapping[str, Any], options: Options, flags: Mapping[str, Any], task: EditTask, data: DataSource
) -> int:
    """`masks=...`: what each mask strategy takes for the object; nothing is edited."""
    strategies = strategies_of(options.masks or "all", flags.get("overrides", ()))
    folder = folder_of_masks(config, options.out, task)
    with reporting(1) as reporter:
        clip, found, notes = looked(config, strategies, task, data, options.frames, reporter)
    about = [f"{task.source}  ->  {task.target}", *about_masks(config, flags["choices"], task)]
    tell_masks(found, [*about, *notes], leave_masks(folder, clip, found, about))
    return 0
