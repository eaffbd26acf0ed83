"""The values that travel through everything, and the protocols that variants implement.

Axis letters, used in the whole repository: `s` stream (one of the clips that the network sees at once, such as
source, uncond and cond), `f` frame, `c` channel, `h w` pixels of whatever grid is meant, `lf lh lw` latent sizes, `b`
attention batch, `n m` query and key tokens, `d e` head widths, `l` text tokens. Video is `f c h w`; a stack of streams
is `s f c h w`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

Stream = str  # any name; a method has as many streams as it likes
Time = int | float
Kind = Literal["style", "attribute", "shape", "background"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class OpticalFlow:
    """Where the pixels of each frame are in the next one: offsets in pixels (x, y), and whether they are seen there
    (`seen` None: not known). `origin` is who says so."""

    forth: Float[Tensor, "g 2 h w"]
    seen: Bool[Tensor, "g h w"] | None = None
    origin: str = "exact"


@dataclass(frozen=True)
class Clip:
    """A decoded source: RGB, float32, 0..1. Masks are annotations by object name, and may be empty. `conditions` is
    what else is known of it, by the names under which networks take it (`Backbone.takes`), such as images of edges.
    `flow` is its exact motion and `depth` how near everything is, 0 (far) to 1, where its data knows it. `brought`
    names the masks that edits have brought from files: each is of its own edit alone."""

    id: str
    frames: Float[Tensor, "f 3 h w"]
    masks: Mapping[str, Bool[Tensor, "f h w"]] = field(default_factory=dict)
    fps: float = 8.0
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    flow: OpticalFlow | None = None
    depth: Float[Tensor, "f h w"] | None = None
    brought: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LocalEdit:
    """One of several edits of a clip: the words that it is about, as in a task, its kind and, where there is one, a
    file or folder of masks of what it may change."""

    words: Mapping[str, str]
    kind: str
    region: str = ""


@dataclass(frozen=True)
class EditTask:
    """One row of a task list. `words` maps source words to target words (equal for style edits). `guessed`: which of
    kind and words were read off the prompts, and whether surely.

    `edits`: where there are several in one clip, each by itself; `words` are then those of all. `level` says how fine
    the edits are (class, instance, part), where the data says it."""

    id: str
    clip: str
    source: str
    target: str
    words: Mapping[str, str]
    kind: str
    assets: Mapping[str, str] = field(default_factory=dict)
    guessed: Mapping[str, str] = field(default_factory=dict)
    edits: tuple[LocalEdit, ...] = ()
    level: str = ""

    def plain(self) -> dict[str, Any]:
        """What the edit is, in plain values: whoever said it, so without `guessed`."""
        lacking = {name for name in ("edits", "level") if not getattr(self, name)}
        said = {**asdict(self), "edits": [asdict(edit) for edit in self.edits]}
        return {name: value for name, value in said.items() if name not in {"guessed", *lacking}}

    def stored(self) -> dict[str, Any]:
        """Everything, in plain values, of which `of` makes the same task again."""
        return {**self.plain(), "guessed": dict(self.guessed)}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "EditTask":
        edits = tuple(LocalEdit(**each) for each in stored.get("edits", ()))
        return cls(**{**stored, "edits": edits})

    @property
    def each(self) -> tuple["EditTask", ...]:
        """The edits of the task, one by one, as tasks with the same prompts; a task of one edit is itself."""
        others = {name: path for name, path in self.assets.items() if name != "region"}
        return tuple(
            replace(
                self,
                words=edit.words,
                kind=edit.kind,
                assets={**others, "region": edit.region} if edit.region else others,
                edits=(),
            )
            for edit in self.edits
        ) or (self,)


class Grid(NamedTuple):
    frames: int
    height: int
    width: int


# Spatial attention within a frame, text attention, attention along frames, video tokens of all frames at once, video
# and text tokens at once; and modules whose output is a map of features.
Role = Literal["self", "cross", "temporal", "space_time", "joint", "features"]
Entry = int | str  # a frame offset, or first, mid, last, all: whom a frame looks at


@dataclass(frozen=True)
class Site:
    """A place in a network that taps can reach: an attention layer, or a module whose output is seen.

    `stride` is the size of its cells in cells of the latent. `batch` and `tokens` say, in einops words, where frames,
    height and width live. `nth` tells the layers of one block apart that have the same role (0, 1). `text` says where
    the text stands among the tokens of a joint layer. `look` is whom the frames of this layer look at, as the model
    was loaded; empty: only at themselves.
    """

    name: str
    role: Role
    stride: int
    batch: str = "f"
    tokens: str = "(h w)"
    nth: int = 0
    text: Literal["", "first", "last"] = ""
    look: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Where:
    """One call of a layer: the layer, the time given to the network, the layer's grid, the streams stacked, and of a
    joint layer how many of its tokens are text."""

    site: Site
    t: Time
    grid: Grid
    streams: tuple[Stream, ...]
    text: int = 0


@runtime_checkable
class Bias(Protocol):
    """What is added to the logits of attention, made for some query rows at a time: it never lies in memory whole
    (`freemask.attention.bias`)."""

    def rows(self, part: slice) -> Float[Tensor, "s b heads n m"]:
        """Any of the first four axes may have the length 1."""
        ...

    def streams(self, part: slice) -> "Bias": ...

    def columns(self, part: slice) -> "Bias":
        """Of some of the keys."""
        ...


@dataclass(frozen=True)
class QKV:
    q: Float[Tensor, "s b heads n d"]
    k: Float[Tensor, "s b heads m d"]
    v: Float[Tensor, "s b heads m e"]
    scale: float
    hidden: Float[Tensor, "s b n c"] | None = None
    bias: Bias | None = None
    rows: int = 0  # of the attention batch at once, to save memory; 0: all
    # Of each query's attention, where these keys are not all that it looks at: `attend` multiplies by it.
    share: Float[Tensor, "s b heads n 1"] | None = None

    def streams(self, part: slice) -> "QKV":
        """Some streams of the stack, as views: keys that frames share stay shared."""
        hidden = None if self.hidden is None else self.hidden[part]
        bias = None if self.bias is None else self.bias.streams(part)
        share = None if self.share is None else self.share[part]
        own = {"q": self.q[part], "k": self.k[part], "v": self.v[part]}
        return replace(self, **own, hidden=hidden, bias=bias, share=share)

    def stream(self, place: int) -> "QKV":
        """One stream of the stack, as a stack of one."""
        return self.streams(slice(place, place + 1))


# A tap stands in for attention and returns `s b heads n e`, or sees a module's output and returns what is to stand in
# for it. Whatever it changes is seen by all that runs later in the same call. Plain aliases, so that beartype accepts
# functions.
AttentionTap = Callable[[Where, QKV], Tensor]
FeatureTap = Callable[[Where, Tensor], Tensor]
Look = Callable[[Where], Sequence[Entry] | None]


@dataclass(frozen=True)
class Taps:
    """`features` by the name of the module (`Backbone.features`). `look` chooses, layer by layer, whom frames look at
    in this call (see `freemask.attention.rewire`); None leaves it to the model."""

    attention: AttentionTap | None = None
    features: Mapping[str, FeatureTap] = field(default_factory=dict)
    look: Look | None = None


NO_TAPS = Taps()


@dataclass(frozen=True, eq=False)
class Given:
    """What one stream is conditioned on: tensors by name, of which a backbone says which it takes (`Backbone.takes`).
    Loops hand it on without reading it."""

    parts: Mapping[str, Tensor]

    def plus(self, **parts: Tensor) -> "Given":
        return Given({**self.parts, **parts})

    @cached_property
    def digest(self) -> str:
        """The same for equal content: part of the name of what is stored."""
        digest = hashlib.sha256()
        for name, value in sorted(self.parts.items()):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
            digest.update(value.detach().cpu().double().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Text:
    """An encoded prompt. `columns` maps each word (as typed, split at blanks) to its token positions.

    `ids` and `spans` are the tokens before padding and the characters that each stands for (none: start = end).
    `more` is what else the text encoder says of the prompt, by the names under which the backbone takes it.
    """

    prompt: str
    tokens: Float[Tensor, "l d"]
    columns: Mapping[str, tuple[int, ...]]
    length: int
    ids: tuple[int, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    more: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def given(self) -> Given:
        return Given({"text": self.tokens, **self.more})


# progress(stage, done, total): called by long loops; the caller decides how to show it.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """The progress reporter that shows nothing."""


@dataclass(frozen=True)
class Edit:
    """What a method returns: frames in 0..1, named diagnostics, seconds per stage, warnings and facts for the row.

    Of the diagnostics, those called `mask` or `mask ...` are `f h w` in 0..1, 1 where the edit may change pixels;
    a fact `mask_acts_on` without `latents` says that the mask acts on attention and holds no pixels. Those called
    `picture ...` are pictures in 0..1, which an edit of one clip leaves beside it.
    """

    frames: Float[Tensor, "f 3 h w"]
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    facts: Mapping[str, str | float | int | bool | None] = field(default_factory=dict)


@runtime_checkable
class NoisePath(Protocol):
    """DDIM and flow matching differ only here: the one place that knows what a prediction means.

    A *level* says how noisy a latent is, a *time* is the level at which the network is called; both are numbers of one
    scale, fractions where the path has such. `now` is the level of x, `call` the time at which the network was called.
    """

    @property
    def train_times(self) -> int:
        """How many whole times there are: the noisiest level is about as high."""
        ...

    def times(self, steps: int) -> Sequence[Time]:
        """The times at which the network is called, ascending."""
        ...

    def told(self, t: Time) -> Time:
        """What the network is given for a level: some were trained on whole numbers alone."""
        ...

    def drawn(self, share: float) -> Time:
        """The time at this share of the path, 0 (clean) to 1: shares drawn evenly are what a network is trained at."""
        ...

    def target(self, clean: Tensor, noise: Tensor, t: Time) -> Tensor:
        """The prediction that a perfect network would make at the level t of this noise."""
        ...

    def step(self, x: Tensor, prediction: Tensor, *, now: Time, call: Time, to: Time) -> Tensor:
        """Move x from level `now` to level `to`."""
        ...

    def clean(self, x: Tensor, prediction: Tensor, *, now: Time, call: Time) -> Tensor:
        """The clean latent that the prediction stands for."""
        ...

    def noise(self, x: Tensor, prediction: Tensor, *, now: Time, call: Time) -> Tensor:
        """The noise that the prediction stands for. A step from a changed clean latent is
        `noised(changed, noise(x, prediction, now=..., call=...), to)`."""
        ...

    def noised(self, x: Tensor, noise: Tensor, t: Time) -> Tensor:
        """A clean latent brought to level t with this noise."""
        ...

    def renoised(self, x: Tensor, noise: Tensor, *, now: Time, to: Time) -> Tensor:
        """A latent at level `now` brought up to the noisier level `to` with fresh noise."""
        ...


@runtime_checkable
class Tuning(Protocol):
    """Weights that may change for a while. `state` and `load` take and put them by name; `weights` are for an
    optimiser, and `settle` says that it is done with them: they stay as they are until the end."""

    @property
    def weights(self) -> Mapping[str, Tensor]: ...

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: Mapping[str, Tensor]) -> None: ...

    def settle(self) -> None: ...


@runtime_checkable
class Backbone(Protocol):
    """The one door into a network. `predict` leaves the network as it found it, and gradients flow through it.

    `sites` are its attention layers and `features` the modules whose output taps may see, in the order of the call.
    `takes` names what a stream is conditioned on, with its shape in words, and what it means to leave it out where
    that may be. `identity` changes with the weights, `origin` is that of the weights that were loaded. `native` is the
    height and width that it was trained on, `guidance` how strongly it is to follow prompts where nobody says,
    `multiple` what sizes must be a multiple of, `compression` how many frames
    a latent frame stands for (the first one always stands for one). A network beside which others stand, such as
    ControlNets, also has `base`: what `origin` is without them.
    """

    noise_path: NoisePath
    sites: Mapping[str, Site]
    features: Mapping[str, Site]
    takes: Mapping[str, str]
    device: torch.device
    dtype: torch.dtype
    origin: str
    native: tuple[int, int]
    guidance: float
    multiple: int
    compression: int
    max_tokens: int

    @property
    def identity(self) -> str: ...

    def encode(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "lf c lh lw"]: ...

    def spread(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "lf c lh lw"]:
        """How far the autoencoder lets latents lie from those of `encode`: one standard deviation."""
        ...

    def decode(
        self, latents: Float[Tensor, "lf c lh lw"], frames: int | None = None
    ) -> Float[Tensor, "f 3 h w"]:
        """`frames` is the length of the clip; None: as many as the latents may stand for."""
        ...

    def embed(self, prompt: str) -> Text: ...

    def seen(self, clip: Clip) -> Mapping[str, Tensor]:
        """What the network is shown of a clip beside a text, by name, where nobody says: its first frame, its edges."""
        ...

    def predict(
        self,
        x: Float[Tensor, "s lf c lh lw"],
        t: Time,
        given: Mapping[Stream, Given],
        *,
        taps: Taps = Taps(),
    ) -> Float[Tensor, "s lf c lh lw"]:
        """One call for all streams of `given`, in their order."""
        ...

    def grid(self, site: Site, frames: int, height: int, width: int) -> Grid:
        """The grid of a layer, for a clip of this size in pixels."""
        ...

    def tuned(
        self,
        patterns: Sequence[str],
        *,
        rank: int = 0,
        more: Mapping[str, Tensor] | None = None,
        checkpointing: bool = False,
    ) -> AbstractContextManager[Tuning]:
        """While it is entered, the weights whose names match may be trained; afterwards all is as before. `rank` > 0
        trains a low-rank addition to each of them instead (LoRA). `more`: temporal layers that the network has for
        this while, as `fresh` makes them. `checkpointing`: what blocks put out inside is made again on the way back
        instead of kept."""
        ...

    def fresh(self, kind: str, *, seed: int, bias: bool, rank: int) -> Mapping[str, Tensor]:
        """Temporal layers that have learnt nothing yet (`freemask.backbones.fresh`), for a network that has none."""
        ...

    def saving_memory(self) -> AbstractContextManager[Mapping[str, str]]:
        """Switches on, for a while, what saves memory and changes no number; says what."""
        ...

    def describe(self) -> dict[str, Any]: ...


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
