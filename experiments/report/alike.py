"""Is what a calibration finds of the network or of its clips? How far rankings agree: those of layers, or times, by one
half of the clips and by the other; and those of models whose layers have the same names.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from freemask.masks.codebook import Codebook
from freemask.masks.mmc import cost, lmmc, tmmc
from freemask.statistics import spearman

SPLITS = 500
FEWEST = 4  # clips: two in each half


def told(rows: Sequence[Mapping[str, Any]], book: Codebook) -> list[str]:
    """Of halves of the clips, over random splits; nothing of few clips."""
    done = [row for row in rows if row["status"] == "done"]
    clips = sorted({row["clip"] for row in done})
    if len(clips) < FEWEST:
        return []
    costs = cost(torch.tensor([row["iou"] for row in done], dtype=torch.float64), book.floor)
    place = torch.tensor([clips.index(row["clip"]) for row in done])
    said = []
    for what, values in (("layers", lmmc(costs)), ("times", tmmc(costs))):
        sums = torch.zeros(len(clips), values.shape[1], dtype=torch.float64).index_add_(0, place, values)
        means = (sums / torch.bincount(place)[:, None]).numpy()
        if values.shape[1] > 1:
            said.append(_of_halves(what, means))
    return said


def _of_halves(what: str, values: np.ndarray) -> str:
    """`values` are clips x places."""
    rng, count = np.random.default_rng(0), len(values)
    found, same = [], 0
    for _ in range(SPLITS):
        order = rng.permutation(count)
        one, other = (values[half].mean(axis=0) for half in (order[: count // 2], order[count // 2 :]))
        found.append(spearman(one.tolist(), other.tolist()))
        same += int(one.argmin() == other.argmin())
    low, high = np.quantile(found, [0.025, 0.975])
    return (
        f"{what} ranked by two halves of the {count} clips: Spearman {np.mean(found):.2f}"
        f" (95 % of splits: {low:.2f} to {high:.2f}), the same best one in {same / SPLITS:.0%}"
    )


def between(books: Mapping[str, Codebook]) -> list[str]:
    """Of models that have layers of the same names; of times, where they are the same."""
    said = []
    for one, other in combinations(books, 2):
        a, b = books[one], books[other]
        if list(a.sites) != list(b.sites) or len(a.sites) < 2:
            continue
        parts = [f"of their {len(a.sites)} layers {_ranked(a.lmmc, b.lmmc)}"]
        if list(a.times) == list(b.times) and len(a.times) > 1:
            parts.append(f"of times {_ranked(a.tmmc, b.tmmc)}")
        said.append(f"{one} and {other}, rankings compared: Spearman {', '.join(parts)}")
    return said


def _ranked(one: Sequence[Any], other: Sequence[Any]) -> str:
    return f"{spearman(*([each.mean for each in found] for found in (one, other))):.2f}"
