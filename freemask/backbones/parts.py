"""What a video transformer is made of, and what a user may choose when it is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.codec import Codec
from freemask.backbones.network import device_of, dtype_of, wide
from freemask.backbones.turns import REST, Turns, checked
from freemask.diffusion.flow import Flow
from freemask.diffusion.grids import GRIDS
from freemask.diffusion.noise_paths import one_of
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

    def __post_init__(self) -> None:
        """Before anything is read, and before a codebook is looked for under an identity with them in it."""
        if self.grid is not None:
            one_of("grid", self.grid, tuple(GRIDS))
        if self.shift is not None:
            Flow(self.shift)


def read(family: Any, files: Checkpoint, wishes: Wishes, way: NoisePath) -> tuple[Parts, Turns]:
    """Every part where it is kept, and which of them leave the card. `family`: a class of video transformers."""
    card, precision = device_of(wishes.device), dtype_of(wishes.dtype)
    offload, texts = checked(wishes.offload, card), device_of(wishes.text_device or wishes.device)
    place = REST if offload == "model" else card
    network = family.network_of(files, precision, place)
    vae = files.part("vae", family.vaes, wide(precision), place)
    reader = family.reader_of(
        files,
        device=REST if offload != "none" and texts == card else texts,
        dtype=wide(precision) if wishes.text_dtype is None else dtype_of(wishes.text_dtype),
        max_tokens=family.text_columns if wishes.max_tokens is None else wishes.max_tokens,
    )
    codec = family.codec_of(vae, patch=family.cells(network)[1], tiling=wishes.vae_tiling)
    movable = [*([reader] if texts == card else []), codec, *family.experts(network)]
    guests = [part for part in movable if offload == "model" or (offload == "text" and part is reader)]
    others = [part for part in movable if part not in guests]
    return Parts(network, codec, reader, way), Turns(card, guests, others)


def sides(name: str, given: Sequence[int], count: int) -> tuple[int, ...]:
    """Whole numbers above 0, so many of them."""
    if len(given) != count or any(isinstance(each, bool) or each < 1 for each in given):
        raise UserError(f"'{name}' is not possible.", came=given, expected=f"{count} whole numbers above 0")
    return tuple(int(each) for each in given)


def refuse_more(strange: Mapping[str, bool], like: str) -> None:
    """Networks with more in them than video and text; `strange` says what, and whether it is there."""
    found = [words for words, there in strange.items() if there]
    if found:
        raise UserError(
            "This transformer cannot be run as a text-to-video network.",
            came=", ".join(found),
            expected=f"a network like {like}",
        )
