"""How content deformation fields are fitted to a clip, or to a part of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.errors import UserError
from freemask.fields import losses
from freemask.fields.canonical import Canonical
from freemask.fields.fit import name_of
from freemask.fields.footage import Footage, rng_of
from freemask.fields.networks import Weights, annealed
from freemask.fields.recipe import BACK, Recipe, check_frame, frame_of


@dataclass(frozen=True, kw_only=True)
class CanonicalRecipe(Recipe):
    """A step looks at one frame, or at a window of it of no more than `points` pixels. The rates of the picture and of
    the deformation are halved at a quarter, a half and three quarters of the iterations. `edges` and `flow` weigh the
    losses of edges, and of a deformation that is not the flow's; `around` that of what is outside a part's mask.
    `anneal`: between these shares of the iterations the deformation is given its frequencies one after the other;
    None: all from the start. `reference`: the frame that the canonical picture is to be like, and that is not to be
    deformed, for the first `reference_share` of the iterations; None: none (as released).

    The smaller recipe hurries with the picture alone. At four times the released rate, all ReLUs of one of the
    deformation's layers died on some clips in the first steps, in which frames are all alike to it: nothing ever moved.
    """

    released: ClassVar[Mapping[str, Any]] = {
        "iterations": 10_000,
        "points": 65_536,
        "rate": 1e-3,
        "deformation_rate": 1e-3,
        "depths": (6, 8),
        "widths": (128, 256),
        "bands": 8,
    }
    smaller: ClassVar[Mapping[str, Any]] = {
        "iterations": 2000,
        "points": 1024,
        "rate": 4e-3,
        "deformation_rate": 1e-3,
        "depths": (4, 4),
        "widths": (64, 96),
        "bands": 8,
    }
    least: ClassVar[Mapping[str, float]] = {
        "depths": 1,
        "widths": 1,
        "bands": 1,
        "edges": 0,
        "flow": 0,
        "around": 0,
    }

    deformation_rate: float | int | None = None
    depths: Sequence[int] | None = None
    widths: Sequence[int] | None = None
    bands: int | None = None
    edges: float | int = 0.1
    flow: float | int = 1.0
    around: float | int = 0.01
    anneal: Sequence[float | int] | None = (0.1, 0.5)
    reference: str | int | None = "middle"
    reference_share: float | int = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_frame("method.fit.reference", self.reference)
        if self.deformation_rate is not None and not self.deformation_rate > 0:
            came = self.deformation_rate
            raise UserError("method.fit.deformation_rate is too small", came=came, expected="above 0")
        if self.anneal is not None and not (
            len(self.anneal) == 2 and 0 <= self.anneal[0] < self.anneal[1] <= 1
        ):
            expected = "two shares, the first below the second, such as [0.4, 0.8]; null: none"
            raise UserError("method.fit.anneal is no stretch of the fit", came=self.anneal, expected=expected)
        if not 0 <= self.reference_share <= 1:
            raise UserError(
                "method.fit.reference_share is a share", came=self.reference_share, expected="0 to 1"
            )

    def fields(self, size: tuple[int, int, int]) -> Canonical:
        """For a clip of so many frames, rows and columns."""
        said: Any = self.for_clip(*size[1:])
        return Canonical(size, tuple(said.depths), tuple(said.widths), bands=said.bands)

    def multiplications(self, frames: int, height: int, width: int) -> int:
        said: Any = self.for_clip(height, width)
        each = [
            network.multiplications() for network in self.fields((frames, height, width)).networks.values()
        ]
        return BACK * said.iterations * min(said.points, height * width) * 2 * sum(each)


class Window(NamedTuple):
    """A frame, and the rows and columns of it that a step looks at."""

    frame: int
    rows: slice
    columns: slice


@dataclass(frozen=True)
class CanonicalWork:
    """`recipe` has every number said. `pairs`: how many of the last frames have no flow; the last one never has."""

    recipe: Any
    footage: Footage
    pairs: int = 1

    @property
    def fields(self) -> Canonical:
        return self.recipe.fields(self.footage.size)

    @property
    def steps(self) -> int:
        return self.recipe.iterations

    @property
    def restarts(self) -> tuple[int, ...]:
        return ()

    @property
    def name(self) -> str:
        settings = {**self.recipe.counted(), "pairs": self.pairs}
        return name_of("canonical", self.footage.digest, settings)

    def rate(self, step: int) -> float:
        return self.recipe.rate / 2 ** min(3, 4 * step // self.steps)

    def share(self, name: str) -> float:
        """Of the picture, and of the deformation with what it knows of each frame."""
        return 1.0 if name.startswith("picture.") else self.recipe.deformation_rate / self.recipe.rate

    def begin(self) -> dict[str, Tensor]:
        return self.fields.fresh(rng_of(self.recipe.seed, -1))

    def shares(self, step: int) -> list[float] | None:
        """Of the deformation's frequencies."""
        if self.recipe.anneal is None:
            return None
        begin, end = (round(each * self.steps) for each in self.recipe.anneal)
        return annealed(self.recipe.bands, step, begin, end - begin)

    def window(self, step: int) -> Window:
        """Of the shape of a frame."""
        count, height, width = self.footage.size
        factor = min(1.0, math.sqrt(self.recipe.points / (height * width)))
        high, wide = max(1, int(height * factor)), max(1, int(width * factor))
        rng = rng_of(self.recipe.seed, step)
        frame, top, left = (
            int(torch.randint(most, (), generator=rng))
            for most in (count, height - high + 1, width - wide + 1)
        )
        return Window(frame, slice(top, top + high), slice(left, left + wide))

    def loss(self, weights: Weights, step: int) -> Float[Tensor, ""]:
        return torch.stack(list(self.parts(weights, self.window(step), step).values())).sum()

    def parts(self, weights: Weights, window: Window, step: int) -> dict[str, Float[Tensor, ""]]:
        """The weighted losses of a step by name."""
        fields, footage, shares = self.fields, self.footage, self.shares(step)
        frame, rows, columns = window
        count, height, width = footage.size
        true = footage.frames[frame, :, rows, columns]
        inside = torch.ones_like(true[0], dtype=torch.bool)
        if footage.marked is not None:
            inside = footage.marked[frame, rows, columns] > 0.5
        places = fields.grid(device=true.device).reshape(height, width, 3)[rows, columns].reshape(-1, 3)
        at = fields.coordinates(places)
        moved = fields.deformed(weights, at, self._all(at, frame), shares)
        made = fields.colours(weights, moved).T.reshape(true.shape)
        apart = (made - true).square()
        found = {"colour": apart[:, inside].mean() if bool(inside.any()) else apart.sum() * 0}
        found["edges"] = self.recipe.edges * losses.edges(made, true, inside)
        if footage.marked is not None and not bool(inside.all()):
            found["around"] = self.recipe.around * apart[:, ~inside].mean()
        trusted = (inside & footage.trusted[frame, rows, columns]).flatten()
        if frame < count - self.pairs and bool(trusted.any()):
            onward = footage.flow[frame, :, rows, columns].reshape(2, -1).T[trusted]
            ahead = at[trusted] + onward / onward.new_tensor([width, height])
            there = fields.deformed(weights, ahead, self._all(ahead, frame + 1), shares)
            found["flow"] = self.recipe.flow * (there - moved[trusted]).abs().mean()
        if self.recipe.reference is not None and step < self.recipe.reference_share * self.steps:
            still = fields.colours(weights, at).T.reshape(true.shape)
            first = frame_of("method.fit.reference", self.recipe.reference, count)
            found["reference"] = (still - footage.frames[first, :, rows, columns]).square().mean()
            if frame == first:
                found["still"] = self.recipe.flow * (moved - at).abs().mean()
        return found

    @staticmethod
    def _all(at: Tensor, frame: int) -> Tensor:
        return torch.full((len(at),), frame, device=at.device)
