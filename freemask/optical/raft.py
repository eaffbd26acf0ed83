"""RAFT-Large (Teed and Deng, 2020) as torchvision has it: an estimate of the flow between neighbouring frames."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from freemask.errors import UserError

FILE = "raft_large_C_T_SKHT_V2-ff5fadd5.pth"
SHA256 = "ff5fadd5"
GET = "python -c \"import torchvision.models.optical_flow as m; m.raft_large(weights='C_T_SKHT_V2')\""
LICENCE = "BSD-3-Clause (torchvision); trained on Sintel, KITTI and others, whose terms are for research"
SMALLEST, GRID = 128, 8  # what it can look at: its coarsest correlations need 16 cells of 8 pixels
UPDATES = 12  # torchvision's default

Network = Callable[
    [Tensor, Tensor], Tensor
]  # from the first frames to the second, in -1..1: the flow, on the CPU


def usual() -> Path | None:
    """Where torchvision keeps the weights, if they are there. Nothing is downloaded."""
    import torch.hub

    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    return path if path.is_file() else None


@lru_cache(maxsize=2)
def load(path: Path | None, label: str, device: str) -> Network:
    """Read once per process."""
    from torchvision.models.optical_flow import raft_large

    network = raft_large(weights=None)
    try:
        network.load_state_dict(torch.load(path or "", map_location="cpu", weights_only=True))
    except Exception as error:
        raise UserError(
            f"the weights of RAFT '{label}' cannot be read",
            came=path,
            expected="torchvision's file of RAFT-Large",
        ) from error
    network = network.eval().requires_grad_(False).to(device)
    return lambda a, b: network(a.to(device), b.to(device), num_flow_updates=UPDATES)[-1].cpu()


def both_ways(
    network: Network, frames: Float[Tensor, "f 3 h w"]
) -> tuple[Float[Tensor, "g 2 h w"], Float[Tensor, "g 2 h w"]]:
    """From each frame to the next, and from that one back. Pair by pair, which bounds the memory of large clips; small
    frames are enlarged for the network."""
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
    return found[1::2].clone(), found[0::2].clone()
