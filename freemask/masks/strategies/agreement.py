"""Masks without ground truth or calibration: what the maps of all layers and times agree on.

Most maps are vague: every cell looks a little at the word. The few that find the object are decided: a cell looks at
the word or does not. So the mean of all maps is taken, each weighed by how decided it is. A background's word is looked
at from nowhere in particular; where it lies is what the other things of the prompt leave. Measured in
reports/agreement.md.
"""

from dataclasses import dataclass, field
from functools import partial

from freemask.attention.record import Recording
from freemask.masks.agreement import agreed
from freemask.masks.heat import NAME, Choice, plan_of, text_layers
from freemask.masks.ops import OTSU, Binarise
from freemask.masks.plan import Keeps, MaskPlan, Subject, inverse
from freemask.masks.words import check_phrase, other_columns, other_phrases, source_columns


@dataclass(frozen=True)
class Agreement:
    """A mean of many maps has no threshold that is known beforehand: each clip's values give their own."""

    phrase: str = "described"
    binarise: Binarise = field(default_factory=partial(Binarise, threshold=OTSU))

    def __post_init__(self) -> None:
        check_phrase(self.phrase)

    def keeps(self, subject: Subject) -> Keeps:
        columns = self._around(subject) or source_columns(subject, self.phrase)
        return Keeps((Choice(text_layers(subject.sites)).keep(columns),))

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        layers, times, kept = text_layers(subject.sites), tuple(subject.times), source.all(NAME)
        heat = agreed([kept[layer, t] for layer in layers for t in times])
        found = plan_of(lambda t: heat, self.binarise, Choice(layers, times).facts())
        if not self._around(subject):
            return found
        return inverse(found, {"mask_around": ", ".join(other_phrases(subject))})

    def _around(self, subject: Subject) -> tuple[int, ...]:
        """Columns of what stands before the background that the edit is about; none where that is not known, or the
        edit is about something else."""
        return other_columns(subject, self.phrase) if subject.task.kind == "background" else ()
