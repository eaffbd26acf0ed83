"""The best layer and time for this very clip by its annotation: what any choice of them can reach at most."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.record import Recording
from freemask.masks.around import facts_of, placed, words
from freemask.masks.heat import NAME, Choice, text_layers
from freemask.masks.ops import Binarise, iou
from freemask.masks.plan import Keeps, MaskPlan, Subject
from freemask.masks.words import annotated, check_heat, check_phrase
from freemask.types import Clip, EditTask, Time


@dataclass(frozen=True)
class Oracle:
    """`time_aware`: the layer that is best over all times, with the mask of each time; otherwise one pair."""

    time_aware: bool = False
    phrase: str = "described"
    heat: str = "word"
    binarise: Binarise = field(default_factory=Binarise)

    def __post_init__(self) -> None:
        check_phrase(self.phrase)
        check_heat(self.heat)

    def check(self, task: EditTask, clip: Clip) -> None:
        annotated(task, clip)

    def keeps(self, subject: Subject) -> Keeps:
        keep = Choice(text_layers(subject.sites)).keep(words(subject, self.phrase, self.heat))
        self.check(subject.task, subject.clip)  # before the inversion is made in vain
        return Keeps((keep,))

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        layers, times = text_layers(subject.sites), tuple(subject.times)
        table = self._table(subject, source)
        if self.time_aware:
            means = table.mean(dim=1)
            best = int(means.argmax())
            facts = {"oracle_iou": float(means[best])}
            return placed(subject, Choice((layers[best],)).plan(source, self.binarise, facts))
        best, at = divmod(int(table.argmax()), len(times))
        facts = {"oracle_iou": float(table[best, at])}
        return placed(subject, Choice((layers[best],), (times[at],)).plan(source, self.binarise, facts))

    def _table(self, subject: Subject, source: Recording) -> Float[Tensor, "layers times"]:
        """IoU at the frames' size."""
        truth, kept = annotated(subject.task, subject.clip), source.all(NAME)
        frames, height, width = truth.shape

        def found(layer: str, t: Time) -> float:
            mask = subject.clock.lift(self.binarise.mask(kept[layer, t].cpu(), height, width), frames)
            return iou(1 - mask if facts_of(subject) else mask, truth)

        layers = text_layers(subject.sites)
        return torch.tensor([[found(layer, t) for t in subject.times] for layer in layers])
