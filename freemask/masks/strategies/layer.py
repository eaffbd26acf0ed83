"""Layers and a time that the user names: a fixed choice, for ablations and for looking around."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from freemask.attention.record import Recording, parted
from freemask.errors import UserError
from freemask.masks.around import facts_of, placed, words
from freemask.masks.heat import Choice, Facts, find_layer, short, text_layers
from freemask.masks.ops import Binarise
from freemask.masks.plan import Keeps, MaskPlan, Subject
from freemask.masks.words import check_heat, check_phrase

EVERY = (
    "no layer and no time was named: masks are the mean over all text layers; mask.layer= names one of: {}"
)


@dataclass(frozen=True)
class Layer:
    """`layer` is a module path or the beginning of one, or a list of such, over which heat is a mean; None is the mean
    over all text layers.

    `time` is a network time (the nearest of the edit's is taken), `share` a place on the edit's path, 0 the least
    noise and 1 the most; neither of them: the time that is asked for.
    """

    layer: str | Sequence[str] | None = None
    time: int | None = None
    share: float | int | None = None
    phrase: str = "described"
    heat: str = "word"
    binarise: Binarise = field(default_factory=Binarise)

    def __post_init__(self) -> None:
        check_phrase(self.phrase)
        check_heat(self.heat)
        if not isinstance(self.layer, str | None) and not self.layer:
            raise UserError("no layer is named", came="layer=[]", expected="one or more, or null for all")
        if self.time is not None and self.share is not None:
            raise UserError(
                "a time is named twice", came=f"time={self.time}, share={self.share}", expected="one"
            )
        if self.share is not None and not 0 <= self.share <= 1:
            raise UserError("'share' is a place on the path", came=f"share={self.share}", expected="0 to 1")

    def keeps(self, subject: Subject) -> Keeps:
        return Keeps((self._choice(subject).keep(words(subject, self.phrase, self.heat)),))

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        if self.layer is self.time is self.share is None:
            warnings.warn(EVERY.format(", ".join(map(short, text_layers(subject.sites)))), stacklevel=2)
        return placed(subject, self._choice(subject).plan(source, self.binarise))

    def _choice(self, subject: Subject) -> Choice:
        named = [self.layer] if isinstance(self.layer, str) else self.layer
        layers = text_layers(subject.sites)
        if named is not None:
            wanted = {find_layer(subject.sites, each) for each in named}
            layers = tuple(sorted(wanted, key=lambda each: layers.index(parted(each)[0])))
        times = subject.times
        if self.time is not None:
            wanted = self.time
            return Choice(layers, (min(times, key=lambda t: (abs(t - wanted), t)),))
        if self.share is not None:
            return Choice(layers, (times[round(self.share * (len(times) - 1))],))
        return Choice(layers)

    def told(self, subject: Subject) -> Facts:
        """Everything about these masks is known before the inversion."""
        return {**self._choice(subject).facts(), **facts_of(subject)}
