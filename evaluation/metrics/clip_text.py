"""CLIP: does every edited frame show what the target prompt says?"""

import warnings
from dataclasses import dataclass, field
from typing import Annotated

from evaluation.backbones import clip
from evaluation.backbones.weights import Found
from evaluation.case import Case
from evaluation.metric import Column, MetricWarning
from evaluation.ops import cosine
from freemask.settings import Effect


@dataclass(frozen=True)
class ClipText:
    """100 times the mean cosine of each frame's CLIP feature and the target prompt's.

    FreeMask's own table prints the cosine without the factor 100. `backbone`: auto, embedded, vit_b_32,
    vit_l_14; `weights`: a file or an open_clip directory to use instead of the usual places.
    """

    backbone: str = "auto"
    weights: Annotated[str | None, Effect.FILES] = None
    device: Annotated[str, Effect.NONE] = "auto"

    found: Found = field(init=False, repr=False)
    columns: tuple[Column, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = clip.resolve(self.backbone, self.weights)
        about = "mean cosine of frame and target prompt, times 100"
        object.__setattr__(self, "found", found)
        object.__setattr__(self, "columns", (Column(f"clip_text[{found.label}]", "100 cos", True, about),))

    def __call__(self, case: Case) -> dict[str, float]:
        model = clip.load(self.found, self.device)
        if not case.task.target.strip():
            note = f"is a distance to no words: there is no target prompt in '{case.task.id}'"
            warnings.warn(f"{self.columns[0].name} {note}", MetricWarning, stacklevel=2)
        if model.truncates(case.task.target):
            note = f"saw only the beginning of the target prompt of '{case.task.id}', which is too long"
            warnings.warn(f"{self.columns[0].name} {note}", MetricWarning, stacklevel=2)
        images = clip.edited(case, self.found, self.device)
        text = clip.prompt(case, case.task.target, self.found, self.device).expand_as(images)
        return {self.columns[0].name: 100 * float(cosine(images, text).mean())}
