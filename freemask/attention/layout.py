"""A layer's own order of values, and frames, height and width: both ways. Nothing else knows how a layer lays out what
it sees."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.types import Where


def on_grid(values: Float[Tensor, "b n"], where: Where) -> Float[Tensor, "f h w"]:
    """One value for each query of the layer, as frames, height and width; those of a joint layer's text go."""
    grid, layout = where.grid, f"{where.site.batch} {where.site.tokens} -> f h w"
    video = values[:, video_tokens(where, values.shape[1])]
    return rearrange(video, layout, f=grid.frames, h=grid.height, w=grid.width)


def in_rows(mask: Float[Tensor, "f h w"], where: Where, text: float | int = 1) -> Float[Tensor, "1 b 1 n 1"]:
    """One value for each query of the layer; the text of a joint layer gets `text`."""
    rows = rearrange(mask, f"f h w -> {where.site.batch} {where.site.tokens}")
    if where.text:
        beside = rows.new_full((len(rows), where.text), float(text))
        rows = torch.cat([beside, rows] if where.site.text == "first" else [rows, beside], dim=1)
    return rows[None, :, None, :, None]


def video_tokens(where: Where, tokens: int) -> slice:
    """Where the video stands among this many tokens of a layer."""
    if not where.text:
        return slice(0, tokens)
    return slice(where.text, tokens) if where.site.text == "first" else slice(0, tokens - where.text)


def text_tokens(where: Where, tokens: int) -> slice:
    """Where the text stands among this many keys: all of them in a text layer."""
    if where.site.role == "cross":
        return slice(0, tokens)
    return slice(0, where.text) if where.site.text == "first" else slice(tokens - where.text, tokens)
