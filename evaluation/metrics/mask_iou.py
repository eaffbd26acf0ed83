"""Mask IoU: does the method's mask show the object that is to be edited?"""

from dataclasses import dataclass

import torch

from evaluation.case import Case, annotated
from evaluation.metric import Column
from evaluation.ops import overlap, round8
from freemask.errors import UserError


@dataclass(frozen=True)
class MaskIou:
    """Foreground intersection over union, over the whole clip (FreeMask, eq. 2), of the method's mask (at least
    `threshold`; of several moments, their mean) and the annotated object that the task's source words name."""

    threshold: float | int = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UserError(
                "the threshold cuts nothing off",
                came=f"threshold={self.threshold}",
                expected="above 0, at most 1",
            )

    @property
    def columns(self) -> tuple[Column, ...]:
        variant = f"[threshold={self.threshold:g}]" if self.threshold != 0.5 else ""
        about = "intersection over union of the method's mask and the annotated object"
        return (
            Column(f"mask_iou{variant}", "", True, about, "a mask of the method and an annotated object"),
        )

    @property
    def _cut(self) -> float:
        """Masks are rounded to 8 bits: what was exactly at the threshold must not fall out."""
        return float(round8(torch.tensor(self.threshold, dtype=torch.float32)))

    def __call__(self, case: Case) -> dict[str, float]:
        truth = annotated(case.task, case.masks)
        if case.mask is None or truth is None or not bool(truth.any()):
            return {}
        value = overlap(case.mask >= self._cut, truth)
        return {} if value is None else {self.columns[0].name: value}
