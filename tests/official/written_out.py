"""The authors' FreeMask and FateZero written out slowly, with every map formed and stored.

It shares the network, the schedule and the word tables (judged elsewhere) with ours, and nothing of the fusion. Where
the authors fixed sizes for latents of 64 x 64, `Sizes` scales them, so that a tiny network is enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from freemask.alignment import factors, gates, official_columns, word_map
from freemask.diffusion.noise_paths import CLEAN
from freemask.types import QKV, Taps, Where
from tests.given import given


@dataclass(frozen=True)
class Sizes:
    """Most queries of spatial maps, most positions of mixed queries and keys, the masks' stride, the fixed place."""

    queries: int = 2048
    positions: int = 1024
    stride: int = 4
    index: int = 10


@dataclass
class Scene:
    """One inversion and its maps: per step, by layer, `b heads n m`; queries and keys likewise. `look`: whom frames
    of an inflated network look at, which is the network's own business."""

    backbone: Any
    source: str
    steps: int
    guidance: float
    sizes: Sizes = field(default_factory=Sizes)
    family: str = "FreeMask"
    look: Sequence[int | str] | None = None
    latents: list[Tensor] = field(default_factory=list)
    maps: list[dict[str, Tensor]] = field(default_factory=list)
    projections: list[dict[str, tuple[Tensor, Tensor]]] = field(default_factory=list)
    grids: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def times(self) -> list[int]:
        return self.backbone.noise_path.times(self.steps)

    def invert(self, clean: Tensor) -> None:
        text, x = self.backbone.embed(self.source), clean
        self.latents = [clean]
        for j, t in enumerate(self.times):
            maps, projections = {}, {}

            def tap(where: Where, qkv: QKV, maps: dict = maps, projections: dict = projections) -> Tensor:
                a = probabilities(qkv.q[0], qkv.k[0], qkv.scale)
                maps[where.site.name] = a
                projections[where.site.name] = (qkv.k[0], qkv.q[0])
                self.grids[where.site.name] = (where.grid.height, where.grid.width)
                return (a @ qkv.v[0])[None]

            out = self.backbone.predict(
                x[None], t, given(text.tokens[None], ("source",)), taps=Taps(attention=tap)
            )[0]
            now = self.times[j - 1] if j else CLEAN
            x = self.backbone.noise_path.step(x, out, now=now, call=t, to=t)
            self.latents.append(x)
            self.maps.append(maps)
            self.projections.append(projections)


def probabilities(q: Tensor, k: Tensor, scale: float) -> Tensor:
    return torch.softmax(scale * q @ k.transpose(-1, -2), dim=-1)


@dataclass
class Edit:
    """One prompt; `said` is its p2p_config. Leaves the tensors that a stored case has."""

    scene: Scene
    target: str
    said: Mapping[str, Any]
    name: str = "edit0"
    found: dict[str, Tensor] = field(default_factory=dict)
    seen: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        embed, steps = self.scene.backbone.embed, self.scene.steps
        source, target = embed(self.scene.source), embed(self.target)
        asked = "replace" if self.said.get("is_replace_controller", True) else "refine"
        self.map = word_map(source, target, control=asked, official=True)
        windows = dict(self.said["cross_replace_steps"])
        share = windows.pop("default_", (0.0, 1.0))
        self.alpha = gates(target, steps, share, windows, official=True).to(torch.float64)
        eq = self.said.get("eq_params") or {"words": [], "values": []}
        self.equalizer = factors(target, dict(zip(eq["words"], eq["values"], strict=True)), official=True)
        words = self.said.get("blend_words")
        self.blends = words is not None
        chosen = zip((source, target), map(as_list, words or ([], [])), strict=True)
        self.words = [
            sorted({column for word in each for column in official_columns(text, word)})
            for text, each in chosen
        ]
        self.controls()

    def controls(self) -> None:
        size, key = len(self.map.own), f"{self.name}/ctrl"
        self.found[f"{key}/cross_replace_alpha"] = torch.cat([self.alpha, self.alpha[-1:]])[
            :, None, None, None
        ]
        self.found[f"{key}/equalizer"] = self.equalizer[None]
        if bool(self.map.own.any()) or torch.equal(self.map.matrix.sum(0), torch.ones(size)):
            self.found[f"{key}/mapper"] = torch.where(self.map.own > 0, -1, self.map.matrix.argmax(0))[None]
            self.found[f"{key}/refine_alphas"] = 1 - self.map.own[None, None, None]
        else:
            self.found[f"{key}/mapper"] = self.map.matrix[None]

    def window(self, key: str) -> tuple[int, int]:
        share, steps = self.said[key], self.scene.steps
        begin, end = (0.0, share) if isinstance(share, float) else share
        return int(steps * begin), int(steps * end)

    def run(self) -> Tensor:
        scene = self.scene
        backbone, steps, times = scene.backbone, scene.steps, scene.times
        text = torch.stack([backbone.embed("").tokens, backbone.embed(self.target).tokens])
        x, kept = scene.latents[-1], []
        self.found[f"{self.name}/init_latents"] = stored(x)[None]
        for i in range(steps):
            t, place = times[steps - 1 - i], steps - 1 - i
            tap = Taps(attention=lambda where, qkv, i=i: self.fused(where, qkv, i))
            out = backbone.predict(torch.stack([x, x]), t, given(text, ("uncond", "cond")), taps=tap)
            prediction = out[0] + scene.guidance * (out[1] - out[0])
            below = times[place - 1] if place else CLEAN
            x = backbone.noise_path.step(x, prediction, now=t, call=t, to=below)
            if i == 0:
                self.found[f"{self.name}/unet_out/00"] = stored(out)
                self.found[f"{self.name}/latents_before_blend/00"] = stored(x)
            if self.blends and self.said.get("blend_latents"):
                x = self.blended(x, i)
            kept.append(stored(x))
        self.found[f"{self.name}/latents"] = torch.stack(kept)
        bytes_ = (backbone.decode(x) * 255).round().to(torch.uint8)
        self.found[f"{self.name}/frames_u8_down8"] = rearrange(bytes_, "f c h w -> f h w c")[
            :, 4::8, 4::8
        ].clone()
        return x

    def fused(self, where: Where, qkv: QKV, i: int) -> Tensor:
        q, k = qkv.q.clone(), qkv.k.clone()
        name, place = where.site.name, self.scene.steps - 1 - i
        outside = name.startswith("transformer_in")
        if where.site.role == "temporal" and not outside:
            q[1], k[1] = self.mixed(where, q[1], k[1], i)
        a = torch.stack([probabilities(q[s], k[s], qkv.scale) for s in range(2)])
        source = self.scene.maps[place][name]
        if where.site.role == "cross" and a.shape[-2] <= self.scene.sizes.queries:
            self.seen[name] = self.seen.get(name, 0) + a[1]
            a[1] = self.cross(where, source, a[1], i)
        if where.site.role == "self" and a.shape[-2] <= self.scene.sizes.queries:
            begin, end = self.window("self_replace_steps")
            if begin <= i < end:
                m = self.rows(where, i)
                a[1] = source if m is None else m * a[1] + (1 - m) * source
        if where.site.role == "temporal" and not outside and not self.said.get("key_value_replace"):
            begin, end = self.window("temp_replace_steps")
            if begin < i < end:
                a[1] = source
        return a @ qkv.v

    def cross(self, where: Where, source: Tensor, own: Tensor, i: int) -> Tensor:
        m = (
            self.rows(where, i) if self.scene.family == "FreeMask" else None
        )  # FateZero masks self-attention alone
        base = source if m is None else source * (1 - m) + own * m
        matrix = self.map.matrix.to(base)
        new = torch.einsum("fhnk,kl->fhnl", base, matrix) + own * self.map.own.to(own)
        new = new * self.equalizer.to(new)
        return new * self.alpha[i] + own * (1 - self.alpha[i])

    def mixed(self, where: Where, q: Tensor, k: Tensor, i: int) -> tuple[Tensor, Tensor]:
        begin, end = self.window("temp_replace_steps")
        positions = where.grid.height * where.grid.width
        if (
            not self.said.get("key_value_replace")
            or not begin <= i < end
            or positions > self.scene.sizes.positions
        ):
            return q, k
        k0, q0 = self.scene.projections[self.scene.steps - 1 - i][where.site.name]
        if not self.blends:
            return q0, k0
        grid = (where.grid.height, where.grid.width)
        maps = [
            a
            for name, a in self.scene.maps[self.scene.sizes.index].items()
            if self.is_cross(name) and self.scene.grids[name] == grid
        ]
        m = self.mask("kv_blend", [maps], grid, f"step{i:02d}")[-1]
        m = rearrange(m, "f h w -> (h w) 1 f 1")
        return m * q0 + (1 - m) * q, m * k0 + (1 - m) * k

    def rows(self, where: Where, i: int) -> Tensor | None:
        """The mask of a spatial layer's queries."""
        if not self.blends or not self.said.get("blend_self_attention"):
            return None
        maps = self.chosen(self.scene.maps[self.scene.steps - 1 - i])
        m = self.mask("attention_blend", [maps], (where.grid.height, where.grid.width), f"step{i:02d}")[-1]
        return rearrange(m, "f h w -> f 1 (h w) 1")

    def blended(self, x: Tensor, i: int) -> Tensor:
        steps, s = self.scene.steps, self.scene.steps - (i + 1)
        both = [self.chosen(self.scene.maps[s]), self.chosen(self.seen)]
        m = self.mask("latent_blend", both, (x.shape[-2], x.shape[-1]), f"step{i + 1:02d}")[-1]
        if not int(0.2 * steps) < i + 1 < int(0.8 * steps):
            return x
        own = self.scene.latents[1:][s]
        return own + m[:, None] * (x - own)

    def is_cross(self, name: str) -> bool:
        return self.scene.backbone.sites[name].role == "cross"

    def chosen(self, maps: Mapping[str, Tensor]) -> list[Tensor]:
        stride = self.scene.sizes.stride
        return [
            a for n, a in maps.items() if self.is_cross(n) and self.scene.backbone.sites[n].stride == stride
        ]

    def mask(self, kind: str, rows: Sequence[list[Tensor]], grid: tuple[int, int], step: str) -> Tensor:
        """One row of maps, or two (source, target), of which the second becomes the union of both."""
        values = []
        for maps, columns in zip(rows, self.words, strict=False):
            heads = torch.cat(maps, dim=1)
            heat = heads[..., columns].sum(-1).mean(1)
            ratio = (grid[0] * grid[1] / heat.shape[-1]) ** 0.5
            small = (round(grid[0] / ratio), round(grid[1] / ratio))
            heat = max_pool2d(heat.reshape(1, -1, *small).float(), 3, 1, 1)
            heat = interpolate(heat, size=grid)[0]
            values.append(heat / heat.amax((-1, -2), keepdim=True))
        soft = torch.stack(values)
        mask = soft > self.said.get("blend_th", (0.3, 0.3))[0]
        mask = mask | mask[:1]
        key = f"{self.name}/{kind}"
        self.found[f"{key}_soft/{step}/{grid[0]}"] = soft
        self.found[f"{key}_mask/{step}/{grid[0]}"] = mask.to(torch.uint8)
        return mask.to(torch.float64)


def as_list(words: str | Sequence[str]) -> Sequence[str]:
    return [words] if isinstance(words, str) else words


def stored(latents: Tensor) -> Tensor:
    return rearrange(latents, "... f c h w -> ... c f h w").contiguous()
