"""What Rerender-A-Video does with one key frame: down its path, and what it takes from those before it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.math import attend
from freemask.attention.rewire import by_themselves
from freemask.diffusion.guidance import cfg, of_frames
from freemask.fusion import ops
from freemask.interpolation.far import Far, Way
from freemask.methods import rerender_a_video_field as field_of
from freemask.methods.renoised import Held
from freemask.types import QKV, Given, Stream, Taps, Time, Where

KeysAndValues = tuple[Float[Tensor, "s 1 heads n d"], Float[Tensor, "s 1 heads n e"]]


@dataclass(frozen=True)
class Rules:
    """Steps are counted from the noisy end. In `shape` ones the clean latent is the first frame's along the flow, in
    `colour` ones it has that one's colours, in `pixel` ones the latent is drawn to pixels of frames before, with this
    `weight`. `rescale`: how much of the noise that this takes away is given back; None: nothing. Frames begin at step
    `begin`, those of the clip with noise where `from_clip`."""

    begin: int
    from_clip: bool
    shape: range
    colour: range
    pixel: range
    weight: float | int
    rescale: float | int | None


@dataclass(frozen=True)
class Left:
    """What a frame leaves to later ones: keys and values by layer and time, clean latents by step, its picture."""

    handed: dict[tuple[str, Time], KeysAndValues] = field(default_factory=dict)
    clean: dict[int, Tensor] = field(default_factory=dict)
    picture: list[Tensor] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(each.numel() * each.element_size() for pair in self.handed.values() for each in pair)


@dataclass(frozen=True)
class Noises:
    """The same for every frame and pass, as after one seed: what frames begin with, and what brings a picture up to
    the level of a step."""

    begin: Float[Tensor, "1 c lh lw"]
    fuse: Mapping[int, Float[Tensor, "1 c lh lw"]]


@dataclass(frozen=True)
class Towards:
    """What pixel-aware fusion draws to, and where."""

    latent: Float[Tensor, "1 c lh lw"]
    mask: Float[Tensor, "1 1 lh lw"]


@dataclass(frozen=True)
class KeyFrames:
    """An edit in progress. `encode` reads pictures, `told` hears of each step."""

    held: Held
    given: Mapping[Stream, Given]
    guidance: float | int
    rules: Rules
    layers: Sequence[str]
    noises: Noises
    far: Far | None
    encode: Callable[[Tensor], Tensor]
    told: Callable[[], None]

    @torch.no_grad()
    def all(self, frames: Sequence[int]) -> list[Left]:
        """Of the first one and the last one that was made, everything; of others, their picture."""
        made: list[Left] = []
        for place, frame in enumerate(frames):
            if place == 0:
                made.append(self.down(frame, None, None, None))
                continue
            first, before = (frames[0], made[0]), (frames[place - 1], made[-1])
            rough = self.down(frame, first, before, None)
            towards = self.towards(frame, first, before, rough)
            rough.handed.clear()
            made.append(self.down(frame, first, before, towards))
            if place > 1:
                made[-2].handed.clear()
        return made

    def down(
        self,
        frame: int,
        first: tuple[int, Left] | None,
        before: tuple[int, Left] | None,
        towards: Towards | None,
    ) -> Left:
        """One frame down its path."""
        path, rules, levels, left = self.held.backbone.noise_path, self.rules, self.held.levels, Left()
        begun = self.noises.begin
        x = path.noised(self.held.clean[frame : frame + 1], begun, levels[rules.begin])
        x = x if rules.from_clip else begun
        others = [each[1] for each in (first, before) if each is not None]
        way = None if first is None or self.far is None else self.far.way(frame, first[0])
        noise = begun
        for i in range(rules.begin, len(levels) - 1):
            now, to = levels[i], levels[i + 1]
            if towards is not None and i in rules.pixel:
                x = self.drawn(x, noise, towards, i)
            made = self.predict(x, now, frame, others, left)
            noise = path.noise(x, made, now=now, call=now)
            left.clean[i] = path.clean(x, made, now=now, call=now)
            x = path.noised(self.changed(left.clean[i], i, first, way), noise, to)
            x = self.kept(x, i, frame)
            self.told()
        left.picture.append(self.held.backbone.decode(x)[0])
        return left

    def predict(
        self, x: Float[Tensor, "1 c lh lw"], t: Time, frame: int, others: Sequence[Left], left: Left
    ) -> Float[Tensor, "1 c lh lw"]:
        total = len(self.held.clean)
        given = {stream: of_frames(each, [frame], total) for stream, each in self.given.items()}

        def handed(where: Where, qkv: QKV) -> Tensor:
            """In place of itself, the frame looks at what others have had here."""
            name = where.site.name
            if name not in self.layers:
                return attend(qkv)
            left.handed[name, t] = qkv.k, qkv.v
            if not others:
                return attend(qkv)
            pairs = [other.handed[name, t] for other in others]
            k, v = (torch.cat([pair[side] for pair in pairs], dim=3) for side in (0, 1))
            return attend(QKV(qkv.q, k, v, qkv.scale, rows=qkv.rows))

        taps = Taps(attention=handed, look=by_themselves)
        seen = x.expand(len(given), *x.shape)
        made = dict(zip(given, self.held.backbone.predict(seen, t, given, taps=taps), strict=True))
        return cfg(made["uncond"], made["cond"], self.guidance) if "uncond" in made else made["cond"]

    def changed(
        self, clean: Float[Tensor, "1 c lh lw"], i: int, first: tuple[int, Left] | None, way: Way | None
    ) -> Float[Tensor, "1 c lh lw"]:
        """Colours, then the rough shape."""
        if first is None or way is None:
            return clean
        like = first[1].clean[i]
        if i in self.rules.colour:
            clean = field_of.coloured(clean, like)
        if i in self.rules.shape:
            multiple = self.held.backbone.multiple
            mask = field_of.in_cells(field_of.hidden(way[1]), multiple).to(clean)
            clean = ops.blend(mask, field_of.carried_cells(like, way, multiple), clean)
        return clean

    def drawn(
        self, x: Float[Tensor, "1 c lh lw"], noise: Tensor, towards: Towards, i: int
    ) -> Float[Tensor, "1 c lh lw"]:
        """`noise` is what x was made with."""
        path, now = self.held.backbone.noise_path, self.held.levels[i]
        weight = self.rules.weight * towards.mask
        there = path.noised(towards.latent, self.noises.fuse[i], now)
        if self.rules.rescale is None:
            return weight * there + (1 - weight) * x
        own = path.noised(torch.zeros_like(x), noise, now)
        more = torch.maximum(1 - weight, self.rules.rescale * (1 - weight**2).sqrt())
        flat = field_of.flat(towards.mask)
        more = flat * more + (1 - flat) * (1 - weight)
        return weight * there + (1 - weight) * (x - own) + more * own

    def towards(self, frame: int, first: tuple[int, Left], before: tuple[int, Left], rough: Left) -> Towards:
        """The rough frame under what the frame before and the first one show of it, as a latent."""
        assert self.far is not None
        backbone, multiple = self.held.backbone, self.held.backbone.multiple
        ways = [self.far.way(frame, other[0]) for other in (before, first)]
        shown = [
            (field_of.carried(other[1].picture[0], way), field_of.hidden(way[1]))
            for other, way in zip((before, first), ways, strict=True)
        ]
        picture = field_of.overlaid(rough.picture[0][None], *shown)
        anywhere = field_of.hidden(ways[0][1] | ways[1][1])
        latent = self.encode(picture)
        latent = field_of.faithful(backbone.decode, latent, self.encode(backbone.decode(latent)), picture)
        mask = field_of.in_cells(anywhere, multiple).to(latent)
        # In the paper the mask weighs once, in the step; the released code weighs the latent by it too.
        return Towards(latent if self.rules.rescale is None else latent * mask, mask)

    def kept(self, x: Float[Tensor, "1 c lh lw"], i: int, frame: int) -> Float[Tensor, "1 c lh lw"]:
        """Outside a mask, the clip's own latent with the noise that frames begin with."""
        inside = self.held.inside(self.held.clean, i)
        if inside is None:
            return x
        own, level = self.held.clean[frame : frame + 1], self.held.levels[i + 1]
        path = self.held.backbone.noise_path
        own = own if level == self.held.levels[-1] else path.noised(own, self.noises.begin, level)
        return ops.blend(inside[frame : frame + 1], x, own)
