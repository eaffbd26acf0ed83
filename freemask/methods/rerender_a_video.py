"""Rerender-A-Video (Yang et al., 2023): an image model with a ControlNet makes key frames anew, one after another from
one noise. Each looks at the first and the last one made instead of itself, takes the first one's rough shape along the
flow early on, and is then drawn to what those two show of it.

The authors make the frames between by EBSynth, a program of its own that matches patches. Here both neighbours are
carried along the flow and blended: our own, and simpler. What a key frame goes through stands in
`freemask.methods.rerender_a_video_step`, what is only mathematics in `freemask.methods.rerender_a_video_field`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.diffusion.guidance import strength
from freemask.diffusion.noise_paths import one_of
from freemask.errors import UserError
from freemask.interpolation.far import Far
from freemask.methods.common import at_least, controlled, drawing, of_kind, only_images, share, whole
from freemask.methods.composite import composited
from freemask.methods.following import OPEN
from freemask.methods.held import of_clip_alone
from freemask.methods.pnp_layers import chosen
from freemask.methods.renoised import Held, Masked
from freemask.methods.rerender_a_video_field import between
from freemask.methods.rerender_a_video_step import KeyFrames, Left, Noises, Rules
from freemask.optical.sources import Auto, FlowSource
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, silent

Variant = Literal["official", "paper"]
DECODER = "up_blocks.*"
SHORT, LONG = 20, 10  # frames: clips in which all are key frames, and the distance between them in others
RESCALE = 0.9  # of the noise that a weighted sum loses: how much comes back
ALONE = "one frame: there is no other to look at or to be carried to"
BETWEEN = (
    "{} of {} frames are key frames carried along the flow and blended, not made by EBSynth as the authors do"
)
GB = 10**9


@dataclass(frozen=True)
class RerenderAVideo(Masked):
    """Every `interval`-th frame is a key frame, and the last one (None: all in clips up to `SHORT` frames, of longer
    ones every tenth, as the authors). `strength`: each begins with the clip's frame and noise, at that share of the
    path; None: with noise alone. `suffix` is added to the target prompt for the model alone, guidance leads away from
    `negative`. `layers`: self-attention in which key frames look at others (None: all of the decoder).

    Of the steps, from the noisy end: `shape` is the share in which the clean latent is the first key frame's along the
    `flow`, `pixels` from where to where it is drawn to what other key frames show. For that each key frame but the
    first is made twice, the first time without it.

    `variant` official does what the released code does: the drawing has weight 0.5, and most of the noise that a
    weighted sum loses is given back; colours are left alone; latents are drawn from what the autoencoder says. paper:
    the weight is 1 and nothing is given back, and in the last fifth of the steps colours are the first one's; latents
    are means. `weight` and `colours` (the share from which on colours are) say otherwise.

    `mask` (our own addition) holds the clip outside: in key frames latents are the clip's with the noise that the
    edit began with, after every step, and in frames between pixels are the clip's.
    """

    steps: int = 20
    guidance: float | int | None = None
    interval: int | None = None
    strength: float | int | None = None
    shape: float | int = 0.1
    pixels: Sequence[float | int] = (0.5, 0.8)
    weight: float | int | None = None
    colours: float | int | None = None
    layers: Sequence[str] | None = None
    suffix: str = ""
    negative: str = ""
    flow: FlowSource = field(default_factory=Auto)
    variant: Variant = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("steps", self.steps, 1)
        at_least("guidance", self.guidance, 0)
        of_kind("flow", self.flow, FlowSource)
        one_of("variant", self.variant, get_args(Variant))
        if self.interval is not None:
            whole("interval", self.interval, 1)
        for name in ("shape", "weight", "colours"):
            share(name, getattr(self, name))
        if self.strength is not None and not 0 < self.strength <= 1:
            raise UserError(
                "'strength' is a share of the path.",
                came=self.strength,
                expected="above 0, at most 1; null begins with noise alone",
            )
        pair = list(self.pixels)
        if len(pair) not in (0, 2) or (pair and not 0 <= pair[0] <= pair[1] <= 1):
            expected = "two shares of the steps, such as [0.5, 0.8]; [] for none"
            raise UserError("'pixels' says from where to where.", came=pair, expected=expected)

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        super().check(task, clip)
        if len(clip().frames) > 1:
            self.flow.check(clip)

    def check_model(self, model: Mapping[str, Any]) -> None:
        controlled(bool(model.get("control")), model.get("control"))

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        only_images("Rerender-A-Video", backbone.sites)
        controlled("control" in backbone.takes)
        total = len(clip.frames)
        keys, far, facts, said = self.key_frames(total), None, {"flow": "none"}, [ALONE] * (total == 1)
        held = Held.of(backbone, clip, task, self.steps, rng, negative=self.negative)
        if total > 1:
            with held.watch.stage("flow"):
                known = self.flow(clip, str(backbone.device))
                far, facts = Far.of(known), {"flow": known.origin}
                said += [OPEN] * (known.seen is None) + [BETWEEN.format(total - len(keys), total)] * (
                    len(keys) < total
                )
        making = self.making(held, rng, far, len(keys), progress)
        self.masks_for(held, progress)
        of_clip_alone(self.acting_mask(task), held.keeps)
        with held.watch.stage("sampling"):
            made = making.all(keys)
        with held.watch.stage("decoding"):
            frames = self.clip_of(held, dict(zip(keys, made, strict=True)), far)
        facts |= {
            "key_frames": len(keys),
            "network_calls": (2 * len(keys) - 1) * (self.steps - making.rules.begin),
            "handed_gb": round(2 * made[0].bytes / GB, 4),
        }
        edit = composited(held.told(frames, facts), clip, self.composite, held.free)
        return replace(edit, warnings=(*edit.warnings, *said))

    def key_frames(self, total: int) -> list[int]:
        """No frame lies beyond the last one: it would have but one neighbour."""
        step = self.interval or (1 if total <= SHORT else LONG)
        return sorted({*range(0, total, step), total - 1})

    def rules(self) -> Rules:
        """In steps. Those of `shape` include its end, as released; those of `pixels` neither end."""
        steps, official = self.steps, self.variant == "official"
        begin = 0 if self.strength is None else int(steps * (1 - self.strength) + 1e-9)
        colours = self.colours if self.colours is not None else 1 if official else 0.8
        low, high = self.pixels or (1, 1)
        return Rules(
            begin,
            self.strength is not None,
            range(int(self.shape * steps + 1e-9) + 1 if self.shape else 0),
            range(ceil(colours * steps - 1e-9), steps),
            range(int(low * steps + 1e-9) + 1, ceil(high * steps - 1e-9)),
            self.weight if self.weight is not None else 0.5 if official else 1,
            RESCALE if official else None,
        )

    def making(self, held: Held, rng: Generator, far: Far | None, keys: int, progress: Progress) -> KeyFrames:
        """Everything before the first step. Noise is drawn in this order: what frames begin with, what pictures are
        brought up with, and, as latents are made, what the autoencoder leaves open."""
        backbone, rules, given = held.backbone, self.rules(), held.subject.given
        guidance = strength(self.guidance, backbone)
        led = backbone.embed(held.subject.task.target + self.suffix).given.parts
        streams = {"uncond": given["uncond"], "cond": given["cond"].plus(**led)}
        streams = streams if guidance != 1 else {"cond": streams["cond"]}
        draw = drawing(rng, held.clean[:1])
        noises = Noises(draw(), {i: draw() for i in rules.pixel})

        def encode(frames: Float[Tensor, "f 3 h w"]) -> Tensor:
            mean = backbone.encode(frames)
            if self.variant == "paper":
                return mean
            return mean + drawing(rng, mean)() * backbone.spread(frames).to(mean)

        if rules.from_clip:
            held.clean = encode(held.subject.clip.frames)
        spatial = [name for name, site in backbone.sites.items() if site.role == "self"]
        layers = chosen("layers", spatial, self.layers, [DECODER])
        passes, done = (2 * keys - 1) * (self.steps - rules.begin), iter(range(1, 10**9))
        progress("sampling", 0, passes)
        return KeyFrames(
            held,
            streams,
            guidance,
            rules,
            layers,
            noises,
            far,
            encode,
            lambda: progress("sampling", next(done), passes),
        )

    def clip_of(self, held: Held, made: Mapping[int, Left], far: Far | None) -> Float[Tensor, "f 3 h w"]:
        """All frames: key frames, and those between each two of them."""
        own = held.subject.clip.frames
        pictures = {frame: left.picture[0] for frame, left in made.items()}
        for left, right in pairwise(made):
            for frame in range(left + 1, right):
                assert far is not None
                before, after = ((pictures[key], far.way(frame, key)) for key in (left, right))
                pictures[frame] = between(before, after, (right - frame) / (right - left))
        frames = torch.stack([pictures[frame] for frame in range(len(own))])
        changing = held.free() if len(made) < len(own) else None
        if changing is None:
            return frames
        between_keys = torch.ones(len(own), 1, 1, 1, dtype=torch.bool)
        between_keys[list(made)] = False
        back = between_keys & ~changing[:, None].cpu()
        return torch.where(back.to(frames.device), own.to(frames), frames)
