"""LPIPS: how far has the edit moved away from the source, judged by features?"""

from dataclasses import dataclass, field
from typing import Annotated

from evaluation.backbones import perceptual
from evaluation.backbones.weights import Found
from evaluation.case import Case
from evaluation.metric import Column
from freemask.settings import Effect


@dataclass(frozen=True)
class Lpips:
    """LPIPS (version 0.1) between source and edited frames, mean over frames, unmasked, at the clip's size.

    `backbone`: alex, vgg (with torchvision's weights), or a stand-in with no trained heads whose numbers
    mean nothing beside the real ones: random-alex (fixed random weights), embedded (features of the
    embedded CLIP). auto: alex if its weights are here, else random-alex.
    """

    backbone: str = "auto"
    weights: Annotated[str | None, Effect.FILES] = None
    device: Annotated[str, Effect.NONE] = "auto"

    found: Found = field(init=False, repr=False)
    columns: tuple[Column, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = perceptual.resolve(self.backbone, self.weights)
        real = found.name in ("alex", "vgg")
        stand_in = "" if real else " (a stand-in: not comparable with published values)"
        about = f"perceptual distance of source and edited frames{stand_in}"
        object.__setattr__(self, "found", found)
        object.__setattr__(self, "columns", (Column(f"lpips[{found.label}]", "", False, about),))

    def __call__(self, case: Case) -> dict[str, float]:
        distance = perceptual.load(self.found, self.device)
        return {self.columns[0].name: float(distance(case.source, case.edited).mean())}
