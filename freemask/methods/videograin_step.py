"""What VideoGrain does in a step: features of the clip at first, attention drawn to regions, and outside all regions
the clip."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.along import Along
from freemask.attention.math import attend
from freemask.attention.modulated import Drawn, modulated
from freemask.attention.rewire import looking, references
from freemask.diffusion.guidance import cfg
from freemask.diffusion.inversions import Inversion
from freemask.diffusion.noise_paths import CLEAN
from freemask.fusion import ops
from freemask.methods.common import Noise
from freemask.methods.pnp_layers import Lent
from freemask.methods.regional import Layout
from freemask.types import QKV, Backbone, Given, Grid, Stream, Taps, Time, Where

POWER = 5  # of the share of the path, by which the pull fades
# Is shown what one stream of a layer is attended with, and where it is drawn to regions, how.
Watch = Callable[[Where, Stream, QKV, Drawn | None], None]


@dataclass(frozen=True)
class Pull:
    """How strongly attention is drawn at the noisy end, in which streams, and for how many steps; `strides` None: in
    all layers but the finest."""

    cross: float | int
    within: float | int
    cross_streams: Sequence[Stream]
    within_streams: Sequence[Stream]
    steps: int
    strides: Sequence[int] | None = None

    def acts(self, where: Where) -> bool:
        return where.site.stride > 1 if self.strides is None else where.site.stride in self.strides


class Outside(NamedTuple):
    """The clip as the released code puts it back, and what draws noise."""

    clean: Float[Tensor, "f c h w"]
    noise: Noise


@dataclass
class Grain:
    """An edit in progress. `given` has uncond and cond, and `clips` what the clip is given there when it lends its
    features, at the time of the step. Outside the regions stand the latents of its inversion.

    `outside`: as the released code does, there stands the clip under fresh noise instead; and the clip lends what it
    has one step below."""

    backbone: Backbone
    given: Mapping[Stream, Given]
    clips: Mapping[Stream, Given]
    inversion: Inversion
    times: Sequence[Time]
    guidance: float | int
    layout: Layout | None
    pull: Pull
    along: Along
    lent: Lent
    outside: Outside | None = None
    seen: dict[str, Tensor] = field(default_factory=dict)
    drew: set[int] = field(default_factory=set)  # the steps in which attention was drawn somewhere
    watch: Watch | None = None

    def predict(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "f c h w"]:
        """Guided prediction."""
        out = dict(zip(self.given, self.both(x, t), strict=True))
        return cfg(out["uncond"], out["cond"], self.guidance) if "uncond" in out else out["cond"]

    def both(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "s f c h w"]:
        """What the network says of each stream."""
        i = self.step_at(t)
        self.seen = self.lending(t) if self.lent.awake(i) else {}
        taps = Taps(self.attention(i), dict.fromkeys(self.branches, self.lent_maps), self.along.taps.look)
        return self.backbone.predict(x.expand(len(self.given), *x.shape), t, self.given, taps=taps)

    def lending(self, t: Time) -> dict[str, Tensor]:
        """What the clip has inside the network, in the layers that lend."""
        i, kept = self.step_at(t), {}
        at = self.levels[self.levels.index(t) - 1] if self.outside is not None else t
        if at == CLEAN:
            return {}

        def attention(where: Where, qkv: QKV) -> Tensor:
            if where.site.name in self.lent.attentions and i < self.lent.attention_steps:
                kept[f"{where.site.name} q"], kept[f"{where.site.name} k"] = qkv.q, qkv.k
            return self.along.attention(where, qkv)

        def features(where: Where, maps: Tensor) -> Tensor:
            kept[where.site.name] = maps
            return maps

        branches = self.lent.convolutions if i < self.lent.convolution_steps else ()
        taps = Taps(attention, dict.fromkeys(branches, features), self.along.taps.look)
        own = self.inversion.at(at)
        clips = {stream: self.clips[stream] for stream in self.given}
        self.backbone.predict(own.expand(len(clips), *own.shape), at, clips, taps=taps)
        return kept

    @property
    def branches(self) -> list[str]:
        return [name for name in self.lent.convolutions if name in self.seen]

    def lent_maps(self, where: Where, maps: Tensor) -> Tensor:
        return self.seen[where.site.name]

    def attention(self, i: int) -> Callable[[Where, QKV], Tensor]:
        """Attention of step i, in all layers."""

        def tap(where: Where, qkv: QKV) -> Tensor:
            if f"{where.site.name} q" in self.seen:
                qkv = replace(qkv, **{part: self.seen[f"{where.site.name} {part}"] for part in "qk"})
            if where.site.role == "cross":
                return self.drawn(where, qkv, i)
            return self.along.after(where, qkv, self.drawn(where, looking(qkv, where.site.look), i))

        return tap

    def drawn(self, where: Where, qkv: QKV, i: int) -> Float[Tensor, "s b heads n e"]:
        """Attention of all streams, drawn to regions in some."""
        cross = where.site.role == "cross"
        strength = self.pull.cross if cross else self.pull.within
        streams = self.pull.cross_streams if cross else self.pull.within_streams
        idle = self.layout is None or strength == 0 or i >= self.pull.steps or not self.pull.acts(where)
        acts = not idle and bool(set(streams) & set(where.streams))
        if self.watch is None and not acts:
            return attend(qkv)
        how = None
        if acts:
            self.drew.add(i)
            members, keys, pull = self.regions(where, qkv)
            how = Drawn(members, keys, pull * strength)
        return torch.cat(
            [
                self.of_stream(where, stream, qkv.stream(k), how if stream in streams else None)
                for k, stream in enumerate(where.streams)
            ]
        )

    def of_stream(self, where: Where, stream: Stream, qkv: QKV, how: Drawn | None) -> Tensor:
        if self.watch is not None:
            self.watch(where, stream, qkv, how)
        return attend(qkv) if how is None else modulated(qkv, *how)

    def regions(self, where: Where, qkv: QKV) -> tuple[Tensor, Tensor, Tensor]:
        """Of each query and each key of a layer, the regions that it belongs to; and how strongly each query is drawn,
        less where its region is large."""
        layout, t, grid, device = self.layout, where.t, where.grid, qkv.q.device
        assert layout is not None
        if where.site.role == "cross":
            members = layout.members("cross", t, grid)
            keys = layout.words(qkv.k.shape[3])[None].expand(len(members), -1, -1)
            size = layout.share_of_frame(members)
        else:
            members = layout.within(t, grid)
            look = references(where.site.look or (0,), grid.frames)
            keys = torch.stack([rearrange(members[list(each)], "f n r -> (f n) r") for each in look])
            size = layout.share_of_clip(members)
        return members.to(device), keys.to(device), (self.fading(t) * (1 - size)).to(device)

    def fading(self, t: Time) -> float:
        return ((t - self.times[0]) / self.backbone.noise_path.train_times) ** POWER

    def after(self, x: Float[Tensor, "f c h w"], i: int, t: Time) -> Float[Tensor, "f c h w"] | None:
        """The latent after a step: outside all regions, the clip's."""
        if self.layout is None or not self.layout.holds:
            return None
        inside = self.layout.any(t, Grid(len(x), *x.shape[-2:])).to(x)[:, None]
        below = self.levels[self.levels.index(t) - 1]
        if self.outside is None:
            return ops.blend(inside, x, self.inversion.at(below).to(x))
        path, (clean, noise) = self.backbone.noise_path, self.outside
        return ops.blend(inside, x, path.noised(clean, noise(), t).to(x))  # at t, where `below` was meant

    @cached_property
    def levels(self) -> list[Time]:
        return [CLEAN, *self.times]

    def step_at(self, t: Time) -> int:
        return len(self.times) - 1 - list(self.times).index(t)
