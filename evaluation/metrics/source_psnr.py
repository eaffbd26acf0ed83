"""How near the result is to the clip itself, over all pixels: for reconstructions, and for edits that do nothing."""

from dataclasses import dataclass

import torch

from evaluation.case import Case
from evaluation.metric import Column
from evaluation.ops import psnr_pooled, squares_where


@dataclass(frozen=True)
class SourcePsnr:
    """PSNR between source and result, of the squared error of all frames and pixels."""

    @property
    def columns(self) -> tuple[Column, ...]:
        about = "PSNR of source and result, of all pixels and frames together; 100 where they are the same"
        return (Column("source_psnr", "dB", True, about),)

    def __call__(self, case: Case) -> dict[str, float]:
        everywhere = torch.ones_like(case.edited[:, 0], dtype=torch.bool)
        return {"source_psnr": psnr_pooled(*squares_where(case.source, case.edited, everywhere))}
