"""The plot of `freemask bench`: time by mode, peak memory over frames and over steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, ScalarFormatter

from experiments.cost.work import MODES
from experiments.figures.mmc import COLORS

HUES: Mapping[str, str] = {
    "plain": COLORS[6],
    "recompute": COLORS[0],
    "cache_device": COLORS[3],
    "cache_int8": COLORS[5],
    "cache_host": COLORS[1],
    "cache_disk": COLORS[2],
    "free": COLORS[4],
    "edit": COLORS[0],
    "bare": COLORS[3],
}
MEMORY = {"rss_mb": "peak resident memory", "gpu_mb": "peak GPU memory"}
Cells = Sequence[Mapping[str, Any]]


def draw(path: Path, data: Mapping[str, Any], title: str) -> None:
    modes, memory = data["parts"]["options"]["grid_modes"], data["summary"]["memory"]
    peaks = [
        each
        for each in data["cells"].values()
        if each["what"] == "memory" and each["mode"] in modes and each.get(memory, 0) > 0
    ]
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    first, *others = figure.subplots(1, 3 if peaks else 1, squeeze=False)[0]
    _bars(first, data["summary"]["table"])
    for axes, along, other in zip(others, ("frames", "steps"), ("steps", "frames"), strict=False):
        _lines(axes, peaks, memory, along, other)
    for axes in (first, *others):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _bars(axes: Axes, table: Cells) -> None:
    lines = [line for line in table if "seconds" in line["ratios"]]
    names = [line["mode"].replace("_", "\n") for line in lines]
    ratios = [line["ratios"]["seconds"] for line in lines]
    bars = axes.bar(names, ratios, color=[HUES[line["mode"]] for line in lines], width=0.7)
    said = [f"{line['ratios']['seconds']:.2f}\n{line['seconds']:.1f} s" for line in lines]
    axes.bar_label(bars, said, label_type="center", color="white")
    processor = [line["ratios"]["cpu_seconds"] for line in lines]
    axes.plot(names, processor, "D", color="white", markeredgecolor="black", markersize=6)
    axes.axhline(1, color="black", lw=0.8)
    axes.set(ylabel="time / time of plain", ylim=(0, None))
    axes.set_title("time of an edit by the clock; diamonds: processor time", fontsize=10)


def _lines(axes: Axes, peaks: Cells, memory: str, along: str, other: str) -> None:
    """Colours are modes; behind each line stands its number of the other."""
    modes = [mode for mode in MODES if any(each["mode"] == mode for each in peaks)]
    for place, mode in enumerate(modes):
        mine = [each for each in peaks if each["mode"] == mode]
        for value in sorted({each[other] for each in mine}):
            points = sorted((each[along], each[memory]) for each in mine if each[other] == value)
            axes.plot(*zip(*points, strict=True), color=HUES[mode], marker="o", markersize=3.5)
            at = {"xytext": (7 + 16 * place, -3), "textcoords": "offset points"}
            axes.annotate(str(value), points[-1], **at, fontsize=8, color=HUES[mode])
    axes.set(xscale="log", yscale="log", ylabel=f"{MEMORY[memory]} above the loaded model, MB")
    axes.margins(x=0.14)  # room for the numbers
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
    axes.set_xticks(sorted({each[along] for each in peaks}))
    axes.set_xlabel(f"{along} (behind the lines: {other})")
    axes.legend(handles=[Line2D([], [], color=HUES[mode], label=mode) for mode in modes], frameon=False)
