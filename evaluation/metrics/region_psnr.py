"""Oracle-PSNR edit by edit: how near is each of several edits of one clip to the true answer, in its own region?"""

from dataclasses import dataclass
from statistics import fmean

from evaluation.case import Case
from evaluation.metric import Column
from evaluation.ops import psnr_pooled, squares_where


@dataclass(frozen=True)
class RegionPsnr:
    """The mean over a task's edits of the PSNR of edit and counterfactual inside the region of each, of the squared
    error of all frames: a small region counts as much as a large one. What no edit may change is `masked_psnr`."""

    @property
    def columns(self) -> tuple[Column, ...]:
        about = "PSNR of edit and counterfactual inside the region of each edit, mean over the edits"
        needs = "a counterfactual, and several edits with their regions"
        return (Column("oracle_psnr.region", "dB", True, about, needs),)

    def __call__(self, case: Case) -> dict[str, float]:
        if case.oracle is None:
            return {}
        known = [region for _, region in case.each if region is not None]
        errors = [squares_where(case.edited, case.oracle, region) for region in known]
        found = [psnr_pooled(*each) for each in errors if len(each[0])]
        return {self.columns[0].name: fmean(found)} if found else {}
