"""Where several things of a scene go, so that they keep out of each other's way, or cross where that is wanted."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from freemask.data.world.render import pose
from freemask.data.world.spec import MOTIONS, Scene, Thing, draw_path

# Centres (x, y) and half sizes, in units of the frame's sides and of its short side: two as single scenes have them.
PLACES = {2: ((0.28, 0.36), (0.72, 0.64)), 3: ((0.24, 0.27), (0.76, 0.31), (0.5, 0.76))}
HALF = {2: (0.19, 0.24), 3: (0.15, 0.18)}
TRIES = 100
FILLED = 0.85  # of their boxes, things seldom reach the corners


def arranged(
    rng: np.random.Generator,
    looks: Sequence[tuple[str, str, str | None]],
    *,
    crossing: bool,
    frames: int,
    size: tuple[int, int],
) -> tuple[Thing, ...]:
    """Things of these classes, colours and part colours on paths that do not meet (crossing: that do); of many tries
    the nearest to it."""
    best: tuple[float, tuple[Thing, ...]] | None = None
    for _ in range(TRIES):
        things = _drawn(rng, looks, crossing=crossing, size=size)
        apart = gap(Scene(0, things, "grass", frames=frames, height=size[0], width=size[1]))
        far = -apart if crossing else apart
        if best is None or far > best[0]:
            best = far, things
        if far > 0:
            break
    assert best is not None
    return best[1]


def _drawn(
    rng: np.random.Generator,
    looks: Sequence[tuple[str, str, str | None]],
    *,
    crossing: bool,
    size: tuple[int, int],
) -> tuple[Thing, ...]:
    height, width = size
    things = []
    for (cls, color, part), (x, y) in zip(looks, PLACES[len(looks)], strict=True):
        motion = str(rng.choice(MOTIONS))
        x = rng.uniform(0.42, 0.58) if crossing else x + rng.uniform(-0.04, 0.04)
        y = y + rng.uniform(-0.06, 0.06)
        centre = (x * width / min(size), y * height / min(size))
        start, end = draw_path(rng, motion, centre)
        things.append(Thing(cls, color, motion, start, end, rng.uniform(*HALF[len(looks)]), part))
    return tuple(things)


def gap(scene: Scene) -> float:
    """How far the nearest two come to each other in any frame, in pixels between their boxes; below 0 they overlap."""
    gaps = []
    for frame in range(scene.frames):
        boxes = [pose(scene, thing, frame) for thing in scene.things]
        for a, b in combinations(boxes, 2):
            reach = FILLED * (a[1, 1] + b[1, 1])
            gaps.append(max(abs(a[0, 2] - b[0, 2]), abs(a[1, 2] - b[1, 2])) - reach)
    return min(gaps)
