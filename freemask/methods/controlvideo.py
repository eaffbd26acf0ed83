"""ControlVideo (Zhang et al., 2024; the one that needs no training): an image model with a ControlNet makes all frames
anew from one noise, each held by what its ControlNet is shown of the clip's frame. Nothing else of the clip is seen,
but for a mask.

What happens in a step stands in `freemask.methods.controlvideo_step`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Generator, Tensor

from freemask.diffusion.guidance import strength
from freemask.diffusion.noise_paths import one_of
from freemask.errors import UserError
from freemask.interpolation.sources import Auto, Interpolator
from freemask.methods.common import at_least, controlled, drawing, of_kind, only_images, whole
from freemask.methods.controlvideo_step import Call, Smoother, Steps, Variant, calls_of
from freemask.methods.held import of_clip_alone
from freemask.methods.renoised import Held, Masked
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, silent

LONGEST = 16  # frames in one call, where nobody says
SMALLEST = 3  # window: two key frames and one between
LEVEL = 0.37  # of the path: the middle of the authors' two smoothed steps
ALONE = "one frame: there is no other to look at or to smooth it with"


@dataclass(frozen=True)
class ControlVideo(Masked):
    """`suffix` is added to the target prompt for the model alone, guidance leads away from `negative`. `smooth` are the
    steps in which clean frames are smoothed, counted from the end (1 is the last); None: two neighbouring ones at the
    noise of the authors' 20 and 19 of 50. `interpolation` makes frames between two others for that.

    `long`: key frames together at first, then those between each two; auto: in clips of more than 16 frames, or of
    more than `window`. That is the distance from a key frame to the next, both counted; None: the root of the clip's
    length. `variant` says how the released code differs (`calls_of`, `Smoother`).

    `mask` (our own addition) holds the clip outside: there, latents are the clip's with the noise that the edit began
    with, after every step. Masks are made of the clip with noise, as it is in this network.
    """

    steps: int = 50
    guidance: float | int | None = None
    suffix: str = ""
    negative: str = ""
    smooth: Sequence[int] | None = None
    interpolation: Interpolator = field(default_factory=Auto)
    long: bool | Literal["auto"] = "auto"
    window: int | None = None
    variant: Variant = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("steps", self.steps, 1)
        at_least("guidance", self.guidance, 0)
        of_kind("interpolation", self.interpolation, Interpolator)
        one_of("variant", self.variant, get_args(Variant))
        if self.long not in (True, False, "auto"):
            raise UserError("'long' is unknown.", came=self.long, expected="true, false or auto")
        if self.window is not None:
            whole("window", self.window, SMALLEST)
        wrong = [each for each in self.smooth or () if each not in range(1, self.steps + 1)]
        if wrong:
            raise UserError(
                "There are no such steps to smooth frames in.",
                came=f"smooth={list(self.smooth or ())}, steps={self.steps}",
                expected=f"steps counted from the end, 1 to {self.steps}",
                todo="smooth=null takes two at the authors' noise, smooth=[] none",
            )

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        super().check(task, clip)
        self.calls(len(clip().frames))
        if self.smoothed:
            self.interpolation.check(clip)

    def check_model(self, model: Mapping[str, Any]) -> None:
        controlled(bool(model.get("control")), model.get("control"))

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        held, noise, steps = self.begin(backbone, clip, task, rng)
        self.masks_for(held, progress)
        of_clip_alone(self.acting_mask(task), held.keeps)
        with held.watch.stage("sampling"):
            edited = steps.all(noise, progress)
        warnings, facts = self.said(steps, len(clip.frames))
        edit = self.finished(held, edited, facts)
        return replace(edit, warnings=(*edit.warnings, *warnings))

    def begin(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator
    ) -> tuple[Held, Float[Tensor, "f c h w"], Steps]:
        """Everything before the first step but masks: the clip, one noise for all frames, and the steps, which draw
        from `rng` later."""
        only_images("ControlVideo", backbone.sites)
        controlled("control" in backbone.takes)
        held = Held.of(backbone, clip, task, self.steps, rng, negative=self.negative)
        noise = drawing(rng, held.clean[:1])().expand(held.clean.shape)

        guidance, given = strength(self.guidance, backbone), held.subject.given
        led = backbone.embed(task.target + self.suffix).given.parts
        streams = {"uncond": given["uncond"], "cond": given["cond"].plus(**led)}
        streams = streams if guidance != 1 else {"cond": streams["cond"]}
        calls, smoother = self.calls(len(clip.frames)), self.smoother(backbone, clip, rng)
        hold = held.put_back(noise)
        return held, noise, Steps(backbone, streams, guidance, calls, held.levels, smoother, hold)

    def smoother(self, backbone: Backbone, clip: Clip, rng: Generator) -> Smoother | None:
        if not self.smoothed or len(clip.frames) == 1:
            return None
        remade = self.interpolation.on(clip, str(backbone.device))
        return Smoother(backbone, remade, self.smoothed, self.variant, lambda like: drawing(rng, like)())

    def said(self, steps: Steps, frames: int) -> tuple[Sequence[str], dict[str, str | int]]:
        """Warnings, and facts for the row."""
        facts: dict[str, str | int] = {"network_calls": self.steps * len(steps.calls)}
        if len(steps.calls) > 1:
            facts["key_frames"] = len(steps.calls[0].frames)
        if steps.smoother is None:
            return [ALONE] * (frames == 1), facts
        at = ", ".join(str(i + 1) for i in sorted(steps.smoother.steps))
        facts |= {"smoothed_steps": f"{at} of {self.steps}", "interpolation": self.interpolation.name}
        return self.interpolation.warnings, facts

    @property
    def smoothed(self) -> frozenset[int]:
        """The steps in which frames are smoothed, counted from 0."""
        if self.smooth is not None:
            return frozenset(self.steps - each for each in self.smooth)
        begin = round(LEVEL * self.steps + 1.5)  # a step counted as r starts at r - 1 of so many
        return frozenset(self.steps - each for each in (begin, begin - 1) if 1 < each <= self.steps)

    def calls(self, frames: int) -> list[Call]:
        """Of the network, at each step."""
        if self.long is False or (self.long == "auto" and frames <= (self.window or LONGEST)):
            return calls_of(frames, None, self.variant)
        window = isqrt(frames) if self.window is None else self.window
        if window < SMALLEST or frames < SMALLEST:
            raise UserError(
                "The clip is too short for key frames and others between them.",
                came=f"long=true, {frames} frames",
                expected="9 frames or more, or 3 or more with a window=3",
                todo="method.long=auto takes short clips in one call",
            )
        return calls_of(frames, window, self.variant)
