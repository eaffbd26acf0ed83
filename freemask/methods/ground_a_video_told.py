"""What the network of Ground-A-Video is told: where things are, what is said of each, and where it paints into a
picture, the picture around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.masks.nouns import described
from freemask.masks.ops import resize
from freemask.masks.plan import MaskPlan, Subject
from freemask.methods.ground_a_video_field import box_of, inside
from freemask.types import Backbone, Given

Hold = Literal["boxes", "masks", "nothing"]
BOXES = "boxes"  # what networks with gated layers take


@dataclass(frozen=True)
class Things:
    """The edits of a clip: a region of each, and its words, those of the source by those of the target."""

    regions: Sequence[Bool[Tensor, "f h w"]]
    words: Sequence[Mapping[str, str]]
    facts: Mapping[str, str | float | int | bool | None]
    passes: int
    whole: bool = True  # cells in which a box ends are in it

    @property
    def boxes(self) -> Float[Tensor, "f n 5"]:
        return torch.stack([box_of(each) for each in self.regions], dim=1)

    def free(self, hold: Hold, size: Sequence[int]) -> Float[Tensor, "f 1 h w"]:
        """Where latents may change."""
        height, width = size
        if hold == "boxes":
            return inside(self.boxes, height, width, whole=self.whole)[:, None]
        if hold == "nothing":
            return torch.ones(len(self.regions[0]), 1, height, width)
        return resize(torch.stack(list(self.regions)).any(0).float(), height, width)[:, None]

    def plan(self, hold: Hold) -> MaskPlan:
        return MaskPlan(lambda wanted: self.free(hold, (wanted.grid.height, wanted.grid.width))[:, 0])

    def given(self, backbone: Backbone, subject: Subject, *, source: bool) -> dict[str, Tensor]:
        """For gated layers: a box for each phrase, and how it is read."""
        frames, found = len(subject.clip.frames), []
        prompt = subject.task.source if source else subject.task.target
        for region, words in zip(self.regions, self.words, strict=True):
            said = [phrase for phrase in (words.keys() if source else words.values()) if phrase.strip()]
            for phrase in dict.fromkeys(each for one in said for each in described(prompt, one) or [one]):
                text = backbone.embed(phrase)
                found.append((box_of(region), text.tokens[text.length - 1].expand(frames, -1)))
        if not found:
            width = backbone.embed("").tokens.shape[1]
            return {"boxes": torch.zeros(frames, 0, 5), "phrases": torch.zeros(frames, 0, width)}
        boxes, phrases = (torch.stack(each, dim=1) for each in zip(*found, strict=True))
        return {"boxes": boxes, "phrases": phrases}


@dataclass(frozen=True)
class Told:
    """What the network is given of the clip and of its edit. `free` is 1 where latents may change."""

    backbone: Backbone
    subject: Subject
    things: Things
    clean: Float[Tensor, "f c h w"]
    free: Float[Tensor, "f 1 h w"] | None

    def of_clip(self, prompt: str) -> Given:
        """The clip's own stream, in which ControlNets are silent."""
        given = self.subject.given["source"].plus(**self.backbone.embed(prompt).given.parts)
        return self._with_boxes(given.plus(control_strength=torch.tensor(0.0)), source=True)

    def of_edit(self, suffix: str) -> Given:
        prompt = self.subject.task.target + suffix
        given = self.subject.given["cond"].plus(**self.backbone.embed(prompt).given.parts)
        return self._with_boxes(given, source=False)

    def _with_boxes(self, given: Given, *, source: bool) -> Given:
        """And, of a network that paints into a picture, what stands outside them, and where that is."""
        if "channels" in self.backbone.takes and "channels" not in given.parts:
            free = torch.ones_like(self.clean[:, :1]) if self.free is None else self.free
            given = given.plus(channels=torch.cat([self.clean * (1 - free), 1 - free], dim=1))
        if BOXES not in self.backbone.takes:
            return given
        return given.plus(**self.things.given(self.backbone, self.subject, source=source))
