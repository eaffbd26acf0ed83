"""Recording attention: what to keep is decided before the pass, shrunk at each call, and held within a budget."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.layout import on_grid, text_tokens
from freemask.attention.math import attend, word_mass
from freemask.errors import UserError
from freemask.types import QKV, AttentionTap, Stream, Time, Where

GIB = 2**30
READS_TEXT = ("cross", "joint")
TINY = 1e-12  # attention that is taken for none
Spy = Callable[[Where, QKV], None]


@dataclass(frozen=True)
class Words:
    """Text columns whose heat is meant: the attention that falls on them, or, where `among` names columns (they are
    among them), the share of what falls on those. In one head of one layer (`blocks.5.attn2:3`), or as the mean over
    all heads of any."""

    columns: tuple[int, ...]
    among: tuple[int, ...] = ()
    head: str | None = None

    def __post_init__(self) -> None:
        for name in ("columns", "among"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))


@dataclass(frozen=True)
class Keep:
    """Which calls to keep something of (`wants`), and how much of each (`shrink`).

    `heat` tells the words where what is kept is their heat and nothing else: a stored inversion knows it.
    """

    name: str
    wants: Callable[[Where], bool]
    shrink: Callable[[Where, QKV], Tensor]
    heat: Words | None = None


class Recording:
    """(name, site, t) -> tensor, detached, at most `budget` bytes; moved to `device` where one is given."""

    def __init__(self, budget: int = 4 * GIB, device: torch.device | str | None = None) -> None:
        self.budget, self.device = budget, device
        self.bytes: dict[str, int] = {}
        self._kept: dict[tuple[str, str, Time], Tensor] = {}

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

    def all(self, name: str) -> dict[tuple[str, Time], Tensor]:
        """Everything kept under a name, by (site, t), in the order in which it was recorded."""
        return {(site, t): value for (known, site, t), value in self._kept.items() if known == name}

    def under(self, prefix: str) -> "Recording":
        """What is kept under names that begin like this, now and later, by the rest of the name."""
        return _Under(self, prefix)

    def _known(self, key: tuple[str, str, Time]) -> tuple[str, str, Time]:
        if key not in self._kept:
            name, site, t = key
            times = sorted({known[2] for known in self._kept if known[:2] == key[:2]})
            raise KeyError(f"'{name}' was not recorded at {site}, t = {t}; times recorded there: {times}")
        return key

    def _afford(self, name: str, size: int, key: tuple[str, str, Time]) -> None:
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


class _Under(Recording):
    def __init__(self, whole: Recording, prefix: str) -> None:
        super().__init__(whole.budget, whole.device)
        self._whole, self._prefix = whole, prefix

    def put(self, name: str, at: Where, value: Tensor) -> None:
        self._whole.put(self._prefix + name, at, value)

    def get(self, name: str, at: Where) -> Tensor:
        return self._whole.get(self._prefix + name, at)

    def all(self, name: str) -> dict[tuple[str, Time], Tensor]:
        return self._whole.all(self._prefix + name)


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


def spying(spy: Spy, stream: Stream, then: AttentionTap | None = None) -> AttentionTap:
    """A tap that shows one stream of every attention to `spy`, then lets `then` compute the result as above."""

    def tap(where: Where, qkv: QKV) -> Tensor:
        spy(where, qkv.stream(where.streams.index(stream)))
        return attend(qkv) if then is None else then(where, qkv)

    return tap


def heat_of_words(
    name: str,
    words: Sequence[int] | Words,
    *,
    strides: Collection[int] | None = None,
    sites: Collection[str] | None = None,
    times: Collection[Time] | None = None,
    stream: Stream | None = None,
) -> Keep:
    """Attention that falls on text columns, mean over heads, as `f h w` of the layer's grid; of `Words` with others
    beside them, as the share that it is of theirs, both being means over heads.

    None means all; the stream defaults to the last of the stack, which is the one with the prompt.
    """
    words = words if isinstance(words, Words) else Words(tuple(words))
    if not words.columns:
        raise ValueError(f"'{name}': no text columns were given, so the heat would be zero everywhere")

    alone, head = parted(words.head or "")

    def wants(where: Where) -> bool:
        return (
            where.site.role in READS_TEXT
            and alone in ("", where.site.name)
            and (strides is None or where.site.stride in strides)
            and (sites is None or where.site.name in sites)
            and (times is None or where.t in times)
            and (stream is None or stream in where.streams)
        )

    def shrink(where: Where, qkv: QKV) -> Tensor:
        one = qkv.stream(len(where.streams) - 1 if stream is None else where.streams.index(stream))
        mass = _mass(words, where, one)
        if head is None:
            return _map(words, where, mass.mean(dim=1))
        if head >= mass.shape[1]:
            raise UserError("there is no such head", came=words.head, expected=f"0 to {mass.shape[1] - 1}")
        return _map(words, where, mass[:, head])

    return Keep(name, wants, shrink, words)


def heads_apart(name: str, words: Words, into: Recording) -> AttentionTap:
    """A tap that records the heat of words in every head of every layer, each under a name of its own, and changes
    nothing. It is for passes of one stream."""

    def tap(where: Where, qkv: QKV) -> Tensor:
        if where.site.role in READS_TEXT:
            for head, mass in enumerate(_mass(words, where, qkv).unbind(dim=1)):
                site = replace(where.site, name=of_head(where.site.name, head))
                into.put(name, replace(where, site=site), _map(words, where, mass))
        return attend(qkv)

    return tap


def of_head(layer: str, head: int) -> str:
    """`blocks.5.attn2:3`"""
    return f"{layer}:{head}"


def parted(name: str) -> tuple[str, int | None]:
    """A layer, and which of its heads, where the name says one."""
    layer, _, head = name.partition(":")
    return layer, int(head) if head else None


def _mass(words: Words, where: Where, qkv: QKV) -> Float[Tensor, "b heads n g"]:
    first = text_tokens(where, qkv.k.shape[-2]).start
    groups = [[first + column for column in each] for each in (words.columns, words.among) if each]
    return word_mass(qkv, groups)[0]


def _map(words: Words, where: Where, mass: Float[Tensor, "b n g"]) -> Float[Tensor, "f h w"]:
    return on_grid(mass[..., 0] / mass[..., 1].clamp_min(TINY) if words.among else mass[..., 0], where)
