"""`freemask edit`: one clip or picture and its prompts; what it leaves is decided in `report/edit_folder.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from experiments.cli.verb import EDIT, PATHS, Verb
from experiments.config.compose import plain
from experiments.jobs.one_clip import Asked, made
from experiments.jobs.strategies import looked, strategies_of
from experiments.jobs.variants import Composition
from experiments.report.edit_folder import tell, tell_before
from experiments.report.mask_sheet import about_masks, folder_of_masks, leave_masks, tell_masks
from experiments.report.one_edit import Planned
from experiments.runs.progress import reporting
from freemask.types import DataSource, EditTask

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
class Options(Asked):
    """The plain keys of conf/edit.yaml."""

    masks: str | Sequence[str] | None
    seed: int
    out: str | None


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    task, data = options.wish().task(*made(config))
    if options.masks is not None:
        return beside_each_other(config, options, flags, task, data)
    command = Composition(cfg, flags["choices"], flags.get("overrides", ()))
    planned = Planned.of(command, config, task, data, frames=options.frames, out=options.out)
    with reporting(1) as reporter:
        outcome, files = planned.make(reporter, began=tell_before)
    return tell(planned.folder, outcome, files)


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
