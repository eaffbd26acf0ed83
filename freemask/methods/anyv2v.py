"""AnyV2V (Ku et al., 2024): the first frame is edited by whatever edits pictures, and a network that animates pictures
carries it through the clip. It begins with the clip's own inverted noise, and early on takes over what the clip has
inside the network: the output of one convolution, and who looks at whom within and along frames.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.attention.record import GIB
from freemask.diffusion.guidance import given_to, strength, unseen
from freemask.diffusion.inversions import Inversion, Inversions
from freemask.diffusion.noise_paths import one_of
from freemask.diffusion.solvers import EULER, OWN_LEVEL
from freemask.errors import UserError
from freemask.masks.plan import Subject
from freemask.masks.strategies.none import NoMask
from freemask.methods.common import Stopwatch, at_least, finer, of_kind, paths, share, whole
from freemask.methods.composite import composited
from freemask.methods.ddim import PROMPTS
from freemask.methods.first_frame import FirstFrame, Unedited
from freemask.methods.held import free, of_masks, planned, wish_of
from freemask.methods.masked import MaskSettings
from freemask.methods.pnp import Beside, finished
from freemask.methods.pnp_layers import Lent, attentions, convolutions, temporals
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Given, Progress, Stream, silent

TAKEN = ("image", "image_latents")
ALONE = "the clip is one picture: there is nothing to animate, and its first frame is all there is"


@dataclass(frozen=True)
class AnyV2V(MaskSettings):
    """`first_frame` edits the picture. The shares say for how much of all `steps` the output of the convolution, and
    queries and keys of spatial and temporal attention, are the clip's; `convolutions`, `attentions` and `temporals`
    name other layers than the authors'. Sampling leaves out the first `start` steps, and what is taken over ends with
    the step where it would end without that. `negative` is what guidance leads away from.

    The clip is inverted under `inversion_prompt` and its own first frame, by `solver` (own_level: as the authors do;
    euler: as it would be undone). `still`: its first frame, repeated, is inverted instead. `fps` is what the network is
    told; None: the clip's own.

    `mask` (our own addition) holds the clip outside: its attention within and along frames, its output of the
    convolutions that are taken over anyway, and its latents, at every step.
    """

    first_frame: FirstFrame = field(default_factory=Unedited)
    steps: int = 50
    guidance: float | int | None = None
    start: int = 1
    convolution_share: float | int = 0.2
    attention_share: float | int = 0.2
    temporal_share: float | int = 0.5
    convolutions: Sequence[str] | None = None
    attentions: Sequence[str] | None = None
    temporals: Sequence[str] | None = None
    negative: str = ""
    fps: float | int | None = None
    inversion_steps: int | None = 500
    inversion_prompt: str = "empty"
    solver: str = OWN_LEVEL
    still: bool = False
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        of_kind("first_frame", self.first_frame, FirstFrame)
        one_of("inversion_prompt", self.inversion_prompt, PROMPTS)
        one_of("solver", self.solver, (OWN_LEVEL, EULER))
        whole("steps", self.steps, 1)
        whole("start", self.start)
        finer(self.steps, self.inversion_steps)
        at_least("guidance", self.guidance, 0)
        at_least("fps", self.fps, 0.01)
        if not 0 <= self.start < self.steps:
            raise UserError(
                "'start' leaves out steps of sampling.", came=self.start, expected=f"0 to {self.steps - 1}"
            )
        if self.still and not isinstance(self.mask, NoMask):
            raise UserError(
                "A mask holds the clip, which a still inversion does not have.",
                came=f"still=true, mask={type(self.mask).__name__}",
                expected="still=false, or mask=none",
            )
        for name in ("convolution_share", "attention_share", "temporal_share"):
            share(name, getattr(self, name), "the steps")

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        super().check(task, clip)
        self.first_frame.check(task, clip)

    def knowing(self, answer: Float[Tensor, "f 3 h w"] | None) -> "AnyV2V":
        """The same where the true answer may be seen: `first_frame` decides."""
        return replace(self, first_frame=self.first_frame.knowing(answer))

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        animates(backbone)
        watch = Stopwatch(backbone.device)
        _, up = paths(backbone, self.steps, self.inversion_steps)
        with watch.stage("first frame"):
            picture = self.first_frame(backbone, clip, task, rng, progress)
        with watch.stage("encode"):
            given = self.given(backbone, clip, task, picture.frame)
            frames = clip.frames[:1].expand_as(clip.frames) if self.still else clip.frames
            latents = backbone.encode(frames)
        with watch.stage("inversion"):
            store = Inversions(self.inversions, self.inversions_gb)
            inversion = store.invert(
                backbone, latents, given["source"], up, solver=self.solver, progress=progress
            )
        beside = self.beside(backbone, given, inversion)
        with watch.stage("masks"):
            subject = Subject.of(backbone, clip, task, beside.times)
            read = self.read(backbone, subject, inversion, progress)
            masks = planned(self.acting_mask(task), subject, read.kept)
        beside = replace(beside, masks=masks)
        edit = finished(beside, clip, "inverted", watch=watch, progress=progress)
        alone = (ALONE,) if len(clip.frames) == 1 else ()
        edit = replace(
            edit,
            warnings=(*edit.warnings, *picture.warnings, *alone),
            facts={**edit.facts, **picture.facts, "inversion_passes": inversion.passes + read.passes},
        )
        edit = of_masks(edit, masks, beside.times, clip, "attention within and along frames, ")
        return composited(edit, clip, self.composite, lambda: free(masks, beside.times, clip))

    def given(
        self, backbone: Backbone, clip: Clip, task: EditTask, edited: Float[Tensor, "3 h w"]
    ) -> dict[Stream, Given]:
        """The clip with its own first frame, and the edit with the edited one, from which nothing leads away but a text
        (and an image encoder that says nothing)."""
        inverted = task.source if self.inversion_prompt == "source" else ""
        prompts = {"source": inverted, "uncond": self.negative, "cond": task.target}
        given = {stream: self.told(backbone, clip, prompt) for stream, prompt in prompts.items()}
        seen = backbone.seen(Clip(clip.id, edited[None], fps=clip.fps))
        shown = {name: seen[name] for name in TAKEN}
        away = unseen(given["uncond"].plus(**shown))
        return {"source": given["source"], "uncond": away, "cond": given["cond"].plus(**shown)}

    def told(self, backbone: Backbone, clip: Clip, prompt: str) -> Given:
        own = given_to(backbone, clip, backbone.embed(prompt))
        return own if self.fps is None else own.plus(fps=torch.tensor(float(self.fps)))

    def beside(
        self,
        backbone: Backbone,
        given: Mapping[Stream, Given],
        inversion: Inversion,
    ) -> Beside:
        """The clip and its edit, before the first step that is taken."""
        down, _ = paths(backbone, self.steps, self.inversion_steps)
        times, guidance = down[: self.steps - self.start], strength(self.guidance, backbone)
        return Beside(backbone, given, inversion, times, self.lent(backbone), guidance)

    def lent(self, backbone: Backbone) -> Lent:
        """What the clip lends to the edit, and for how many of the steps that are taken."""
        convolved, looking, along = (
            max(0, int(self.steps * share) - self.start)
            for share in (self.convolution_share, self.attention_share, self.temporal_share)
        )
        return Lent(
            convolutions=convolutions(backbone, self.convolutions) if convolved else (),
            convolution_steps=convolved,
            attentions=attentions(backbone, self.attentions) if looking else (),
            attention_steps=looking,
            temporals=temporals(backbone, self.temporals) if along else (),
            temporal_steps=along,
        )

    def read(
        self, backbone: Backbone, subject: Subject, inversion: Inversion, progress: Progress
    ) -> Inversion:
        """What masks want of the clip. Their words are those of its own prompt, which the edit's inversion has not:
        another one is made, as long as sampling."""
        wish = wish_of(self.acting_mask(subject.task), subject, int(self.heat_gb * GIB))
        if not wish.keeps:
            return replace(inversion, passes=0)
        own = self.told(backbone, subject.clip, subject.task.source)
        store, clean = Inversions(self.inversions, self.inversions_gb), inversion.latents[0]
        return store.invert(backbone, clean, own, self.steps, wish=wish, progress=progress)


def animates(backbone: Backbone) -> None:
    lacking = [name for name in TAKEN if name not in backbone.takes]
    if lacking:
        raise UserError(
            "AnyV2V animates an edited first frame; this model takes no picture.",
            came=f"a model that takes {', '.join(backbone.takes)}",
            expected="a model that animates a picture: model=embedded_i2v, model=i2vgen_xl",
        )
