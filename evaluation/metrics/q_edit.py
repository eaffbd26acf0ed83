"""CLIP-T over Warp-Err of one clip: an edit must both say what it should and move as its source does."""

import warnings
from dataclasses import dataclass, field
from typing import Annotated

from evaluation.case import Case
from evaluation.metric import Column, MetricWarning
from evaluation.metrics.clip_text import ClipText
from evaluation.metrics.warp_error import WarpError
from freemask.settings import Effect

LEAST = 0.01  # of Warp-Err: a fortieth of one 8-bit step in every value


@dataclass(frozen=True)
class QEdit:
    """`clip_text` (100 cosines) over `warp_error` (100 absolute errors) of one clip, and in tables the mean of that.

    It is not the Q-edit of ST-Modulator's tables, which is one mean over the other: `freemask table` makes that of
    `clip_text` and `warp_error` and calls it q_edit. Where hardly anything moves wrongly the quotient says nothing: it
    is left out where the error is less than `LEAST`. Settings as in `ClipText` and `WarpError`; `weights` are CLIP's.
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
        about = "CLIP-T over Warp-Err of each clip, both times 100; the papers' Q-edit divides the means"
        columns = tuple(
            Column(f"q_edit_per_clip[{text.found.label},{found.label}]", "", True, about, column.needs)
            for found, column in zip(warp.found, warp.columns, strict=True)
        )
        object.__setattr__(self, "columns", columns)

    def __call__(self, case: Case) -> dict[str, float]:
        errors = self.warp(case)
        for column, beside in zip(self.columns, self.warp.columns, strict=True):
            if beside.name not in errors:
                continue
            if errors[beside.name] < LEAST:
                note = f"is left out: the Warp-Err of '{case.task.id}' is below {LEAST}"
                warnings.warn(f"{column.name} {note}", MetricWarning, stacklevel=2)
                return {}
            return {column.name: self.text(case)[self.text.columns[0].name] / errors[beside.name]}
        return {}
