"""Grids of strips: a line for each variant, a block of frames for each edit, as PNG and PDF."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DOTS = {"png": 160, "pdf": 220}
SMALL = 200  # pictures smaller than this are shown pixel by pixel
# In inches: a frame's height, between strips, beside them, of a line of words.
INCH, GAP, LABEL, LINE = 0.82, 0.05, 1.3, 0.155


@dataclass(frozen=True)
class Strips:
    """`pictures[label]` has, for each block, its frames or None where there are none."""

    pictures: Mapping[str, Sequence[Sequence[np.ndarray] | None]]
    blocks: Sequence[str]
    fold: int | None = None


def draw(paths: Sequence[Path], strips: Strips, caption: str) -> None:
    labels = list(strips.pictures)
    rows = strips.fold or len(labels)
    folds = -(-len(labels) // rows)
    widths = [_width(strips, block) for block in range(len(strips.blocks))]
    total = folds * (sum(widths) + LABEL) + 0.1
    words = fill(caption, int(total * 14))
    titles = [fill(title, int(14 * width)) for title, width in zip(strips.blocks, widths, strict=True)]
    above = LINE * max(title.count("\n") + 1 for title in titles) + 0.12
    below = LINE * (words.count("\n") + 1) + 0.16
    tall = above + below + rows * (INCH + GAP)
    figure = Figure(figsize=(total, tall))
    grid = figure.add_gridspec(
        rows,
        folds * len(widths),
        width_ratios=widths * folds,
        left=LABEL / total,
        right=1 - 0.08 / total,
        top=1 - above / tall,
        bottom=below / tall,
        wspace=0.04 if folds == 1 else LABEL / max(widths) * 1.05,
        hspace=GAP / INCH,
    )
    for place, label in enumerate(labels):
        for block, title in enumerate(titles):
            axes = figure.add_subplot(grid[place % rows, place // rows * len(widths) + block])
            _strip(axes, strips.pictures[label][block])
            if block == 0:
                axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
            if place % rows == 0:
                axes.set_title(title, fontsize=7.5)
    figure.text(0.08 / total, 0.06 / tall, words, fontsize=8, va="bottom")
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DOTS[path.suffix[1:]])


def _width(strips: Strips, block: int) -> float:
    """In inches, for frames of one height."""
    known = [each[block] for each in strips.pictures.values() if each[block]]
    first = known[0] if known else [np.zeros((1, 1, 3))]
    assert first is not None
    return max(1.4, INCH * sum(each.shape[1] / each.shape[0] for each in first))


def _strip(axes: Axes, frames: Sequence[np.ndarray] | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if not frames:
        axes.text(0.5, 0.5, "not there yet", ha="center", va="center", fontsize=8, color="grey")
        return
    gap = np.full((frames[0].shape[0], max(1, frames[0].shape[1] // 40), 3), 255, dtype=np.uint8)
    joined = [part for frame in frames for part in (frame, gap)][:-1]
    small = frames[0].shape[0] < SMALL
    axes.imshow(np.concatenate(joined, axis=1), interpolation="nearest" if small else "antialiased")
