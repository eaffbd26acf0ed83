"""ControlVideo's interleaved smoothing: every second frame is made anew of the two beside it."""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor

Neighbours = Mapping[int, tuple[int, int]]  # of each frame that is made anew, the frames that it is made of
Remade = Callable[[Tensor, Neighbours], Tensor]  # (f 3 h w, k neighbours) -> k 3 h w


def neighbours(frames: int, *, odd: bool) -> Neighbours:
    """Of the frames 1, 3, ... those with a neighbour on either side; of 0, 2, ... all: at the ends of the clip a frame
    is its own neighbour."""
    if odd:
        return {frame: (frame - 1, frame + 1) for frame in range(1, frames - 1, 2)}
    last = frames - 1
    return {frame: (max(frame - 1, 0), min(frame + 1, last)) for frame in range(0, frames, 2)}


def beside(frames: Float[Tensor, "f 3 h w"], made_of: Neighbours) -> tuple[Tensor, Tensor]:
    """The earlier neighbours, and the later ones."""
    left, right = ([pair[side] for pair in made_of.values()] for side in (0, 1))
    return frames[left], frames[right]


def interleaved(frames: Float[Tensor, "f 3 h w"], made_of: Neighbours, remade: Remade) -> Tensor:
    """All are made of frames as they were."""
    if not made_of:
        return frames
    out = frames.clone()
    out[list(made_of)] = remade(frames, made_of)
    return out.clamp(0, 1)
