"""What an edit gives in Python: frames, masks, numbers, and the files that the command would leave."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from evaluation.tables.numbers import fact, number
from experiments.jobs.explain import asked, explained, others
from experiments.jobs.outcome import Outcome
from experiments.report.edit_folder import leave, make_room, write_sheet
from experiments.runs.rows import keep_columns, now
from experiments.runs.store import RunStore
from freemask.data import images, video
from freemask.data.write import to_bytes, write_video
from freemask.errors import UserError
from freemask.types import Clip, EditTask


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """An edit that succeeded. In a notebook it shows itself."""

    source: Clip
    frames: Float[Tensor, "f 3 h w"]
    outcome: Outcome

    @classmethod
    def of(cls, outcome: Outcome) -> "Result":
        """An edit that failed is an error here."""
        clip, edit = outcome.clip, outcome.edit
        message, where = (outcome.row.get(key, "") for key in ("message", "where"))
        if outcome.row.get("status") != "done" or clip is None or edit is None:
            raise (
                UserError("the edit failed", came=f"{message} ({where})")
                if where
                else UserError(f"{message}")
            )
        return cls(clip, edit.frames.detach().float().cpu(), outcome)

    @property
    def task(self) -> EditTask:
        """The prompts, the words and the kind of edit, given or guessed."""
        return self.outcome.task

    @property
    def mask(self) -> Float[Tensor, "f h w"] | None:
        """Where the edit might change pixels (the mean over its steps); None where there was no mask."""
        mask = self.outcome.masks().get("mask")
        return None if mask is None else mask.detach().float().cpu()

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.row["facts"]

    @property
    def metrics(self) -> Mapping[str, float]:
        """Those that apply to this clip, by column."""
        return {name: value for name, value in self.row["metrics"].items() if value is not None}

    @property
    def warnings(self) -> Sequence[str]:
        return [*self.row["warnings"], *self.row["metric_warnings"]]

    @property
    def row(self) -> Mapping[str, Any]:
        """All that a run would write down of it."""
        return self.outcome.row

    @property
    def sheet(self) -> Image.Image:
        """Source, mask and edit below each other."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "sheet.png"
            write_sheet(path, self.outcome)
            with Image.open(path) as sheet:
                return sheet.copy()

    def save(self, to: str | Path) -> dict[str, Path]:
        """To a folder what the command leaves; to a name that ends in .mp4 the edited video alone, in .png the edited
        picture. Gives the paths of the files by what they are."""
        path = Path(to).expanduser()
        if path.is_dir() or path.suffix.lower() not in (*video.SUFFIXES, *images.SUFFIXES):
            return self._leave(path)
        wanted = ".png" if len(self.frames) == 1 else ".mp4"
        if path.suffix.lower() != wanted:
            what = "one picture" if len(self.frames) == 1 else f"a clip of {len(self.frames)} frames"
            todo = "result.sheet.save(...) writes the contact sheet"
            raise UserError(
                f"{what} cannot be saved so", came=path, expected=f"a folder, or a {wanted}", todo=todo
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        if wanted == ".mp4":
            write_video(path, self.frames, self.source.fps)
        else:
            Image.fromarray(to_bytes(self.frames)[0]).save(path)
        return {"edited": path}

    def _leave(self, folder: Path) -> dict[str, Path]:
        if folder.exists() and not folder.is_dir():
            raise UserError(
                "the results go to a folder", came=f"{folder}, a file", todo="choose another name"
            )
        make_room(folder, self.outcome.row)
        files = leave(folder, self.outcome)
        self.outcome.tell(files={name: path.name for name, path in files.items()}, finished=now())
        RunStore(folder).append("edit", self.outcome.row)
        keep_columns(folder, self.outcome.columns)
        return files

    def __repr__(self) -> str:
        lines = [asked(self.row), *(f"  {name:<10} {text}" for name, text in explained(self.row).items())]
        lines += [f"  {name:<24} {number(value)}" for name, value in self.metrics.items()]
        lines += [f"  {name:<24} {fact(value)}" for name, value in others(self.facts).items()]
        return "\n".join([*lines, *(f"  note: {each}" for each in dict.fromkeys(self.warnings))])

    def _repr_html_(self) -> str:
        return pictured(self.sheet, repr(self))


def pictured(sheet: Image.Image, text: str) -> str:
    """A picture above a text, for a notebook."""
    data = BytesIO()
    sheet.save(data, "png")
    image = base64.b64encode(data.getvalue()).decode()
    return f'<img src="data:image/png;base64,{image}" style="max-width:100%"><pre>{escape(text)}</pre>'
