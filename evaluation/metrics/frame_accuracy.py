"""Frame-Acc: is an edited frame nearer to the target prompt than to the source prompt? FateZero's second number."""

import warnings
from dataclasses import dataclass, field
from typing import Annotated

import torch

from evaluation.backbones import clip
from evaluation.backbones.weights import Found
from evaluation.case import Case
from evaluation.metric import Column, MetricWarning
from evaluation.ops import cosine
from freemask.settings import Effect


@dataclass(frozen=True)
class FrameAccuracy:
    """Share of frames whose CLIP feature has at least the cosine with the target prompt that it has with the source's.

    That is FateZero's two-way softmax of 100 cosines, in which ties count for the target. Their script crops pictures
    taller than wide to the bottom square, to lose a caption strip; frames here carry none and are never cropped so.
    Prompts that CLIP cannot tell apart (the same, or one is missing) would score 1: they give no value, and a note.
    Settings as in `ClipText`.
    """

    backbone: str = "auto"
    weights: Annotated[str | None, Effect.FILES] = None
    device: Annotated[str, Effect.NONE] = "auto"

    found: Found = field(init=False, repr=False)
    columns: tuple[Column, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = clip.resolve(self.backbone, self.weights)
        about = "share of edited frames nearer to the target than to the source prompt"
        needs = "two prompts that CLIP can tell apart"
        object.__setattr__(self, "found", found)
        object.__setattr__(
            self, "columns", (Column(f"frame_accuracy[{found.label}]", "", True, about, needs),)
        )

    def __call__(self, case: Case) -> dict[str, float]:
        model, task = clip.load(self.found, self.device), case.task
        prompts = {"source": task.source, "target": task.target}
        if empty := [side for side, prompt in prompts.items() if not prompt.strip()]:
            return self._nothing(f"there is no {empty[0]} prompt in '{task.id}'")
        for side, prompt in prompts.items():
            if model.truncates(prompt):
                self._note(f"saw only the beginning of the {side} prompt of '{task.id}', which is too long")
        source, target = (clip.prompt(case, each, self.found, self.device) for each in prompts.values())
        if torch.equal(source, target):
            return self._nothing(f"source and target prompt of '{task.id}' are the same to CLIP")
        images = clip.edited(case, self.found, self.device)
        nearer = cosine(images, target.expand_as(images)) >= cosine(images, source.expand_as(images))
        return {self.columns[0].name: float(nearer.double().mean())}

    def _nothing(self, reason: str) -> dict[str, float]:
        self._note(f"is left out: {reason}")
        return {}

    def _note(self, what: str) -> None:
        warnings.warn(f"{self.columns[0].name} {what}", MetricWarning, stacklevel=3)
