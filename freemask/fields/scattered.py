"""Values known at scattered places, or on a window of a plane, read in between."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

Read = Callable[[Tensor], Tensor]
FEWEST = 3  # places that make a triangle


def triangulated(places: Float[Tensor, "n 2"], values: Float[Tensor, "n c"]) -> Read:
    """Reads the values anywhere (m 2 -> m c): linear inside Delaunay's triangles, 0 outside all of them, and
    everywhere where no triangle can be made."""
    from scipy.interpolate import LinearNDInterpolator  # slow to load, and other methods do without it
    from scipy.spatial import QhullError

    known, channels = places.detach().double().cpu().numpy(), values.shape[1]

    def nothing(at: Float[Tensor, "m 2"]) -> Float[Tensor, "m c"]:
        return at.new_zeros(len(at), channels)

    if len(known) < FEWEST:
        return nothing
    try:
        found = LinearNDInterpolator(known, values.detach().double().cpu().numpy(), fill_value=0.0)
    except QhullError:
        return nothing

    def read(at: Float[Tensor, "m 2"]) -> Float[Tensor, "m c"]:
        made = found(at.detach().double().cpu().numpy()).astype(np.float32)
        return torch.from_numpy(made).to(at.device)

    return read


def windowed(picture: Float[Tensor, "c h w"], window: Float[Tensor, "2 2"]) -> Read:
    """Reads a picture that fills a window of the plane, between its first and last corner; beyond it, as at its
    border."""

    def read(at: Float[Tensor, "m 2"]) -> Float[Tensor, "m c"]:
        place = 2 * (at - window[0]) / (window[1] - window[0]) - 1
        grid = place[None, None].to(picture)
        return grid_sample(picture[None], grid, padding_mode="border", align_corners=False)[0, :, 0].T

    return read
