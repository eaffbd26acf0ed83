"""TokenFlow (Geyer et al., 2024): an editor of single frames, made steady. At each step a few key frames are edited
together; the self-attention of all frames is then what the key frames have at the places that look most alike in the
clip itself.

The authors copy what stands behind a layer's output projection, a tap what stands before it. That is the same: the
projection treats every token alike, and weights that add up to one pass through it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from freemask.attention.math import attend
from freemask.attention.rewire import looking
from freemask.diffusion.noise_paths import one_of
from freemask.errors import UserError
from freemask.methods.common import Stopwatch, at_least, whole
from freemask.methods.pnp import Beside, Pnp, finished
from freemask.methods.tokenflow_field import Near, by_chunk, by_distance, carried, chunks, directions, nearest
from freemask.settings import Effect
from freemask.types import (
    QKV,
    AttentionTap,
    Backbone,
    Clip,
    Edit,
    EditTask,
    Entry,
    Given,
    Progress,
    Site,
    Time,
    Where,
    silent,
)

Base = Literal["pnp", "sdedit"]
Variant = Literal["official", "paper"]
ALONE = "the clip is one chunk: there is one key frame, and nothing is copied between others (a smaller method.chunk)"


@dataclass(frozen=True)
class TokenFlow:
    """`base` edits the key frames: pnp takes over what the clip has inside the network (the shares and layers are
    those of `method=pnp`), sdedit starts late, at `strength` of the path. Of each `chunk` of frames one is a key frame,
    drawn anew at every step.

    `variant` official does what the released code does: frames are a blend of their own chunk's key frame and that of
    the chunk before, weighed by the middles of the chunks; the clip too is copied, so that deeper layers look for
    places in copied features; the start is the clip with the noise that the inversion ended in; sdedit makes a step
    less than asked for. paper: the key frames before and after a frame, by their distance; places are looked for in
    the untouched clip; the start is the inverted latent.
    """

    steps: int = 50
    guidance: float | int | None = None
    base: Base = "pnp"
    variant: Variant = "official"
    chunk: int = 4
    strength: float | int = 0.9
    convolution_share: float | int = 0.8
    attention_share: float | int = 0.5
    convolutions: Sequence[str] | None = None
    attentions: Sequence[str] | None = None
    negative: str = ""
    inversion_steps: int | None = None
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        one_of("base", self.base, get_args(Base))
        one_of("variant", self.variant, get_args(Variant))
        whole("chunk", self.chunk)
        at_least("chunk", self.chunk, 1)
        self.settings()
        if not 0 < self.strength <= 1:
            raise UserError("'strength' is a share.", came=self.strength, expected="above 0, at most 1")
        if self.base == "sdedit" and self.variant == "official" and self.strength * self.steps < 2:
            raise UserError(
                "The released code would travel the whole path here.",
                came=f"strength={self.strength}, steps={self.steps}",
                expected="a strength of two steps at least",
                todo="use variant=paper, which takes any",
            )

    def settings(self) -> Pnp:
        """The plug-and-play on which it stands; with SDEdit, one that lends nothing."""
        lends = self.base == "pnp"
        return Pnp(
            self.steps,
            self.guidance,
            self.convolution_share if lends else 0,
            self.attention_share if lends else 0,
            self.convolutions,
            self.attentions,
            self.negative,
            "renoised" if self.variant == "official" else "inverted",
            self.inversion_steps,
            self.inversions,
            self.inversions_gb,
        )

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        only_images(backbone.sites)
        watch, settings = Stopwatch(backbone.device), self.settings()
        beside = settings.begin(backbone, clip, task, watch=watch, progress=progress)
        flow = self.flow(beside, rng)
        edit = finished(flow, clip, settings.start, watch=watch, progress=progress)
        keys = len(chunks(len(clip.frames), self.chunk))
        warnings = edit.warnings if keys > 1 else (*edit.warnings, ALONE)
        return replace(edit, warnings=warnings, facts={**edit.facts, "key_frames": keys})

    def flow(self, beside: Beside, rng: Generator) -> "Flow":
        return Flow(
            beside.backbone,
            beside.given,
            beside.inversion,
            self.travelled(beside.times),
            beside.lent,
            beside.guidance,
            self.chunk,
            self.variant,
            rng,
        )

    def travelled(self, times: Sequence[Time]) -> Sequence[Time]:
        """Those of the ascending times that sampling passes through."""
        if self.base == "pnp":
            return times
        if self.variant == "official":  # `int(1 - start * N)` where `int((1 - start) * N)` was meant
            return times[: int(self.strength * self.steps - 1)]
        return times[: max(1, round(self.strength * self.steps))]


@dataclass(frozen=True)
class Flow(Beside):
    """An edit in progress: at each step the key frames together, then all frames, chunk by chunk."""

    chunk: int
    variant: Variant
    rng: Generator

    def predict(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "f c h w"]:
        i, own, step = self.step_at(t), self.inversion.at(t).to(x), self.step(len(x))

        def call(frames: Sequence[int], then: AttentionTap) -> Tensor:
            taps = replace(self.lent.at(i, then), look=by_themselves)
            given = {name: of_frames(each, frames, len(x)) for name, each in self.needed(source=True).items()}
            return self.guided(x[list(frames)], own[list(frames)], t, given, taps)

        call(step.keys, step.together)  # for what it leaves behind in `step`
        made = [call(frames, partial(step.copied, frames)) for frames in chunks(len(x), self.chunk)]
        return torch.cat(made)

    def step(self, frames: int) -> "Step":
        """Key frames are drawn on the CPU: the same ones on every device."""
        keys = [
            each[int(torch.randint(len(each), (1,), generator=self.rng))]
            for each in chunks(frames, self.chunk)
        ]
        return Step(keys, self.chunk, self.variant)


class Left(NamedTuple):
    """Of the key frames in one layer: the clip's tokens, and what comes of attention."""

    tokens: Float[Tensor, "k n c"]
    out: Float[Tensor, "s k heads n e"]


@dataclass
class Step:
    """One step: what the key frames leave behind in each layer of self-attention, and what comes of it in the others.
    The clip is the first of the streams."""

    keys: Sequence[int]
    chunk: int
    variant: Variant
    left: dict[str, Left] = field(default_factory=dict)

    def together(self, where: Where, qkv: QKV) -> Tensor:
        """Key frames of the edit look at all of its key frames; those of the clip at themselves."""
        if where.site.role != "self":
            return attend(qkv)
        source, edit = qkv.stream(0), qkv.streams(slice(1, None))
        out = torch.cat([attend(source), attend(looking(edit, ("all",)))])
        self.left[where.site.name] = Left(self.tokens(qkv), out)
        return out

    def copied(self, frames: Sequence[int], where: Where, qkv: QKV) -> Tensor:
        """These frames take what the key frames beside them have where the clip's tokens are most alike."""
        if where.site.role != "self":
            return attend(qkv)
        kept = self.left[where.site.name].out
        made = []
        for frame, tokens in zip(frames, self.tokens(qkv), strict=True):
            near = self.near(frame)
            found = [self.matched(where.site.name, frame, place, tokens) for place, _ in near]
            made.append(carried(kept, near, found))
        out = torch.stack(made, dim=1)
        return out if self.variant == "official" else torch.cat([attend(qkv.stream(0)), out[1:]])

    def near(self, frame: int) -> Near:
        return by_chunk(frame, self.chunk) if self.variant == "official" else by_distance(frame, self.keys)

    def matched(self, site: str, frame: int, place: int, tokens: Float[Tensor, "n c"]) -> Int[Tensor, " n"]:
        """Where in this key frame each token of the frame is found."""
        return nearest(tokens, self.left[site].tokens[place])

    def tokens(self, qkv: QKV) -> Float[Tensor, "b n c"]:
        assert qkv.hidden is not None
        return directions(qkv.hidden[0])


def by_themselves(where: Where) -> Sequence[Entry]:
    """Whatever the model has: whom frames look at is decided in the step."""
    return ()


def of_frames(given: Given, frames: Sequence[int], total: int) -> Given:
    """For some of the frames: of texts, channels and images that there are for each, theirs."""
    parts = {
        name: part[list(frames)] if part.ndim > 2 and len(part) == total else part
        for name, part in given.parts.items()
    }
    return Given(parts)


def only_images(sites: Mapping[str, Site]) -> None:
    other = sorted({site.role for site in sites.values()} - {"self", "cross"})
    if other:
        raise UserError(
            "TokenFlow makes an image model's frames steady; this model has layers that see several frames.",
            came=f"attention of the kind {', '.join(other)}",
            expected="an image model, such as model=embedded_image or model=sd15, without temporal layers",
        )
