"""Frame-Acc: is an edited frame nearer to the target prompt than to the source prompt? FateZero's second number."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from evaluation.backbones import clip
from evaluation.backbones.judge import Judge
from evaluation.case import Case
from evaluation.metric import Column
from evaluation.ops import cosine


@dataclass(frozen=True)
class FrameAccuracy(Judge):
    """Share of frames whose CLIP feature has at least the cosine with the target prompt that it has with the source's.

    That is FateZero's two-way softmax of 100 cosines, in which ties count for the target. Their script crops pictures
    taller than wide to the bottom square, to lose a caption strip; frames here carry none and are never cropped so.
    Prompts that CLIP cannot tell apart (the same, or one is missing) would score 1: they give no value, and a note.
    Settings as in `Judge`.
    """

    def told(self, label: str) -> Iterator[Column]:
        about = "share of edited frames nearer to the target than to the source prompt"
        needs = "two prompts that CLIP can tell apart"
        yield Column(f"frame_accuracy[{label}]", "", True, about, needs)

    def __call__(self, case: Case) -> dict[str, float]:
        model, task = clip.load(self.found, self.device), case.task
        prompts = {"source": task.source, "target": task.target}
        if empty := [side for side, prompt in prompts.items() if not prompt.strip()]:
            return self._nothing(f"there is no {empty[0]} prompt in '{task.id}'")
        for side, prompt in prompts.items():
            if model.truncates(prompt):
                self.note(f"saw only the beginning of the {side} prompt of '{task.id}', which is too long")
        source, target = (clip.prompt(case, each, self.found, self.device) for each in prompts.values())
        if torch.equal(source, target):
            return self._nothing(f"source and target prompt of '{task.id}' are the same to CLIP")
        images = clip.edited(case, self.found, self.device)
        nearer = cosine(images, target.expand_as(images)) >= cosine(images, source.expand_as(images))
        return {self.columns[0].name: float(nearer.double().mean())}

    def _nothing(self, reason: str) -> dict[str, float]:
        self.note(f"is left out: {reason}")
        return {}
