"""CLIP: does every edited frame show what the target prompt says?"""

from collections.abc import Iterator
from dataclasses import dataclass

from evaluation.backbones import clip
from evaluation.backbones.judge import Judge
from evaluation.case import Case
from evaluation.metric import Column
from evaluation.ops import cosine


@dataclass(frozen=True)
class ClipText(Judge):
    """100 times the mean cosine of each frame's CLIP feature and the target prompt's.

    FreeMask's own table prints the cosine without the factor 100. Settings as in `Judge`.
    """

    def told(self, label: str) -> Iterator[Column]:
        about = "mean cosine of frame and target prompt, times 100"
        yield Column(f"clip_text[{label}]", "100 cos", True, about)

    def __call__(self, case: Case) -> dict[str, float]:
        model = clip.load(self.found, self.device)
        if not case.task.target.strip():
            self.note(f"is a distance to no words: there is no target prompt in '{case.task.id}'")
        if model.truncates(case.task.target):
            self.note(f"saw only the beginning of the target prompt of '{case.task.id}', which is too long")
        images = clip.edited(case, self.found, self.device)
        text = clip.prompt(case, case.task.target, self.found, self.device).expand_as(images)
        return {self.columns[0].name: 100 * float(cosine(images, text).mean())}
