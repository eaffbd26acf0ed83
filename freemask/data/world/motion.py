"""Where the points of a clip came from: the exact flow from each frame back to the one before."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.data.world.render import Truth, moved
from freemask.data.world.spec import Scene


def flow_back(scene: Scene, known: Truth) -> tuple[Float[Tensor, "g 2 h w"], Bool[Tensor, "g h w"]]:
    """For the pixels of frame g + 1: offsets (x, y) to their place in frame g, and whether they were seen there,
    that is, whether all pixels that interpolation takes there show the same thing (or the ground)."""
    owners = sum((mask.numpy() * (index + 1) for index, mask in enumerate(known.things)), np.zeros(1, int))
    steps = max(len(known.frames) - 1, 0)
    flow = np.zeros((steps, 2, scene.height, scene.width))
    seen = np.zeros((steps, scene.height, scene.width), dtype=bool)
    for g in range(steps):
        for index, thing in enumerate(scene.things):
            flow[g] = np.where(owners[g + 1] == index + 1, moved(scene, thing, g + 1, g), flow[g])
        seen[g] = _seen(owners[g], owners[g + 1], flow[g])
    return torch.from_numpy(flow).float(), torch.from_numpy(seen)


def _seen(before: np.ndarray, now: np.ndarray, flow: np.ndarray) -> np.ndarray:
    height, width = now.shape
    y, x = np.round(np.mgrid[0:height, 0:width] + flow[::-1], 6)
    found = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    for rows in (np.floor(y), np.ceil(y)):
        for columns in (np.floor(x), np.ceil(x)):
            at = rows.astype(int).clip(0, height - 1), columns.astype(int).clip(0, width - 1)
            found &= before[at] == now
    return found
