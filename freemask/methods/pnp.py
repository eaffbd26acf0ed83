"""Plug-and-play (Tumanyan et al., 2023), frame by frame: early in sampling the edit takes over what the clip has inside
the network, namely the output of one convolution, and who looks at whom in the self-attention behind it. Values, and
all that comes later, are the edit's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.diffusion.guidance import cfg, given_to, strength
from freemask.diffusion.inversions import Inversion, Inversions, Wish
from freemask.diffusion.loops import Callbacks, sample
from freemask.diffusion.noise_paths import noise_between
from freemask.errors import UserError
from freemask.masks.plan import MaskPlan, Subject
from freemask.methods.common import Stopwatch, at_least, finer, path_warnings, paths, share, whole
from freemask.methods.held import holding, of_frames, put_back
from freemask.methods.pnp_layers import Lent, attentions, convolutions
from freemask.settings import Effect
from freemask.types import (
    NO_TAPS,
    Backbone,
    Clip,
    Edit,
    EditTask,
    Given,
    NoisePath,
    Progress,
    Stream,
    Taps,
    Time,
    silent,
)

Start = Literal["inverted", "renoised", "last"]


@dataclass(frozen=True)
class Pnp:
    """`convolution_share` and `attention_share` say for how much of the steps each is taken over. `convolutions` and
    `attentions` name the layers, with * for any piece of a path; None finds the authors' choice in the network.

    `start`: the inverted latent of the first time, or the clean one noised to it with the noise that the inversion
    ended in (renoised, TokenFlow), or what the inversion ended in, taken for it (last, FLATTEN). These differ where a
    finer inversion (`inversion_steps`) ends above the first time of sampling. `negative` is what guidance leads away
    from. `inversions` is a folder in which inversions are kept.
    """

    draws: ClassVar[bool] = False  # no noise: every seed gives the same

    steps: int = 50
    guidance: float | int | None = None
    convolution_share: float | int = 0.8
    attention_share: float | int = 0.5
    convolutions: Sequence[str] | None = None
    attentions: Sequence[str] | None = None
    negative: str = ""
    start: Start = "inverted"
    inversion_steps: int | None = None
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        whole("steps", self.steps, 1)
        finer(self.steps, self.inversion_steps)
        at_least("guidance", self.guidance, 0)
        for name in ("convolution_share", "attention_share"):
            share(name, getattr(self, name), "the steps")
        if self.start not in get_args(Start):
            raise UserError("There is no such start.", came=self.start, expected=", ".join(get_args(Start)))

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        watch = Stopwatch(backbone.device)
        subject = self.subject(backbone, clip, task, watch=watch)
        beside = self.begin(backbone, subject, watch=watch, progress=progress)
        return finished(beside, clip, self.start, watch=watch, progress=progress)

    def subject(self, backbone: Backbone, clip: Clip, task: EditTask, *, watch: Stopwatch) -> Subject:
        times, _ = paths(backbone, self.steps, self.inversion_steps)
        with watch.stage("encode"):
            subject = Subject.of(backbone, clip, task, times)
            away = given_to(backbone, clip, backbone.embed(self.negative), away=True)
        return replace(subject, given={**subject.given, "uncond": away})

    def begin(
        self,
        backbone: Backbone,
        subject: Subject,
        *,
        watch: Stopwatch,
        wish: Wish | None = None,
        progress: Progress = silent,
    ) -> "Beside":
        """Everything before the first step: the clip is inverted, and what is wished of that is recorded."""
        lent, given = self.lent(backbone), subject.given
        _, up = paths(backbone, self.steps, self.inversion_steps)
        with watch.stage("encode"):
            latents = backbone.encode(subject.clip.frames)
        with watch.stage("inversion"):
            store = Inversions(self.inversions, self.inversions_gb)
            inversion = store.invert(backbone, latents, given["source"], up, wish=wish, progress=progress)
        return Beside(backbone, given, inversion, subject.times, lent, strength(self.guidance, backbone))

    def lent(self, backbone: Backbone) -> Lent:
        """What the clip lends to the edit in this network, and for how many steps."""
        first, second = (
            int(share * self.steps + 1e-9)  # undoes binary fractions such as 0.29 * 100
            for share in (self.convolution_share, self.attention_share)
        )
        return Lent(
            convolutions=convolutions(backbone, self.convolutions) if first else (),
            convolution_steps=first,
            attentions=attentions(backbone, self.attentions) if second else (),
            attention_steps=second,
        )


@dataclass(frozen=True)
class Beside:
    """The clip and its edit, side by side. `given` has the streams source, uncond and cond; `times` ascend. `under` are
    taps that compute attention, where it is not plain. Outside `masks` the clip is held: there the edit has the clip's
    attention within and along frames, its output of the convolutions that are lent in some steps, and its latents, at
    every step."""

    backbone: Backbone
    given: Mapping[Stream, Given]
    inversion: Inversion
    times: Sequence[Time]
    lent: Lent
    guidance: float | int
    under: Taps = NO_TAPS
    masks: MaskPlan | None = None

    def predict(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "f c h w"]:
        """Guided prediction. The clip is seen at the edit's own level, and only while it lends something."""
        i = self.step_at(t)
        given = self.needed(source=self.lent.awake(i) or self.masks is not None)
        taps = replace(self.lent.at(i, self.under.attention), look=self.under.look)
        return self.guided(x, self.inversion.at(t).to(x), t, given, self.held(taps, range(len(x)), len(x)))

    def held(self, taps: Taps, frames: Sequence[int], total: int) -> Taps:
        """With the clip outside the mask; these are its frames, of so many."""
        if self.masks is None:
            return taps
        return holding(taps, partial(of_frames, self.masks, frames, total), self.lent.convolutions)

    def needed(self, *, source: bool) -> dict[Stream, Given]:
        """What the streams are given, of those that run."""
        needed = {"source": source, "uncond": self.guidance != 1, "cond": True}
        return {stream: each for stream, each in self.given.items() if needed[stream]}

    def guided(
        self,
        x: Float[Tensor, "f c h w"],
        own: Float[Tensor, "f c h w"],
        t: Time,
        given: Mapping[Stream, Given],
        taps: Taps,
    ) -> Float[Tensor, "f c h w"]:
        """One call of the network: on latents of the edit and, beside them, the clip's own."""
        seen = torch.stack([own if stream == "source" else x for stream in given])
        out = dict(zip(given, self.backbone.predict(seen, t, given, taps=taps), strict=True))
        return cfg(out["uncond"], out["cond"], self.guidance) if "uncond" in out else out["cond"]

    def after(self, x: Float[Tensor, "f c h w"], i: int, t: Time) -> Float[Tensor, "f c h w"] | None:
        """What a step is to end in, outside the mask the clip's own latent; None: in what it made."""
        if self.masks is None:
            return None
        return put_back(x, t, self.masks, self.inversion, self.times)

    def step_at(self, t: Time) -> int:
        return len(self.times) - 1 - list(self.times).index(t)


def finished(beside: Beside, clip: Clip, start: Start, *, watch: Stopwatch, progress: Progress) -> Edit:
    """All sampling steps of an edit that has begun."""
    backbone, lent, times = beside.backbone, beside.lent, beside.times
    with watch.stage("sampling"):
        noisy = first_latent(backbone.noise_path, beside.inversion, times[-1], start)
        on = Callbacks(after=beside.after)
        edited = sample(backbone, noisy, beside.predict, times, on=on, progress=progress)
    with watch.stage("decoding"):
        frames = backbone.decode(edited, len(clip.frames))
    facts = {"convolutions": len(lent.convolutions), "attentions": len(lent.attentions)}
    facts |= {"temporals": len(lent.temporals)} if lent.temporals else {}
    return Edit(frames, {}, watch.seconds, path_warnings(backbone), facts)


def first_latent(path: NoisePath, inversion: Inversion, t: Time, start: Start) -> Float[Tensor, "f c h w"]:
    """Where sampling begins, at level t."""
    if start == "inverted":
        return inversion.at(t)
    if start == "last":
        return inversion.at(inversion.times[-1])
    clean, last = inversion.latents[0], inversion.times[-1]
    return path.noised(clean, noise_between(path, clean, inversion.at(last), last), t)
