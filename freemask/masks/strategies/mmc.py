"""FreeMask's own choice: the layer and the time that matched annotated objects best when the model was calibrated."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from freemask.attention.record import Recording
from freemask.errors import UserError
from freemask.masks.codebook import Codebook, source_of
from freemask.masks.heat import Choice, Facts, text_layers
from freemask.masks.ops import Binarise
from freemask.masks.plan import Keeps, MaskPlan, Subject
from freemask.masks.words import check_phrase, source_columns
from freemask.settings import Effect
from freemask.types import Time

TIME_BY = ("tmmc", "layer")
BACKGROUND = (
    "the codebook was calibrated on objects and may not find a background: compare with mask=agreement"
)


@dataclass(frozen=True)
class Mmc:
    """`codebook` is a file, or auto: the one of this model in `folders`, or among those that ship.

    use_layer (LMMC): the best layer l*; otherwise the mean over all text layers. use_time (TMMC): where the object
    stays, the best time t*, and else the time that is asked for; otherwise the mean over all times, for both.

    Eqs. 5-6 average over all layers, so that a model's bad layers have the say about t*. `time_by: layer` takes the
    time at which the best layer itself matched best.
    """

    codebook: Annotated[str, Effect.CODEBOOK] = "auto"
    folders: Annotated[Sequence[str], Effect.PLACE] = ()
    use_layer: bool = True
    use_time: bool = True
    time_by: str = "tmmc"
    phrase: str = "described"
    binarise: Binarise = field(default_factory=Binarise)

    def __post_init__(self) -> None:
        check_phrase(self.phrase)
        if self.time_by not in TIME_BY:
            raise UserError(
                f"time_by cannot be '{self.time_by}'", came=self.time_by, expected=" or ".join(TIME_BY)
            )

    def keeps(self, subject: Subject) -> Keeps:
        return Keeps((self._choice(subject).keep(source_columns(subject, self.phrase)),))

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        if subject.task.kind == "background" and (self.use_layer or self.use_time):
            warnings.warn(BACKGROUND, stacklevel=2)
        return self._choice(subject).plan(source, self.binarise, self.told(subject))

    def told(self, subject: Subject) -> Facts:
        """Everything about these masks is known before the inversion."""
        known = self._choice(subject).facts()
        if not (self.use_layer or self.use_time):
            return known
        path, book = self._place(subject)
        return {**known, "codebook": source_of(path, book)}

    def _choice(self, subject: Subject) -> Choice:
        layers, times = text_layers(subject.sites), tuple(subject.times)
        if not (self.use_layer or self.use_time):
            return Choice(layers, times)
        book = self._place(subject)[1]
        if self.use_time:  # eq. 8: M_{t*}^{l*} for delta = 1, M_t^{l*} for delta = 0
            times = (self._time(book, subject.times),) if subject.keeps_object else None
        return Choice((book.best_site,) if self.use_layer else layers, times)

    def _time(self, book: Codebook, times: Sequence[Time]) -> Time:
        if self.time_by == "tmmc":
            return book.nearest_time(times)
        best = book.best_time_of(book.best_site)
        return min(times, key=lambda t: (abs(t - best), t))

    def _place(self, subject: Subject) -> tuple[Path, Codebook]:
        if self.codebook == "auto":
            return Codebook.place(subject.origin, self.folders)
        book = Codebook.read(self.codebook)
        if book.backbone != subject.origin:
            raise UserError(
                "this codebook was made for another model",
                came=f"{self.codebook}: {book.model}, identity {book.backbone}",
                expected=f"identity {subject.origin}",
                todo="calibrate this model: freemask calibrate model=...",
            )
        return Path(self.codebook).expanduser(), book
