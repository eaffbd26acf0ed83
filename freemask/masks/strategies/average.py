"""The mean over several layers at the time that is asked for: FateZero's way, without any choice of a layer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from freemask.attention.record import Recording, heat_of_words
from freemask.errors import UserError
from freemask.masks.around import columns, facts_of, placed
from freemask.masks.heat import NAME, joined, mean_heat, of_cells, plan_of, running, text_layers
from freemask.masks.ops import Binarise
from freemask.masks.plan import Keeps, MaskPlan, Subject
from freemask.masks.words import check_phrase, target_columns


@dataclass(frozen=True)
class Average:
    """`strides` names the layers. Without it, they are those whose grid's short side is nearest to `cells`, for
    FateZero averages maps of 16 x 16; without both, all layers.

    `union`: masks for blending latents are joined with those of the target's words in the edit so far.
    """

    strides: Sequence[int] | None = None
    cells: int | None = 16
    union: bool = False
    phrase: str = "described"
    binarise: Binarise = field(default_factory=Binarise)

    def __post_init__(self) -> None:
        check_phrase(self.phrase)
        if self.cells is not None and self.cells < 1:
            raise UserError("'cells' is a number of cells", came=f"cells={self.cells}", expected="1 or more")

    def keeps(self, subject: Subject) -> Keeps:
        sites = text_layers(subject.sites, self.strides)
        source = heat_of_words(NAME, columns(subject, self.phrase), sites=sites)
        target = target_columns(subject, self.phrase) if self._joins(subject) else ()
        return Keeps((source,), (heat_of_words(NAME, target, sites=sites),) if target else ())

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        kept = source.all(NAME)
        sites = self._sites(subject, source)
        grid = "x".join(str(side) for side in kept[sites[0], subject.times[0]].shape[1:])
        facts = {"mask_layer": f"mean of {len(sites)}", "mask_time": "each", "mask_grid": grid}
        alone = plan_of(lambda t: mean_heat([kept[site, t] for site in sites]), self.binarise, facts)
        if not self._joins(subject):
            return placed(subject, alone)
        edited = plan_of(lambda t: running(target, sites, t), self.binarise, facts)
        return joined(alone, edited, facts)

    def _joins(self, subject: Subject) -> bool:
        """Masks that go around the things before a background need no word of the target."""
        return self.union and not facts_of(subject)

    def _sites(self, subject: Subject, source: Recording) -> tuple[str, ...]:
        sites = text_layers(subject.sites, self.strides)
        if self.strides is not None or self.cells is None:
            return sites
        return of_cells(source.all(NAME), sites, self.cells)
