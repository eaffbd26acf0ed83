"""A clip's trajectories on the grids of some layers, for methods whose attention goes along them."""

from collections.abc import Sequence

from torch import Generator

from freemask.optical.sources import FlowSource
from freemask.optical.trajectories import Trajectories, Variant, trajectories
from freemask.types import Backbone, Clip, Grid

WINDOW = 2  # of the neighbours that fill in at the finest level, in the released codes; 1 at others
OPEN = "the flow does not say what is hidden in the next frame: trajectories go on along what covers them"


def followed(
    flow: FlowSource, backbone: Backbone, clip: Clip, strides: Sequence[int], variant: Variant, rng: Generator
) -> tuple[dict[int, Trajectories], dict[str, str | float | int], list[str]]:
    """By the stride of the layers; facts of them, and warnings. One frame has none."""
    frames, _, height, width = clip.frames.shape
    if not strides or frames == 1:
        return {}, {"flow": "none"}, []
    found, known = {}, flow(clip, str(backbone.device))
    for stride in strides:
        site = next(site for site in backbone.sites.values() if site.stride == stride)
        grid = Grid(*backbone.grid(site, frames, height, width))
        window = WINDOW if stride == 1 else 1
        made = trajectories(known, grid, variant=variant, rng=rng, window=window)
        found[stride] = made.to(backbone.device)
    finest = found[min(found)]
    facts = {"flow": known.origin, "trajectories": len(finest.sites)}
    facts["trajectory_frames"] = round(finest.mean_length, 3)
    return found, facts, [OPEN] if known.seen is None and variant == "paper" else []
