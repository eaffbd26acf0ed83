"""Q-edit: CLIP-T over Warp-Err, so that an edit must both say what it should and move as its source does."""

import warnings
from dataclasses import dataclass, field
from typing import Annotated

from evaluation.case import Case
from evaluation.metric import Column, MetricWarning
from evaluation.metrics.clip_text import ClipText
from evaluation.metrics.warp_error import WarpError
from freemask.settings import Effect


@dataclass(frozen=True)
class QEdit:
    """`clip_text` (100 cosines) over `warp_error` (100 absolute errors) of one clip.

    ST-Modulator's tables divide the two means of the table, and so does `freemask table`: a mean of this column is
    another number. Settings as in `ClipText` and `WarpError`; `weights` are CLIP's.
    """

    backbone: str = "auto"
    weights: Annotated[str | None, Effect.FILES] = None
    flow: str = "auto"
    flow_weights: Annotated[str | None, Effect.FILES] = None
    device: Annotated[str, Effect.NONE] = "auto"

    text: ClipText = field(init=False, repr=False)
    warp: WarpError = field(init=False, repr=False)
    columns: tuple[Column, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        text = ClipText(self.backbone, self.weights, self.device)
        warp = WarpError(self.flow, weights=self.flow_weights, device=self.device)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "warp", warp)
        about = "CLIP-T over Warp-Err of one clip, both times 100"
        columns = tuple(
            Column(f"q_edit[{text.found.label},{found.label}]", "", True, about, column.needs)
            for found, column in zip(warp.found, warp.columns, strict=True)
        )
        object.__setattr__(self, "columns", columns)

    def __call__(self, case: Case) -> dict[str, float]:
        errors = self.warp(case)
        for column, beside in zip(self.columns, self.warp.columns, strict=True):
            if beside.name not in errors:
                continue
            if errors[beside.name] == 0:
                note = f"is left out: the Warp-Err of '{case.task.id}' is 0"
                warnings.warn(f"{column.name} {note}", MetricWarning, stacklevel=2)
                return {}
            return {column.name: self.text(case)[self.text.columns[0].name] / errors[beside.name]}
        return {}
