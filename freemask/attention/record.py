"""Recording attention: what to keep is decided before the pass, shrunk at each call, and held within a budget."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.math import attend, word_mass
from freemask.errors import UserError
from freemask.types import QKV, AttentionTap, Stream, Where

GIB = 2**30


@dataclass(frozen=True)
class Keep:
    """Which calls to keep something of (`wants`), and how much of each (`shrink`).

    `heat` tells the text columns where what is kept is their heat and nothing else: a stored inversion knows it.
    """

    name: str
    wants: Callable[[Where], bool]
    shrink: Callable[[Where, QKV], Tensor]
    heat: tuple[int, ...] | None = None


class Recording:
    """(name, site, t) -> tensor, detached, at most `budget` bytes; moved to `device` where one is given."""

    def __init__(self, budget: int = 4 * GIB, device: torch.device | str | None = None) -> None:
        self.budget, self.device = budget, device
        self.bytes: dict[str, int] = {}
        self._kept: dict[tuple[str, str, int], Tensor] = {}

    def put(self, name: str, at: Where, value: Tensor) -> None:
        key = (name, at.site.name, at.t)
        if key in self._kept:
            raise ValueError(
                f"'{name}' is already recorded at {at.site.name}, t = {at.t}: use one recording per pass"
            )
        size = value.numel() * value.element_size()
        self._afford(name, size, key)
        value = value.detach()
        value = value.to(self.device) if self.device is not None else value
        if value.numel() * value.element_size() < value.untyped_storage().nbytes():
            value = value.clone()  # a view would hold the whole tensor it looks at
        self._kept[key] = value
        self.bytes[name] = self.bytes.get(name, 0) + size

    def get(self, name: str, at: Where) -> Tensor:
        return self._kept[self._known((name, at.site.name, at.t))]

    def all(self, name: str) -> dict[tuple[str, int], Tensor]:
        """Everything kept under a name, by (site, t), in the order in which it was recorded."""
        return {(site, t): value for (known, site, t), value in self._kept.items() if known == name}

    def knows(self, name: str, at: Where) -> bool:
        return (name, at.site.name, at.t) in self._kept

    def _known(self, key: tuple[str, str, int]) -> tuple[str, str, int]:
        if key not in self._kept:
            name, site, t = key
            times = sorted({known[2] for known in self._kept if known[:2] == key[:2]})
            raise KeyError(f"'{name}' was not recorded at {site}, t = {t}; times recorded there: {times}")
        return key

    def _afford(self, name: str, size: int, key: tuple[str, str, int]) -> None:
        held = sum(self.bytes.values())
        if held + size <= self.budget:
            return
        shares = {**self.bytes, name: self.bytes.get(name, 0) + size}
        listed = ", ".join(f"{who}: {share / GIB:.3f} GiB" for who, share in shares.items())
        raise UserError(
            f"The recording is full: '{name}' at {key[1]}, t = {key[2]} does not fit.",
            came=f"{(held + size) / GIB:.3f} GiB ({listed})",
            expected=f"at most {self.budget / GIB:.3f} GiB",
            todo="keep fewer layers, times or frames, or give the recording a larger budget",
        )


def recorder(keeps: Sequence[Keep], into: Recording, then: AttentionTap | None = None) -> AttentionTap:
    """A tap that records, then lets `then` (by default plain attention) compute the result."""
    names = [keep.name for keep in keeps]
    if len(set(names)) < len(names):
        raise ValueError(f"two keeps have the same name: {names}")

    def tap(where: Where, qkv: QKV) -> Tensor:
        for keep in keeps:
            if keep.wants(where):
                into.put(keep.name, where, keep.shrink(where, qkv))
        return attend(qkv) if then is None else then(where, qkv)

    return tap


def heat_of_words(
    name: str,
    columns: Sequence[int],
    *,
    strides: Collection[int] | None = None,
    sites: Collection[str] | None = None,
    times: Collection[int] | None = None,
    stream: Stream | None = None,
) -> Keep:
    """Attention that falls on text columns, mean over heads, as `f h w` of the layer's grid.

    None means all; the stream defaults to the last of the stack, which is the one with the prompt.
    """
    if not columns:
        raise ValueError(f"'{name}': no text columns were given, so the heat would be zero everywhere")

    def wants(where: Where) -> bool:
        return (
            where.site.kind == "cross"
            and (strides is None or where.site.stride in strides)
            and (sites is None or where.site.name in sites)
            and (times is None or where.t in times)
            and (stream is None or stream in where.streams)
        )

    def shrink(where: Where, qkv: QKV) -> Tensor:
        place = len(where.streams) - 1 if stream is None else where.streams.index(stream)
        one = QKV(q=qkv.q[place, None], k=qkv.k[place, None], v=qkv.v[place, None], scale=qkv.scale)
        return on_grid(word_mass(one, [columns])[0, ..., 0].mean(dim=1), where)

    return Keep(name, wants, shrink, tuple(sorted(set(columns))))


def on_grid(values: Float[Tensor, "b n"], where: Where) -> Float[Tensor, "f h w"]:
    """One value per query, laid out in the layer's batch and tokens, as frames, height and width."""
    grid = where.grid
    layout = f"{where.site.batch} {where.site.tokens} -> f h w"
    return rearrange(values, layout, f=grid.frames, h=grid.height, w=grid.width)
