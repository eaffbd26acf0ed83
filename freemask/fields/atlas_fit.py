"""How layered atlases are fitted to a clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from freemask.fields import losses
from freemask.fields.atlases import LAYERS, WIDE, Atlases
from freemask.fields.fit import name_of
from freemask.fields.footage import Footage, rng_of
from freemask.fields.networks import Weights, named
from freemask.fields.recipe import BACK, Recipe

RIGID, FAR = 1.0, {"foreground": 5.0, "background": 50.0}
COLOUR, CHANGES, HIDDEN, MARKED, FLOW, FLOW_OPACITY = 5000.0, 1000.0, 1000.0, 2000.0, 5.0, 49.0


@dataclass(frozen=True, kw_only=True)
class AtlasRecipe(Recipe):
    """`points` are drawn at each of the `iterations`; `pretrain`: so many passes over the frames, in which both
    mappings learn to leave everything where it is. Until `marked_until` opacity is pulled to the rough mask; until
    `far_until` both mappings are held rigid over `far` pixels as well. `depths`: layers of both mappings, of opacity
    and of the pictures; `bands`: frequencies by which opacity and the pictures see their coordinates."""

    released: ClassVar[Mapping[str, Any]] = {
        "iterations": 400_000,
        "points": 10_000,
        "rate": 1e-4,
        "pretrain": 100,
        "marked_until": 10_000,
        "far": 100,
        "far_until": 5000,
        "width": 256,
        "depths": (6, 4, 8, 8),
        "bands": (5, 10),
    }
    smaller: ClassVar[Mapping[str, Any]] = {
        "iterations": 2000,
        "points": 512,
        "rate": 2e-3,
        "pretrain": 10,
        "marked_until": 300,
        "far": 8,
        "far_until": 300,
        "width": 64,
        "depths": (4, 3, 4, 4),
        "bands": (3, 6),
    }
    least: ClassVar[Mapping[str, float]] = {
        "pretrain": 0,
        "marked_until": 0,
        "far": 1,
        "far_until": 0,
        "width": 1,
        "depths": 2,
        "bands": 1,
    }

    pretrain: int | None = None
    marked_until: int | None = None
    far: int | None = None
    far_until: int | None = None
    width: int | None = None
    depths: Sequence[int] | None = None
    bands: Sequence[int] | None = None

    def atlases(self, size: tuple[int, int, int], detached: bool = True) -> Atlases:
        """The networks for a clip of so many frames, rows and columns."""
        said: Any = self.for_clip(*size[1:])
        return Atlases(size, said.width, tuple(said.depths), tuple(said.bands), detached)

    def multiplications(self, frames: int, height: int, width: int) -> int:
        said: Any = self.for_clip(height, width)
        each = {
            name: network.multiplications()
            for name, network in self.atlases((frames, height, width)).networks.items()
        }
        mapped = 6 * (each["foreground"] + each["background"])  # itself, four beside it, the one ahead
        return BACK * said.iterations * said.points * (mapped + 4 * each["opacity"] + 6 * each["picture"])


@dataclass(frozen=True)
class AtlasWork:
    """`recipe` has every number said."""

    recipe: Any
    footage: Footage
    detached: bool = True

    @property
    def atlases(self) -> Atlases:
        return self.recipe.atlases(self.footage.size, self.detached)

    @property
    def pretraining(self) -> int:
        """Its steps: one for each frame of each pass."""
        return self.recipe.pretrain * self.footage.size[0]

    @property
    def steps(self) -> int:
        return self.pretraining + self.recipe.iterations

    @property
    def restarts(self) -> tuple[int, ...]:
        return (self.pretraining,)

    @property
    def name(self) -> str:
        settings = {**self.recipe.counted(), "detached": self.detached}
        return name_of("layered atlases", self.footage.digest, settings)

    def rate(self, step: int) -> float:
        return self.recipe.rate

    def share(self, name: str) -> float:
        return 1.0

    def begin(self) -> dict[str, Tensor]:
        rng = rng_of(self.recipe.seed, -1)
        made: dict[str, Tensor] = {}
        for name, network in self.atlases.networks.items():
            made |= named(name, network.fresh(rng))
        return made

    def drawn(self, step: int) -> Int[Tensor, " n"]:
        """In a step of pretraining, of one frame."""
        count, height, width = self.footage.size
        rng, number = rng_of(self.recipe.seed, step), self.recipe.points
        if step < self.pretraining:
            within = torch.randint(height * width, (number,), generator=rng)
            return (within + step % count * height * width).to(self.footage.frames.device)
        return torch.randint(count * height * width, (number,), generator=rng).to(self.footage.frames.device)

    def loss(self, weights: Weights, step: int) -> Float[Tensor, ""]:
        points = self.drawn(step)
        if step < self.pretraining:
            return self.in_place(weights, points)
        parts = self.parts(weights, points, step - self.pretraining)
        return torch.stack(list(parts.values())).sum()

    def in_place(self, weights: Weights, points: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """How far both mappings are from leaving all where it is."""
        atlases, places = self.atlases, self.footage.places(points)
        wanted = WIDE * atlases.coordinates(places)[:, :2]
        apart = [(atlases.mapped(weights, layer, places) - wanted).norm(dim=1).mean() for layer in LAYERS]
        return torch.stack(apart).sum()

    def parts(self, weights: Weights, points: Int[Tensor, " n"], step: int) -> dict[str, Float[Tensor, ""]]:
        """The weighted losses of a step by name; `step` counts from the end of pretraining."""
        atlases, footage, far = self.atlases, self.footage, step < self.recipe.far_until
        places = footage.places(points)
        moving = points[footage.trusted.flatten()[points]]
        onward = footage.trusted.flatten()[points]
        x, y = places.new_tensor([1.0, 0, 0]), places.new_tensor([0, 1.0, 0])
        groups = {
            "here": places,
            "right": places + x,
            "below": places + y,
            "left": places - x,
            "above": places - y,
            "ahead": footage.ahead(moving),
        }
        if far:
            groups |= {"far left": places - self.recipe.far * x, "far above": places - self.recipe.far * y}
        mapped = {layer: self._mapped(weights, layer, groups) for layer in LAYERS}
        seen = groups["here"], groups["right"], groups["below"], groups["ahead"]
        opacity = atlases.opacity(weights, torch.cat(seen)).split([len(each) for each in seen])
        made, hidden = self._drawn(weights, mapped, opacity)
        found = self._appearance(made, hidden, points, opacity[0])
        here, there = opacity[0][onward], opacity[3]
        share = (here + there) / 2  # the pair is met from both sides: the flow back is the same pair
        for layer in LAYERS:
            at, pixels = mapped[layer], atlases.pixels
            of_layer = share if layer == "foreground" else 1 - share
            found[f"rigid {layer}"] = RIGID * losses.rigidity(at["here"], at["left"], at["above"], pixels)
            found[f"flow {layer}"] = FLOW * losses.together(at["here"][onward], at["ahead"], of_layer, pixels)
            if far:
                apart = losses.rigidity(at["here"], at["far left"], at["far above"], pixels / self.recipe.far)
                found[f"far {layer}"] = FAR[layer] * apart
        found["flow opacity"] = FLOW_OPACITY * (here - there).abs().sum() / max(1, len(here))
        if step < self.recipe.marked_until and footage.marked is not None:
            marked = footage.marked.flatten()[points]
            found["marked"] = MARKED * losses.as_marked(opacity[0], marked)
        return found

    def _mapped(self, weights: Weights, layer: str, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """All groups in one call."""
        made = self.atlases.mapped(weights, layer, torch.cat(list(groups.values())))
        return dict(zip(groups, made.split([len(each) for each in groups.values()]), strict=True))

    def _drawn(
        self, weights: Weights, mapped: dict[str, dict[str, Tensor]], opacity: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """The clip at the points and at the ones to the right and below; the foreground at the points."""
        names = ("here", "right", "below")
        layers = {
            layer: self.atlases.colours(
                weights, layer, torch.cat([mapped[layer][name] for name in names])
            ).chunk(3)
            for layer in LAYERS
        }
        share = [each[:, None] for each in opacity[:3]]
        made = [
            a * front + (1 - a) * behind
            for a, front, behind in zip(share, layers["foreground"], layers["background"], strict=True)
        ]
        return made, layers["foreground"][0] * (1 - share[0])

    def _appearance(
        self, made: Sequence[Tensor], hidden: Tensor, points: Int[Tensor, " n"], opacity: Tensor
    ) -> dict[str, Float[Tensor, ""]]:
        """Colours, how they change to the right and below, and that hidden foreground is black."""
        footage = self.footage
        _, height, width = footage.size
        here, right, below = made
        changes = here.new_zeros(())
        for beside, step, inside in (
            (right, 1, points % width < width - 1),
            (below, width, points // width % height < height - 1),
        ):
            true = footage.colours[points[inside] + step] - footage.colours[points[inside]]
            apart = (beside - here)[inside] - true
            changes = changes + apart.square().sum() / len(points)
        return {
            "colour": COLOUR * losses.colour(here, footage.colours[points]),
            "changes": CHANGES * changes,
            "hidden": HIDDEN * hidden.square().sum(1).mean(),
        }
