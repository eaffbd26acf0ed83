"""What is added to the logits of attention, made for a piece of the query rows at a time. A query that may look at no
key at all gets nothing: zeros."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.types import Bias


@dataclass(frozen=True)
class KeyMask(Bias):
    """Which keys may be looked at at all, such as those of a prompt without its padding; the same for every query."""

    allowed: Bool[Tensor, "s b m"]

    def rows(self, part: slice) -> Tensor:
        closed = torch.zeros(self.allowed.shape, device=self.allowed.device)
        return closed.masked_fill(~self.allowed, float("-inf"))[:, :, None, None]

    def streams(self, part: slice) -> "KeyMask":
        return KeyMask(_part(self.allowed, part))

    def columns(self, part: slice) -> "KeyMask":
        return KeyMask(self.allowed[..., part])


@dataclass(frozen=True)
class Additive(Bias):
    """Any numbers, which lie in memory as they are given: for keys that are few, such as those of a text."""

    values: Float[Tensor, "s b heads n m"]

    def rows(self, part: slice) -> Tensor:
        return self.values if self.values.shape[3] == 1 else self.values[:, :, :, part]

    def streams(self, part: slice) -> "Additive":
        return Additive(_part(self.values, part))

    def columns(self, part: slice) -> "Additive":
        return Additive(self.values[..., part])


@dataclass(frozen=True)
class Regions(Bias):
    """sum_r queries[n, r] keys[m, r]: how strongly the queries of region r are drawn to (or kept from) the keys of
    region r. With `only`, pairs of which the sum is 0 are not looked at: regions that cannot see each other.

    It holds n r + m r numbers instead of n m.
    """

    queries: Float[Tensor, "#s #b n r"]
    keys: Float[Tensor, "#s #b m r"]
    only: bool = False

    def rows(self, part: slice) -> Tensor:
        made = self.queries[:, :, part] @ self.keys.transpose(-1, -2)
        if self.only:
            made = torch.zeros_like(made).masked_fill(made == 0, float("-inf"))
        return made[:, :, None]

    def streams(self, part: slice) -> "Regions":
        return Regions(_part(self.queries, part), _part(self.keys, part), self.only)

    def columns(self, part: slice) -> "Regions":
        return Regions(self.queries, self.keys[:, :, part], self.only)


def _part(values: Tensor, part: slice) -> Tensor:
    return values if len(values) == 1 else values[part]
