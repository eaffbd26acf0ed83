"""The plot of `freemask bench what=fusion`: time by mode, peak memory over frames and over steps."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures.mmc import COLORS

MODES = ("plain", "recompute", "cache_device", "cache_host", "cache_disk")
HUES: dict[str, str] = dict(zip(MODES, (COLORS[6], COLORS[0], COLORS[3], COLORS[1], COLORS[2]), strict=True))
STROKES = ("-", "--", ":", "-.")
MEMORY = {"rss_mb": "peak resident memory", "gpu_mb": "peak GPU memory"}
Cells = Sequence[Mapping[str, Any]]
Scale = tuple[int, str]  # MB in a unit, and its name


def draw(path: Path, data: Mapping[str, Any], title: str) -> None:
    options, summary = data["parts"]["options"], data["summary"]
    memory = summary["memory"]
    figure = Figure(figsize=(12.5, 9), layout="constrained")
    figure.suptitle(title, fontsize=11)
    (first, second), (third, fourth) = figure.subplots(2, 2)
    _bars(first, summary["table"], data["about"]["gpu"])
    peaks = {
        mode: [
            c for c in data["cells"].values() if c["what"] == "memory" and c["mode"] == mode and memory in c
        ]
        for mode in dict.fromkeys(options["grid_modes"])
    }
    without = {mode: cells for mode, cells in peaks.items() if not mode.startswith("cache")}
    for axes, shown, along in (
        (second, peaks, "frames"),
        (third, without, "frames"),
        (fourth, without, "steps"),
    ):
        scale = _scale(each[memory] for cells in shown.values() for each in cells)
        (_over_frames if along == "frames" else _over_steps)(axes, shown, memory, scale)
        if along == "steps":
            _expected(axes, peaks.get("recompute", ()), summary, scale)
        axes.set_xticks(sorted({each[along] for cells in shown.values() for each in cells}))
        axes.set(ylabel=f"{MEMORY[memory]}\nabove the loaded model, {scale[1]}", ylim=(0, None))
        kept = "" if shown is peaks else ", where no features are kept"
        axes.set_title(f"memory over {along}{kept}", fontsize=10)
    for axes in (first, second, third, fourth):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _bars(axes: Axes, table: Cells, on_gpu: bool) -> None:
    lines = [line for line in table if "seconds" in line["ratios"]]
    names = [line["mode"].replace("_", "\n") for line in lines]
    ratios = [line["ratios"]["seconds"] for line in lines]
    bars = axes.bar(names, ratios, color=[HUES[line["mode"]] for line in lines], width=0.7)
    said = [f"{line['ratios']['seconds']:.2f}\n{line['seconds']:.1f} s" for line in lines]
    axes.bar_label(bars, said, label_type="center", color="white")
    axes.axhline(1, color="black", lw=0.8)
    title = "time of an edit by the clock"
    if not on_gpu:
        processor = [line["ratios"]["cpu_seconds"] for line in lines]
        axes.plot(names, processor, "D", color="white", markeredgecolor="black", markersize=6)
        title += "; diamonds: processor time"
    axes.set(ylabel="time / time of plain", ylim=(0, None))
    axes.set_title(title, fontsize=10)


def _over_frames(axes: Axes, peaks: Mapping[str, Cells], memory: str, scale: Scale) -> None:
    """Colours are modes, strokes are numbers of steps."""
    steps = sorted({each["steps"] for cells in peaks.values() for each in cells}, reverse=True)
    strokes = {n: STROKES[place % len(STROKES)] for place, n in enumerate(steps)}
    for mode, cells in peaks.items():
        for n, stroke in strokes.items():
            points = sorted((each["frames"], each[memory] / scale[0]) for each in cells if each["steps"] == n)
            axes.plot(*_columns(points), stroke, color=HUES[mode], marker="o", markersize=3.5)
    shown = [Line2D([], [], color=HUES[mode], label=mode) for mode in peaks]
    shown += [Line2D([], [], color="grey", ls=stroke, label=f"{n} steps") for n, stroke in strokes.items()]
    axes.legend(handles=shown, frameon=False)
    axes.set_xlabel("frames")


def _over_steps(axes: Axes, peaks: Mapping[str, Cells], memory: str, scale: Scale) -> None:
    """Colours are modes, and the number of frames stands behind each line: a column of numbers for each mode."""
    for place, (mode, cells) in enumerate(peaks.items()):
        for frames in sorted({each["frames"] for each in cells}):
            points = sorted(
                (each["steps"], each[memory] / scale[0]) for each in cells if each["frames"] == frames
            )
            axes.plot(*_columns(points), color=HUES[mode], marker="o", markersize=3.5)
            at = {"xytext": (7 + 16 * place, -3), "textcoords": "offset points"}
            axes.annotate(str(frames), points[-1], **at, fontsize=8, color=HUES[mode])
    axes.margins(x=0.14, y=0.25)  # room for the numbers, and for the legend
    axes.set_xlabel("steps (numbers behind the lines: frames)")


def _expected(axes: Axes, cells: Cells, summary: Mapping[str, Any], scale: Scale) -> None:
    """From recompute's first peaks on, what stored latents and word heat add."""
    shown = []
    for line in summary["growth"]["per_step"]:
        points = sorted(
            (each["steps"], each[summary["memory"]]) for each in cells if each["frames"] == line["frames"]
        )
        if line["mode"] == "recompute" and "kept_mb" in line:
            (first, start), last = points[0], points[-1][0]
            y = [(start + line["kept_mb"] * (n - first)) / scale[0] for n in (first, last)]
            shown = axes.plot([first, last], y, color="grey", lw=1, ls=(0, (2, 2)), zorder=1)
    if shown:
        axes.legend(
            shown, ["recompute's first peak +\nlatents and word heat"], frameon=False, loc="upper left"
        )


def _scale(peaks: Iterable[float]) -> Scale:
    return (1000, "GB") if max(peaks, default=0) >= 10_000 else (1, "MB")


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
