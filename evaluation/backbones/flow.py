"""The motion of a source clip: exact where its data knows it, otherwise torchvision's RAFT-Large."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from evaluation.backbones.clip import pick_device
from evaluation.backbones.weights import Found, find, present
from evaluation.case import Case
from evaluation.ops import seen_before
from freemask.errors import UserError, nearest

CHOICES = ("auto", "exact", "raft_large")
EXACT = Found("exact", "exact")
SMALLEST, GRID = 128, 8  # what RAFT can look at: its coarsest correlations need 16 cells of 8 pixels
UPDATES = 12  # torchvision's default

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


def between(network: Any, frames: Float[Tensor, "f 3 h w"]) -> Flow:
    """Pair by pair, which bounds the memory of large clips; small frames are enlarged for the network."""
    height, width = frames.shape[-2:]
    factor = max(1.0, SMALLEST / min(height, width))
    size = [round(height * factor), round(width * factor)]
    large = F.interpolate(frames, size, mode="bilinear", antialias=True) if factor > 1 else frames
    pad = [0, -size[1] % GRID, 0, -size[0] % GRID]
    large = F.pad(large * 2 - 1, pad, mode="replicate")
    scale = torch.tensor([width / size[1], height / size[0]])[None, :, None, None]
    pairs = []
    with torch.inference_mode():
        for now, then in zip(large[1:].split(1), large[:-1].split(1), strict=True):
            both = network(torch.cat([now, then]), torch.cat([then, now]))
            pairs.append(both[..., : size[0], : size[1]])
        found = torch.cat(pairs)
        if factor > 1:
            found = F.interpolate(found, (height, width), mode="bilinear", antialias=True)
        found = found * scale
    back, forth = found[0::2], found[1::2]
    return back, seen_before(back, forth)


def load(found: Found, device: str = "auto") -> Any:
    """Read once per process."""
    return _load(found, pick_device(device))


@lru_cache(maxsize=2)
def _load(found: Found, device: str) -> Any:
    from torchvision.models.optical_flow import raft_large

    network = raft_large(weights=None)
    try:
        network.load_state_dict(torch.load(found.path or "", map_location="cpu", weights_only=True))
    except Exception as error:
        raise UserError(
            f"the weights of RAFT '{found.label}' cannot be read",
            came=found.path,
            expected="torchvision's file of RAFT-Large",
        ) from error
    network = network.eval().requires_grad_(False).to(device)
    return lambda a, b: network(a.to(device), b.to(device), num_flow_updates=UPDATES)[-1].cpu()
