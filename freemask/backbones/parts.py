"""What a video transformer is made of, and what a user may choose when it is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from freemask.backbones.codec import Codec
from freemask.errors import UserError
from freemask.types import NoisePath

Cells = tuple[int, int, int]  # latent frames, rows and columns of the latent in one token


class Parts(NamedTuple):
    """The parts of a checkpoint, where they are kept. `reader` makes a Text of a prompt and has `max_tokens`."""

    network: Any
    codec: Codec
    reader: Any
    noise_path: NoisePath


@dataclass(frozen=True)
class Wishes:
    """What a user may choose for any family; see `VideoTransformer.load`."""

    device: str = "cpu"
    dtype: str = "float32"
    text_device: str | None = None
    text_dtype: str | None = None
    max_tokens: int | None = None
    grid: str | None = None
    shift: float | int | None = None
    native: Sequence[int] | None = None
    guidance: float | int = 5.0
    attention_slicing: int = 0
    vae_tiling: bool = False
    offload: str = "none"


def sides(name: str, given: Sequence[int], count: int) -> tuple[int, ...]:
    """Whole numbers above 0, so many of them."""
    if len(given) != count or any(isinstance(each, bool) or each < 1 for each in given):
        raise UserError(f"'{name}' is not possible.", came=given, expected=f"{count} whole numbers above 0")
    return tuple(int(each) for each in given)
