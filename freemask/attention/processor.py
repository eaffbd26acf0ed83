"""The only file that speaks diffusers' attention-processor interface: taps stand in for attention during a call."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from torch import Tensor

from freemask.attention.math import attend
from freemask.types import QKV, Grid, Site, Stream, Taps, Where


@dataclass
class Call:
    """One use of the network. `height` and `width` are those of the layer now running."""

    t: int
    streams: tuple[Stream, ...]
    frames: int
    taps: Taps
    rows: int = 0
    height: int = 0
    width: int = 0

    def where(self, site: Site) -> Where:
        return Where(site, self.t, Grid(self.frames, self.height, self.width), self.streams)


class Slot:
    """Holds the call in progress. Empty outside of it, so that a network run by hand raises."""

    def __init__(self) -> None:
        self._call: Call | None = None

    @contextmanager
    def opened(self, call: Call) -> Iterator[None]:
        if self._call is not None:
            raise RuntimeError("predict was called from inside predict (or from two threads) on one backbone")
        self._call = call
        try:
            yield
        finally:
            self._call = None

    @property
    def call(self) -> Call:
        if self._call is None:
            raise RuntimeError("the network was run outside backbone.predict, where no tap would be heard")
        return self._call


class SiteProcessor:
    """Attention of one site: the tap of the call in progress if it has one, plain attention otherwise.

    `rewire` changes whom the queries look at, before taps see them.
    """

    def __init__(self, site: Site, slot: Slot) -> None:
        self.site, self.slot = site, slot
        self.rewire: Callable[[QKV], QKV] | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        if attention_mask is not None:
            raise RuntimeError(f"{self.site.name} was given an attention mask, which taps would not see")
        call = self.slot.call
        qkv = self._project(attn, hidden_states, encoder_hidden_states, len(call.streams))
        qkv = qkv if self.rewire is None else self.rewire(qkv)
        if call.taps.attention is None:
            out = attend(qkv, call.rows)
        else:
            out = call.taps.attention(call.where(self.site), qkv)
            self._check(out, qkv)
        out = rearrange(out, "s b heads n e -> (s b) n (heads e)").to(hidden_states.dtype)
        out = attn.to_out[1](attn.to_out[0](out))
        if attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor

    def _project(self, attn: Any, hidden: Tensor, context: Tensor | None, streams: int) -> QKV:
        if attn.group_norm is not None:
            hidden = attn.group_norm(hidden.transpose(1, 2)).transpose(1, 2)
        if context is None:
            context = hidden
        elif attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        split = {"s": streams, "heads": attn.heads}
        q, k, v = (
            rearrange(x, "(s b) n (heads d) -> s b heads n d", **split)
            for x in (attn.to_q(hidden), attn.to_k(context), attn.to_v(context))
        )
        q = q if attn.norm_q is None else attn.norm_q(q)
        k = k if attn.norm_k is None else attn.norm_k(k)
        inputs = rearrange(hidden, "(s b) n c -> s b n c", s=streams)
        return QKV(q=q, k=k, v=v, scale=q.shape[-1] ** -0.5, hidden=inputs)

    def _check(self, out: Tensor, qkv: QKV) -> None:
        wanted = (*qkv.q.shape[:-1], qkv.v.shape[-1])
        if tuple(out.shape) != wanted:
            raise ValueError(f"the tap at {self.site.name} returned {tuple(out.shape)} instead of {wanted}")
