"""How often the interval covers the truth, and how often tables without any difference carry a mark.

    python -m evaluation.stats.simulation [FILE]

writes reports/statistics.md (or FILE): synthetic tables of few clips with one to four tasks each, by the functions that
every table here uses, beside the plain t interval with as many degrees of freedom as clips, less one.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit, stdtr, stdtrit

from evaluation.stats.many import CLEAR, holm
from freemask.statistics import by_clip, mean, quotient

CLIPS = (6, 8, 10, 20, 60)
TABLES, NULLS, COMPARISONS = 2000, 1000, 12
TOGETHER = 0.5  # correlation of the tasks of one clip
FLOOR, MISSED = 0.01, 0.05
Draw = Callable[[np.ndarray], np.ndarray]  # of standard normal numbers

KINDS: dict[str, Draw] = {
    "normal": lambda z: z,
    "share-like (0 to 1, most near 1)": lambda z: expit(1.5 + 1.5 * z),
    "lognormal": np.exp,
}


def tasks(rng: np.random.Generator, clips: int) -> tuple[np.ndarray, np.ndarray]:
    """The clip of each task, and a standard normal number for it."""
    clip = np.repeat(np.arange(clips), rng.integers(1, 5, clips))
    own = rng.normal(size=len(clip))
    return clip, math.sqrt(TOGETHER) * rng.normal(size=clips)[clip] + math.sqrt(1 - TOGETHER) * own


def truth(draw: Draw) -> float:
    points, weights = np.polynomial.hermite_e.hermegauss(100)
    return float(draw(points) @ weights / weights.sum())


def plain(values: np.ndarray, clip: np.ndarray) -> tuple[float, float, float]:
    """Low, high and p of the t interval with the sandwich error alone."""
    sums, counts = by_clip(values[:, None], clip.tolist())
    middle, many = values.mean(), len(counts)
    error = math.sqrt(np.square(sums[:, 0] - middle * counts).sum() * many / (many - 1)) / len(values)
    wide = stdtrit(many - 1, 0.975) * error
    return middle - wide, middle + wide, 2 * stdtr(many - 1, -abs(middle) / error)


def coverage(name: str, clips: int) -> tuple[float, float]:
    """Of our interval and of the plain one."""
    rng, draw = np.random.default_rng([clips, len(name)]), KINDS[name]
    wanted, hits = truth(draw), np.zeros(2)
    for _ in range(TABLES):
        clip, z = tasks(rng, clips)
        values = draw(z)
        found, other = mean(values.tolist(), clip.tolist()), plain(values, clip)
        hits += found.low <= wanted <= found.high, other[0] <= wanted <= other[1]
    ours, others = (hits / TABLES).tolist()
    return ours, others


def quotient_coverage(clips: int) -> float:
    """Of one mean over another, as Q-edit: 25 (sd 3) over a lognormal Warp-Err (median 2, sigma .4)."""
    rng, hits = np.random.default_rng([clips, 1]), 0
    wanted = 25 / (2 * math.exp(0.08))
    for _ in range(TABLES):
        clip, z = tasks(rng, clips)
        above = 25 + 3 * rng.normal(size=len(z))
        found = quotient(above.tolist(), (2 * np.exp(0.4 * z)).tolist(), clip.tolist())
        hits += found is not None and found.low <= wanted <= found.high
    return hits / TABLES


def codebook_coverage(clips: int) -> float:
    """Of 1 / overlap, one item a clip, where one mask in twenty misses and costs 1 / floor."""
    rng, hits = np.random.default_rng([clips, 2]), 0
    overlap = expit(0.5 + 0.8 * np.random.default_rng(0).normal(size=1_000_000))
    wanted = MISSED / FLOOR + (1 - MISSED) * float((1 / overlap).mean())
    for _ in range(TABLES):
        costs = 1 / expit(0.5 + 0.8 * rng.normal(size=clips))
        costs[rng.random(clips) < MISSED] = 1 / FLOOR
        found = mean(costs.tolist(), range(clips))
        hits += found.low <= wanted <= found.high
    return hits / TABLES


def marked(name: str, clips: int, shift: float = 0.0) -> tuple[float, float]:
    """The share of tables of twelve differences that carry a mark, ours and by the plain t. All differences are of mean
    zero; but the first is `shift` standard deviations, and then it alone is looked at."""
    rng, draw = np.random.default_rng([clips, len(name), 3]), KINDS[name]
    middle, hits = truth(draw), np.zeros(2)
    spread = math.sqrt(truth(lambda z: (draw(z) - middle) ** 2))
    for _ in range(NULLS):
        found = []
        for place in range(COMPARISONS):
            clip, z = tasks(rng, clips)
            values = draw(z) - middle + (shift * spread if place == 0 else 0)
            found.append((mean(values.tolist(), clip.tolist()).p, plain(values, clip)[2]))
        adjusted = [np.array(holm(each)) <= CLEAR for each in zip(*found, strict=True)]
        hits += [each[0] if shift else each.any() for each in adjusted]
    ours, others = (hits / NULLS).tolist()
    return ours, others


def table(head: str, lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    titles = [head, *(f"{clips} clips" for clips in CLIPS)]
    body = [f"| {name} | {' | '.join(cells)} |" for name, cells in lines]
    return "\n".join([f"| {' | '.join(titles)} |", "| :-- |" + " --: |" * len(CLIPS), *body])


def percent(pairs: Sequence[tuple[float, float] | float]) -> list[str]:
    return [
        f"**{100 * p[0]:.1f}** / {100 * p[1]:.1f}" if isinstance(p, tuple) else f"**{100 * p:.1f}**"
        for p in pairs
    ]


HEAD = f"""# What the intervals and marks are worth

Made by `python -m evaluation.stats.simulation`. Synthetic tables with one to four tasks a clip, correlated by
{TOGETHER}. Bold: the interval and test of every table here (`freemask/statistics.py`); after the stroke: the plain t
interval with the sandwich error over clips and one degree of freedom less than clips."""
COVERED = f"""## Coverage of 95 % intervals, in % ({TABLES:,} tables each; +-0.5)

Aimed at: 93 to 97 % from 8 clips on normal data. Skewed data fall short while there are few clips; costs in which a
rare miss weighs a hundredfold cannot be known from clips that have none of them."""
MARKED = f"""## Tables without a difference that carry a mark, in % ({NULLS:,} of {COMPARISONS} comparisons each; +-0.7)

Aimed at: 5 % at most. Held for normal differences. Of strongly skewed ones more tables carry a mark, most at about 10
clips: what a rare outlier would have said is not in the sample. With fewer than 9 clips none of {COMPARISONS} can be
marked: p is never less than 2 / 2^clips, the least that turning the signs of whole clips can give."""
FOUND = f"""## A true difference among {COMPARISONS} comparisons is marked, in % (normal)

The price of that caution."""


def page() -> str:
    covered = [(name, percent([coverage(name, clips) for clips in CLIPS])) for name in KINDS]
    covered.append(("Q-edit, one mean over another", percent([quotient_coverage(clips) for clips in CLIPS])))
    covered.append(("LMMC, one mask in 20 misses, floor .01", percent([codebook_coverage(c) for c in CLIPS])))
    nulls = [(name, percent([marked(name, clips) for clips in CLIPS])) for name in KINDS]
    sizes = (0.5, 1.0, 2.0)
    found = [(f"{size:g} sd", percent([marked("normal", clips, size) for clips in CLIPS])) for size in sizes]
    parts = [HEAD, COVERED, table("data", covered), MARKED, table("differences of mean zero", nulls)]
    return "\n\n".join([*parts, FOUND, table("its size", found)])


def main(path: str = "reports/statistics.md") -> None:
    started = time.perf_counter()
    Path(path).write_text(page() + "\n", encoding="utf-8")
    print(f"{path}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
