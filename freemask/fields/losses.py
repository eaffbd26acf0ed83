"""What fields are fitted by, as mathematics: tensors in, tensors out."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

DIAGONAL = 1e-3  # added before a Jacobian is inverted
LEAST = 1e-12  # under a root, whose gradient is infinite at 0


def colour(made: Float[Tensor, "n 3"], true: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Mean squared distance of colours."""
    return (made - true).square().sum(1).mean()


def rigidity(
    here: Float[Tensor, "n 2"],
    left: Float[Tensor, "n 2"],
    above: Float[Tensor, "n 2"],
    pixels: float,
) -> Float[Tensor, ""]:
    """How far a mapping is from moving and turning alone: the sizes of J^T J and of its inverse. `left` and `above`
    are where points at a distance go, `pixels` turns the mapping's differences into pixels of a pixel's step."""
    along_x, along_y = (here - left) * pixels, (here - above) * pixels
    a, d = along_x.square().sum(1), along_y.square().sum(1)
    b = (along_x * along_y).sum(1)
    stretched = _root(a.square() + 2 * b.square() + d.square())
    a, d = a + DIAGONAL, d + DIAGONAL
    shrunk = _root(a.square() + 2 * b.square() + d.square()) / (a * d - b.square())
    return (stretched + shrunk).mean()


def together(
    here: Float[Tensor, "m 2"], there: Float[Tensor, "m 2"], weight: Float[Tensor, " m"], pixels: float
) -> Float[Tensor, ""]:
    """The same point of a clip in two frames should be mapped to the same place: the distance in pixels, weighted."""
    return (_root((here - there).square().sum(1)) * pixels * weight).sum() / max(1, len(here))


def as_marked(alpha: Float[Tensor, " n"], marked: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Cross-entropy of opacity with a rough mask."""
    return F.binary_cross_entropy(alpha, marked)


def edges(
    made: Float[Tensor, "3 h w"], true: Float[Tensor, "3 h w"], inside: Bool[Tensor, "h w"]
) -> Float[Tensor, ""]:
    """Mean distance of Sobel's derivatives of the grey pictures, inside."""
    apart = (sobel(made) - sobel(true)).abs()[:, inside]
    return apart.mean() if apart.numel() else made.new_zeros(())


GREY = (0.299, 0.587, 0.114)


def sobel(picture: Float[Tensor, "3 h w"]) -> Float[Tensor, "2 h w"]:
    """Along x and y; beyond the border the picture goes on as it ends."""
    grey = (picture * picture.new_tensor(GREY)[:, None, None]).sum(0)
    across = picture.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    wide = F.pad(grey[None, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(wide, torch.stack([across, across.T])[:, None])[0]


def _root(x: Tensor) -> Tensor:
    return (x + LEAST).sqrt()
