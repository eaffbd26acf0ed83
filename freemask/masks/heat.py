"""What mask strategies share: layers by name, means of word heat, and masks made of chosen layers and times."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.record import READS_TEXT, Keep, Recording, Words, heat_of_words, of_head, parted
from freemask.errors import UserError, near
from freemask.masks.ops import Binarise, resize
from freemask.masks.plan import MaskPlan, Wanted
from freemask.types import Site, Time

Facts = Mapping[str, str | float | int | bool | None]
NAME = "heat"


@dataclass(frozen=True)
class Choice:
    """Layers whose heat is averaged, or one head of a layer; and the times that are averaged, None being the time that
    is asked for."""

    sites: tuple[str, ...]
    times: tuple[Time, ...] | None = None

    def keep(self, words: Words) -> Keep:
        heads = [site for site in self.sites if parted(site)[1] is not None]
        if heads and len(self.sites) > 1:
            wanted = "one head, or layers as a whole"
            raise UserError("a head stands alone", came=", ".join(map(short, self.sites)), expected=wanted)
        words = replace(words, head=heads[0]) if heads else words
        return heat_of_words(NAME, words, sites=self._layers, times=self.times)

    def heat(self, source: Recording) -> Callable[[Time], Tensor]:
        """The heat `f h w` at a network time."""
        kept = source.all(NAME)
        if self.times is None:
            return lambda t: mean_heat([kept[layer, t] for layer in self._layers])
        fixed = mean_heat([kept[layer, t] for layer in self._layers for t in self.times])
        return lambda t: fixed

    @property
    def _layers(self) -> list[str]:
        return [layer for layer, _ in map(parted, self.sites)]

    def plan(self, source: Recording, binarise: Binarise, facts: Facts | None = None) -> MaskPlan:
        return plan_of(self.heat(source), binarise, {**self.facts(), **(facts or {})})

    def facts(self) -> Facts:
        times: str | Time = "each" if self.times is None else f"mean of {len(self.times)}"
        return {
            "mask_layer": short(self.sites[0]) if len(self.sites) == 1 else f"mean of {len(self.sites)}",
            "mask_time": self.times[0] if self.times is not None and len(self.times) == 1 else times,
        }


def plan_of(heat: Callable[[Time], Tensor], binarise: Binarise, facts: Facts) -> MaskPlan:
    """Masks from the heat at a time, whatever they are for."""

    def mask(wanted: Wanted) -> Tensor:
        return binarise.mask(heat(wanted.t), wanted.grid.height, wanted.grid.width)

    def soft(wanted: Wanted) -> Tensor:
        return binarise.soft(heat(wanted.t), wanted.grid.height, wanted.grid.width)

    return MaskPlan(mask, facts, soft)


def mean_heat(heats: Sequence[Float[Tensor, "f _h _w"]]) -> Float[Tensor, "f h w"]:
    """Maps of one grid are averaged as they are. Of several grids, each is first divided by its frame's maximum
    and brought to the largest one, so that no layer outweighs the others by its level alone."""
    if len({heat.shape for heat in heats}) == 1:
        return torch.stack(list(heats)).mean(dim=0)
    height, width = (max(heat.shape[axis] for heat in heats) for axis in (1, 2))
    scaled = [(heat / heat.amax(dim=(1, 2), keepdim=True)).nan_to_num(0, 0, 0) for heat in heats]
    return torch.stack([resize(heat, height, width, "bilinear") for heat in scaled]).mean(dim=0)


def running(kept: Recording, sites: Collection[str], t: Time, name: str = NAME) -> Float[Tensor, "f h w"]:
    """The sum of what is recorded at time t and above, as the mean over layers."""
    sums: dict[str, Tensor] = {}
    for (site, time), heat in kept.all(name).items():
        if time >= t and site in sites:
            sums[site] = sums[site] + heat if site in sums else heat
    if not sums:
        raise ValueError(
            f"nothing of the edit is recorded at t = {t} or above: a live mask was asked for too early"
        )
    return mean_heat(list(sums.values()))


def joined(source: MaskPlan, target: MaskPlan, facts: Facts) -> MaskPlan:
    """For blending latents the union of the source's mask and the edit's own; for attention the source's."""
    assert source.soft is not None and target.soft is not None
    masks, values = (source.mask, target.mask), (source.soft, target.soft)

    def union(of: Sequence[Callable[[Wanted], Tensor]], wanted: Wanted) -> Tensor:
        first = of[0](wanted)
        return torch.maximum(first, of[1](wanted).to(first.device)) if wanted.use == "latent" else first

    return MaskPlan(partial(union, masks), facts, partial(union, values), frozenset({"latent"}))


def text_layers(sites: Mapping[str, Site], strides: Collection[int] | None = None) -> tuple[str, ...]:
    """The text attentions, in the order in which the network calls them."""
    layers = [site for site in sites.values() if site.role in READS_TEXT]
    found = tuple(site.name for site in layers if strides is None or site.stride in strides)
    if not found:
        known = sorted({site.stride for site in layers})
        raise UserError(
            "no text layer has such a stride",
            came=f"strides={list(strides or ())}",
            expected=f"of {', '.join(map(str, known))} (1: the latent's own grid), or null for all",
        )
    return found


def of_cells(kept: Mapping[tuple[str, Time], Tensor], sites: Sequence[str], cells: int) -> tuple[str, ...]:
    """Of layers whose heat was kept, those whose grid's short side is nearest to so many cells, by ratio; the finer
    ones of two equally near."""
    sides = {site: min(heat.shape[1:]) for (site, _), heat in kept.items() if site in sites}
    best = min(set(sides.values()), key=lambda side: (max(side / cells, cells / side), -side))
    return tuple(site for site in sites if sides[site] == best)


def find_layer(sites: Mapping[str, Site], name: str) -> str:
    """A text layer by its module path, or by the beginning of it where that is unique; behind `:` one of its heads."""
    layers, (path, mark, head) = text_layers(sites), name.partition(":")
    wanted = path.strip(".")
    found = [layer for layer in layers if layer == wanted or layer.startswith(wanted + ".")]
    if len(found) == 1 and mark and not head.isdecimal():
        raise UserError("a head is a number", came=f"layer={name}", expected=of_head(wanted, 0))
    if len(found) == 1:
        return found[0] + mark + head
    names = [short(layer) for layer in found or layers]
    raise UserError(
        f"'{name}' is "
        + (f"the beginning of {len(found)} text layers" if found else "no text layer of this model"),
        came=f"layer={name}",
        expected=near(wanted, names) or f"one of: {', '.join(names)}",
    )


def short(layer: str) -> str:
    """The path of a layer without the parts that all text layers share."""
    return re.sub(r"\.transformer_blocks\.0\.attn2(?=:|$)", "", layer)
