"""Numbers about numbers: intervals of means, paired tests, what many of them cost, ranks. Pure; no torch, no pandas."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import NormalDist

import numpy as np

NOTHING = float("nan"), float("nan")
DRAWS = 2000
# Above so many values the normal limit of the bootstrap is taken: 2,000 draws err by more.
MANY = 2_000
HELD = 4_000_000  # picks held at once
FLIPS, EXACT, MANY_FLIPS = 10_000, 14, 2_000


def bootstrap(
    values: Sequence[float], *, level: float = 0.95, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float]:
    """Percentile interval of the mean; (nan, nan) for fewer than two values, which tell no spread."""
    if len(values) < 2:
        return NOTHING
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) > MANY:
        return _normal(float(sample.mean()), float(sample.std()) / math.sqrt(len(sample)), level)
    return _quantiles([sample[picks].mean(1) for picks in _picks(len(sample), seed, draws)], level)


def cluster_bootstrap(
    groups: Mapping[str, Sequence[float]], *, level: float = 0.95, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float]:
    """Interval of the mean over all values, whole groups being drawn; (nan, nan) for fewer than two groups."""
    if len(groups) < 2:
        return NOTHING
    sums, counts = _sums(groups), np.array([len(values) for values in groups.values()])
    if len(sums) > MANY:
        mean = float(sums.sum() / counts.sum())
        spread = float(np.sqrt(((sums - mean * counts) ** 2).sum())) / float(counts.sum())
        return _normal(mean, spread, level)
    means = [sums[picks].sum(1) / counts[picks].sum(1) for picks in _picks(len(sums), seed, draws)]
    return _quantiles(means, level)


def sign_flip(groups: Mapping[str, Sequence[float]], *, seed: int = 0, draws: int = FLIPS) -> float:
    """Two-sided p-value of paired differences, by turning the signs of whole groups; nan for fewer than two groups.

    Every pattern of signs is tried for up to 14 groups, random ones (the observed one counts too) for up to 2,000;
    for more, the sum over random signs is normal.
    """
    if len(groups) < 2:
        return float("nan")
    sums = _sums(groups)
    seen = abs(float(sums.sum()))
    scale = float(np.abs(sums).sum())
    if scale == 0:
        return 1.0
    if len(sums) > MANY_FLIPS:
        return math.erfc(seen / math.sqrt(2 * float((sums**2).sum())))
    least = seen - 1e-12 * scale
    if len(sums) <= EXACT:
        patterns = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        return float((np.abs((2 * patterns - 1) @ sums) >= least).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    for rows in _chunks(draws, len(sums)):
        signs = rng.integers(0, 2, (rows, len(sums)), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ sums) >= least).sum())
    return (hits + 1) / (draws + 1)


def resampled(
    sums: np.ndarray, number: Callable[[np.ndarray], np.ndarray], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval of a number that is made of sums over groups, a line of `sums` for each, whole groups being drawn."""
    if len(sums) < 2:
        return NOTHING
    return _quantiles([number(sums[picks].sum(1)) for picks in _picks(len(sums), seed, DRAWS)], level)


def swapped(
    one: np.ndarray, two: np.ndarray, number: Callable[[np.ndarray], np.ndarray], *, seed: int = 0
) -> float:
    """Two-sided p-value of a number made of two rivals' sums over groups, by exchanging whole groups between them;
    `sign_flip` for numbers that are no mean. Every pattern for up to 14 groups, random ones for more."""
    if len(one) < 2:
        return float("nan")
    apart, total = two - one, (one + two).sum(0)

    def numbers(swaps: np.ndarray) -> np.ndarray:
        first = one.sum(0) + swaps @ apart
        return np.abs(number(np.concatenate([first, total - first], axis=1)))

    seen = numbers(np.zeros((1, len(one))))[0]
    least = seen * (1 - 1e-12)
    if len(one) <= EXACT:
        patterns = (np.arange(2 ** len(one))[:, None] >> np.arange(len(one))) & 1
        return float((numbers(patterns) >= least).mean())
    rng, hits = np.random.default_rng(seed), 0
    for rows in _chunks(FLIPS, len(one)):
        hits += int((numbers(rng.integers(0, 2, (rows, len(one)), dtype=np.int8)) >= least).sum())
    return (hits + 1) / (FLIPS + 1)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number after Holm; nan stays nan and does not count."""
    known = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    found, least = [float("nan")] * len(values), 0.0
    for done, (value, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - done) * value))
        found[place] = least
    return found


def ranks(values: Sequence[float | None], higher_is_better: bool) -> list[float | None]:
    """1 is best; equal values share the mean of their places; what has no value has no rank."""
    known = [value for value in values if value is not None]

    def rank(value: float) -> float:
        better = sum((other > value) is higher_is_better and other != value for other in known)
        return better + (known.count(value) + 1) / 2

    return [None if value is None else rank(value) for value in values]


def _sums(groups: Mapping[str, Sequence[float]]) -> np.ndarray:
    return np.array([sum(values) for values in groups.values()], dtype=np.float64)


def _picks(size: int, seed: int, draws: int) -> Iterator[np.ndarray]:
    """The same picks, however many are held at once."""
    rng = np.random.default_rng(seed)
    for rows in _chunks(draws, size):
        yield rng.integers(0, size, (rows, size))


def _chunks(draws: int, size: int) -> Iterator[int]:
    step = max(1, HELD // size)
    yield from (min(step, draws - start) for start in range(0, draws, step))


def _quantiles(means: Sequence[np.ndarray], level: float) -> tuple[float, float]:
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _normal(mean: float, spread: float, level: float) -> tuple[float, float]:
    width = NormalDist().inv_cdf((1 + level) / 2) * spread
    return mean - width, mean + width
