"""A paper's figure as its data file says it: the lines, where their frames come from, what stands below them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evaluation.tables.papers import content, whole

SOURCE = "source"  # the clip itself, as a line of a figure
MASK_OF = "mask of "  # and a variant: the clip, veiled outside the mask of that variant


@dataclass(frozen=True)
class PaperFigure:
    """`lines`: a label for each variant, in order; `source` is the clip, and `mask of VARIANT` its mask. `kinds`: a
    block of frames for each of these kinds (or levels) of edit, or `each` so many: the first ones, or where the last
    line has the least of the metric `worst_by`. `fold`: so many strips below each other before the next column begins.
    `verb`: the command that leaves what is drawn; `calibrate` leaves curves and maps."""

    name: str
    title: str
    caption: str
    source: Mapping[str, Any]
    experiment: str
    verb: Literal["run", "calibrate"] = "run"
    lines: Mapping[str, str] = field(default_factory=dict)
    kinds: Sequence[str] = ()
    each: int = 1
    worst_by: str | None = None
    fold: int | None = None

    @property
    def file_name(self) -> str:
        return self.name.replace("/", "-")

    @property
    def command(self) -> str:
        return f"freemask {self.verb} experiment={self.experiment}"


def figure_of(name: str | None) -> PaperFigure:
    return whole(PaperFigure, "figure", {"name": name, **content(name, "figure")})
