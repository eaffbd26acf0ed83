"""Self-attention across frames: the keys and values of the frames that each frame looks at, side by side."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.errors import UserError, nearest
from freemask.types import QKV, Entry, Where

References = tuple[tuple[int, ...], ...]  # for each frame, the frames that it looks at

# What the names mean in the notation of the official code; nothing at all is ordinary attention, frame by frame.
NAMES: dict[str, tuple[Entry, ...]] = {
    "frame": (),
    "middle": ("mid",),  # FateZero as released
    "self_and_middle": (0, "mid"),  # FateZero's paper
    "first_and_previous": (-1, "first"),  # Tune-A-Video
    "window": (-1, 0, 1),
    "all": ("all",),
}
PLACES = ("first", "mid", "last", "all")
SPELLINGS = {"middle": "mid"}


def entries(attention: str | Sequence[Entry]) -> tuple[Entry, ...]:
    """A name, or a list of first, mid, last, all, and frame offsets, in one notation."""
    if isinstance(attention, str):
        if attention not in NAMES:
            raise UserError(
                "There is no such attention across frames.",
                came=attention,
                expected="a name, or a list such as [-1, first]",
                todo=nearest(attention, NAMES),
            )
        return NAMES[attention]
    found = tuple(SPELLINGS.get(each, each) if isinstance(each, str) else each for each in attention)
    for each in found:
        if isinstance(each, bool) or not (isinstance(each, int) or each in PLACES):
            raise UserError(
                "Attention across frames does not know this entry.",
                came=each,
                expected=f"{', '.join(PLACES)}, or a whole number of frames to look back (-1) or ahead (1)",
            )
    return () if found == (0,) else found


def references(wanted: Sequence[Entry], frames: int) -> References:
    """Offsets stop at the first and last frame: near the ends a frame is looked at twice, as in the official code."""
    return tuple(
        tuple(other for entry in wanted for other in _others(entry, frame, frames)) for frame in range(frames)
    )


def _others(entry: Entry, frame: int, frames: int) -> tuple[int, ...]:
    if isinstance(entry, int):
        return (min(max(frame + entry, 0), frames - 1),)
    if entry == "all":
        return tuple(range(frames))
    return ({"first": 0, "mid": (frames - 1) // 2, "last": frames - 1}[entry],)


def by_themselves(where: Where) -> Sequence[Entry]:
    """Whatever the model has: a tap decides whom frames look at."""
    return ()


def looking(qkv: QKV, wanted: Sequence[Entry]) -> QKV:
    """The queries of a frame attend to all tokens of the frames that `wanted` names; no entries: to their own."""
    return rewired(qkv, references(wanted, qkv.k.shape[1])) if wanted else qkv


def rewired(qkv: QKV, look: References) -> QKV:
    return replace(qkv, k=gathered(qkv.k, look), v=gathered(qkv.v, look))


def gathered(x: Float[Tensor, "s f heads n d"], look: References) -> Float[Tensor, "s f heads m d"]:
    """Frames side by side, m = references * n. Where all look at the same frames, these exist once (expanded)."""
    same = len(set(look)) == 1
    rows = look[:1] if same else look
    tokens = rearrange(x, "s f heads n d -> s f n heads d")  # as in memory: a frame is one piece
    picked = [tokens[:, other] for row in rows for other in row]
    joined = picked[0] if len(picked) == 1 else torch.cat(picked, dim=1)
    found = rearrange(joined, "s (f m) heads d -> s f heads m d", f=len(rows))
    return found.expand(-1, len(look), -1, -1, -1) if same else found
