"""What happens to one attention call of the edit: a policy for each kind of attention."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.alignment import WordMap
from freemask.attention.math import attend
from freemask.fusion import ops
from freemask.types import QKV, Where


class Window(NamedTuple):
    """Sampling steps `first` <= i < `end`."""

    first: int
    end: int

    def __contains__(self, i: object) -> bool:
        return isinstance(i, int) and self.first <= i < self.end


@dataclass(frozen=True)
class Call:
    """One attention call: the edit's conditional stream, the source's, and the mask in the layer's layout.

    `lend` tells that the source lends its values too; as a rule its attention works on the edit's values.
    """

    where: Where
    i: int
    own: QKV
    source: QKV
    mask: Float[Tensor, "1 b 1 n 1"] | None
    lend: bool = False

    @property
    def lender(self) -> QKV:
        return self.source if self.lend else replace(self.source, v=self.own.v)


@runtime_checkable
class Policy(Protocol):
    """`masked` tells whether the policy wants a mask at all; without one it uses the source everywhere."""

    @property
    def masked(self) -> bool: ...

    def awake(self, i: int) -> bool:
        """Whether step i is within the policy's window, in whichever layer."""
        ...

    def active(self, where: Where, i: int) -> bool: ...

    def __call__(self, call: Call) -> Tensor: ...


@dataclass(frozen=True)
class Temporal:
    """Attention along frames. By `keys` (eq. 10): queries and keys are mixed. By maps: all rows are the source's.

    `inside` says whose queries and keys fill the mask: the edit's in the paper, the source's in the official code.
    """

    window: Window
    masked: bool
    keys: bool = True
    inside: str = "edit"
    most_positions: int | None = None
    skip: Collection[str] = ()

    def awake(self, i: int) -> bool:
        return i in self.window

    def active(self, where: Where, i: int) -> bool:
        return (
            where.site.kind == "temporal"
            and self.awake(i)
            and (self.most_positions is None or where.grid.height * where.grid.width <= self.most_positions)
            and not where.site.name.startswith(tuple(self.skip))
        )

    def __call__(self, call: Call) -> Tensor:
        mask = call.mask if self.keys else None
        if mask is not None and self.inside == "source":
            mask = 1 - mask
        return ops.mixed_keys(call.own, call.lender, mask)


@dataclass(frozen=True)
class Self:
    """Attention within a frame: the source's where the mask is 0. `inverse` turns the mask round (stylisation)."""

    window: Window
    masked: bool
    inverse: bool = False
    most_queries: int | None = None

    def awake(self, i: int) -> bool:
        return i in self.window

    def active(self, where: Where, i: int) -> bool:
        return where.site.kind == "self" and self.awake(i) and _few(where, self.most_queries)

    def __call__(self, call: Call) -> Tensor:
        mask = call.mask
        if mask is not None and self.inverse:
            mask = 1 - mask
        return ops.borrowed(call.own, call.lender, mask)


@dataclass(frozen=True)
class Cross:
    """Text attention: the source's maps, word by word (replace or refine), reweighted, within the words' windows.

    Where the mask is 1 the edit's own maps stay (eq. 11). `masked_first` mixes before the words are mapped, as
    the official code does: in source columns, whatever words stand there in the target.
    """

    gates: Bool[Tensor, "steps l"]
    masked: bool
    words: WordMap
    factors: Float[Tensor, " l"]
    masked_first: bool = False
    most_queries: int | None = None

    def awake(self, i: int) -> bool:
        return bool(self.gates[i].any())

    def active(self, where: Where, i: int) -> bool:
        return where.site.kind == "cross" and self.awake(i) and _few(where, self.most_queries)

    def __call__(self, call: Call) -> Tensor:
        own, source, mask = call.own, call.source, call.mask
        if call.lend:  # the source's own words, nothing to map
            return ops.borrowed(self._reweighted(own, call.i), source, mask)
        matrix, weight = self._weights(call.i)
        if mask is None:
            return ops.mapped_words(own, source, matrix, weight)
        if self.masked_first:
            mapped = replace(own, v=matrix.to(own.v) @ own.v)
            kept = attend(replace(own, v=weight.to(own.v)[:, None] * own.v))
            return ops.blend(mask, attend(mapped), attend(replace(source, v=mapped.v))) + kept
        return ops.blend(
            mask, attend(self._reweighted(own, call.i)), ops.mapped_words(own, source, matrix, weight)
        )

    def _weights(self, i: int) -> tuple[Tensor, Tensor]:
        """Columns outside their window are the edit's own."""
        gate = self.gates[i].to(self.words.own)
        return self.words.matrix * (self.factors * gate), self.words.own * self.factors * gate + (1 - gate)

    def _reweighted(self, own: QKV, i: int) -> QKV:
        """Inside the mask a reweighted word keeps its weight; the other columns are untouched."""
        gate = self.gates[i].to(self.factors)
        if torch.equal(self.factors, torch.ones_like(self.factors)):
            return own
        weight = self.factors * gate + (1 - gate)
        return replace(own, v=weight.to(own.v)[:, None] * own.v)


@dataclass(frozen=True)
class LatentBlend:
    """After a step: outside the mask, the latent of the inversion; without one, that latent everywhere. `late` takes
    it one level too noisy, as the official code does."""

    window: Window
    late: bool = False
    masked: bool = True

    def place(self, i: int, steps: int) -> int:
        """Which of the inversion's latents (0 = clean) is blended in after step i of `steps`."""
        return steps - 1 - i + (1 if self.late else 0)


def _few(where: Where, most: int | None) -> bool:
    return most is None or where.grid.height * where.grid.width <= most
