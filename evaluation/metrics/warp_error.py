"""Warp-Err: does the edit move as its source does? Frames warped by the source's flow, against the next ones."""

from dataclasses import dataclass, field
from typing import Annotated

from evaluation.backbones import flow as flows
from evaluation.backbones.weights import Found
from evaluation.case import Case
from evaluation.metric import Column
from freemask.errors import UserError, nearest
from freemask.optical.ops import warped
from freemask.settings import Effect

# norm -> (factor and unit in which papers print it, what it is)
NORMS = {
    "l1": (100.0, "x 1e-2", "mean absolute error"),
    "mse": (1000.0, "x 1e-3", "mean squared error"),
}


@dataclass(frozen=True)
class WarpError:
    """Mean over pairs of frames of the error between an edited frame and the one before, warped onto it by the
    source's flow; values in 0..1. ST-Modulator prints 100 times the error and says neither norm nor occlusion: `l1`
    without what was hidden is the default, `norm=mse` and `occluded=true` (all pixels) are columns of their own.

    `flow`: exact (the data knows it), raft_large (on the source, hidden pixels found by going back and forth), auto
    (exact, otherwise raft_large where its weights are). A clip that stands still while its source moves scores badly.
    Interpolation and soft edges leave an error even in the source itself.
    """

    flow: str = "auto"
    norm: str = "l1"
    occluded: bool = False
    weights: Annotated[str | None, Effect.FILES] = None
    device: Annotated[str, Effect.NONE] = "auto"

    found: tuple[Found, ...] = field(init=False, repr=False)
    columns: tuple[Column, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UserError(
                f"there is no norm '{self.norm}'",
                came=f"norm={self.norm}",
                expected=nearest(self.norm, NORMS),
            )
        object.__setattr__(self, "found", flows.resolve(self.flow, self.weights))
        object.__setattr__(self, "columns", tuple(self._column(each) for each in self.found))

    def __call__(self, case: Case) -> dict[str, float]:
        found = flows.choose(self.found, case)
        if found is None:
            return {}
        back, seen = flows.of(found, case, self.device)
        error = (warped(case.edited[:-1], back) - case.edited[1:]).double()
        error = (error.abs() if self.norm == "l1" else error.square()).mean(1)
        pairs = [each if self.occluded else each[where] for each, where in zip(error, seen, strict=True)]
        means = [float(each.mean()) for each in pairs if each.numel()]
        if not means:
            return {}
        return {self._column(found).name: NORMS[self.norm][0] * sum(means) / len(means)}

    def _column(self, found: Found) -> Column:
        _, unit, what = NORMS[self.norm]
        variant = [found.label, *([self.norm] if self.norm != "l1" else ()), *["occluded"] * self.occluded]
        where = "all pixels" if self.occluded else "pixels seen in both frames"
        about = f"{what} of consecutive edited frames after warping by the source's flow, {where}"
        about += "; a frame that is black or grey all over scores best"
        needs = "the source's exact motion" if found is flows.EXACT else "a second frame"
        return Column(f"warp_error[{','.join(variant)}]", unit, False, about, needs)
