"""Of VideoGrain's cases: logits of attention before and after they are drawn to regions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from freemask.attention.modulated import extremes, factors
from freemask.types import QKV, Where
from tests.official.ledger import FORCED, relative

MOST, KEPT = 128, slice(1, None, 4)  # of maps with more rows, those that are stored
PLACES = {"down": "down_blocks.1.", "mid": "mid_block.", "up": "up_blocks.1."}
STREAM = {"cross": "cond", "self": "uncond"}
HALF = 2**-10  # of half precision, from one number to the next
HEADS = 2  # of text attention


class Drawings:
    """What one step draws. `run` is the case and its ledger."""

    def __init__(self, run: Any, grain: Any, i: int) -> None:
        self.run, self.grain, self.key = run, grain, f"edit/attn/step{i:02d}/"
        self.found: dict[str, Tensor] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        drawn = self.grain.drawn

        def watching(where: Where, qkv: QKV, i: int) -> Tensor:
            place = next(
                (place for place, start in PLACES.items() if where.site.name.startswith(start)), None
            )
            if place is not None and f"{place} {where.site.role}" not in self.found:
                self.see(f"{place}_{where.site.role}", where, qkv)
            return drawn(where, qkv, i)

        self.grain.drawn = watching
        try:
            yield
        finally:
            del self.grain.drawn

    def see(self, name: str, where: Where, qkv: QKV) -> None:
        """The first layer of each place."""
        if f"{name} seen" in self.found or STREAM[where.site.role] not in where.streams:
            return
        self.found[f"{name} seen"] = torch.zeros(())
        one = qkv.stream(where.streams.index(STREAM[where.site.role]))
        members, keys, pull = self.grain.regions(where, qkv)
        strength = self.grain.pull.cross if where.site.role == "cross" else self.grain.pull.within
        own, kinds = factors(members, keys)
        same = (own @ kinds.transpose(-1, -2))[None, :, None]
        before = one.q @ one.k.transpose(-1, -2) * one.scale
        most, least = extremes(one)
        x = (pull * strength)[None, :, None, :, None]
        after = (1 - x) * before + x * (same * most + (1 - same) * least)
        for when, logits in (("before", before), ("after", after)):
            if where.site.role == "cross":
                self.keep(f"{name}/0/{when}", logits[0, :, :HEADS])
                continue
            rows = rearrange(logits[0], "f heads n m -> heads (f n) m")
            for head in range(len(rows)):
                self.keep(f"{name}/{head}/{when}", rows[head][None, None])

    def keep(self, name: str, logits: Tensor) -> None:
        if self.key + name in self.run.case:
            self.found[name] = logits[:, :, KEPT] if logits.shape[2] > MOST else logits

    def compare(self) -> None:
        for name in self.run.case.names(self.key):
            part = name.removeprefix(self.key)
            error = relative(self.found[part], self.run.case[name])
            half = "self" in part and part.endswith(
                "after"
            )  # how strongly theirs are drawn is in half precision
            limit = max(HALF, self.run.limit) if half else self.run.limit
            self.run.ledger.note(
                f"edit: logits {'drawn in half' if half else 'drawn'}", FORCED, name, error, limit
            )
