"""Pix2Video (Ceylan et al., 2023): an image model edits frame after frame. In the decoder, a frame looks at the first
frame and at the one before it, and early in sampling its clean latent is pulled towards that of the one before.

What is handed on at a step does not depend on later frames, so all frames go through it in one call of the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.attention.math import attend
from freemask.attention.record import GIB
from freemask.attention.rewire import by_themselves, entries, looking
from freemask.diffusion.loops import Callbacks, sample
from freemask.diffusion.noise_paths import one_of
from freemask.diffusion.null_text import SCALE
from freemask.errors import UserError
from freemask.methods.common import Stopwatch, at_least, only_images, path_warnings, share
from freemask.methods.composite import composited
from freemask.methods.held import free, of_masks, planned, wish_of
from freemask.methods.masked import MaskSettings
from freemask.methods.pnp import Beside, Pnp
from freemask.methods.pnp_layers import chosen
from freemask.settings import Effect
from freemask.types import QKV, Backbone, Clip, Edit, EditTask, Entry, Progress, Taps, Time, Where, silent

Variant = Literal["official", "paper"]
Facts = dict[str, str | float | int | bool | None]
DECODER = "up_blocks.*"
ALONE = "one frame has no other to look at or to be pulled to: this is a plain edit of a picture"


@dataclass(frozen=True)
class Pix2Video(MaskSettings):
    """`look`: whom a frame looks at in place of itself, first or frames before it (-1), in the self-attention of these
    `layers` (None: all of the decoder); the first frame looks at itself, and with no entry all do. The inversion is
    that of each frame by itself.

    `pull` weighs the mean squared distance of a frame's clean latent from that of the frame before, of which a gradient
    is taken off the latent after each step of the first `pull_share`. A mean makes the same weight pull less in larger
    frames.

    `variant` official does what the released code does: the gradient ends at the clean latent, which is then pulled
    there in a straight line, in one step more. paper: the gradient goes on through the network to the noisy latent.

    The model that it was made for sees images of depth (model=sd2_depth); others do without, and the row says so.

    `mask` (our own addition) holds the clip outside: there the edit has the clip's self-attention and its latents, at
    every step.
    """

    draws: ClassVar[bool] = False  # no noise: every seed gives the same

    steps: int = 50
    guidance: float | int | None = None
    look: Sequence[Entry] = ("first", -1)
    layers: Sequence[str] | None = None
    pull: float | int = 100
    pull_share: float | int = 0.5
    negative: str = ""
    variant: Variant = "official"
    inversion_steps: int | None = None
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("variant", self.variant, get_args(Variant))
        at_least("pull", self.pull, 0)
        share("pull_share", self.pull_share, "the steps")
        for each in entries(self.look):
            if each != "first" and not (isinstance(each, int) and each < 0):
                raise UserError(
                    "Frames are edited in their order: none can look at what comes later, or at itself as well.",
                    came=f"look={list(self.look)}: {each}",
                    expected="first, and frames before such as -1; [] for frames that look at themselves alone",
                )
        self.settings()

    def settings(self) -> Pnp:
        """A plug-and-play that lends nothing: the clip's inversion and, where there is a mask, the clip beside."""
        return Pnp(
            self.steps,
            self.guidance,
            convolution_share=0,
            attention_share=0,
            negative=self.negative,
            inversion_steps=self.inversion_steps,
            inversions=self.inversions,
            inversions_gb=self.inversions_gb,
        )

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        only_images("Pix2Video", backbone.sites)
        watch, settings, mask = Stopwatch(backbone.device), self.settings(), self.acting_mask(task)
        subject = settings.subject(backbone, clip, task, watch=watch)
        wish = wish_of(mask, subject, int(self.heat_gb * GIB))
        beside = settings.begin(backbone, subject, watch=watch, wish=wish, progress=progress)
        with watch.stage("masks"):
            masks = planned(mask, subject, beside.inversion.kept)
        chain = self.chain(replace(beside, masks=masks))
        with watch.stage("sampling"):
            noisy, on = beside.inversion.at(subject.times[-1]), Callbacks(after=chain.after)
            edited = sample(backbone, noisy, chain.predict, subject.times, on=on, progress=progress)
        with watch.stage("decoding"):
            frames = backbone.decode(edited, len(clip.frames))
        channels = subject.given["cond"].parts.get("channels")
        facts: Facts = {
            "sees_depth": channels is not None and channels.shape[-3] == 1,
            "layers": len(chain.layers),
            "pulled_steps": chain.pulled,
        }
        if self.variant == "official":
            facts["pulled_by"] = round(self.share(edited), 5)
        warnings = [*path_warnings(backbone), *[ALONE] * (len(frames) == 1)]
        edit = of_masks(Edit(frames, {}, watch.seconds, warnings, facts), masks, subject.times, clip)
        return composited(edit, clip, self.composite, lambda: free(masks, subject.times, clip))

    def chain(self, beside: Beside) -> "Chain":
        begun = {each.name: getattr(beside, each.name) for each in fields(beside)}
        spatial = [name for name, site in beside.backbone.sites.items() if site.role == "self"]
        look = entries(self.look)
        layers = chosen("layers", spatial, self.layers, [DECODER]) if look else []
        return Chain(**begun, look=look, layers=layers, pulled=self.pulled, settings=self)

    @property
    def pulled(self) -> int:
        """The number of steps in which frames are pulled; the released code counts from 0 to 25, both included."""
        count = int(self.pull_share * self.steps + 1e-9) if self.pull else 0
        return min(self.steps, count + 1) if count and self.variant == "official" else count

    def share(self, x: Float[Tensor, "f c h w"]) -> float:
        """Of the way to the frame before, in one step: what the gradient of a mean comes to."""
        return 2 * self.pull / x[0].numel()


@dataclass(frozen=True, kw_only=True)
class Chain(Beside):
    """An edit in progress. `towards` is what the step that was predicted last will take each frame towards."""

    look: Sequence[Entry]
    layers: Sequence[str]
    pulled: int
    settings: Pix2Video
    towards: dict[Time, Tensor] = field(default_factory=dict)

    def predict(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "f c h w"]:
        self.towards.clear()
        if self.step_at(t) >= self.pulled:
            return self.called(x, t)
        if self.settings.variant == "official":
            made = self.called(x, t)
            clean = self.backbone.noise_path.clean(x, made, now=t, call=t)
            self.towards[t] = self.settings.share(x) * (before(clean) - clean)
            return made
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            made = self.called(x, t)
            clean = self.backbone.noise_path.clean(x, made, now=t, call=t)
            apart = (clean - before(clean).detach()).square().mean((1, 2, 3)).sum()
            (gradient,) = torch.autograd.grad(apart * SCALE, x)
        self.towards[t] = -self.settings.pull * finite(gradient / SCALE, self.backbone)
        return made.detach()

    def called(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "f c h w"]:
        given = self.needed(source=self.masks is not None)
        taps = self.held(Taps(attention=self.handed, look=by_themselves), range(len(x)), len(x))
        return self.guided(x, self.inversion.at(t).to(x), t, given, taps)

    def handed(self, where: Where, qkv: QKV) -> Tensor:
        """Frames of the edit look at others, at what these have once and for all; those of the clip at themselves."""
        if where.site.name not in self.layers:
            return attend(qkv)
        first = int("source" in where.streams)
        edit = qkv.streams(slice(first, None))
        others = looking(replace(edit, k=edit.k.detach(), v=edit.v.detach()), self.look)
        made = attend(others)
        return torch.cat([attend(qkv.stream(0)), made]) if first else made

    def after(self, x: Float[Tensor, "f c h w"], i: int, t: Time) -> Float[Tensor, "f c h w"] | None:
        moved = x + self.towards[t] if t in self.towards else x
        held = super().after(moved, i, t)
        return moved if held is None else held


def finite(gradient: Float[Tensor, "f c h w"], backbone: Backbone) -> Float[Tensor, "f c h w"]:
    if not bool(torch.isfinite(gradient).all()):
        raise UserError(
            "Pix2Video's gradient met numbers that this precision cannot hold.",
            came=str(backbone.dtype).removeprefix("torch."),
            todo="model.dtype=bfloat16 or float32, or method.variant=official, which needs no gradient",
        )
    return gradient


def before(x: Float[Tensor, "f ..."]) -> Float[Tensor, "f ..."]:
    """The frame before each; the first one is its own."""
    return torch.cat([x[:1], x[:-1]])
