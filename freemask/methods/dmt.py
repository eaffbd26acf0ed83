"""DMT, motion transfer (Yatim et al., 2024): early in sampling the latent is moved until features change from frame to
frame as those of the clip do. Where things are and go is the clip's, how they look is left to the prompt."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from freemask.attention.record import GIB
from freemask.diffusion.guidance import Predict, given_to, guided
from freemask.diffusion.inversions import Inversion, Inversions
from freemask.diffusion.loops import Callbacks, sample
from freemask.diffusion.motion import Motion
from freemask.diffusion.noise_paths import noise_between, one_of
from freemask.errors import UserError
from freemask.masks.plan import MaskPlan, Subject
from freemask.methods.common import (
    Noise,
    Stopwatch,
    at_least,
    drawing,
    finer,
    path_warnings,
    paths,
    share,
    whole,
)
from freemask.methods.composite import composited
from freemask.methods.held import free, of_masks, planned, put_back, wish_of
from freemask.methods.masked import MaskSettings
from freemask.methods.pnp_layers import authors, chosen
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, NoisePath, Progress, Time, silent

STARTS = ("mixed", "renoised", "inverted", "random")
VARIANTS = ("paper", "official")
ALONE = "one frame has no motion to follow: nothing but the start and the prompt guides this edit"


@dataclass(frozen=True)
class Dmt(MaskSettings):
    """The first `guided_share` of the steps begin with so many `updates` of the latent, by Adam, at rates that go
    evenly from the first to the second of `rates`. `features` names modules; None finds the authors' three.

    `start`: the clip with the noise that its inversion ended in (renoised), of which mixed keeps what survives at a
    `coarse` times smaller picture, the rest being fresh; the inverted latent of that level; or random. `restart`: each
    step but the last is made a second time, from fresh noise. `prefix` goes before both prompts.

    `variant` official: as the released code runs. Each frame is compared with itself, too, which adds 1 / frames to the
    loss of a feature; the clip is drawn twice from what the autoencoder says of it, to be inverted and for the start;
    and noise comes back in single steps, each taken for the one before it. Its switches for features of attention do
    nothing there, and are not here.

    `mask` (our own addition) holds the clip outside: there the latent is the clip's after every step.
    """

    steps: int = 50
    guidance: float | int | None = None
    guided_share: float | int = 0.4
    updates: int = 10
    rates: Sequence[float | int] = (0.007, 0.004)
    features: Sequence[str] | None = None
    start: str = "mixed"
    coarse: int = 4
    restart: bool = True
    prefix: str = ""
    negative: str = ""
    variant: str = "paper"
    inversion_steps: int | None = 999
    checkpointing: Annotated[bool, Effect.NONE] = False
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("steps", 1), ("updates", 0), ("coarse", 1)):
            whole(name, getattr(self, name), least)
        finer(self.steps, self.inversion_steps)
        at_least("guidance", self.guidance, 0)
        one_of("start", self.start, STARTS)
        one_of("variant", self.variant, VARIANTS)
        share("guided_share", self.guided_share, "the steps")
        if len(self.rates) != 2 or not all(0 < rate < float("inf") for rate in self.rates):
            raise UserError(
                "'rates' are those of the first and of the last guided step.",
                came=", ".join(map(str, self.rates)),
                expected="two numbers above 0, such as [0.007, 0.004]",
            )

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        watch = Stopwatch(backbone.device)
        names = self.named(backbone)
        down, up = paths(backbone, self.steps, self.inversion_steps)
        with watch.stage("encode"):
            told = replace(task, source=self.prefix + task.source, target=self.prefix + task.target)
            subject, mask = Subject.of(backbone, clip, told, down), self.acting_mask(task)
            away = given_to(backbone, clip, backbone.embed(self.negative), away=True)
            given = {**subject.given, "uncond": away}
            wish = wish_of(mask, subject, int(self.heat_gb * GIB))
            mean = backbone.encode(clip.frames)
            draw = drawing(rng, like=mean)
            inverted, begun = mean, mean
            if self.variant == "official":
                spread = backbone.spread(clip.frames)
                inverted, begun = (mean + spread * draw() for _ in range(2))
        with watch.stage("inversion"):
            store = Inversions(self.inversions, self.inversions_gb)
            inversion = store.invert(backbone, inverted, given["source"], up, wish=wish, progress=progress)
        with watch.stage("masks"):
            masks = planned(mask, subject, inversion.kept)
        with watch.stage("sampling"):
            x = self.first(backbone.noise_path, inversion, begun, down[-1], draw)
            motion = Motion(backbone, inversion, given, names, own_pairs=self.variant == "official")
            steps = Steps(self, motion, down, draw, masks)
            x = sample(
                backbone, x, steps.predict, down, on=Callbacks(steps.moved, steps.again), progress=progress
            )
        with watch.stage("decoding"):
            frames = backbone.decode(x, len(clip.frames))
        alone = [ALONE] if len(mean) == 1 else []
        edit = Edit(frames, {}, watch.seconds, [*path_warnings(backbone), *alone], motion.facts())
        edit = of_masks(edit, masks, down, clip, "")
        return composited(edit, clip, self.composite, lambda: free(masks, down, clip))

    @property
    def falling(self) -> list[float]:
        """The rates of the guided steps, the noisiest first."""
        count = self.steps - int(self.steps * (1 - self.guided_share) + 1e-9)  # as the released code rounds
        first, last = self.rates
        return [first + (last - first) * i / max(1, count - 1) for i in range(count)]

    def named(self, backbone: Backbone) -> list[str]:
        """The modules whose outputs are compared. The authors': before the second self-attention on the way up, the
        last convolution without its shortcut and the one along frames; and what makes that level larger."""
        if not self.falling or not self.updates:
            return []
        block = next(iter(authors(backbone.sites).values()), "")
        level = block.partition(".resnets.")[0]
        usual = [f"{block}.conv2", block.replace(".resnets.", ".temp_convs."), f"{level}.upsamplers.0"]
        present = [name for name in usual if name in backbone.features]
        return chosen("features", backbone.features, self.features, present)

    def first(
        self, path: NoisePath, inversion: Inversion, clean: Float[Tensor, "f c h w"], t: Time, draw: Noise
    ) -> Float[Tensor, "f c h w"]:
        """Where sampling begins, at level t."""
        if self.start == "random":
            return draw()
        if self.start == "inverted":
            return inversion.at(t)
        last = inversion.times[-1]
        x = path.noised(clean, noise_between(path, clean, inversion.at(last), last), t)
        if self.start == "renoised":
            return x
        fresh = draw()
        return coarsely(x, self.coarse) + fresh - coarsely(fresh, self.coarse)


@dataclass(frozen=True)
class Steps:
    """What happens around the steps of sampling: before each of the first ones the latent follows the clip's motion,
    after each but the last it is made noisy again, and the step is made a second time. `down` ascends."""

    settings: Dmt
    motion: Motion
    down: Sequence[Time]
    draw: Noise
    masks: MaskPlan | None = None

    @property
    def predict(self) -> Predict:
        given, guidance = self.motion.given, self.settings.guidance
        return guided(self.motion.backbone, given["cond"], guidance, uncond=given["uncond"])

    def moved(self, x: Float[Tensor, "f c h w"], i: int, t: Time) -> Float[Tensor, "f c h w"]:
        rates = self.settings.falling
        if self.motion.names and len(x) > 1 and i < len(rates):
            thrift = self.motion.backbone.saving_memory() if self.settings.checkpointing else nullcontext()
            with thrift:
                x = self.motion.followed(x, t, rates[i], self.settings.updates)
        return self._finite(x, i)

    def again(self, x: Float[Tensor, "f c h w"], i: int, t: Time) -> Float[Tensor, "f c h w"]:
        if self.settings.restart and i + 1 < len(self.down):
            path, below = self.motion.backbone.noise_path, self.down[-2 - i]
            x = self._noisy(path, self._held(x, t), below, t)
            x = path.step(x, self.predict(x, t), now=t, call=t, to=below)
        return self._finite(self._held(x, t), i)

    def _held(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "f c h w"]:
        if self.masks is None:
            return x
        return put_back(x, t, self.masks, self.motion.inversion, self.down)

    def _noisy(self, path: NoisePath, x: Tensor, below: Time, t: Time) -> Tensor:
        if self.settings.variant == "paper":
            return path.renoised(x, self.draw(), now=below, to=t)
        for level in range(max(1, int(below)), int(t)):  # what it calls the noise of a level brings one there
            x = path.renoised(x, self.draw(), now=level - 1, to=level)
        return x

    def _finite(self, x: Tensor, i: int) -> Tensor:
        if not bool(torch.isfinite(x).all()):
            precision = str(self.motion.backbone.dtype).removeprefix("torch.")
            raise UserError(
                "Motion transfer met numbers that are not finite.",
                came=f"step {i + 1} of {len(self.down)}, in {precision}",
                expected="a precision that holds them, and small updates",
                todo="smaller method.rates; in half precision model.dtype=bfloat16 or float32",
            )
        return x


def coarsely(x: Float[Tensor, "f c h w"], by: int) -> Float[Tensor, "f c h w"]:
    """What is left of pictures made so many times smaller, and large again."""
    options = {"mode": "bilinear", "align_corners": True, "antialias": True}
    small = interpolate(x, size=[max(1, side // by) for side in x.shape[-2:]], **options)
    return interpolate(small, size=list(x.shape[-2:]), **options)
