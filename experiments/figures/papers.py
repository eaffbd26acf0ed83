"""A paper's figure as its data file says it: the lines, where their frames come from, what stands below them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evaluation.tables.papers import content, whole

SOURCE = "source"  # the clip itself, as a line of a figure
MASK_OF = "mask of "  # and a variant: the clip, veiled outside the mask of that variant
LEFT = re.compile(r"(after edit \d+) of (.+)")  # a variant whose edits are done in turn: what one has left


@dataclass(frozen=True)
class PaperFigure:
    """`lines`: a label for each variant, in order; `source` is the clip, `mask of VARIANT` its mask, and `after edit 1
    of VARIANT` what the first of several edits has left there. `kinds`: a
    block of frames for each of these kinds (or levels) of edit, or `each` so many: the first ones, or where the last
    line has the least of the metric `worst_by`. `fold`: so many strips below each other before the next column begins.
    `verb`: the command that leaves what is drawn; `calibrate` leaves curves and maps. With `figure` it is measured
    while it is drawn, on one edit of the experiment: `measured` is the module of `experiments.figures` that does it.
    `frames`: so many of each clip, unless one says otherwise."""

    name: str
    title: str
    caption: str
    source: Mapping[str, Any]
    experiment: str
    verb: Literal["run", "calibrate", "figure"] = "run"
    lines: Mapping[str, str] = field(default_factory=dict)
    kinds: Sequence[str] = ()
    each: int = 1
    worst_by: str | None = None
    fold: int | None = None
    measured: str = ""
    frames: int = 3

    @property
    def file_name(self) -> str:
        return self.name.replace("/", "-")

    @property
    def command(self) -> str:
        if self.verb == "figure":
            return f"freemask figure {self.name}"
        return f"freemask {self.verb} experiment={self.experiment}"


def variant_of(line: str) -> str:
    """Whose frames a line is made of."""
    left = LEFT.fullmatch(line)
    return left[2] if left else line.removeprefix(MASK_OF)


def figure_of(name: str | None) -> PaperFigure:
    return whole(PaperFigure, "figure", {"name": name, **content(name, "figure")})
