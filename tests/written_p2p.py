"""Null-text inversion and prompt-to-prompt written out slowly, picture by picture: the bare network of diffusers, every
attention matrix formed, plain loops. Word tables and the noise table, judged elsewhere, are shared with ours."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

PLACES = {"down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}


class Whole:
    """Stands in for the attention of one layer of diffusers."""

    def __init__(self, layer: str, seen: Any) -> None:
        self.layer, self.seen = layer, seen

    def __call__(self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        context = x if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            attn.head_to_batch_dim(each) for each in (attn.to_q(x), attn.to_k(context), attn.to_v(context))
        )
        maps = torch.softmax(q @ k.transpose(1, 2) * attn.scale, dim=-1)
        maps = self.seen(self.layer, encoder_hidden_states is not None, maps)
        return attn.to_out[0](attn.batch_to_head_dim(maps @ v))


@dataclass
class Network:
    """`unet` is the bare network, `path` tells signal and noise of a level. `control` sees every map."""

    unet: Any
    path: Any
    steps: int
    guidance: float
    control: Any = None

    def __post_init__(self) -> None:
        processors = {name: Whole(name, self._seen) for name in self.unet.attn_processors}
        self.unet.set_attn_processor(processors)
        self.times = [1 + i * (1000 // self.steps) for i in range(self.steps)]

    def _seen(self, layer: str, cross: bool, maps: Tensor) -> Tensor:
        return maps if self.control is None else self.control(layer, cross, maps)

    def __call__(self, x: Tensor, t: int, text: Tensor) -> Tensor:
        return self.unet(x, t, text, return_dict=False)[0]

    def moved(self, x: Tensor, eps: Tensor, now: int, to: int) -> Tensor:
        """DDIM without noise, either way."""
        signal, noise = self.path.scales(now)
        signal_to, noise_to = self.path.scales(to)
        clean = (x - noise * eps) / signal
        return signal_to * clean + noise_to * eps

    def inverted(self, x: Tensor, source: Tensor) -> list[Tensor]:
        found = [x]
        for now, t in zip([-1, *self.times], self.times, strict=False):
            x = self.moved(x, self(x, t, source), now, t)
            found.append(x)
        return found


@dataclass(frozen=True)
class Limits:
    """Of the updates: an error below `enough + i more` ends them."""

    inner: int
    enough: float = 1e-5
    more: float = 2e-5


def null_text(
    net: Network, levels: Sequence[Tensor], source: Tensor, empty: Tensor, limits: Limits
) -> tuple[list[Tensor], list[Tensor], list[int]]:
    """Of one batch of pictures that share the text `1 l d`: the texts by step, the latents before each step and after
    the last, how often each was updated."""
    count = len(levels[0])
    u, z, texts, latents, counts = empty.clone(), levels[-1], [], [levels[-1]], []
    for i in range(net.steps):
        t, below = net.times[-1 - i], (-1 if i + 1 == net.steps else net.times[-2 - i])
        u = u.detach().clone().requires_grad_(True)
        adam = torch.optim.Adam([u], lr=1e-2 * (1 - i / 100))
        with torch.no_grad():
            eps_c = net(z, t, source.expand(count, -1, -1))
        counts.append(0)
        for _ in range(limits.inner):
            eps_u = net(z, t, u.expand(count, -1, -1))
            loss = (
                (net.moved(z, eps_u + net.guidance * (eps_c - eps_u), t, below) - levels[-2 - i]) ** 2
            ).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            counts[-1] += 1
            if loss.item() < limits.enough + i * limits.more:
                break
        with torch.no_grad():
            eps_u = net(z, t, u.expand(count, -1, -1))
            z = net.moved(z, eps_u + net.guidance * (eps_c - eps_u), t, below)
        texts.append(u.detach())
        latents.append(z)
    return texts, latents, counts


@dataclass
class Control:
    """Prompt-to-prompt's: replaces or refines by a word map, weighs words, takes the source's self-attention, and
    blends latents. Rows: uncond source, uncond target, source, target, heads within each."""

    matrix: Tensor
    own: Tensor
    weights: Tensor
    cross_end: int
    self_end: int
    queries: int  # maps of more are not stored, and not replaced in self-attention
    blend: tuple[Sequence[int], Sequence[int]] | None
    blend_begin: int
    threshold: float
    step: int = 0
    sums: dict[str, list[Tensor]] = field(default_factory=dict)
    masks: list[Tensor] = field(default_factory=list)
    softs: list[Tensor] = field(default_factory=list)

    def __call__(self, layer: str, cross: bool, maps: Tensor) -> Tensor:
        rows = maps.reshape(4, -1, *maps.shape[1:]).clone()
        source, target = rows[2], rows[3]
        if cross and self.step < self.cross_end:
            rows[3] = (source @ self.matrix + target * self.own) * self.weights
        if not cross and self.step < self.self_end and maps.shape[1] <= self.queries:
            rows[3] = source
        if cross and maps.shape[1] <= self.queries:
            self._store(layer, rows[2:].clone())
        return rows.reshape(maps.shape)

    def _store(self, layer: str, maps: Tensor) -> None:
        known = self.sums.setdefault(layer, [torch.zeros_like(maps)])
        known[0] = known[0] + maps

    def after(self, x: Tensor) -> Tensor:
        """`x` is (source, target) after the step."""
        if self.blend is not None and self.step >= self.blend_begin:
            by_place = {place: [] for place in PLACES.values()}
            for layer, (maps,) in self.sums.items():
                by_place[PLACES[layer.split(".")[0]]].append(maps)
            chosen = by_place["down"][2:4] + by_place["up"][:3]
            heads = torch.cat(chosen, dim=1)  # of all layers side by side
            side = int(heads.shape[2] ** 0.5)
            heat = torch.stack(
                [heads[row][..., list(columns)].sum(-1).mean(0) for row, columns in enumerate(self.blend)]
            )
            heat = max_pool2d(heat.reshape(2, 1, side, side), 3, stride=1, padding=1)
            heat = interpolate(heat, size=x.shape[-2:])
            soft = heat / heat.amax(dim=(2, 3), keepdim=True)
            mask = (soft[:1] > self.threshold) | (soft > self.threshold)
            self.softs.append(soft[:, 0])
            self.masks.append(mask[1, 0].to(x.dtype))
            x = x[:1] + mask.to(x.dtype) * (x - x[:1])
        self.step += 1
        return x


@torch.no_grad()
def edited(
    net: Network, noise: Tensor, nulls: Sequence[Tensor], texts: Tensor, control: Control
) -> list[Tensor]:
    """Of one picture: source and target after each step. `texts` are (source, target)."""
    x, found = noise.expand(2, -1, -1, -1), []
    net.control = control
    for i, u in enumerate(nulls):
        t, below = net.times[-1 - i], (-1 if i + 1 == net.steps else net.times[-2 - i])
        eps = net(torch.cat([x, x]), t, torch.cat([u, u, texts]))
        eps = eps[:2] + net.guidance * (eps[2:] - eps[:2])
        x = control.after(net.moved(x, eps, t, below))
        found.append(x)
    net.control = None
    return found
