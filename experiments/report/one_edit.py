"""One edit from its composed command to the folder that it leaves: the same for the command and for the page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from experiments.config.build import build
from experiments.jobs import beforehand
from experiments.jobs.edit import fit, make_editor
from experiments.jobs.job import head
from experiments.jobs.one_clip import read
from experiments.jobs.outcome import Outcome
from experiments.jobs.variants import Composition, unused
from experiments.loggers.base import Guarded
from experiments.report.edit_folder import edit_identity, folder_of, leave, make_room
from experiments.runs.plan import Item, Variant
from experiments.runs.rows import keep_columns, now
from experiments.runs.store import RunStore
from freemask.data.one import OneClip
from freemask.types import Backbone, DataSource, EditTask


class Tells(Protocol):
    """Who is told how far the work is: bars on a terminal, or a page."""

    def stage(self, name: str, done: int, total: int) -> None: ...
    def busy(self, name: str) -> None: ...
    def say(self, line: str) -> None: ...


@dataclass(frozen=True)
class Planned:
    """An edit that nothing speaks against, as far as is known before a model is loaded. `frames`: so many of a file."""

    command: Composition
    config: Mapping[str, Any]
    task: EditTask
    data: DataSource
    variant: Variant
    folder: Path
    frames: int | None

    @classmethod
    def of(  # noqa: PLR0913 -- what an edit is, and two wishes
        cls,
        command: Composition,
        config: Mapping[str, Any],
        task: EditTask,
        data: DataSource,
        *,
        frames: int | None = None,
        out: str | None = None,
    ) -> "Planned":
        """`config` are the plain values of `command`."""
        variant = command.variant(None, (), lambda config, choices: edit_identity(config, task, choices))
        beforehand.refuse(config, task, data, frames)
        folder = folder_of(config, out, task, variant)
        return cls(command, config, task, data, variant, folder, frames)

    def make(
        self,
        reporter: Tells,
        *,
        began: Callable[[Outcome], None] | None = None,
        load: Callable[[], Backbone] | None = None,
    ) -> tuple[Outcome, dict[str, Path]]:
        """The edit, and the files in its folder, by what they are. `load` gives the model where one is kept, which is
        the one that the configuration names."""
        for line in unused(self.command.overrides, [self.command]):
            reporter.say(line)
        logger = Guarded(build(self.config["logger"], "logger"), reporter.say)
        reporter.busy("loading the model")
        editor = make_editor(self.config, backbone=None if load is None else load())
        reporter.busy("reading the clip")
        data = read(self.data, self.frames, editor.backbone) if isinstance(self.data, OneClip) else self.data
        fit(data, editor.backbone)
        logger.start(self.folder, self.variant.identity.record())
        editor.began = began
        row = head(Item(self.task.id, self.task.stored()), self.variant)
        outcome = editor.edit(row, self.task, data, reporter.stage)
        for line in make_room(self.folder, outcome.row) if outcome.row["status"] == "done" else ():
            reporter.say(f"note: {line}")
        files = leave(self.folder, outcome)
        outcome.tell(files={name: path.name for name, path in files.items()}, finished=now())
        RunStore(self.folder).append("edit", outcome.row)
        keep_columns(self.folder, outcome.columns)
        logger.row(outcome.row, files)
        logger.end([outcome.row])
        return outcome, files
