"""Layered atlases (Kasten et al., 2021): every point of a clip is mapped to a foreground and to a background picture,
and an opacity says how much of each is seen. Both pictures are one network, at places of its own each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.fields.networks import Encoding, Mlp, Weights, below

LAYERS = ("foreground", "background")
SHIFT = {"foreground": 0.5, "background": -0.5}  # where each picture lies in the network of both
OPACITY = (0.99, 0.001)  # of which none is quite 0 or 1
WIDE = 0.8  # how much of its picture a mapping fills at first
CHUNK = 65536  # points at once, where nothing is learnt


class Layered(NamedTuple):
    """Points as they are shown: where each layer has them, how much of the foreground is seen, the colours of the
    layers and of both together."""

    places: dict[str, Float[Tensor, "n 2"]]
    opacity: Float[Tensor, " n"]
    colours: dict[str, Float[Tensor, "n 3"]]

    @property
    def shown(self) -> Float[Tensor, "n 3"]:
        share = self.opacity[:, None]
        return share * self.colours["foreground"] + (1 - share) * self.colours["background"]


@dataclass(frozen=True)
class Atlases:
    """The networks. `depths`: layers of both mappings, of opacity and of the pictures; `bands`: of the encodings of
    opacity and of the pictures. `size` is that of the clip: frames, height, width. `detached`: as the released code
    has it, no gradient reaches the mappings through the pictures' skips."""

    size: tuple[int, int, int]
    width: int = 256
    depths: Sequence[int] = (6, 4, 8, 8)
    bands: Sequence[int] = (5, 10)
    detached: bool = True

    @property
    def networks(self) -> dict[str, Mlp]:
        foreground, background, opacity, picture = self.depths
        seen, drawn = (each.width(of) for each, of in zip(self._encodings(), (3, 2), strict=True))
        skips = (picture // 2, picture - 1) if picture > 2 else ()
        return {
            "foreground": Mlp(3, 2, foreground, self.width),
            "background": Mlp(3, 2, background, self.width),
            "opacity": Mlp(seen, 1, opacity, self.width),
            "picture": Mlp(drawn, 3, picture, self.width, skips, self.detached),
        }

    def _encodings(self) -> tuple[Encoding, Encoding]:
        seen, drawn = self.bands
        return Encoding(seen, math.pi), Encoding(drawn, math.pi)

    @property
    def longer(self) -> int:
        return max(self.size[1:])

    @property
    def pixels(self) -> float:
        """How many pixels of the clip a step of 1 in a mapping is."""
        return self.longer / 2 / WIDE

    def coordinates(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Of columns, rows and frames, about -1 to 1."""
        half = places.new_tensor([self.longer / 2, self.longer / 2, self.size[0] / 2])
        return places / half - 1

    def mapped(self, weights: Weights, layer: str, places: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
        return self.networks[layer](below(weights, layer), self.coordinates(places)).tanh()

    def opacity(self, weights: Weights, places: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        encoded = self._encodings()[0](self.coordinates(places))
        made = self.networks["opacity"](below(weights, "opacity"), encoded)[:, 0]
        scale, least = OPACITY
        return scale * (made.tanh() + 1) / 2 + least

    def colours(self, weights: Weights, layer: str, places: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """Of a layer's picture, at places of -1 to 1."""
        encoded = self._encodings()[1](places / 2 + SHIFT[layer])
        return (self.networks["picture"](below(weights, "picture"), encoded).tanh() + 1) / 2

    def layered(self, weights: Weights, places: Float[Tensor, "n 3"]) -> Layered:
        mapped = {layer: self.mapped(weights, layer, places) for layer in LAYERS}
        colours = {layer: self.colours(weights, layer, mapped[layer]) for layer in LAYERS}
        return Layered(mapped, self.opacity(weights, places), colours)

    @torch.no_grad()
    def frame(self, weights: Weights, at: int) -> Layered:
        """All points of a frame, row by row."""
        _, height, width = self.size
        device = next(iter(weights.values())).device
        y, x = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        places = torch.stack([x.flatten(), y.flatten(), torch.full_like(x.flatten(), at)], dim=1).float()
        parts = [self.layered(weights, chunk) for chunk in places.split(CHUNK)]
        return Layered(
            {layer: torch.cat([each.places[layer] for each in parts]) for layer in LAYERS},
            torch.cat([each.opacity for each in parts]),
            {layer: torch.cat([each.colours[layer] for each in parts]) for layer in LAYERS},
        )

    @torch.no_grad()
    def window(self, weights: Weights, layer: str) -> Float[Tensor, "2 2"]:
        """The part of a layer's picture that the clip shows: its first and last corner. As a whole where it shows
        nothing of it."""
        found = []
        for at in range(self.size[0]):
            each = self.frame(weights, at)
            mine = each.opacity if layer == "foreground" else 1 - each.opacity
            found.append(each.places[layer][mine > 0.5])
        places = torch.cat(found)
        if len(places) < 2:
            return torch.tensor([[-1.0, -1], [1, 1]], device=places.device)
        low, high = places.amin(0), places.amax(0)
        return torch.stack([low, torch.maximum(high, low + 2 / self.longer)])

    @torch.no_grad()
    def picture(
        self, weights: Weights, layer: str, window: Float[Tensor, "2 2"], size: tuple[int, int]
    ) -> Float[Tensor, "3 h w"]:
        """A window of a layer's picture, in so many rows and columns."""
        height, width = size
        x, y = (
            low + (high - low) * (torch.arange(side, device=window.device) + 0.5) / side
            for low, high, side in zip(*window, (width, height), strict=True)
        )
        y, x = torch.meshgrid(y, x, indexing="ij")
        places = torch.stack([x.flatten(), y.flatten()], dim=1)
        made = torch.cat([self.colours(weights, layer, chunk) for chunk in places.split(CHUNK)])
        return made.T.reshape(3, height, width)
