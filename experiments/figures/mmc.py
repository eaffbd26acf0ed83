"""The paper's Fig. 1: maps of a word over layers and times, and the mask matching costs of several models."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from freemask.masks.codebook import Codebook
from freemask.masks.mmc import Estimate
from freemask.types import Time

CELL, GAP, COLUMNS = 64, 3, 8
MOST = 40  # layers, or heads of them, that are named
LEAST = 0.9  # where the axes of costs begin: no cost is less than 1
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def short(site: str) -> str:
    """`up_blocks.3.attentions.1.transformer_blocks.0.attn2` -> `up 3.1`, `blocks.5.attn2:3` -> `block 5:3`."""
    layer, mark, head = site.partition(":")
    patterns = {
        r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\..*": r"\1 \2.\3",
        r"mid_block\..*": "mid",
        r"(?:transformer_)?blocks\.(\d+)\.\w+": r"block \1",
    }
    for pattern, name in patterns.items():
        if found := re.fullmatch(pattern, layer):
            return found.expand(name) + mark + head
    return site


def curves(path: Path, books: Mapping[str, Codebook]) -> None:
    """TMMC over times and LMMC over layers, one line for each model, with 95 % intervals. Networks of different layers
    are laid over each other from their first layer to their last."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    sites, *others = {tuple(book.sites) for book in books.values()}
    for place, (name, book) in enumerate(books.items()):
        layers = np.linspace(0, 1, len(book.sites)) if others else np.arange(len(book.sites))
        color, label = COLORS[place % len(COLORS)], f"{name} (n = {book.n}): {short(book.best_site)}"
        t_best, l_best = book.times.index(book.best_time), book.sites.index(book.best_site)
        _line(left, book.times, book.tmmc, t_best, color, label)
        _line(right, layers, book.lmmc, l_best, color, label)
        if book.ceilings:
            right.plot(layers, [each["cost"] for each in book.ceilings], color=color, lw=1, ls=":")
    across = "time (noise on the left, clean on the right)"
    left.set(xlabel=across, ylabel="TMMC: mean over layers of 1 / IoU")
    left.invert_xaxis()
    right.set(xlabel="layer", ylabel="LMMC: mean over times of 1 / IoU")
    if others:
        right.set_xticks([0, 1], ["first layer", "last layer"])
    else:
        places = spread(len(sites), MOST)
        right.set_xticks(places, [short(sites[place]) for place in places], rotation=60)
    for axes in (left, right):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks([1, 2, 5, 10, 20, 50, 100])
        axes.set_ylim(bottom=LEAST)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if any(book.ceilings for book in books.values()):
        right.plot([], color="gray", lw=1, ls=":", label="the least that a layer's grid allows")
    figure.legend(*right.get_legend_handles_labels(), frameon=False, ncols=4, loc="outside lower center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def maps(path: Path, kept: Path, title: str, best: tuple[str, Time]) -> None:
    """One frame's maps, each from its least to its most, layers downwards; the best layer and time are marked."""
    with np.load(kept) as file:
        sites, times = [str(site) for site in file["sites"]], file["times"].tolist()
        rows = sorted({*spread(len(sites), MOST), sites.index(best[0])})
        sites, heat = [sites[i] for i in rows], [file[f"maps{i}"].astype(np.float32) for i in rows]
        frame, truth = file["frame"], file["truth"]
    shown = sorted({*(times[place] for place in spread(len(times), COLUMNS)), best[1]}, reverse=True)
    cells = [np.concatenate([_cell(each[times.index(t)]) for t in shown], axis=1) for each in heat]
    height = max(3.0, 0.62 * len(sites))
    figure = Figure(figsize=(0.62 * len(shown) + 4.6, height + 0.7), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.7, 0.62 * len(shown)])
    for row, (picture, words) in enumerate(((frame, "frame"), (_outlined(frame, truth), "true mask"))):
        axes = figure.add_subplot(grid[row, 0])
        axes.imshow(picture)
        axes.set_title(words, fontsize=9)
        axes.axis("off")
    axes = figure.add_subplot(grid[:, 1])
    axes.imshow(np.concatenate(cells))
    middle = [CELL * (place + 0.5) for place in range(max(len(sites), len(shown)))]
    axes.set_yticks(middle[: len(sites)], [short(site) for site in sites], fontsize=8)
    axes.set_xticks(middle[: len(shown)], [f"t = {t:.0f}" for t in shown], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.get_yticklabels()[sites.index(best[0])].set_fontweight("bold")
    axes.get_xticklabels()[shown.index(best[1])].set_fontweight("bold")
    figure.savefig(path, dpi=110)


def _line(
    axes: Axes,
    x: Sequence[Time] | np.ndarray,
    estimates: Sequence[Estimate],
    best: int,
    color: str,
    label: str,
) -> None:  # noqa: PLR0913
    mean, low, high = zip(*((each.mean, each.low, each.high) for each in estimates), strict=True)
    axes.plot(x, mean, color=color, label=label, marker=".", markersize=4)
    # Down to where the axis ends: an interval by Student's t may reach below zero, which has no place on it.
    axes.fill_between(x, np.maximum(low, LEAST / 2), high, color=color, alpha=0.15, lw=0)
    axes.plot(x[best], mean[best], marker="o", markersize=9, markerfacecolor="none", color=color)


def spread(length: int, count: int) -> list[int]:
    """So many places of a list, or all where it has fewer: evenly, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, length - 1, min(count, length))})


def _cell(values: np.ndarray) -> np.ndarray:
    """A map in colours, on a square of its own."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    side = CELL - GAP
    rows, columns = (np.arange(side) * size // side for size in values.shape)
    cell = np.ones((CELL, CELL, 3), dtype=np.float32)
    cell[:side, :side] = colormaps["magma"](scaled[rows][:, columns])[..., :3]
    return cell


def _outlined(frame: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The frame, dark where the mask is not."""
    return np.where(truth[..., None], frame, frame // 4)
