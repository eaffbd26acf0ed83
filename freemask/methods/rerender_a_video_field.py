"""Rerender-A-Video as mathematics: how much of a frame others show, pictures laid over each other along the flow, and
latents drawn to what was laid there. Masks of what is hidden are 1 where it is, soft at the edge."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, max_pool2d, pad

from freemask.interpolation.far import Way
from freemask.optical.ops import warped

SIDE, GROWN = 512, 4  # pixels that what is hidden is grown by, in the authors' pictures of this side
WRONG = 0.125  # of 0..1: an error of the autoencoder that is not put right
TINY = 1e-5


def hidden(seen: Bool[Tensor, "h w"]) -> Float[Tensor, "1 1 h w"]:
    """What is not seen, grown and blurred outwards, as far as the picture is large."""
    there = (~seen).float()[None, None]
    by = max(1, round(GROWN * min(seen.shape) / SIDE))
    wide = max_pool2d(there, 2 * by + 1, stride=1, padding=by)
    return (blurred(wide, by) + there).clamp(0, 1)


def blurred(x: Float[Tensor, "1 1 h w"], by: int) -> Float[Tensor, "1 1 h w"]:
    """A Gauss of twice the width of its window, nearly a mean."""
    at = torch.arange(-by, by + 1).float()
    weights = torch.exp(-0.5 * (at / (2 * len(at))) ** 2)
    weights = weights / weights.sum()
    x = conv2d(pad(x, [by, by, 0, 0], mode="replicate"), weights[None, None, None])
    return conv2d(pad(x, [0, 0, by, by], mode="replicate"), weights[None, None, :, None])


def in_cells(hides: Float[Tensor, "1 1 h w"], multiple: int) -> Float[Tensor, "1 1 lh lw"]:
    """On the grid of latents, 1 where nothing of a cell is hidden."""
    return 1 - max_pool2d(hides, multiple)


def carried_cells(x: Float[Tensor, "1 c lh lw"], way: Way, multiple: int) -> Float[Tensor, "1 c lh lw"]:
    """A latent along the flow of pixels: whole cells, for a mean of two is no latent of either."""
    flow = interpolate(way[0][None] / multiple, x.shape[-2:], mode="bilinear", align_corners=False)
    return warped(x, flow.to(x.device), "nearest")


def carried(picture: Float[Tensor, "3 h w"], way: Way) -> Float[Tensor, "1 3 h w"]:
    return warped(picture[None], way[0][None].to(picture.device))


def coloured(x: Float[Tensor, "1 c h w"], like: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 c h w"]:
    """With the mean and the spread of each channel of another (AdaIN)."""
    own, others = (
        (each.mean((2, 3), keepdim=True), (each.var((2, 3), keepdim=True) + TINY).sqrt())
        for each in (x, like)
    )
    return (x - own[0]) / own[1] * others[1] + others[0]


def overlaid(
    rough: Float[Tensor, "1 3 h w"], *others: tuple[Float[Tensor, "1 3 h w"], Float[Tensor, "1 1 h w"]]
) -> Float[Tensor, "1 3 h w"]:
    """Pictures with what is hidden in each, one over the other: the last one is on top."""
    for picture, hides in others:
        hides = hides.to(rough)
        rough = (1 - hides) * picture.to(rough) + hides * rough
    return rough


def faithful(
    decode: Callable[[Tensor], Tensor],
    x: Float[Tensor, "1 c lh lw"],
    again: Float[Tensor, "1 c lh lw"],
    picture: Float[Tensor, "1 3 h w"],
) -> Float[Tensor, "1 c lh lw"]:
    """The latent x of a picture, with what going through the autoencoder once more would lose added to it, but where
    that makes the picture wrong. `again` is the latent of what x is decoded to."""
    better = 2 * x - again
    wrong = (decode(better) - picture).abs().mean(1, keepdim=True) > WRONG
    few = interpolate(wrong.float(), x.shape[-2:], mode="bilinear", align_corners=False) > 0
    not_here = max_pool2d(few.float(), 3, stride=1, padding=1).to(x)
    return x + (1 - not_here) * (x - again)


def flat(mask: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 1 h w"]:
    """1 where the mask is the same all around: means of three cells on either side do not differ."""
    around = pad(mask, [1, 1, 1, 1], mode="replicate")
    rows, columns = avg_pool2d(around, (1, 3), stride=1), avg_pool2d(around, (3, 1), stride=1)
    down = (rows[:, :, 2:] - rows[:, :, :-2]).abs()
    across = (columns[..., 2:] - columns[..., :-2]).abs()
    return (down + across < TINY).to(mask)


def between(
    before: tuple[Float[Tensor, "3 h w"], Way],
    after: tuple[Float[Tensor, "3 h w"], Way],
    share: float,
) -> Float[Tensor, "3 h w"]:
    """A frame between two others, both carried to it: of the first so large a share, but for what one of them does not
    show. What neither does is taken from both all the same."""
    (a, shows_a), (b, shows_b) = ((carried(picture, way)[0], way[1]) for picture, way in (before, after))
    of_a = share * shows_a.to(a)
    of_b = (1 - share) * shows_b.to(a)
    total = of_a + of_b
    return torch.where(total > 0, (of_a * a + of_b * b) / total.clamp(min=TINY), share * a + (1 - share) * b)
