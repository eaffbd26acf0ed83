"""Oracle-PSNR: how near is the edit to the true answer, where the data knows it (the embedded world)?"""

from dataclasses import dataclass

from evaluation.case import Case
from evaluation.metric import Column
from evaluation.ops import psnr, psnr_where


@dataclass(frozen=True)
class OraclePsnr:
    """PSNR between edit and counterfactual: whole frames, and apart for inside and outside the region."""

    @property
    def columns(self) -> tuple[Column, ...]:
        about = "PSNR of edit and counterfactual, {}; identical frames count as 100"
        both = "a counterfactual and an editable region"
        return (
            Column("oracle_psnr", "dB", True, about.format("whole frames"), "a counterfactual"),
            Column("oracle_psnr.inside", "dB", True, about.format("inside the editable region"), both),
            Column("oracle_psnr.outside", "dB", True, about.format("outside the editable region"), both),
        )

    def __call__(self, case: Case) -> dict[str, float]:
        if case.oracle is None:
            return {}
        values = {"oracle_psnr": psnr(case.edited, case.oracle)}
        if case.editable is not None:
            values["oracle_psnr.inside"] = psnr_where(case.edited, case.oracle, case.editable)
            values["oracle_psnr.outside"] = psnr_where(case.edited, case.oracle, ~case.editable)
        return {name: float(value.mean()) for name, value in values.items() if len(value)}
