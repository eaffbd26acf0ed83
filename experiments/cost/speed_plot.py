"""The figure of `freemask bench what=speed`: where the seconds go, seconds over frames, memory over frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.cost.plot import HUES
from experiments.figures.mmc import COLORS

STYLES = ("-", "--", ":", "-.")  # of the sizes
Lines = Sequence[Mapping[str, Any]]


def draw(path: Path, data: Mapping[str, Any], title: str) -> None:
    lines = [line for line in data["summary"]["table"] if line["state"] == "measured"]
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    bars, *others = figure.subplots(1, 3)
    _stages(bars, lines)
    peak = "peak memory on the card" if data["about"]["gpu"] else "peak resident memory"
    for axes, key, label in zip(
        others, ("seconds", "peak_gb"), ("seconds of an edit", f"{peak}, GB"), strict=True
    ):
        _over_frames(axes, lines, key, label, data["parts"]["options"]["at_steps"])
    for axes in (bars, *others):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _stages(axes: Axes, lines: Lines) -> None:
    """Of the shortest clip, by size and mode."""
    least = min((line["frames"] for line in lines), default=0)
    first = [line for line in lines if line["frames"] == least]
    names = [f"{line['mode']}\n{line['width']} x {line['height']}" for line in first]
    below = [0.0] * len(first)
    stages = list(dict.fromkeys(name for line in first for name, value in line["stages"].items() if value))
    for hue, stage in zip(COLORS, stages, strict=False):
        values = [line["stages"].get(stage) or 0.0 for line in first]
        axes.bar(names, values, bottom=below, color=hue, width=0.7, label=stage)
        below = [low + value for low, value in zip(below, values, strict=True)]
    for place, (line, top) in enumerate(zip(first, below, strict=True)):
        axes.annotate(f"{line['ratios'].get('seconds', 1):.2f}", (place, top), ha="center", va="bottom")
    axes.set(ylabel="seconds", ylim=(0, 1.12 * max(below, default=1)))
    axes.set_title(f"an edit of {least} frames; above: divided by plain", fontsize=10)
    axes.tick_params(axis="x", labelsize=8)
    if stages:
        axes.legend(frameon=False, fontsize=8)


def _over_frames(axes: Axes, lines: Lines, key: str, label: str, steps: int) -> None:
    """Colours are modes, kinds of line are sizes; a point is hollow where not all steps were timed."""
    sizes = list(dict.fromkeys((line["height"], line["width"]) for line in lines))
    for mode in dict.fromkeys(line["mode"] for line in lines):
        for size, style in zip(sizes, STYLES, strict=False):
            same = [
                line for line in lines if line["mode"] == mode and (line["height"], line["width"]) == size
            ]
            points = [(line["frames"], line[key], line["measured_steps"]) for line in same if line[key]]
            if not points:
                continue
            frames, values, timed = zip(*points, strict=True)
            axes.plot(frames, values, style, color=HUES[mode], label=f"{mode}, {size[1]} x {size[0]}")
            inside = [HUES[mode] if each == steps else "white" for each in timed]
            axes.scatter(frames, values, c=inside, edgecolors=HUES[mode], s=22, zorder=3)
    axes.set(
        xlabel="frames (hollow: some of the steps were timed)", ylabel=label, xlim=(0, None), ylim=(0, None)
    )
    axes.set_xticks(sorted({line["frames"] for line in lines}))
    if lines:
        axes.legend(loc="lower right", frameon=False, fontsize=8)
