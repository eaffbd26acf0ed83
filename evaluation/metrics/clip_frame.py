"""Temp, CLIP-F or Tem-Con: do consecutive frames look alike? FateZero's number, which FreeMask's table uses too."""

from collections.abc import Iterator
from dataclasses import dataclass

from evaluation.backbones import clip
from evaluation.backbones.judge import Judge
from evaluation.case import Case
from evaluation.metric import Column
from evaluation.ops import cosine


@dataclass(frozen=True)
class ClipFrame(Judge):
    """Mean cosine of the CLIP features of consecutive frames (Tune-A-Video takes all pairs instead).

    A clip that stands still scores 1: read it beside CLIP. One frame has no pair, and no value. Settings as in
    `Judge`.
    """

    def told(self, label: str) -> Iterator[Column]:
        about = "mean cosine of consecutive edited frames"
        yield Column(f"clip_frame[{label}]", "cos", True, about, "a second frame")

    def __call__(self, case: Case) -> dict[str, float]:
        if len(case.edited) < 2:
            return {}
        images = clip.edited(case, self.found, self.device)
        return {self.columns[0].name: float(cosine(images[:-1], images[1:]).mean())}
