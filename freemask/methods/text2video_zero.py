"""Text2Video-Zero (Khachatryan et al., 2023): an image model whose frames all look at the first one makes a clip anew,
held by what a ControlNet is shown of each frame; or of a prompt alone, with a motion that is made up; or a network of
InstructPix2Pix follows an instruction.

The motion stands in `freemask.methods.text2video_zero_field`, the instruction in `text2video_zero_pix2pix`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.attention.record import GIB
from freemask.attention.rewire import entries
from freemask.diffusion.guidance import strength
from freemask.diffusion.noise_paths import one_of
from freemask.errors import UserError
from freemask.masks.plan import MaskStrategy, Wanted
from freemask.masks.strategies.none import NoMask
from freemask.methods import shown
from freemask.methods.common import (
    at_least,
    check_mask,
    controlled,
    drawing,
    only_images,
    path_warnings,
    whole,
)
from freemask.methods.composite import composited
from freemask.methods.controlvideo_step import Call, Steps, Variant
from freemask.methods.held import of_clip_alone
from freemask.methods.masked import of_target
from freemask.methods.renoised import Held, Masked
from freemask.methods.text2video_zero_field import grown, moved, smoothed
from freemask.methods.text2video_zero_pix2pix import (
    Instructed,
    check_channels,
    shares,
    shown_latents,
    streams,
)
from freemask.types import Backbone, Clip, Edit, EditTask, Entry, Grid, Progress, Taps, silent

Mode = Literal["control", "text", "pix2pix"]
Facts = dict[str, str | float | int | bool | None]
ALONE = "one frame: there is no other to look at, and nothing moves"
UNSEEN = "made of the prompt alone: of the clip nothing is seen but its length and size"


@dataclass(frozen=True)
class Text2VideoZero(Masked):
    """`look`: whom all frames look at in place of themselves, in every layer of self-attention (in ControlNets that is
    the model's control_attention). `suffix` is added to the target prompt for the model alone, guidance leads away from
    `negative`.

    `mode` control: all frames begin with one noise, and what the model's ControlNets are shown of each is all that is
    seen of the clip; `mask` (our own addition) holds the clip outside, in latents, after every step.

    text: of the first frame alone the path is travelled down to the share `moved_at`; each later frame begins with that
    latent, moved by `motion` (pixels of a picture of 512, right and down, that the view moves per frame), with fresh
    noise that brings it up to `begun_at`, from where all go down together. `variant` official does what the released
    code does: what is shown of the first frame is a copy that got noise too; noise is the same in every chunk of
    `chunk` frames (one of them the first); it brings a latent one training step less far. paper: the first frame is
    itself, and noise differs in all. `mask` tells the background there, of the clip that was made: a share `smoothing`
    of it becomes the first frame's, moved, and all go down a second time. In the released code that cannot run.

    pix2pix: the target prompt is an instruction, and all that is seen of the clip are its latents, beside the noisy
    ones. Guidance leads from the clip alone to the instruction, `image_guidance` from nothing to the clip. Every frame
    begins with its own noise and gets more in every step. `mask` as in control.
    """

    steps: int = 50
    guidance: float | int | None = None
    image_guidance: float | int = 1
    mode: Mode = "control"
    look: Sequence[Entry] = ("first",)
    suffix: str = ""
    negative: str = ""
    motion: Sequence[float | int] = (12, 12)
    moved_at: float | int = 0.88
    begun_at: float | int = 0.94
    chunk: int = 8
    smoothing: float | int = 0.6
    variant: Variant = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("steps", 1), ("chunk", 2)):
            whole(name, getattr(self, name))
            at_least(name, getattr(self, name), least)
        for name in ("guidance", "image_guidance"):
            at_least(name, getattr(self, name), 0)
        entries(self.look)
        one_of("mode", self.mode, get_args(Mode))
        one_of("variant", self.variant, get_args(Variant))
        if len(self.motion) != 2:
            expected = "two numbers, to the right and down, such as [12, 12]"
            raise UserError("'motion' is told in two directions.", came=list(self.motion), expected=expected)
        if not 0 <= self.moved_at <= self.begun_at < 1:
            raise UserError(
                "Latents are moved at one share of the path, and begin at another that is as noisy or noisier.",
                came=f"moved_at={self.moved_at}, begun_at={self.begun_at}",
                expected="from 0 to below 1, such as 0.88 and 0.94",
            )
        if not 0 <= self.smoothing <= 1:
            raise UserError("'smoothing' is a share.", came=self.smoothing, expected="0 (none) to 1")

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        if self.mode != "text":
            return super().check(task, clip)
        mask = self.acting_mask(task)
        self.able_to_smooth(mask)
        return check_mask(mask, of_target(task), lambda: replace(clip(), masks={}))

    def able_to_smooth(self, mask: MaskStrategy) -> None:
        if not isinstance(mask, NoMask) and self.variant == "official":
            raise UserError(
                "The released code cannot smooth a background: it calls a network that nothing loads.",
                came=f"mask={type(mask).__name__}, variant=official",
                expected="no mask, or the paper's way",
                todo="method.variant=paper, or mask=none",
            )

    def check_model(self, model: Mapping[str, Any]) -> None:
        if self.mode == "control":
            controlled(bool(model.get("control")), model.get("control"))
        elif self.mode == "pix2pix":
            check_channels(model.get("channels"))
        else:
            text_alone([name for name in ("control", "channels") if model.get(name)])

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        only_images("Text2Video-Zero", backbone.sites)
        if self.mode == "control":
            controlled("control" in backbone.takes)
        elif self.mode == "text":
            text_alone([name for name in backbone.takes if name != "text"])
        held = Held.of(backbone, clip, task, self.steps, rng, negative=self.negative)
        if self.mode == "pix2pix":
            edit = self.by_instruction(held, progress)
        else:
            noise = drawing(rng, held.clean[:1])()
            edit = (self.by_control if self.mode == "control" else self.by_text)(held, noise, rng, progress)
        edit = replace(edit, facts={"mode": self.mode, **edit.facts})
        return replace(edit, warnings=(*edit.warnings, *[ALONE] * (len(clip.frames) == 1)))

    def steps_of(self, held: Held, frames: int) -> Steps:
        """Of so many frames in one call; what the clip lends, it lends to each."""
        backbone, given = held.backbone, held.subject.given
        led = backbone.embed(held.subject.task.target + self.suffix).given.parts
        guidance = strength(self.guidance, backbone)
        streams = {"uncond": given["uncond"], "cond": given["cond"].plus(**led)}
        streams = streams if guidance != 1 else {"cond": streams["cond"]}
        call = Call(range(frames), taps=Taps(look=lambda where: tuple(self.look)))
        return Steps(backbone, streams, guidance, [call], held.levels, None)

    def by_control(
        self, held: Held, noise: Float[Tensor, "1 c h w"], rng: Generator, progress: Progress
    ) -> Edit:
        start = noise.expand(held.clean.shape)
        steps = replace(self.steps_of(held, len(start)), held=held.put_back(start))
        self.masks_for(held, progress)
        of_clip_alone(self.acting_mask(held.subject.task), held.keeps)
        with held.watch.stage("sampling"):
            made = steps.all(start, progress)
        return self.finished(held, made, {"network_calls": self.steps})

    def by_instruction(self, held: Held, progress: Progress) -> Edit:
        shown_latents(held.subject.given["cond"].parts.get("channels"), held.clean)
        instruction = held.backbone.embed(held.subject.task.target + self.suffix).given
        given, start = streams(held, instruction), held.draw()
        self.masks_for(held, progress)
        of_clip_alone(self.acting_mask(held.subject.task), held.keeps)
        counts = shares(strength(self.guidance, held.backbone), self.image_guidance)
        taps = Taps(look=lambda where: tuple(self.look))
        steps = Instructed(held.backbone, given, counts, held.levels, taps, held.draw, held.put_back(start))
        with held.watch.stage("sampling"):
            made = steps.all(start, progress)
        return self.finished(held, made, {"network_calls": self.steps})

    def by_text(
        self, held: Held, noise: Float[Tensor, "1 c h w"], rng: Generator, progress: Progress
    ) -> Edit:
        mask, frames = self.acting_mask(held.subject.task), len(held.clean)
        self.able_to_smooth(mask)
        with held.watch.stage("sampling"):
            begun = self.begun(held, noise, rng, progress)
            joint = self.steps_of(held, len(begun.x))
            joint = replace(joint, levels=held.levels[self.steps - 1 - self.places[1] :])
            smoothing = self.smoothing > 0 and not isinstance(mask, NoMask)
            made = joint.all(begun.x, _named("unsmoothed", progress) if smoothing else progress)
        extras: dict[str, Tensor] = {}
        facts: Facts = {"mask_used": False}
        if smoothing:
            behind, extras, facts = self.behind(held, made, mask, rng, progress)
            with held.watch.stage("sampling"):
                first, multiple = begun.x[:1], held.backbone.multiple
                moving = moved(first, range(frames), self.motion, multiple)
                object_ = moved(behind[:1, None], range(frames), self.motion, multiple)[:, 0]
                made = joint.all(smoothed(begun.x, moving, behind, object_, self.smoothing), progress)
        with held.watch.stage("decoding"):
            pictures = held.backbone.decode(made[-frames:], frames)
        facts |= {"network_calls": begun.calls + (len(joint.levels) - 1) * (1 + smoothing)}
        warnings = (*path_warnings(held.backbone), UNSEEN)
        edit = Edit(pictures, extras, held.watch.seconds, warnings, facts)
        return composited(edit, held.subject.clip, self.composite, lambda: None)

    def begun(
        self, held: Held, noise: Float[Tensor, "1 c h w"], rng: Generator, progress: Progress
    ) -> "Begun":
        """Where frames begin to go down together, the first one, of which they are made, in front."""
        (low, high), last = self.places, self.steps - 1
        alone = self.steps_of(held, 1)
        x, first = noise, noise
        with torch.no_grad():
            for i in range(last - low):
                progress("first frame", i, last - low)
                x = alone.step(x, i)
                first = x if i + 1 == last - high else first
        path, times, official = held.backbone.noise_path, held.subject.times, self.variant == "official"
        later = range(0 if official else 1, len(held.clean))
        if not later:
            return Begun(first, last - low)
        moving = moved(x, later, self.motion, held.backbone.multiple)
        if high > low:
            less = 1 if official else 0
            fresh = drawing(rng, moving[: self.chunk - 1] if official else moving)()
            fresh = fresh[[place % len(fresh) for place in range(len(moving))]]
            moving = path.renoised(moving, fresh, now=times[low] - less, to=times[high] - less)
        return Begun(torch.cat([first, moving]), last - low)

    @property
    def places(self) -> tuple[int, int]:
        """Among the ascending times: where the first frame is moved, and where all begin."""
        low, high = (int(share * self.steps + 1e-9) for share in (self.moved_at, self.begun_at))
        return low, high

    def behind(
        self,
        held: Held,
        made: Float[Tensor, "f c h w"],
        mask: MaskStrategy,
        rng: Generator,
        progress: Progress,
    ) -> tuple[Float[Tensor, "f h w"], dict[str, Tensor], Facts]:
        """Where the objects of the clip that was made stand, a little larger; as a picture, and facts."""
        backbone, clip, level = held.backbone, held.subject.clip, held.subject.times[self.places[1]]
        with held.watch.stage("masks"):
            frames = backbone.decode(made, len(clip.frames)).to(clip.frames)
            task = of_target(held.subject.task)
            new = Held.of(backbone, Clip(clip.id, frames, fps=clip.fps), task, self.steps, rng)
            new.mask_by(mask, int(self.heat_gb * GIB), progress)
            of_clip_alone(mask, new.keeps)
            assert new.masks is not None
            found = new.masks(Wanted("latent", level, Grid(len(made), *made.shape[-2:]))).to(made)
            picture = shown.of_masks(new.masks, "latent", [level], frames)["mask"]
        facts = {**new.masks.facts, **shown.of_picture(picture, f"the background at {level:g}")}
        # No mask of the clip: it is not to be drawn over it, or compared with its annotation.
        return grown(found), {"objects": picture}, {**facts, "heat_calls": new.heat_calls}


class Begun(NamedTuple):
    x: Float[Tensor, "f c h w"]
    calls: int


def text_alone(others: Sequence[str]) -> None:
    if others:
        raise UserError(
            "In its text mode, Text2Video-Zero makes a clip of the prompt alone.",
            came=f"a model that is given {', '.join(others)} too",
            expected="an image model that is given a text, and nothing of the clip",
            todo="model.control=null, or method.mode=control",
        )


def _named(stage: str, progress: Progress) -> Progress:
    return lambda _, done, total: progress(stage, done, total)
