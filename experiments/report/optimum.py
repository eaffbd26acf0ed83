"""Is the best layer or time better than others, or chance? Their cost minus the best one's, paired over clips."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from evaluation.tables.numbers import chance
from freemask.masks.codebook import Codebook
from freemask.masks.heat import short
from freemask.masks.mmc import cost, lmmc, tmmc
from freemask.statistics import mean


def told(rows: Sequence[Mapping[str, Any]], book: Codebook) -> list[str]:
    """Against both ends of denoising; against the second best layer, and the first and last that the network calls.
    Nothing of a single clip."""
    done = [row for row in rows if row["status"] == "done"]
    clips = [row["clip"] for row in done]
    if len(set(clips)) < 2:
        return []
    costs = cost(torch.tensor([row["iou"] for row in done], dtype=torch.float64), book.floor)
    ends = {book.times[-1]: f"{book.times[-1]:g} (noisiest)", book.times[0]: f"{book.times[0]:g} (clearest)"}
    second = sorted(range(len(book.sites)), key=lambda k: book.lmmc[k].mean)[:2][-1]
    places = {second: "the second best", 0: "the first", len(book.sites) - 1: "the last"}
    if second in (0, len(book.sites) - 1):
        places[second] += ", the second best"
    layers = {book.sites[k]: f"{short(book.sites[k])} ({name})" for k, name in places.items()}
    return [
        *_line("best time", tmmc(costs), book.times, book.best_time, ends, clips),
        *_line("best layer", lmmc(costs), book.sites, book.best_site, layers, clips),
    ]


def _line(
    what: str,
    costs: torch.Tensor,
    places: Sequence[Any],
    best: Any,
    others: Mapping[Any, str],
    clips: Sequence[str],
) -> list[str]:
    own = costs[:, places.index(best)]
    found = {
        name: mean((costs[:, places.index(other)] - own).tolist(), clips)
        for other, name in others.items()
        if other != best
    }
    said = [
        f"{name} {each.value:+.2f} [{each.low:.2f}, {each.high:.2f}] {chance(each.p)}"
        for name, each in found.items()
    ]
    return [f"cost above the {what}'s: {', '.join(said)}"] if said else []
