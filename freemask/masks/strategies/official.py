"""The authors' code: fixed layers, its own choice of times for each use, and the edit's own words for latents."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from freemask.alignment import official_columns
from freemask.attention.record import Keep, Recording, heat_of_words
from freemask.errors import UserError
from freemask.masks.heat import joined, mean_heat, of_cells, plan_of, running, text_layers
from freemask.masks.ops import Binarise
from freemask.masks.plan import Keeps, MaskPlan, Subject, Wanted
from freemask.masks.words import located
from freemask.types import Text, Time
from freemask.words import columns_of

HEAT, FIXED = "heat", "heat at the fixed time"


@dataclass(frozen=True)
class Official:
    """Masks for self, cross and latent: the text layers of `strides`, at the time that is asked for; without strides
    those whose grid's short side is nearest to `cells`, and without both all of them. Masks for temporal attention:
    the text layers of the same grid, at place `temporal_index` of the ascending times.

    Heat of the target's words is summed over the steps so far; with `summed` also that of the source's
    (prompt-to-prompt). `threshold` is for the source's words and, in latents, the target's (the authors' code uses its
    first one for both). `missing` says what words that the prompt lacks mean: an error; or, with words found and
    spelled as in the authors' code, an empty mask. Word lists stand in for the task's words.
    """

    strides: Sequence[int] | None = (4,)
    cells: int | None = None
    temporal_index: int = 10
    threshold: Sequence[float | int] = (0.3, 0.3)
    pool: int = 3
    summed: bool = False
    missing: str = "error"
    source_words: Sequence[str] | None = None
    target_words: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.missing not in ("error", "empty"):
            raise UserError(
                f"missing cannot be '{self.missing}'", came=self.missing, expected="error or empty"
            )
        if len(self.threshold) != 2:
            raise UserError("two thresholds are needed", came=self.threshold, expected="[source, target]")
        if self.cells is not None and self.cells < 1:
            raise UserError("'cells' is a number of cells", came=f"cells={self.cells}", expected="1 or more")
        if self.temporal_index < 0:
            raise UserError("the place of a time counts from 0", came=f"temporal_index={self.temporal_index}")
        for which in (0, 1):
            self._binarise(which)

    def keeps(self, subject: Subject) -> Keeps:
        own, new = self._columns(subject)
        layers = text_layers(subject.sites, self.strides)
        source = [heat_of_words(HEAT, own, sites=layers)] if own else []
        if own and self.temporal_index < len(subject.times):
            source.append(heat_of_words(FIXED, own, times=(subject.times[self.temporal_index],)))
        target: list[Keep] = [heat_of_words(HEAT, new, sites=layers)] if new else []
        return Keeps(source, target)

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        own, new = self._columns(subject)
        kept, fixed = source.all(HEAT), source.all(FIXED)
        layers = text_layers(subject.sites, self.strides)
        if self.strides is None and self.cells is not None and kept:
            layers = of_cells(kept, layers, self.cells)
        facts = {"mask_layer": f"mean of {len(layers)}", "mask_time": "each"}

        def at(t: Time) -> Tensor:
            if self.summed:
                return running(source, layers, t, HEAT)
            return mean_heat([kept[layer, t] for layer in layers])

        spatial = plan_of(at, self._binarise(0), facts) if own else _empty()
        edited = (
            plan_of(lambda t: running(target, layers, t, HEAT), self._binarise(1), facts) if new else _empty()
        )
        blended = joined(spatial, edited, facts)

        def pick(wanted: Wanted) -> MaskPlan:
            if wanted.use != "temporal" or not own:
                return blended
            heats = self._of_grid(wanted, fixed.values(), len(subject.times))
            return plan_of(lambda _: mean_heat(heats), self._binarise(0), facts)

        def mask(wanted: Wanted) -> Tensor:
            return pick(wanted).mask(wanted)

        def soft(wanted: Wanted) -> Tensor:
            values = pick(wanted).soft
            assert values is not None
            return values(wanted)

        return MaskPlan(mask, facts, soft, blended.live)

    def _of_grid(self, wanted: Wanted, heats: Iterable[Tensor], steps: int) -> list[Tensor]:
        if steps <= self.temporal_index:
            raise UserError(
                "the edit has too few steps for the authors' temporal masks",
                came=f"{steps} steps",
                expected=f"at least {self.temporal_index + 1}",
                todo="take more steps, a smaller mask.temporal_index, or fusion.temporal=plain",
            )
        found = [heat for heat in heats if heat.shape[1:] == (wanted.grid.height, wanted.grid.width)]
        if not found:
            raise UserError(
                "no text layer has the grid of a temporal layer",
                came=f"{wanted.grid.height}x{wanted.grid.width}",
                todo="leave that layer out with fusion.skip or fusion.most_positions",
            )
        return found

    def _columns(self, subject: Subject) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the source and of the target prompt."""
        own, new = self.source_words, self.target_words
        if own is None or new is None:
            words = located(subject.task)
            own, new = (list(words) if own is None else own), (list(words.values()) if new is None else new)
        return self._found(subject.source, own), self._found(subject.target, new)

    def _found(self, text: Text, words: Iterable[str]) -> tuple[int, ...]:
        if self.missing == "error":
            return columns_of(text, [word for word in words if word])
        return tuple(sorted({column for word in words for column in official_columns(text, word)}))

    def _binarise(self, which: int) -> Binarise:
        return Binarise("official", pool=self.pool, threshold=self.threshold[which])


def _empty() -> MaskPlan:
    def zeros(wanted: Wanted) -> Tensor:
        return torch.zeros(tuple(wanted.grid))

    return MaskPlan(zeros, soft=zeros)
