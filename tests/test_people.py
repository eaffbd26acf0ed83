"""What people's answers are worth: agreement as the textbook has it, intervals over people and clips."""

import math

import numpy as np
import pytest

from evaluation.stats.agreement import alpha
from evaluation.stats.crossed import crossed

NONE = None
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C: four observers, twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
]
# Example A of the same: two observers, ten units, two values.
TWO = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]


def units(observers):
    return [[value for value in unit if value is not None] for unit in zip(*observers, strict=True)]


@pytest.mark.parametrize(("metric", "printed"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_textbook(metric, printed):
    assert round(alpha(units(OBSERVERS), metric), 3) == printed


def test_alpha_of_two_observers_and_two_values():
    for metric in ("nominal", "ordinal", "interval"):
        assert round(alpha(units(TWO), metric), 3) == 0.095


def test_alpha_at_its_ends():
    assert alpha([[1, 1], [2, 2], [3, 3, 3]], "ordinal") == 1
    assert alpha([[1, 2], [2, 1]], "nominal") < 0
    rng = np.random.default_rng(0)
    assert abs(alpha(rng.integers(0, 11, (2000, 5)).tolist(), "interval")) < 0.02
    assert math.isnan(alpha([[1], [2]], "nominal")) and math.isnan(alpha([[1, 1], [1, 1]], "interval"))


def answers(rng, people, clips, spread):
    """Means of people, of clips, and what is left: `spread` says how much each varies."""
    own, about, rest = spread
    table = own * rng.normal(size=(people, 1)) + about * rng.normal(size=(1, clips))
    return table + rest * rng.normal(size=(people, clips))


def labels(people, clips):
    return np.repeat(np.arange(people), clips).tolist(), np.tile(np.arange(clips), people).tolist()


@pytest.mark.parametrize("spread", [(1, 1, 1), (1, 0.2, 1), (0.2, 1, 1), (0, 0, 1)], ids=str)
def test_the_interval_covers_the_truth(spread):
    """Aimed at 95 %; of 400 tables one standard deviation is 1.1 %. People or clips alone would cover far less."""
    rng, (who, what), hits, alone = np.random.default_rng(3), labels(20, 9), 0, [0, 0]
    for _ in range(400):
        table = answers(rng, 20, 9, spread)
        found = crossed(table.ravel().tolist(), who, what)
        hits += found.low <= 0 <= found.high
        for axis in (0, 1):
            means = table.mean(1 - axis)
            wide = 2.1 * means.std(ddof=1) / math.sqrt(len(means))
            alone[axis] += abs(means.mean()) <= wide
    assert 0.92 <= hits / 400 <= 0.995
    if spread == (1, 1, 1):
        assert alone[0] / 400 < 0.85


def test_an_interval_needs_two_people_and_two_clips():
    for who, what in ((["a", "a"], [1, 2]), (["a", "b"], [1, 1])):
        found = crossed([1.0, 2.0], who, what)
        assert found.value == 1.5 and math.isnan(found.low) and math.isnan(found.p)
    found = crossed([1.0, 1.0, 1.0, 1.0], ["a", "a", "b", "b"], [1, 2, 1, 2])
    assert (found.low, found.high, found.p) == (1.0, 1.0, 0.5)
