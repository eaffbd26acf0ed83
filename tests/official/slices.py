"""The stored slices of attention maps, queries and keys: our layer of each, and the same slice of ours."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from freemask.attention.math import probabilities
from freemask.attention.record import Keep
from freemask.types import QKV, AttentionTap, Site, Stream, Where

PLACES = {"down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}
MOST_QUERIES = 2 * 32**2  # maps of layers with more are not stored
ROWS, TEXT_COLUMNS, SELF_COLUMNS, CHANNELS = 16, 24, 32, 16


@dataclass(frozen=True)
class Stored:
    """One stored tensor: its name, and the layer and network time it was taken at."""

    name: str
    site: str
    t: int


def layers(sites: Mapping[str, Site], height: int, width: int) -> dict[str, str]:
    """`down_cross/0` -> layer: counted in the order of the forward pass among the maps that are stored."""
    found: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name, site in sites.items():
        place = PLACES.get(name.split(".")[0])
        queries = (height // site.stride) * (width // site.stride)
        if place is None or (site.role != "temporal" and queries > MOST_QUERIES):
            continue
        kinds = ("temp_self", "temp_key", "temp_value") if site.role == "temporal" else (site.role,)
        for kind in kinds:
            key = f"{place}_{kind}"
            found[f"{key}/{counts.get(key, 0)}"] = name
            counts[key] = counts.get(key, 0) + 1
    return found


def stored(names: Iterable[str], known: Mapping[str, str], times: Mapping[int, int]) -> list[Stored]:
    """`<...>/stepNN/<key>/<i>` -> layer and time; `times` says at which time step NN called the network."""
    found = []
    for name in names:
        *_, step, key, place = name.split("/")
        i = int(step.removeprefix("step"))
        if i in times and f"{key}/{place}" in known:
            found.append(Stored(name, known[f"{key}/{place}"], times[i]))
    return found


def keep(wanted: Stored, stream: Stream, full: int | None = None) -> Keep:
    """Records the slice of a layer's own map, queries or keys. `full`: all heads and queries, so many columns."""
    projection = next((part for part in ("key", "value") if f"_temp_{part}/" in wanted.name), None)

    def shrink(where: Where, qkv: QKV) -> Tensor:
        one = qkv.stream(where.streams.index(stream))
        if projection is not None:
            return _projection(one.k if projection == "key" else one.q)
        if full is not None:
            return probabilities(one)[0, ..., :full]
        rows = _rows(one, where.site.role)
        return _columns(probabilities(rows)[0, :, 0], where.site.role)

    return Keep(wanted.name, _at(wanted), shrink)


def fused_keep(wanted: Stored, tap: AttentionTap) -> Keep:
    """The slice of a fused map, read through the tap that fuses it: with indicators of columns as values, what
    attention returns is those columns of the map."""

    def shrink(where: Where, qkv: QKV) -> Tensor:
        tokens, kind = qkv.k.shape[-2], where.site.role
        columns = _columns(torch.arange(tokens)[None], kind)[0]
        indicator = torch.zeros(tokens, max(len(columns), qkv.k.shape[-1]), dtype=qkv.k.dtype)
        indicator[columns, torch.arange(len(columns))] = 1
        out = tap(where, replace(qkv, v=indicator.expand(*qkv.k.shape[:-2], *indicator.shape)))
        maps = out[where.streams.index("cond"), ..., : len(columns)]
        if kind == "temporal":
            return maps[:: _every(len(maps)), 0]
        return maps[:, 0, :: _every(maps.shape[-2])]

    return Keep(f"{wanted.name} fused", _at(wanted), shrink)


def _at(wanted: Stored) -> Callable[[Where], bool]:
    return lambda where: where.site.name == wanted.site and where.t == wanted.t


def _rows(one: QKV, kind: str) -> QKV:
    """The first head, at every so manieth query (or pixel, along frames)."""
    one = replace(one, hidden=None)
    if kind == "temporal":
        every = _every(one.q.shape[1])
        return replace(one, q=one.q[:, ::every, :1], k=one.k[:, ::every, :1], v=one.v[:, ::every, :1])
    return replace(one, q=one.q[:, :, :1, :: _every(one.q.shape[-2])], k=one.k[:, :, :1], v=one.v[:, :, :1])


def _columns(maps: Tensor, kind: str) -> Tensor:
    if kind == "cross":
        return maps[..., :TEXT_COLUMNS]
    if kind == "temporal":
        return maps
    return maps[..., :: max(1, maps.shape[-1] // SELF_COLUMNS)]


def _projection(heads: Tensor) -> Tensor:
    wide = rearrange(heads[0], "b heads m d -> b m (heads d)")
    return wide[:: _every(len(wide)), :, :CHANNELS]


def _every(count: int) -> int:
    return max(1, count // ROWS)
