"""Attention along trajectories: each token looks at the tokens that are the same point of the clip in other frames."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from freemask.attention.math import attend
from freemask.attention.rewire import by_themselves, looking
from freemask.optical.trajectories import Trajectories
from freemask.types import QKV, Taps, Where

PIECE = 2**22  # numbers that are gathered at once


@dataclass(frozen=True)
class Along:
    """Self-attention as the model has it, and after it, at the strides of `paths`, attention along these: its values
    are what the first has put out, its queries and keys are the same, or with `old_qk` those of the layer."""

    paths: Mapping[int, Trajectories]
    old_qk: bool = False

    @property
    def taps(self) -> Taps:
        return Taps(self.attention, look=by_themselves)

    @property
    def name(self) -> str:
        """Tells apart what is made under these taps."""
        about = [(stride, each.digest) for stride, each in sorted(self.paths.items())]
        return "along " + hashlib.sha256(repr((about, self.old_qk)).encode()).hexdigest()[:32]

    def attention(self, where: Where, qkv: QKV) -> Float[Tensor, "s b heads n e"]:
        return self.after(where, qkv, attend(looking(qkv, where.site.look)))

    def after(
        self, where: Where, qkv: QKV, out: Float[Tensor, "s b heads n e"]
    ) -> Float[Tensor, "s b heads n e"]:
        """Of what a layer has put out, whatever its attention was: attention along trajectories, where it is one of
        these layers. `qkv` are its own."""
        paths = self.paths.get(where.site.stride) if where.site.role == "self" else None
        if paths is None:
            return out
        if where.grid != paths.grid:
            raise ValueError(f"trajectories on {paths.grid} met a layer on {where.grid}")
        o, q, k = (rearrange(each, "s f heads n d -> s heads (f n) d") for each in (out, qkv.q, qkv.k))
        q, k = (q, k) if self.old_qk else (o, o)
        found = of_sites(q, k, o, qkv.scale, paths.rows)
        return rearrange(found, "s heads (f n) e -> s f heads n e", f=where.grid.frames)


def of_sites(
    q: Float[Tensor, "s heads n d"],
    k: Float[Tensor, "s heads n d"],
    v: Float[Tensor, "s heads n e"],
    scale: float,
    rows: Callable[[slice], Int[Tensor, "m l"]],
) -> Float[Tensor, "s heads n e"]:
    """softmax(q k^T scale) v over the few keys of each query that `rows` names, some queries at a time: the memory is
    that of the tokens themselves."""
    tokens = q.shape[2]
    width = len(rows(slice(0, 1))[0]) * q.shape[0] * q.shape[1] * max(q.shape[3], v.shape[3])
    step, made = max(1, PIECE // width), torch.empty_like(v)
    for start in range(0, tokens, step):
        part = slice(start, min(start + step, tokens))
        sites = rows(part).long().to(q.device)
        places = sites.clamp(min=0)
        keys = k[:, :, places]
        values = keys if v is k else v[:, :, places]
        logits = torch.einsum("s h m d, s h m l d -> s h m l", q[:, :, part] * scale, keys)
        weights = logits.masked_fill(sites < 0, float("-inf")).softmax(-1)
        made[:, :, part] = torch.einsum("s h m l, s h m l e -> s h m e", weights, values)
    return made
