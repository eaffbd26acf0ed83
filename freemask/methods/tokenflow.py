"""TokenFlow (Geyer et al., 2024): an editor of single frames, made steady. At each step a few key frames are edited
together; the self-attention of all frames is then what the key frames have at the places that look most alike in the
clip itself.

What happens in a step stands in `freemask.methods.tokenflow_step`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args

from torch import Generator

from freemask.attention.record import GIB
from freemask.diffusion.noise_paths import one_of
from freemask.errors import UserError
from freemask.masks.plan import MaskPlan
from freemask.methods.common import Stopwatch, controlled, only_images, share, whole
from freemask.methods.composite import composited
from freemask.methods.held import free, of_masks, planned, wish_of
from freemask.methods.masked import MaskSettings
from freemask.methods.pnp import Beside, Pnp, finished
from freemask.methods.tokenflow_field import chunks
from freemask.methods.tokenflow_step import Flow, Variant
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, Time, silent

Base = Literal["pnp", "sdedit", "controlnet"]
ALONE = "the clip is one chunk: at each step all copy from one key frame, and nothing is blended (try method.chunk=2)"


@dataclass(frozen=True)
class TokenFlow(MaskSettings):
    """`base` edits the key frames: pnp takes over what the clip has inside the network (the shares and layers are
    those of `method=pnp`); sdedit starts late, at `strength` of the path; controlnet travels all of it, held by what
    the model's ControlNets are shown (of this the authors released the inversion alone). Of each `chunk` of frames one
    is a key frame, drawn anew at every step.

    `variant` official does what the released code does: frames are a blend of their own chunk's key frame and that of
    the chunk before, weighed by the middles of the chunks; the clip too is copied, so that deeper layers look for
    places in copied features; the start is the clip with the noise that the inversion ended in; sdedit makes a step
    less than asked for. paper: the key frames before and after a frame, by their distance; places are looked for in
    the untouched clip; the start is the inverted latent.

    `mask` (our own addition) holds the clip outside: there the edit has the clip's self-attention, its output of the
    convolutions that it would take over anyway, and its latents, at every step.
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
        super().__post_init__()
        one_of("base", self.base, get_args(Base))
        one_of("variant", self.variant, get_args(Variant))
        whole("chunk", self.chunk, 1)
        self.settings()
        share("strength", self.strength, above=True)
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

    def check_model(self, model: Mapping[str, Any]) -> None:
        if self.base == "controlnet":
            controlled(bool(model.get("control")), model.get("control"))

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        only_images("TokenFlow", backbone.sites)
        if self.base == "controlnet":
            controlled("control" in backbone.takes)
        watch, settings, mask = Stopwatch(backbone.device), self.settings(), self.acting_mask(task)
        subject = settings.subject(backbone, clip, task, watch=watch)
        wish = wish_of(mask, subject, int(self.heat_gb * GIB))
        beside = settings.begin(backbone, subject, watch=watch, wish=wish, progress=progress)
        with watch.stage("masks"):
            masks = planned(mask, subject, beside.inversion.kept)
        flow = self.flow(beside, rng, masks)
        edit = finished(flow, clip, settings.start, watch=watch, progress=progress)
        keys = len(chunks(len(clip.frames), self.chunk))
        warnings = edit.warnings if keys > 1 else (*edit.warnings, ALONE)
        edit = replace(edit, warnings=warnings, facts={**edit.facts, "key_frames": keys})
        edit = of_masks(edit, masks, flow.times, clip)
        return composited(edit, clip, self.composite, lambda: free(masks, flow.times, clip))

    def flow(self, beside: Beside, rng: Generator, masks: MaskPlan | None = None) -> Flow:
        begun = {each.name: getattr(beside, each.name) for each in fields(beside)}
        begun |= {"times": self.travelled(beside.times), "masks": masks}
        return Flow(**begun, chunk=self.chunk, variant=self.variant, rng=rng)

    def travelled(self, times: Sequence[Time]) -> Sequence[Time]:
        """Those of the ascending times that sampling passes through."""
        if self.base != "sdedit":
            return times
        if self.variant == "official":  # `int(1 - start * N)` where `int((1 - start) * N)` was meant
            return times[: int(self.strength * self.steps - 1)]
        return times[: max(1, round(self.strength * self.steps))]
