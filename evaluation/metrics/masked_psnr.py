"""M.PSNR: does the unedited region survive? After Video-P2P, as FreeMask's table uses it."""

from dataclasses import dataclass

from evaluation.case import Case
from evaluation.metric import Column
from evaluation.ops import dilate, psnr_where


@dataclass(frozen=True)
class MaskedPsnr:
    """PSNR between source and edit over the pixels outside the editable region, mean over frames.

    Pixels inside are dropped, not zeroed and counted. Frames whose outside is below the share `least`
    are left out. `dilation` (pixels) widens the region first, against soft mask borders.
    """

    dilation: int = 0
    least: float = 0.05

    @property
    def columns(self) -> tuple[Column, ...]:
        variant = f"[dilation={self.dilation}]" if self.dilation else ""
        about = "PSNR of source and edit outside the editable region; identical frames count as 100"
        needs = f"a known editable region that leaves at least {self.least:.0%} of a frame"
        return (Column(f"masked_psnr{variant}", "dB", True, about, needs),)

    def __call__(self, case: Case) -> dict[str, float]:
        if case.editable is None:
            return {}
        outside = ~dilate(case.editable, self.dilation)
        values = psnr_where(case.source, case.edited, outside, least=self.least)
        return {self.columns[0].name: float(values.mean())} if len(values) else {}
