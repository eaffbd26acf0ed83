"""The curve of a tuning: the error of each step, and its running mean."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.mmc import COLORS

WINDOW = 20  # steps: single errors depend on the time that was drawn


def curve(errors: Sequence[float], path: Path) -> None:
    window = min(WINDOW, len(errors))
    mean = np.convolve(errors, np.ones(window) / window, mode="valid")
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(errors) + 1), errors, ".", ms=3, color=COLORS[0], alpha=0.35, label="one step")
    axes.plot(range(window, len(errors) + 1), mean, color=COLORS[0], label=f"mean of {window} steps")
    axes.set(xlabel="step", ylabel="mean squared error", yscale="log")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
