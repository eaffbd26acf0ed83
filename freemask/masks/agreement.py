"""How far to trust a map of word heat, judged by the maps alone: pure functions of a stack of candidates."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from freemask.masks.ops import resize


def candidate(heat: Float[Tensor, "f _h _w"], height: int, width: int) -> Float[Tensor, "f h w"]:
    """The map on the grid on which candidates are compared, each frame from 0 to 1; zero where it is flat."""
    heat = heat.float()
    if heat.shape[1] > height or heat.shape[2] > width:
        heat = adaptive_avg_pool2d(heat, (min(heat.shape[1], height), min(heat.shape[2], width)))
    heat = resize(heat, height, width, "bilinear")
    heat = heat - heat.amin(dim=(1, 2), keepdim=True)
    return (heat / heat.amax(dim=(1, 2), keepdim=True)).nan_to_num(0, 0, 0)


def compactness(maps: Float[Tensor, "k f h w"]) -> Float[Tensor, " k"]:
    """1 for a map that is a point, 0 for one as wide as the frame: how much narrower than even heat it spreads."""
    height, width = maps.shape[-2:]
    y = torch.linspace(-0.5, 0.5, height).to(maps)[:, None] if height > 1 else maps.new_zeros(1, 1)
    x = torch.linspace(-0.5, 0.5, width).to(maps)[None, :] if width > 1 else maps.new_zeros(1, 1)
    weight = (maps / maps.sum(dim=(-2, -1), keepdim=True)).nan_to_num(0, 0, 0)

    def spread(weight: Tensor) -> Tensor:
        mean_y, mean_x = ((weight * axis).sum(dim=(-2, -1), keepdim=True) for axis in (y, x))
        return (weight * ((y - mean_y) ** 2 + (x - mean_x) ** 2)).sum(dim=(-2, -1))

    even = spread(torch.full_like(maps[0, 0], 1 / (height * width)))
    narrow = (1 - spread(weight) / even).nan_to_num(0, 0, 0).clamp(min=0)
    return (narrow * (weight.sum(dim=(-2, -1)) > 0)).mean(dim=1)


def continuity(maps: Float[Tensor, "k f h w"]) -> Float[Tensor, " k"]:
    """Mean correlation of neighbouring frames, negative ones as 0; 1 for a single frame."""
    if maps.shape[1] == 1:
        return maps.new_ones(len(maps))
    flat = _centred(maps)
    return (flat[:, 1:] * flat[:, :-1]).sum(dim=-1).clamp(min=0).mean(dim=1)


def consensus(maps: Float[Tensor, "k f h w"], weight: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Each map's correlation with all maps, as their weighted mean; opposite maps count as 0, not below."""
    flat = _centred(maps).flatten(1) / maps.shape[1] ** 0.5
    similar = (flat @ flat.T).clamp(min=0)
    return (similar @ weight / weight.sum()).nan_to_num(0, 0, 0)


def score(
    maps: Float[Tensor, "k f h w"],
    area: Float[Tensor, " k"],
    *,
    least: float | int,
    most: float | int,
    whole: bool,
    judges: int | None = None,
) -> Float[Tensor, " k"]:
    """Consensus among the credible maps, times compactness. Maps whose mask covers less than `least` or more than
    `most` of the clip score 0. `whole`: what is looked for may fill the frame, so that compactness says nothing.
    `judges`: only the first so many maps have a say in the consensus."""
    compact = torch.ones_like(area) if whole else compactness(maps)
    credible = ((area >= least) & (area <= most)).to(maps)
    weight = credible * compact * continuity(maps)
    if judges is not None:
        weight[judges:] = 0
    return credible * compact * consensus(maps, weight)


def _centred(maps: Tensor) -> Tensor:
    """Frames as vectors of mean 0 and length 1; flat frames as zeros."""
    flat = maps.flatten(-2)
    flat = flat - flat.mean(dim=-1, keepdim=True)
    return (flat / flat.norm(dim=-1, keepdim=True)).nan_to_num(0, 0, 0)
