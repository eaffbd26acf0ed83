"""Oracle-PSNR: how near is the edit to the true answer, where the data knows it (the embedded world)?"""

from dataclasses import dataclass

import torch

from evaluation.case import Case
from evaluation.metric import Column
from evaluation.ops import psnr_pooled, squares_where


@dataclass(frozen=True)
class OraclePsnr:
    """PSNR between edit and counterfactual, of the squared error of all frames: everywhere, and inside the region.

    Outside the region the true answer is the source itself: that is `masked_psnr`.
    """

    @property
    def columns(self) -> tuple[Column, ...]:
        about = "PSNR of edit and counterfactual, {}, of all frames' error together; 100 where there is none"
        both = "a counterfactual and an editable region"
        return (
            Column("oracle_psnr", "dB", True, about.format("everywhere"), "a counterfactual"),
            Column("oracle_psnr.inside", "dB", True, about.format("inside the editable region"), both),
        )

    def __call__(self, case: Case) -> dict[str, float]:
        if case.oracle is None:
            return {}
        places = {"oracle_psnr": torch.ones_like(case.edited[:, 0], dtype=torch.bool)}
        if case.editable is not None:
            places["oracle_psnr.inside"] = case.editable
        found = {name: squares_where(case.edited, case.oracle, where) for name, where in places.items()}
        return {name: psnr_pooled(*each) for name, each in found.items() if len(each[0])}
