"""Temp, CLIP-F or Tem-Con: do consecutive frames look alike? FateZero's number, which FreeMask's table uses too."""

from dataclasses import dataclass, field
from typing import Annotated

from evaluation.backbones import clip
from evaluation.backbones.weights import Found
from evaluation.case import Case
from evaluation.metric import Column
from evaluation.ops import cosine
from freemask.settings import Effect


@dataclass(frozen=True)
class ClipFrame:
    """Mean cosine of the CLIP features of consecutive frames (Tune-A-Video takes all pairs instead).

    A clip that stands still scores 1: read it beside CLIP. One frame has no pair, and no value. Settings as in
    `ClipText`.
    """

    backbone: str = "auto"
    weights: Annotated[str | None, Effect.FILES] = None
    device: Annotated[str, Effect.NONE] = "auto"

    found: Found = field(init=False, repr=False)
    columns: tuple[Column, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = clip.resolve(self.backbone, self.weights)
        about = "mean cosine of consecutive edited frames"
        column = Column(f"clip_frame[{found.label}]", "cos", True, about, "a second frame")
        object.__setattr__(self, "found", found)
        object.__setattr__(self, "columns", (column,))

    def __call__(self, case: Case) -> dict[str, float]:
        if len(case.edited) < 2:
            return {}
        images = clip.edited(case, self.found, self.device)
        return {self.columns[0].name: float(cosine(images[:-1], images[1:]).mean())}
