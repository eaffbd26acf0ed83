"""The motion of a source clip: exact where its data knows it, otherwise torchvision's RAFT-Large."""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from evaluation.backbones.clip import pick_device
from evaluation.backbones.weights import Found, find, present
from evaluation.case import Case
from freemask.errors import UserError, nearest
from freemask.optical import raft
from freemask.optical.ops import seen_there

CHOICES = ("auto", "exact", "raft_large")
EXACT = Found("exact", "exact")

Flow = tuple[Float[Tensor, "g 2 h w"], Bool[Tensor, "g h w"]]


def resolve(flow: str, weights: str | None = None) -> tuple[Found, ...]:
    """What a setting means here, first choice first. auto: exact, then RAFT-Large where its weights are."""
    if flow not in CHOICES:
        raise UserError(
            f"there is no optical flow '{flow}'", came=f"flow={flow}", expected=nearest(flow, CHOICES)
        )
    if flow != "raft_large" and weights is not None:
        raise UserError(
            "weights=PATH is for RAFT", came=f"flow={flow} weights={weights}", expected="flow=raft_large"
        )
    if flow == "raft_large":
        return (find(flow, weights),)
    return (EXACT, find("raft_large")) if flow == "auto" and present("raft_large") else (EXACT,)


def choose(known: Sequence[Found], case: Case) -> Found | None:
    """The first that this case can have."""
    if len(case.source) < 2:
        return None
    return next((each for each in known if each is not EXACT or case.flow is not None), None)


def of(found: Found, case: Case, device: str = "auto") -> Flow:
    """As `Case.flow` has it: from each frame back to the one before, and what was seen there."""
    if found is EXACT:
        assert case.flow is not None
        return case.flow[0], case.flow[1]
    return case.once(("flow", found, device), lambda: between(load(found, device), case.source))


def between(network: raft.Network, frames: Float[Tensor, "f 3 h w"]) -> Flow:
    forth, back = raft.both_ways(network, frames)
    return back, seen_there(back, forth)


def load(found: Found, device: str = "auto") -> raft.Network:
    return raft.load(found.path, found.label, pick_device(device))
