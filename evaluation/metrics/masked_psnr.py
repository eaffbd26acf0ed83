"""M.PSNR: does the unedited region survive? After Video-P2P, as FreeMask's table uses it."""

from dataclasses import dataclass

from evaluation.case import Case
from evaluation.metric import Column
from evaluation.ops import decibels, dilate, psnr_pooled, squares_where


@dataclass(frozen=True)
class MaskedPsnr:
    """PSNR between source and edit over the pixels outside the editable region, of the squared error of all frames.

    Pixels inside are dropped, not zeroed and counted. Frames whose outside is below the share `least` are left out.
    `dilation` (pixels) widens the region first, against soft mask borders. `per_frame`: the mean of the frames' PSNR
    instead, in which a frame without any error counts as 100 dB and outweighs several that are ruined. The papers do
    not say which of the two theirs is.
    """

    dilation: int = 0
    least: float = 0.05
    per_frame: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        variants = [f"dilation={self.dilation}"] * bool(self.dilation) + ["per_frame"] * self.per_frame
        variant = f"[{','.join(variants)}]" if variants else ""
        pooled = "mean over frames, of which those without error count as 100"
        how = pooled if self.per_frame else "of all frames' error together; 100 where there is none"
        about = f"PSNR of source and edit outside the editable region, {how}"
        needs = f"a known editable region that leaves at least {self.least:.0%} of a frame"
        return (Column(f"masked_psnr{variant}", "dB", True, about, needs),)

    def __call__(self, case: Case) -> dict[str, float]:
        if case.editable is None:
            return {}
        outside = ~dilate(case.editable, self.dilation)
        total, pixels = squares_where(case.source, case.edited, outside, least=self.least)
        if not len(pixels):
            return {}
        value = float(decibels(total / pixels).mean()) if self.per_frame else psnr_pooled(total, pixels)
        return {self.columns[0].name: value}
