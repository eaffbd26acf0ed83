"""No mask: the source's attention is fused everywhere, and nothing keeps the edit inside an object."""

from dataclasses import dataclass

from freemask.attention.record import Recording
from freemask.masks.plan import Keeps, MaskPlan, Subject, everywhere


@dataclass(frozen=True)
class NoMask:
    """Where it is chosen, masked parts of a fusion act as plain ones; asked for a mask, it lets everything change."""

    def keeps(self, subject: Subject) -> Keeps:
        return Keeps()

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        return everywhere()
