"""Of VideoGrain's cases: trajectories with the points that the authors' code drew, and the features that it would
inject."""

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from freemask.attention.along import Along
from freemask.methods.flatten import ATTENTIONS, CONVOLUTIONS
from freemask.methods.pnp_layers import attentions, convolutions
from freemask.optical.trajectories import Trajectories, followed, neighbours, on_cells
from freemask.types import QKV, Grid, OpticalFlow, Taps, Where
from tests.official.ledger import FORCED

LEVELS = (1, 2, 4, 8)  # cells of the latent in a cell of the level; in this order the authors draw
FIRST = 4  # the number of the first layer whose queries and keys are stored


class Drawn:
    """Trajectories of all levels. `run` is the case and its ledger."""

    def __init__(self, run: Any) -> None:
        self.run, case = run, run.case
        self.picks: Iterator[list[int]] = iter(case["flow/random_picks"].tolist())
        self.flow = OpticalFlow(case["flow/predicted"])
        self.size = case["inv/latents/00"].shape[-3:]

    def all(self) -> dict[int, Trajectories]:
        found = {level: self.level(level) for level in LEVELS}
        self.exact("random picks", "all used", next(self.picks, None) is None)
        return found

    def level(self, level: int) -> Trajectories:
        frames, height, width = self.size
        grid = Grid(frames, height // level, width // level)
        offsets, _ = on_cells(self.flow, grid, middle=False)
        offsets = offsets.round()
        made = followed(offsets, torch.ones(offsets[:, 0].shape, dtype=torch.bool), self.order(offsets))
        found = Trajectories(grid, *made, window=2 if level == 1 else 1)
        self.compare(found, f"{grid.height}")
        return found

    def order(self, offsets: Tensor) -> Tensor:
        """0 for a point that was drawn, 1 for those that came into the same cell; conflicts in the authors' order."""
        pairs, _, height, width = offsets.shape
        into: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}
        for t, y, x in torch.cartesian_prod(*(torch.arange(n) for n in (pairs, height, width))).tolist():
            row, column = y + int(offsets[t, 1, y, x]), x + int(offsets[t, 0, y, x])
            if 0 <= row < height and 0 <= column < width:
                into.setdefault((t, row, column), []).append((t, y, x))
        order = torch.zeros(pairs, height, width, dtype=torch.float64)
        for points in into.values():
            if len(points) > 1:
                candidates, picked = next(self.picks)
                self.exact("random picks", f"conflict of {candidates}", candidates == len(points))
                for place, point in enumerate(points):
                    order[point] = float(place != picked)
        return order

    def compare(self, found: Trajectories, name: str) -> None:
        case, around = self.run.case, (2 * found.window + 1) ** 2
        beside = neighbours(torch.arange(len(found.of)), found.grid, found.window)
        others = found.lengths[found.of.long()] - 1
        valid = int(((beside >= 0).sum(1) + 1 + others).sum())
        length = around + int(found.lengths.max()) - 1
        counts = case[f"flow/count_valid/mask{name}"].tolist()
        self.exact("trajectories", f"{name}: valid entries", [valid, length] == counts)
        if f"flow/traj{name}" not in case:
            return
        frame, row, column = case[f"flow/traj{name}"].long().unbind(-1)
        theirs = (frame * found.grid.height + row) * found.grid.width + column
        theirs = theirs.where(case[f"flow/mask{name}"].bool(), torch.tensor(-1))
        self.exact("trajectories", f"{name}: neighbours", torch.equal(beside, theirs[:, 1:around]))
        looked = torch.cat([theirs[:, :1], theirs[:, -(found.grid.frames - 1) :]], dim=1)  # as attention does
        ours = found.rows(slice(None)).long()
        self.exact("trajectories", f"{name}: sites", torch.equal(ours.sort(1)[0], looked.sort(1)[0]))

    def exact(self, group: str, where: str, same: bool) -> None:
        self.run.ledger.note(f"flow: {group}", FORCED, where, 0.0 if same else 1.0, 0.0)


class Injected:
    """What one call of the network has in FLATTEN's layers."""

    def __init__(self, along: Along, backbone: Any) -> None:
        self.along, self.seen = along, {}
        self.branches = convolutions(backbone, CONVOLUTIONS)
        self.layers = attentions(backbone, ATTENTIONS)

    @property
    def taps(self) -> Taps:
        return Taps(self.attention, dict.fromkeys(self.branches, self.features), self.along.taps.look)

    def attention(self, where: Where, qkv: QKV) -> Tensor:
        if where.site.name in self.layers:
            number = FIRST + self.layers.index(where.site.name)
            for part in "qk":
                own = rearrange(getattr(qkv, part), "s f heads n d -> (s f) n (heads d)")
                self.seen[f"{part}{number}"] = own
        return self.along.attention(where, qkv)

    def features(self, where: Where, maps: Tensor) -> Tensor:
        number = self.branches.index(where.site.name)
        self.seen[f"features{number}"] = rearrange(maps, "s f c h w -> s c f h w")
        return maps

    def compare(self, run: Any, j: int) -> None:
        """Of inversion step j: the sizes, and whole what the first step of the edit takes."""
        last = run.case["inv/eps_cond"].shape[0] - 1
        for name, ours in self.seen.items():
            size = ours.double().square().mean().sqrt().float()
            run.note("inv: features", f"{name}, step {j}", size, run.case[f"pnp/rms/{name}"][last - j])
            if j == last and f"pnp/first_used/{name}" in run.case:
                run.note("inv: features", f"{name}, whole", ours, run.case[f"pnp/first_used/{name}"])
