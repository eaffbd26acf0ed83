"""FreeMask's own choice: the layer and the time that matched annotated objects best when the model was calibrated."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from freemask.attention.record import Recording
from freemask.errors import UserError
from freemask.masks.around import facts_of, placed, words
from freemask.masks.bookshelf import AUTO, Found, find, given
from freemask.masks.codebook import Codebook
from freemask.masks.heat import Choice, Facts, text_layers
from freemask.masks.ops import Binarise
from freemask.masks.plan import Keeps, MaskPlan, Subject
from freemask.masks.words import check_phrase
from freemask.settings import Effect
from freemask.types import Time

TIME_BY = ("tmmc", "layer")
BACKGROUND = (
    "the codebook was calibrated on objects, and the source prompt names nothing but the background: these masks may"
    " not find it; compare with mask=agreement"
)


@dataclass(frozen=True)
class Mmc:
    """`codebook` is a file, or auto: the one of this model in `folders`, or among those that ship. Masks are made of
    the heat that it was measured with.

    use_layer (LMMC): the best layer l*; otherwise the mean over all text layers. use_time (TMMC): where the object
    stays, the best time t*, and else the time that is asked for; otherwise the mean over all times, for both.

    Eqs. 5-6 average over all layers, so that a model's bad layers have the say about t*. `time_by: layer` takes the
    time at which the best layer itself matched best.
    """

    codebook: Annotated[str, Effect.CODEBOOK] = AUTO
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
        choice, found = self._choice(subject)
        heat = "word" if found is None else found.book.heat
        return Keeps((choice.keep(words(subject, self.phrase, heat)),))

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        choice, found = self._choice(subject)
        if found is not None and subject.task.kind == "background" and not facts_of(subject):
            warnings.warn(BACKGROUND, stacklevel=2)
        return placed(subject, choice.plan(source, self.binarise, self._facts(found, subject)))

    def told(self, subject: Subject) -> Facts:
        """Everything about these masks is known before the inversion."""
        choice, found = self._choice(subject)
        return {**choice.facts(), **self._facts(found, subject), **facts_of(subject)}

    def _choice(self, subject: Subject) -> tuple[Choice, Found | None]:
        """And the codebook that it was looked up in."""
        layers, times = text_layers(subject.sites), tuple(subject.times)
        if not (self.use_layer or self.use_time):
            return Choice(layers, times), None
        found = self._found(subject)
        if self.use_time:  # eq. 8: M_{t*}^{l*} for delta = 1, M_t^{l*} for delta = 0
            times = (self._time(found.book, subject.times),) if subject.keeps_object else None
        return Choice((found.book.best_site,) if self.use_layer else layers, times), found

    def _time(self, book: Codebook, times: Sequence[Time]) -> Time:
        if self.time_by == "tmmc":
            return book.nearest_time(times)
        best = book.best_time_of(book.best_site)
        return min(times, key=lambda t: (abs(t - best), t))

    def _found(self, subject: Subject) -> Found:
        if self.codebook == AUTO:
            return find(subject.origin, self.folders, base=subject.base)
        return given(self.codebook, subject.origin, subject.base)

    def _facts(self, found: Found | None, subject: Subject) -> Facts:
        """Which codebook it was: shipped, own (and in which folder) or a path, and of how many items; and whether it is
        of the model without its ControlNets."""
        if found is None:
            return {}
        named = found.source if self.codebook == AUTO else self.codebook
        folder = {"codebook_folder": str(found.path.parent)} if named == "own" else {}
        heat = {"mask_heat": found.book.heat} if found.book.heat != "word" else {}
        base = {"codebook_without_control": True} if found.book.backbone != subject.origin else {}
        return {"codebook": named, "codebook_n": found.book.n, **folder, **heat, **base}
