"""TokenFlow's step: key frames together, then all frames along the clip's own matches; outside a mask, the clip.

The authors copy what stands behind a layer's output projection, a tap what stands before it. That is the same: the
projection treats every token alike, and weights that add up to one pass through it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from freemask.attention.math import attend
from freemask.attention.rewire import by_themselves, looking
from freemask.diffusion.guidance import of_frames
from freemask.methods.pnp import Beside
from freemask.methods.tokenflow_field import Near, by_chunk, by_distance, carried, chunks, directions, nearest
from freemask.types import QKV, AttentionTap, Time, Where

Variant = Literal["official", "paper"]


@dataclass(frozen=True, kw_only=True)
class Flow(Beside):
    """An edit in progress: at each step the key frames together, then all frames, chunk by chunk."""

    chunk: int
    variant: Variant
    rng: Generator

    def predict(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "f c h w"]:
        i, own, step = self.step_at(t), self.inversion.at(t).to(x), self.step(len(x))

        def call(frames: Sequence[int], then: AttentionTap) -> Tensor:
            taps = self.held(replace(self.lent.at(i, then), look=by_themselves), frames, len(x))
            given = {name: of_frames(each, frames, len(x)) for name, each in self.needed(source=True).items()}
            return self.guided(x[list(frames)], own[list(frames)], t, given, taps)

        call(step.keys, step.together)  # for what it leaves behind in `step`
        made = [call(frames, partial(step.copied, frames)) for frames in chunks(len(x), self.chunk)]
        return torch.cat(made)

    def step(self, frames: int) -> "Step":
        """Key frames are drawn on the CPU: the same ones on every device."""
        keys = [
            each[int(torch.randint(len(each), (1,), generator=self.rng))]
            for each in chunks(frames, self.chunk)
        ]
        return Step(keys, self.chunk, self.variant)


class Left(NamedTuple):
    """Of the key frames in one layer: the clip's tokens, and what comes of attention."""

    tokens: Float[Tensor, "k n c"]
    out: Float[Tensor, "s k heads n e"]


@dataclass
class Step:
    """One step: what the key frames leave behind in each layer of self-attention, and what comes of it in the others.
    The clip is the first of the streams."""

    keys: Sequence[int]
    chunk: int
    variant: Variant
    left: dict[str, Left] = field(default_factory=dict)

    def together(self, where: Where, qkv: QKV) -> Tensor:
        """Key frames of the edit look at all of its key frames; those of the clip at themselves."""
        if where.site.role != "self":
            return attend(qkv)
        source, edit = qkv.stream(0), qkv.streams(slice(1, None))
        out = torch.cat([attend(source), attend(looking(edit, ("all",)))])
        self.left[where.site.name] = Left(self.tokens(qkv), out)
        return out

    def copied(self, frames: Sequence[int], where: Where, qkv: QKV) -> Tensor:
        """These frames take what the key frames beside them have where the clip's tokens are most alike."""
        if where.site.role != "self":
            return attend(qkv)
        kept = self.left[where.site.name].out
        made = []
        for frame, tokens in zip(frames, self.tokens(qkv), strict=True):
            near = self.near(frame)
            found = [self.matched(where.site.name, frame, place, tokens) for place, _ in near]
            made.append(carried(kept, near, found))
        out = torch.stack(made, dim=1)
        return out if self.variant == "official" else torch.cat([attend(qkv.stream(0)), out[1:]])

    def near(self, frame: int) -> Near:
        return by_chunk(frame, self.chunk) if self.variant == "official" else by_distance(frame, self.keys)

    def matched(self, site: str, frame: int, place: int, tokens: Float[Tensor, "n c"]) -> Int[Tensor, " n"]:
        """Where in this key frame each token of the frame is found."""
        return nearest(tokens, self.left[site].tokens[place])

    def tokens(self, qkv: QKV) -> Float[Tensor, "b n c"]:
        assert qkv.hidden is not None
        return directions(qkv.hidden[0])
