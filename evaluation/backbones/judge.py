"""What metrics by CLIP have in common: whose features they are, and notes on the numbers."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

from evaluation.backbones import clip
from evaluation.backbones.weights import Found
from evaluation.metric import Column, MetricWarning
from freemask.settings import Effect


@dataclass(frozen=True)
class Judge:
    """`backbone`: auto, embedded, vit_b_32, vit_l_14; `weights`: a file or an open_clip directory to use instead of the
    usual places."""

    backbone: str = "auto"
    weights: Annotated[str | None, Effect.FILES] = None
    device: Annotated[str, Effect.NONE] = "auto"

    found: Found = field(init=False, repr=False)
    columns: tuple[Column, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = clip.resolve(self.backbone, self.weights)
        object.__setattr__(self, "found", found)
        object.__setattr__(self, "columns", tuple(self.told(found.label)))

    def told(self, label: str) -> Iterable[Column]:
        """The columns; `label` is of the backbone."""
        raise NotImplementedError

    def note(self, what: str) -> None:
        warnings.warn(f"{self.columns[0].name} {what}", MetricWarning, stacklevel=3)
