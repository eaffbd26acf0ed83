"""The values that travel through everything, and the protocols that variants implement.

Axis letters, used in the whole repository: `s` stream (source, uncond, cond), `f` frame, `c` channel,
`h w` pixels of whatever grid is meant, `lf lh lw` latent sizes, `b` attention batch, `n m` query and key
tokens, `d e` head widths, `l` text tokens. Video is `f c h w`; a stack of streams is `s f c h w`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

Stream = Literal["source", "uncond", "cond"]
Kind = Literal["style", "attribute", "shape", "background"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Clip:
    """A decoded source: RGB, float32, 0..1. Masks are annotations by object name, and may be empty."""

    id: str
    frames: Float[Tensor, "f 3 h w"]
    masks: Mapping[str, Bool[Tensor, "f h w"]] = field(default_factory=dict)
    fps: float = 8.0


@dataclass(frozen=True)
class EditTask:
    """One row of a task list. `words` maps source words to target words (equal for style edits)."""

    id: str
    clip: str
    source: str
    target: str
    words: Mapping[str, str]
    kind: str
    assets: Mapping[str, str] = field(default_factory=dict)


class Grid(NamedTuple):
    frames: int
    height: int
    width: int


@dataclass(frozen=True, order=True)
class Site:
    """One attention layer (or, as "features", one convolution block). `batch` and `tokens` say, in einops words,
    where frames, height and width live."""

    name: str
    kind: Literal["self", "cross", "temporal", "joint", "features"]
    stride: int
    batch: str = "f"
    tokens: str = "(h w)"


@dataclass(frozen=True)
class Where:
    """One attention call: the layer, the time given to the network, the layer's grid, the streams stacked."""

    site: Site
    t: int
    grid: Grid
    streams: tuple[Stream, ...]


@dataclass(frozen=True)
class QKV:
    q: Float[Tensor, "s b heads n d"]
    k: Float[Tensor, "s b heads m d"]
    v: Float[Tensor, "s b heads m e"]
    scale: float
    hidden: Float[Tensor, "s b n c"] | None = None


# A tap stands in for attention and returns `s b heads n e`; plain aliases, so that beartype accepts functions.
AttentionTap = Callable[[Where, QKV], Tensor]
FeatureTap = Callable[[Where, Tensor], Tensor]


@dataclass(frozen=True)
class Taps:
    attention: AttentionTap | None = None
    features: FeatureTap | None = None


NO_TAPS = Taps()


@dataclass(frozen=True)
class Text:
    """An encoded prompt. `columns` maps each word (as typed, split at blanks) to its token positions.

    `ids` and `spans` are the tokens before padding and the characters that each stands for (none: start = end).
    """

    prompt: str
    tokens: Float[Tensor, "l d"]
    columns: Mapping[str, tuple[int, ...]]
    length: int
    ids: tuple[int, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


# progress(stage, done, total): called by long loops; the caller decides how to show it.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """The progress reporter that shows nothing."""


@dataclass(frozen=True)
class Edit:
    """What a method returns: frames in 0..1, named diagnostics, seconds per stage, warnings and facts for the row.

    Of the diagnostics, those called `mask` or `mask ...` are `f h w` in 0..1, 1 where the edit may change pixels.
    """

    frames: Float[Tensor, "f 3 h w"]
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    facts: Mapping[str, str | float | int | bool | None] = field(default_factory=dict)


@runtime_checkable
class NoisePath(Protocol):
    """DDIM and flow matching differ only here: the one place that knows what a prediction means."""

    def times(self, steps: int) -> list[int]:
        """The times at which the network is called, ascending."""
        ...

    def step(self, x: Tensor, prediction: Tensor, *, now: int, call: int, to: int) -> Tensor:
        """Move x from level `now` to level `to`, the network having been called at time `call`."""
        ...

    def clean(self, x: Tensor, prediction: Tensor, *, now: int, call: int) -> Tensor: ...

    def noised(self, x: Tensor, noise: Tensor, t: int) -> Tensor: ...


@runtime_checkable
class Backbone(Protocol):
    """The one door into a network. `predict` leaves the network as it found it."""

    noise_path: NoisePath
    sites: Mapping[str, Site]
    device: torch.device
    dtype: torch.dtype
    identity: str

    def encode(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "lf c lh lw"]: ...

    def decode(self, latents: Float[Tensor, "lf c lh lw"]) -> Float[Tensor, "f 3 h w"]: ...

    def embed(self, prompt: str) -> Text: ...

    def predict(
        self,
        x: Float[Tensor, "s lf c lh lw"],
        t: int,
        text: Float[Tensor, "s l d"],
        *,
        streams: tuple[Stream, ...],
        taps: Taps = Taps(),
    ) -> Float[Tensor, "s lf c lh lw"]: ...


@runtime_checkable
class Method(Protocol):
    """An editing method. It must leave the backbone's weights and taps as it found them."""

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit: ...


@runtime_checkable
class DataSource(Protocol):
    """Where clips and tasks come from. `oracle` is the true answer and `region` what an edit may change
    (1 = may change); each is None where the source does not know it."""

    def tasks(self) -> Sequence[EditTask]: ...

    def clip(self, task: EditTask) -> Clip: ...

    def oracle(self, task: EditTask) -> Float[Tensor, "f 3 h w"] | None: ...

    def region(self, task: EditTask) -> Bool[Tensor, "f h w"] | None: ...
