"""Content deformation fields (CoDeF; Ouyang et al., 2024), with networks of coordinates where the release has grids
of hashed features: one picture of all that a clip shows, and for each frame a field that says where of it every pixel
is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import grid_sample

from freemask.fields.atlases import CHUNK
from freemask.fields.networks import Encoding, Mlp, Weights, below, named

CODE = 0.05  # how far from zero a frame's own numbers begin
CALM = 1e-4  # likewise the deformation


@dataclass(frozen=True)
class Canonical:
    """`size` is that of the clip: frames, height, width. `depths` and `widths` are of the deformation and of the
    picture. `codes`: how many numbers a frame has of its own; `bands`: frequencies by which coordinates are seen."""

    size: tuple[int, int, int]
    depths: Sequence[int] = (6, 8)
    widths: Sequence[int] = (128, 256)
    codes: int = 8
    bands: int = 8

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.bands, own=True)

    @property
    def networks(self) -> dict[str, Mlp]:
        seen = self.encoding.width(2)
        (deep, deeper), (wide, wider) = self.depths, self.widths
        return {
            "deformation": Mlp(self.codes + seen, 2, deep + 1, wide, _middle(deep), last=CALM),
            "picture": Mlp(seen, 3, deeper + 2, wider, _middle(deeper), straight=True),
        }

    def fresh(self, rng: Generator) -> dict[str, Tensor]:
        made = {"codes": (torch.rand(self.size[0], self.codes, generator=rng) * 2 - 1) * CODE}
        for name, network in self.networks.items():
            made |= named(name, network.fresh(rng))
        return made

    def coordinates(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
        """Of columns and rows: 0 to 1."""
        _, height, width = self.size
        return places[:, :2] / places.new_tensor([width, height])

    def deformed(
        self,
        weights: Weights,
        at: Float[Tensor, "n 2"],
        frames: Int[Tensor, " n"],
        shares: Sequence[float] | None = None,
    ) -> Float[Tensor, "n 2"]:
        """Where of the picture a frame's places are. `shares`: how much of each frequency is there."""
        seen = torch.cat([weights["codes"][frames], self.encoding(at, shares)], dim=1)
        return at + self.networks["deformation"](below(weights, "deformation"), seen)

    def colours(self, weights: Weights, at: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        return self.networks["picture"](below(weights, "picture"), self.encoding(at)).sigmoid()

    def grid(self, margin: int = 0, device: torch.device | str = "cpu") -> Float[Tensor, "n 3"]:
        """Columns, rows and frame 0 of a frame, with so many more pixels on each side."""
        _, height, width = self.size
        x, y = (torch.arange(-margin, side + margin, device=device) for side in (width, height))
        y, x = torch.meshgrid(y, x, indexing="ij")
        return torch.stack([x.flatten(), y.flatten(), 0 * x.flatten()], dim=1).float()

    @torch.no_grad()
    def where(
        self, weights: Weights, frame: int, shares: Sequence[float] | None = None
    ) -> Float[Tensor, "h w 2"]:
        """Of the picture, for every pixel of a frame: columns and rows of a frame's size."""
        _, height, width = self.size
        at = self.coordinates(self.grid(device=weights["codes"].device))
        found = torch.cat(
            [
                self.deformed(weights, chunk, torch.full((len(chunk),), frame, device=at.device), shares)
                for chunk in at.split(CHUNK)
            ]
        )
        return (found * found.new_tensor([width, height])).reshape(height, width, 2)

    @torch.no_grad()
    def picture(self, weights: Weights, margin: int = 0) -> Float[Tensor, "3 oh ow"]:
        """The canonical picture, a frame's size and so many more pixels on each side."""
        _, height, width = self.size
        at = self.coordinates(self.grid(margin, weights["codes"].device))
        made = torch.cat([self.colours(weights, chunk) for chunk in at.split(CHUNK)])
        return made.T.reshape(3, height + 2 * margin, width + 2 * margin)

    @torch.no_grad()
    def shown(
        self, weights: Weights, frame: int, shares: Sequence[float] | None = None
    ) -> Float[Tensor, "3 h w"]:
        """A frame as the fields have it."""
        _, height, width = self.size
        where = self.where(weights, frame, shares).reshape(-1, 2) / weights["codes"].new_tensor(
            [width, height]
        )
        made = torch.cat([self.colours(weights, chunk) for chunk in where.split(CHUNK)])
        return made.T.reshape(3, height, width)


def read(
    picture: Float[Tensor, "c oh ow"], where: Float[Tensor, "h w 2"], margin: int = 0
) -> Float[Tensor, "c h w"]:
    """A picture at columns and rows of a frame, of which it has so many more pixels on each side; bilinear, and
    beyond its border as at the border."""
    height, width = picture.shape[-2:]
    at = (where + margin + 0.5) * where.new_tensor([2 / width, 2 / height]) - 1
    return grid_sample(picture[None], at[None], padding_mode="border", align_corners=False)[0]


def _middle(depth: int) -> tuple[int, ...]:
    """The fifth layer sees the input again; of a network that has none, the last."""
    return (min(4, depth - 1),) if depth > 2 else ()
