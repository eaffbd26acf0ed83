"""No mask: the source's attention is fused everywhere, and nothing keeps the edit inside an object."""

from dataclasses import dataclass

from freemask.attention.record import Recording
from freemask.masks.plan import Keeps, Subject


@dataclass(frozen=True)
class NoMask:
    def keeps(self, subject: Subject) -> Keeps:
        return Keeps()

    def plan(self, subject: Subject, source: Recording, target: Recording) -> None:
        return None
