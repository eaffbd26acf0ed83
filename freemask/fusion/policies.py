"""What happens to one attention call of the edit: a policy for each kind of attention, and one for latents.

A policy is given the edit's own queries, keys and values, those of the source (with the values that the fusion lends:
the edit's, as a rule), the mask in the layer's layout (1: the edit's own; None: the source everywhere) and the step.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.alignment import WordMap
from freemask.attention.math import attend
from freemask.fusion import ops
from freemask.types import QKV, Grid, Role, Site

RowMask = Float[Tensor, "1 b 1 n 1"] | None


class Window(NamedTuple):
    """Sampling steps `first` <= i < `end`."""

    first: int
    end: int

    def __contains__(self, i: object) -> bool:
        return isinstance(i, int) and self.first <= i < self.end


@runtime_checkable
class Policy(Protocol):
    """`masked` tells whether the policy wants a mask at all; without one it uses the source everywhere."""

    roles: ClassVar[tuple[Role, ...]]

    @property
    def masked(self) -> bool: ...

    def awake(self, i: int) -> bool:
        """Whether step i is within the policy's window, in whichever layer."""
        ...

    def serves(self, site: Site, grid: Grid) -> bool:
        """Whether a layer is one of those that the policy acts in, in whichever step."""
        ...

    def __call__(self, own: QKV, source: QKV, mask: RowMask, i: int) -> Tensor: ...


@dataclass(frozen=True)
class Temporal:
    """Attention along frames, or among all video tokens. By `keys` (eq. 10): queries and keys are mixed. By maps: all
    rows are the source's.

    `inside` says whose queries and keys fill the mask: the edit's in the paper, the source's in the official code.
    """

    roles: ClassVar[tuple[Role, ...]] = ("temporal", "space_time", "joint")
    window: Window
    masked: bool
    keys: bool = True
    inside: str = "edit"
    most_positions: int | None = None
    skip: Collection[str] = ()

    def awake(self, i: int) -> bool:
        return i in self.window

    def serves(self, site: Site, grid: Grid) -> bool:
        skipped = site.name.startswith(tuple(self.skip))
        return site.role in self.roles and _few(grid, self.most_positions) and not skipped

    def __call__(self, own: QKV, source: QKV, mask: RowMask, i: int) -> Tensor:
        return attend(ops.mixed(own, source, self.edits(mask)))

    def edits(self, mask: RowMask) -> RowMask:
        """Where queries and keys are the edit's."""
        if mask is None or not self.keys:
            return None
        return 1 - mask if self.inside == "source" else mask


@dataclass(frozen=True)
class Self:
    """Attention within frames, or among all video tokens: the source's map where the mask is 0; `inverse` turns the
    mask round."""

    roles: ClassVar[tuple[Role, ...]] = ("self", "space_time", "joint")
    window: Window
    masked: bool
    inverse: bool = False
    most_queries: int | None = None

    def awake(self, i: int) -> bool:
        return i in self.window

    def serves(self, site: Site, grid: Grid) -> bool:
        return site.role in self.roles and _few(grid, self.most_queries)

    def __call__(self, own: QKV, source: QKV, mask: RowMask, i: int) -> Tensor:
        return ops.borrowed(own, source, self.edits(mask))

    def edits(self, mask: RowMask) -> RowMask:
        """Where the map is the edit's."""
        return 1 - mask if mask is not None and self.inverse else mask


@dataclass(frozen=True)
class Cross:
    """Text attention: the source's maps, word by word (replace or refine), reweighted, within the words' windows.

    Where the mask is 1 the edit's own maps stay (eq. 11). `masked_first` mixes before the words are mapped, as
    the official code does: in source columns, whatever words stand there in the target. Where the source `lends` its
    values too, its words are its own and nothing is mapped.
    """

    roles: ClassVar[tuple[Role, ...]] = ("cross", "joint")
    gates: Bool[Tensor, "steps l"]
    masked: bool
    words: WordMap
    factors: Float[Tensor, " l"]
    masked_first: bool = False
    most_queries: int | None = None
    lends: bool = False

    def awake(self, i: int) -> bool:
        return bool(self.gates[i].any())

    def serves(self, site: Site, grid: Grid) -> bool:
        return site.role in self.roles and _few(grid, self.most_queries)

    def __call__(self, own: QKV, source: QKV, mask: RowMask, i: int) -> Tensor:
        if self.lends:
            return ops.borrowed(self._reweighted(own, i), source, mask)
        matrix, weight = self._weights(i, own.k.shape[-2])
        if mask is None:
            return ops.mapped_words(own, source, matrix, weight)
        if self.masked_first:
            mapped = replace(own, v=matrix.to(own.v) @ own.v)
            kept = attend(replace(own, v=weight.to(own.v)[:, None] * own.v))
            return ops.blend(mask, attend(mapped), attend(replace(source, v=mapped.v))) + kept
        inside = attend(self._reweighted(own, i))
        return ops.blend(mask, inside, ops.mapped_words(own, source, matrix, weight))

    def _weights(self, i: int, columns: int) -> tuple[Tensor, Tensor]:
        """Columns outside their window are the edit's own. Those behind the text are of no word (a picture's): they go
        with the last column, as they stand."""
        gate = self.gates[i].to(self.words.own)
        matrix, own = (
            self.words.matrix * (self.factors * gate),
            self.words.own * self.factors * gate + (1 - gate),
        )
        rest = gate[-1].expand(columns - len(gate))
        return torch.block_diag(matrix, rest.diag()), torch.cat([own, 1 - rest])

    def _reweighted(self, own: QKV, i: int) -> QKV:
        """Inside the mask a reweighted word keeps its weight; the other columns are untouched."""
        gate = self.gates[i].to(self.factors)
        if torch.equal(self.factors, torch.ones_like(self.factors)):
            return own
        weight = self.factors * gate + (1 - gate)
        weight = torch.cat([weight, weight.new_ones(own.v.shape[-2] - len(weight))])
        return replace(own, v=weight.to(own.v)[:, None] * own.v)


@dataclass(frozen=True)
class LatentBlend:
    """After a step: outside the mask, the clip's own latent; without one, that latent everywhere. `late` takes it one
    level too noisy, as the official code does."""

    window: Window
    late: bool = False
    masked: bool = True


def _few(grid: Grid, most: int | None) -> bool:
    return most is None or grid.height * grid.width <= most
