"""Pictures of what was measured: heat, groups and cells over frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from torch import Tensor
from torch.nn.functional import interpolate

from experiments.figures.mmc import COLORS, spread
from experiments.figures.strips import Strips
from freemask.data.write import to_bytes
from freemask.types import Grid

TINY = 1e-12  # what is taken for nothing
GREY, COLOR = 0.25, 0.65  # how much of the frame shows below heat, and how much of a group's colour above it


@dataclass(frozen=True)
class Drawn:
    """Grids by the ending of their files' names, and what the caption says of the measuring."""

    grids: Mapping[str, Strips]
    about: str


def shown(frames: Float[Tensor, "f 3 h w"], count: int) -> list[np.ndarray]:
    """So many of the frames, as bytes."""
    return list(to_bytes(frames[spread(len(frames), count)]))


def heat(maps: Float[Tensor, "f h w"], frames: Float[Tensor, "f 3 oh ow"], count: int) -> list[np.ndarray]:
    """From 0 to 1, over the grey frames."""
    scaled = _enlarged(maps, frames).clamp(0, 1).numpy()
    colors = torch.from_numpy(colormaps["magma"](scaled)[..., :3]).movedim(-1, 1).float()
    return shown((1 - GREY) * colors + GREY * frames.mean(1, keepdim=True), count)


def groups(labels: Int[Tensor, "f h w"], frames: Float[Tensor, "f 3 oh ow"], count: int) -> list[np.ndarray]:
    """A colour for each group, the largest of a frame first."""
    palette = torch.tensor([to_rgb(each) for each in COLORS])
    ranked = torch.stack([_by_size(each) for each in labels])
    colors = palette[_enlarged(ranked.float(), frames).long() % len(palette)].movedim(-1, 1)
    return shown(COLOR * colors + (1 - COLOR) * frames, count)


def marked(
    frames: Float[Tensor, "f 3 h w"], cells: Sequence[tuple[int, int]], grid: Grid
) -> Float[Tensor, "f 3 h w"]:
    """A white square with a dark edge where each cell (its frame, its place on the grid) is."""
    found = frames.clone()
    high, wide = frames.shape[2] // grid.height, frames.shape[3] // grid.width
    for frame, cell in cells:
        y, x = cell // grid.width * high, cell % grid.width * wide
        found[frame, :, y : y + high, x : x + wide] = 0
        found[frame, :, y + 1 : y + high - 1, x + 1 : x + wide - 1] = 1
    return found


def _enlarged(values: Float[Tensor, "f h w"], frames: Float[Tensor, "f 3 oh ow"]) -> Float[Tensor, "f oh ow"]:
    return interpolate(values[:, None], frames.shape[2:], mode="nearest")[:, 0]


def _by_size(labels: Int[Tensor, "h w"]) -> Int[Tensor, "h w"]:
    counts = labels.flatten().bincount()
    rank = torch.empty_like(counts)
    rank[counts.argsort(descending=True, stable=True)] = torch.arange(len(counts))
    return rank[labels]
