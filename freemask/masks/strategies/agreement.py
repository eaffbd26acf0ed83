"""Masks without ground truth or calibration: what the maps of all layers and times agree on.

Most maps are vague: every cell looks a little at the word. The few that find the object are decided: a cell looks at
the word or does not. So the mean of all maps is taken, each weighed by how decided it is. Measured in
reports/agreement.md.
"""

from dataclasses import dataclass, field
from functools import partial

from freemask.attention.record import Recording
from freemask.masks.agreement import agreed
from freemask.masks.around import placed, words
from freemask.masks.heat import NAME, Choice, plan_of, text_layers
from freemask.masks.ops import OTSU, Binarise
from freemask.masks.plan import Keeps, MaskPlan, Subject
from freemask.masks.words import check_heat, check_phrase


@dataclass(frozen=True)
class Agreement:
    """A mean of many maps has no threshold that is known beforehand: each clip's values give their own."""

    phrase: str = "described"
    heat: str = "word"
    binarise: Binarise = field(default_factory=partial(Binarise, threshold=OTSU))

    def __post_init__(self) -> None:
        check_phrase(self.phrase)
        check_heat(self.heat)

    def keeps(self, subject: Subject) -> Keeps:
        return Keeps((Choice(text_layers(subject.sites)).keep(words(subject, self.phrase, self.heat)),))

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        layers, times, kept = text_layers(subject.sites), tuple(subject.times), source.all(NAME)
        heat = agreed([kept[layer, t] for layer in layers for t in times])
        return placed(subject, plan_of(lambda t: heat, self.binarise, Choice(layers, times).facts()))
