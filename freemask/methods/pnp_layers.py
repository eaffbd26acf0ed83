"""What plug-and-play takes over, in which layers: those that a user names, or the authors' own, found in the layout."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from jaxtyping import Float
from torch import Tensor

from freemask.attention.math import attend
from freemask.errors import UserError, nearest
from freemask.types import QKV, AttentionTap, Backbone, Site, Taps, Where

ASCENDING = re.compile(r"(up_blocks\.\d+)\.attentions\.(\d+)\.")


@dataclass(frozen=True)
class Lent:
    """Modules in which every stream gets what the source has there, each kind during the first so many steps."""

    convolutions: Sequence[str]
    convolution_steps: int
    attentions: Sequence[str]
    attention_steps: int
    temporals: Sequence[str] = ()  # attention along frames
    temporal_steps: int = 0

    def awake(self, i: int) -> bool:
        """Whether sampling step i needs the source at all."""
        return bool(self._of(i)[0] or self._of(i)[1])

    def at(self, i: int, then: AttentionTap | None = None) -> Taps:
        """Of sampling step i; `then` computes what comes of queries, keys and values (by default plain attention)."""
        convolutions, attentions = self._of(i)

        def attention(where: Where, qkv: QKV) -> Tensor:
            qkv = seen_by_source(where, qkv) if where.site.name in attentions else qkv
            return attend(qkv) if then is None else then(where, qkv)

        plain = then is None and not attentions
        return Taps(None if plain else attention, dict.fromkeys(convolutions, of_source))

    def _of(self, i: int) -> tuple[Sequence[str], Sequence[str]]:
        convolutions = self.convolutions if i < self.convolution_steps else ()
        attentions = self.attentions if i < self.attention_steps else ()
        return convolutions, [*attentions, *(self.temporals if i < self.temporal_steps else ())]


def of_source(where: Where, stack: Float[Tensor, "s ..."]) -> Float[Tensor, "s ..."]:
    """What the source has, for every stream."""
    place = where.streams.index("source")
    return stack[place : place + 1].expand_as(stack)


def seen_by_source(where: Where, qkv: QKV) -> QKV:
    """The source's queries and keys for every stream; values are their own."""
    return replace(qkv, q=of_source(where, qkv.q), k=of_source(where, qkv.k))


def convolutions(backbone: Backbone, wanted: Sequence[str] | None) -> list[str]:
    """Modules whose output is taken over; None: the last convolution of the authors' block."""
    usual = [f"{block}.conv2" for block in authors(backbone.sites).values()]
    return chosen("convolutions", backbone.features, wanted, usual[:1])


def attentions(backbone: Backbone, wanted: Sequence[str] | None) -> list[str]:
    """Self-attention whose queries and keys are taken over; None: that behind the authors' block, to the end."""
    spatial = [name for name, site in backbone.sites.items() if site.role in ("self", "space_time")]
    return chosen("attentions", spatial, wanted, list(authors(backbone.sites)))


def temporals(backbone: Backbone, wanted: Sequence[str] | None) -> list[str]:
    """Attention along frames whose queries and keys are taken over; None: the first in each block beside spatial
    attention that is the authors' choice."""
    along = {name: site for name, site in backbone.sites.items() if site.role == "temporal"}
    beside = {name.replace(".attentions.", ".temp_attentions.") for name in authors(backbone.sites)}
    usual = [name for name, site in along.items() if name in beside and site.nth == 0]
    return chosen("temporals", along, wanted, usual)


def authors(sites: Mapping[str, Site]) -> dict[str, str]:
    """Spatial self-attention on the way up, with the convolution block that each follows, from the second such block
    on: in Stable Diffusion that is up_blocks.1.resnets.1, the authors' choice."""
    found = {name: ASCENDING.match(name) for name, site in sites.items() if site.role == "self"}
    blocks = {name: f"{match[1]}.resnets.{match[2]}" for name, match in found.items() if match}
    first = next(iter(blocks.values()), "")
    return {name: block for name, block in blocks.items() if block != first}


def chosen(key: str, known: Iterable[str], wanted: Sequence[str] | None, usual: Sequence[str]) -> list[str]:
    """Those of the known names that are wanted, in their order; where nothing is said, the usual ones."""
    names, patterns = list(known), list(usual if wanted is None else wanted)
    if not patterns:
        raise UserError(
            f"'{key}' has no layer to act in.",
            came="no names" if wanted is not None else "a network in which the authors' layers are not found",
            expected="paths of layers, with * for any piece of a path",
            todo=f"name some, or switch it off by a share of 0; {nearest('', names)}",
        )
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"'{key}' names no layer of this model.",
                came=pattern,
                expected="the path of a layer, with * for any piece of it",
                todo=nearest(pattern, names),
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
