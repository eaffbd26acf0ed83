"""Trajectories: which cells of a layer's grid are the same point of a clip, frame after frame, by its optical flow.

A point is in one cell of each frame at most, and a cell holds one point. Where several points come into one cell, one
of them goes on and the others end there; where none comes, a point begins.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from freemask.types import Grid, OpticalFlow

Variant = Literal["official", "paper"]
NOWHERE = -1


@dataclass(frozen=True)
class Trajectories:
    """`of` is the number of each cell's point, cells being counted through frames, rows and columns. `sites` are the
    cells of each point, one for each frame, or -1 where it is in none.

    `window`: as the released code has it, where no point lasts for the whole clip, cells look at neighbours as well,
    up to so many cells away; 0: at none.
    """

    grid: Grid
    of: Int[Tensor, " n"]
    sites: Int[Tensor, "k f"]
    window: int = 0

    @cached_property
    def lengths(self) -> Int[Tensor, " k"]:
        return (self.sites != NOWHERE).sum(1)

    @cached_property
    def lacking(self) -> int:
        """How many places the longest point leaves empty, which neighbours are to fill."""
        return self.grid.frames - int(self.lengths.max()) if self.window else 0

    @property
    def mean_length(self) -> float:
        """Of the point that a cell belongs to, on average over cells."""
        return float(self.lengths[self.of.long()].double().mean())

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(repr((tuple(self.grid), self.window)).encode())
        for table in (self.of, self.sites):
            digest.update(table.cpu().numpy().tobytes())
        return digest.hexdigest()[:32]

    def to(self, device: torch.device) -> "Trajectories":
        return replace(self, of=self.of.to(device), sites=self.sites.to(device))

    def rows(self, part: slice) -> Int[Tensor, "m l"]:
        """The cells at which some of the cells look, themselves among them; -1 is none."""
        found = self.sites[self.of[part].long()]
        if not self.lacking:
            return found
        cells = torch.arange(*part.indices(len(self.of)), dtype=found.dtype, device=found.device)
        beside = torch.cat([cells[:, None], neighbours(cells, self.grid, self.window)], dim=1)
        return torch.cat([found, beside[:, -self.lacking :]], dim=1)


def neighbours(cells: Int[Tensor, " m"], grid: Grid, window: int) -> Int[Tensor, "m w"]:
    """Row by row those within the frame, then -1 for those that are not."""
    steps = [
        (i, j) for i in range(-window, window + 1) for j in range(-window, window + 1) if (i, j) != (0, 0)
    ]
    down, right = torch.tensor(steps, dtype=cells.dtype, device=cells.device).T
    x = cells[:, None] % grid.width + right
    y = cells[:, None] // grid.width % grid.height + down
    inside = (x >= 0) & (x < grid.width) & (y >= 0) & (y < grid.height)
    found = torch.where(inside, cells[:, None] + down * grid.width + right, NOWHERE)
    return found.gather(1, (~inside).int().argsort(dim=1, stable=True))


def trajectories(
    flow: OpticalFlow,
    grid: Grid,
    *,
    variant: Variant = "paper",
    rng: Generator | None = None,
    window: int = 0,
) -> Trajectories:
    """Of a grid of any size, from the flow of the clip's pixels.

    paper: a point ends where it is hidden in the next frame; what rounding to cells leaves over is added to its next
    step, so that slow things move; of points that come into one cell the one nearest to its middle goes on. official:
    as the released code, where each step is rounded for itself, nothing is ever hidden, and the point that goes on is
    drawn.
    """
    offsets, seen = on_cells(flow, grid, middle=variant == "paper")
    if variant == "official":
        assert rng is not None
        drawn = torch.rand(seen.shape, generator=rng, dtype=torch.float64)
        made = followed(offsets.round(), torch.ones_like(seen), drawn)
    else:
        made = followed(offsets, seen)
    of, sites = made
    return Trajectories(grid, of, sites, window if variant == "official" else 0)


def on_cells(
    flow: OpticalFlow, grid: Grid, *, middle: bool
) -> tuple[Float[Tensor, "g 2 h w"], Bool[Tensor, "g h w"]]:
    """The flow of one pixel of each cell, the middle one or the first, in cells; and whether that is seen later."""
    size, mode = (grid.height, grid.width), "nearest-exact" if middle else "nearest"
    height, width = flow.forth.shape[-2:]
    scale = torch.tensor([width / grid.width, height / grid.height], dtype=torch.float64)[:, None, None]
    seen = torch.ones_like(flow.forth[:, 0]) if flow.seen is None else flow.seen.float()
    offsets = interpolate(flow.forth, size, mode=mode).double() / scale
    return offsets, interpolate(seen[:, None], size, mode=mode)[:, 0] > 0.5


def followed(
    offsets: Float[Tensor, "g 2 h w"],
    seen: Bool[Tensor, "g h w"],
    order: Float[Tensor, "g h w"] | None = None,
) -> tuple[Int[Tensor, " n"], Int[Tensor, "k f"]]:
    """`of` and `sites` of `Trajectories`. Of points that come into one cell the first by `order` goes on; without one,
    the nearest to its middle. One step along the frames, all cells at once."""
    pairs, _, height, width = offsets.shape
    cells = height * width
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    numbers = [torch.arange(cells)]
    count, rest = cells, torch.zeros(2, height, width, dtype=torch.float64)
    for t in range(pairs):
        place = torch.stack([x, y]) + rest + offsets[t]
        cell = (place + 0.5).floor()  # not to the nearest even one: neighbours that move alike stay apart
        column, row = cell.long()
        alive = (column >= 0) & (column < width) & (row >= 0) & (row < height) & seen[t]
        beyond = place - cell
        cost = beyond.square().sum(0) if order is None else order[t]
        sources = alive.flatten().nonzero()[:, 0]
        targets = (row * width + column).flatten()[sources]
        on = settled(targets, cost.flatten()[sources], cells)
        sources, targets = sources[on], targets[on]
        rest = torch.zeros_like(rest).flatten(1)
        rest[:, targets] = beyond.flatten(1)[:, sources]
        rest = rest.reshape(2, height, width)
        number = torch.full((cells,), NOWHERE)
        number[targets] = numbers[-1][sources]
        fresh = number == NOWHERE
        number[fresh] = torch.arange(count, count + int(fresh.sum()))
        count += int(fresh.sum())
        numbers.append(number)
    sites = torch.full((count, pairs + 1), NOWHERE, dtype=torch.int32)
    for t, number in enumerate(numbers):
        sites[number, t] = torch.arange(t * cells, (t + 1) * cells, dtype=torch.int32)
    return torch.cat(numbers).int(), sites


def settled(targets: Int[Tensor, " m"], cost: Float[Tensor, " m"], cells: int) -> Bool[Tensor, " m"]:
    """Which of them go on: for each target the one of the lowest cost, the first of equals."""
    least = torch.full((cells,), torch.inf, dtype=cost.dtype).scatter_reduce(0, targets, cost, "amin")
    best = cost == least[targets]
    place = torch.arange(len(targets)).where(best, torch.tensor(len(targets)))
    first = torch.full((cells,), len(targets)).scatter_reduce(0, targets, place, "amin")
    return first[targets] == torch.arange(len(targets))
