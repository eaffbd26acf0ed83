"""A call in progress, and what stands in for attention in it. Each family of networks has its own processor, which
projects and finishes as the library does; all ask `Call.attention` for what comes between."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from einops import rearrange
from torch import Tensor

from freemask.attention.math import attend
from freemask.attention.rewire import entries, looking
from freemask.types import QKV, Grid, Site, Stream, Taps, Time, Where


@dataclass
class Call:
    """One use of the network. `height` and `width` are those of the layer now running, `text` that of every frame
    where frames have texts of their own, `gates` how far gated layers are open for each row of their batch. `stepwise`:
    somebody looks into blocks or wants their gradients, so that none may run as one compiled piece."""

    t: Time
    streams: tuple[Stream, ...]
    frames: int
    taps: Taps
    rows: int = 0
    height: int = 0
    width: int = 0
    text: Tensor | None = None
    stepwise: bool = False
    gates: Tensor | None = None

    def where(self, site: Site, text: int = 0) -> Where:
        return Where(site, self.t, Grid(self.frames, self.height, self.width), self.streams, text)

    def attention(self, site: Site, qkv: QKV, text: int = 0) -> Tensor:
        """The answer of a layer: that of the tap, or plain attention. Whom frames look at is settled before."""
        taps, look = self.taps, site.look
        if taps.look is not None and site.role == "self":
            chosen = taps.look(self.where(site))
            look = look if chosen is None else entries(chosen)
        qkv = looking(qkv, look)
        qkv = replace(qkv, rows=self.rows) if self.rows else qkv
        if taps.attention is None:
            return attend(qkv)
        out = taps.attention(self.where(site, text), qkv)
        wanted = (*qkv.q.shape[:-1], qkv.v.shape[-1])
        if tuple(out.shape) != wanted:
            raise ValueError(f"the tap at {site.name} returned {tuple(out.shape)} instead of {wanted}")
        return out

    def features(self, site: Site, maps: Tensor) -> Tensor:
        """What a module is taken to have put out, in this call (`(s f) c h w`)."""
        tap = self.taps.features.get(site.name)
        if tap is None:
            return maps
        self.height, self.width = maps.shape[-2:]
        stacked = rearrange(maps, "(s f) c h w -> s f c h w", s=len(self.streams))
        given = tap(self.where(site), stacked)
        if given.shape != stacked.shape:
            raise ValueError(
                f"the tap at {site.name} returned {tuple(given.shape)}, not {tuple(stacked.shape)}"
            )
        return rearrange(given, "s f c h w -> (s f) c h w").to(maps.dtype)


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
    """An attention layer of diffusers' U-Nets."""

    def __init__(self, site: Site, slot: Slot) -> None:
        self.site, self.slot = site, slot

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
        if call.text is not None and self.site.role == "cross":
            encoder_hidden_states = call.text
        qkv = self._project(attn, hidden_states, encoder_hidden_states, len(call.streams))
        out = call.attention(self.site, qkv)
        out = out.transpose(2, 3).flatten(3).flatten(0, 1).to(hidden_states.dtype)  # (s b) n (heads e)
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
        q, k, v = (
            x.unflatten(2, (attn.heads, -1)).unflatten(0, (streams, -1)).transpose(2, 3)  # s b heads n d
            for x in (attn.to_q(hidden), attn.to_k(context), attn.to_v(context))
        )
        q = q if attn.norm_q is None else attn.norm_q(q)
        k = k if attn.norm_k is None else attn.norm_k(k)
        return QKV(q=q, k=k, v=v, scale=q.shape[-1] ** -0.5, hidden=hidden.unflatten(0, (streams, -1)))
