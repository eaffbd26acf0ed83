"""Video-P2P's edit written out slowly: four streams side by side, every attention matrix formed, plain loops. The
network itself, word tables and the noise table, judged elsewhere, are shared with ours."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from freemask.types import Given, Taps
from tests.written_p2p import PLACES, Network


class VideoNetwork(Network):
    """`unet` is a backbone; `control` sees every map as (rows, frames or pixels, heads, queries, keys)."""

    def __post_init__(self) -> None:
        self.times = [1 + i * (1000 // self.steps) for i in range(self.steps)]

    def __call__(self, x: Tensor, t: int, text: Tensor) -> Tensor:
        return self.rows(x[None], t, text[:1])[0]

    def rows(self, x: Tensor, t: int, texts: Tensor) -> Tensor:
        given = {str(row): Given({"text": text}) for row, text in enumerate(texts)}
        return self.unet.predict(x, t, given, taps=Taps(attention=self._tap))

    def _tap(self, where: Any, qkv: Any) -> Tensor:
        maps = torch.softmax(qkv.q @ qkv.k.transpose(-1, -2) * qkv.scale, dim=-1)
        if self.control is not None:
            maps = self.control(where.site.name, maps, (where.grid.height, where.grid.width))
        return maps @ qkv.v


@dataclass
class VideoControl:
    """Replaces or refines text maps and weighs words, takes temporal maps of the source, and blends latents by sums of
    maps."""

    matrix: Tensor
    own: Tensor
    weights: Tensor
    cross_end: int
    temporal_end: int
    blend: tuple[Sequence[int], Sequence[int]] | None
    blend_begin: int
    threshold: float
    most: int  # maps of more pixels are not stored
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    masks: list[Tensor] = field(default_factory=list)
    softs: list[Tensor] = field(default_factory=list)

    def __call__(self, layer: str, maps: Tensor, size: tuple[int, int]) -> Tensor:
        rows, (height, width) = maps.clone(), size
        if "attn_temporal" in layer and self.step < self.temporal_end:
            rows[3] = maps[2]
        if layer.endswith("attn2"):
            if self.step < self.cross_end:
                rows[3] = (maps[2] @ self.matrix + maps[3] * self.own) * self.weights
            if height * width <= self.most:
                seen = rows[2:].reshape(2, *rows.shape[1:3], height, width, -1)
                self.sums[layer] = self.sums.get(layer, 0) + seen
        return rows

    def after(self, x: Tensor) -> Tensor:
        """`x` is (source, target) after the step."""
        if self.blend is not None and self.step >= self.blend_begin:
            by_place: dict[str, list[Tensor]] = {place: [] for place in PLACES.values()}
            for layer, maps in self.sums.items():
                by_place[PLACES[layer.split(".")[0]]].append(maps)
            heads = torch.cat(by_place["down"][2:4] + by_place["up"][:3], dim=2)
            softs = []
            for row, columns in enumerate(self.blend):
                heat = heads[row][..., list(columns)].sum(-1).mean(1)
                heat = max_pool2d(heat[:, None], 3, stride=1, padding=1)
                heat = interpolate(heat, size=x.shape[-2:])
                softs.append(heat / heat.amax(dim=(2, 3), keepdim=True))
            mask = (softs[0] > self.threshold) | (softs[1] > self.threshold)
            self.softs.append(torch.stack(softs)[:, :, 0])
            self.masks.append(mask[:, 0].to(x.dtype))
            x = torch.stack([x[0], torch.where(mask, x[1], x[0])])
        self.step += 1
        return x


@torch.no_grad()
def edited(
    net: VideoNetwork,
    noise: Tensor,
    texts: dict[str, Tensor],
    nulls: Sequence[Tensor] | None,
    control: VideoControl,
) -> list[Tensor]:
    """Source and target after each step. Without `nulls`, the fast mode: the source is not guided."""
    x, found = torch.stack([noise, noise]), []
    net.control = control
    for i in range(net.steps):
        t, below = net.times[-1 - i], (-1 if i + 1 == net.steps else net.times[-2 - i])
        first = texts["empty"] if nulls is None else nulls[i]
        eps = net.rows(
            torch.cat([x, x]), t, torch.stack([first, texts["empty"], texts["source"], texts["target"]])
        )
        moved = eps[:2] + net.guidance * (eps[2:] - eps[:2])
        if nulls is None:
            moved[0] = eps[2]
        x = control.after(net.moved(x, moved, t, below))
        found.append(x)
    net.control = None
    return found
