"""A choice of layer and time without ground truth or calibration: the map that the other maps of the clip agree with.

Most layers look elsewhere than the word says, each in its own way; the few that find the object find the same place.
So a candidate scores by its correlation with all others (the more compact and steady ones counting more), times its
own compactness. Measured in reports/agreement.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.record import Recording
from freemask.errors import UserError
from freemask.masks import agreement
from freemask.masks.heat import NAME, Choice, text_layers
from freemask.masks.ops import Binarise
from freemask.masks.plan import Keeps, MaskPlan, Subject
from freemask.masks.words import check_phrase, source_columns


@dataclass(frozen=True)
class Agreement:
    """`area`: the least and the largest share of the clip that an object may cover; a background covers the rest.
    `cells`: maps are compared on the finest layer's grid, brought down to so many cells on its short side.
    `time_aware`: the chosen layer's mask of each time, instead of that of the chosen time.
    """

    area: Sequence[float | int] = (0.005, 0.6)
    cells: int = 16
    time_aware: bool = False
    phrase: str = "described"
    binarise: Binarise = field(default_factory=Binarise)

    def __post_init__(self) -> None:
        check_phrase(self.phrase)
        if len(self.area) != 2 or not 0 <= self.area[0] < self.area[1] <= 1:
            raise UserError(
                "'area' is the least and the largest share", came=self.area, expected="[0.005, 0.6]"
            )
        if self.cells < 2:
            raise UserError("'cells' is a number of cells", came=f"cells={self.cells}", expected="2 or more")

    def keeps(self, subject: Subject) -> Keeps:
        everything = Choice(text_layers(subject.sites))
        return Keeps((everything.keep(source_columns(subject, self.phrase)),))

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        layers, times = text_layers(subject.sites), tuple(subject.times)
        scores = self.scores(subject, source)
        if self.time_aware:
            means = scores.mean(dim=1)
            best = int(means.argmax())
            facts = {"mask_score": round(float(means[best]), 4)}
            return Choice((layers[best],)).plan(source, self.binarise, facts)
        best, at = divmod(int(scores.argmax()), len(times))
        facts = {"mask_score": round(float(scores[best, at]), 4)}
        return Choice((layers[best],), (times[at],)).plan(source, self.binarise, facts)

    def scores(self, subject: Subject, source: Recording) -> Float[Tensor, "layers times"]:
        """0 everywhere where no map is credible: then the first layer and time stand, empty or not."""
        layers, kept = text_layers(subject.sites), source.all(NAME)
        heats = [kept[layer, t] for layer in layers for t in subject.times]
        found = self.judged(subject, heats, torch.stack([self.area_of(heat) for heat in heats]))
        return found.view(len(layers), len(subject.times)).cpu()

    def judged(
        self,
        subject: Subject,
        heats: Sequence[Tensor],
        areas: Float[Tensor, " k"],
        *,
        judges: int | None = None,
    ) -> Float[Tensor, " k"]:
        """The score of each map among the first so many of them (None: all); `areas` are the shares of the clip that
        their masks cover."""
        height, width = self._grid(heats[:judges])
        maps = torch.stack([agreement.candidate(heat, height, width) for heat in heats])
        background = subject.task.kind == "background"
        least, most = (1 - self.area[1], 1 - self.area[0]) if background else self.area
        areas = areas.to(maps)
        return agreement.score(maps, areas, least=least, most=most, whole=background, judges=judges)

    def area_of(self, heat: Float[Tensor, "f h w"]) -> Float[Tensor, ""]:
        return self.binarise.mask(heat, *heat.shape[1:]).mean()

    def _grid(self, heats: Sequence[Tensor]) -> tuple[int, int]:
        height, width = max((heat.shape[1], heat.shape[2]) for heat in heats)
        scale = min(1.0, self.cells / min(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))
