"""Intervals, paired tests, corrections and ranks against written-out versions, and at sizes that do not fit at once."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import statistics
from evaluation.pairs import adjusted, difference, values_of
from evaluation.quotients import quotient, quotient_difference
from evaluation.statistics import bootstrap, cluster_bootstrap, holm, ranks, resampled, sign_flip, swapped

RNG = np.random.default_rng(5)


def alone(values):
    return {str(place): [value] for place, value in enumerate(values)}


def test_the_bootstrap_is_the_one_written_out():
    sample = RNG.normal(3, 2, 40)
    picks = np.random.default_rng(7).integers(0, 40, (2000, 40))
    wanted = np.quantile(sample[picks].mean(1), [0.025, 0.975])
    assert bootstrap(sample.tolist(), seed=7) == pytest.approx(tuple(wanted), abs=1e-12)


def test_what_is_held_at_once_changes_nothing(monkeypatch):
    sample = RNG.normal(3, 2, 301).tolist()
    groups = {str(k): RNG.normal(0, 1, 1 + k % 3).tolist() for k in range(40)}
    many = {str(k): [value] for k, value in enumerate(RNG.normal(0.1, 1, 40))}
    before = bootstrap(sample, seed=1), cluster_bootstrap(groups, seed=1), sign_flip(many, seed=1)
    monkeypatch.setattr(statistics, "HELD", 1000)
    assert (bootstrap(sample, seed=1), cluster_bootstrap(groups, seed=1), sign_flip(many, seed=1)) == before


@pytest.mark.parametrize("clips", [9, 30])
def test_a_quotient_over_ones_is_a_mean(clips):
    """Value, interval, difference and p-value, by code that shares nothing but the drawing of clips."""
    ours, theirs = (
        {f"t{k}": (f"c{k % clips}", x) for k, x in enumerate(RNG.normal(m, 1, 40))} for m in (0.3, 0)
    )
    of = {
        name: {task: (clip, x, 1.0) for task, (clip, x) in each.items()}
        for name, each in (("a", ours), ("b", theirs))
    }
    groups: dict[str, list[float]] = {}
    for clip, value in ours.values():
        groups.setdefault(clip, []).append(value)
    found = quotient(of["a"], seed=3)
    assert found.value == pytest.approx(np.mean([value for _, value in ours.values()])) and found.n == 40
    assert found[1:3] == pytest.approx(cluster_bootstrap(groups, seed=3))
    told, wanted = (
        quotient_difference("a", "x", of["b"], of["a"], seed=3),
        difference("a", "x", theirs, ours, seed=3),
    )
    assert (told.mean, told.low, told.high, told.n) == pytest.approx(
        (wanted.mean, wanted.low, wanted.high, wanted.n)
    )
    assert told.p == pytest.approx(wanted.p, abs=1e-12 if clips == 9 else 0.01)


def test_a_quotient_of_nothing_is_none():
    assert quotient({}) is None and quotient({"t": ("c", 1.0, 0.0)}) is None
    assert quotient_difference("a", "x", {"t": ("c", 1.0, 1.0)}, {"u": ("c", 1.0, 1.0)}) is None
    assert quotient({"t": ("c", 3.0, 2.0)}).value == 1.5
    assert math.isnan(resampled(np.ones((1, 2)), lambda sums: sums[:, 0])[0])
    assert math.isnan(swapped(np.ones((1, 2)), np.ones((1, 2)), lambda sums: sums[:, 0]))


def test_many_values_have_the_bootstraps_limit(monkeypatch):
    sample = RNG.gamma(2, 1, 2500)
    groups = {str(k): RNG.normal(1, 1, 1 + k % 3).tolist() for k in range(2500)}
    limits = bootstrap(sample.tolist()), cluster_bootstrap(groups)
    monkeypatch.setattr(statistics, "MANY", 10_000)
    drawn = bootstrap(sample.tolist()), cluster_bootstrap(groups)
    for limit, real in zip(limits, drawn, strict=True):
        width = real[1] - real[0]
        assert limit != real
        assert limit[0] == pytest.approx(real[0], abs=0.05 * width)
        assert limit[1] == pytest.approx(real[1], abs=0.05 * width)


def test_a_hundred_thousand_values_fit():
    sample = RNG.normal(0, 1, 100_000).tolist()
    tracemalloc.start()
    low, high = bootstrap(sample)
    p = sign_flip(alone(sample))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(100_000), rel=0.02)
    assert 0 < p <= 1 and peak < 200e6


def test_sign_flips_are_counted_exactly():
    groups = {"a": [1.0, 2.0], "b": [-0.5], "c": [4.0], "d": [0.25, 0.25]}
    sums = [3.0, -0.5, 4.0, 0.5]
    flips = [abs(sum(s * each for s, each in zip(signs, sums, strict=True))) for signs in SIGNS4]
    assert sign_flip(groups) == np.mean([flip >= 7.0 for flip in flips]) == 6 / 16
    assert sign_flip({"a": [1.0], "b": [2.0]}) == 0.5
    assert math.isnan(sign_flip({"a": [1.0, 2.0]})) and sign_flip({"a": [0.0], "b": [0.0]}) == 1.0


SIGNS4 = list(itertools.product((-1, 1), repeat=4))


def test_the_three_ways_of_flipping_agree(monkeypatch):
    values = RNG.normal(0.5, 1, 14)
    exact = sign_flip(alone(values))
    monkeypatch.setattr(statistics, "EXACT", 3)
    assert sign_flip(alone(values)) == pytest.approx(exact, abs=0.02)
    values = RNG.normal(0.05, 1, 1500)
    drawn = sign_flip(alone(values))
    monkeypatch.setattr(statistics, "MANY_FLIPS", 1000)
    assert sign_flip(alone(values)) == pytest.approx(drawn, abs=0.02)


def test_p_values_are_uniform_where_nothing_is_different():
    rng = np.random.default_rng(11)
    found = [sign_flip(alone(rng.normal(0, 1, 12))) for _ in range(400)]
    assert 0.02 <= np.mean([p <= 0.05 for p in found]) <= 0.09
    assert 0.4 <= np.mean(found) <= 0.6


def test_tasks_of_one_clip_flip_together():
    """Ten copies of each difference hold no more than one."""
    values = RNG.normal(0.4, 1, 12)
    once, ten = alone(values), {str(k): [value] * 10 for k, value in enumerate(values)}
    assert sign_flip(ten) == sign_flip(once)


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    found = holm([0.01, float("nan"), 0.02])
    assert found[0] == 0.02 and math.isnan(found[1]) and found[2] == 0.02
    assert holm([]) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_a_correction_never_helps_and_keeps_the_order(given_ps):
    found = holm(given_ps)
    assert all(p <= each <= 1 for p, each in zip(given_ps, found, strict=True))
    order = sorted(range(len(given_ps)), key=lambda k: given_ps[k])
    assert all(found[a] <= found[b] for a, b in itertools.pairwise(order))


def test_ranks():
    assert ranks([3.0, 1.0, 2.0], True) == [1, 3, 2]
    assert ranks([3.0, 1.0, 2.0], False) == [3, 1, 2]
    assert ranks([2.0, None, 2.0, 5.0], True) == [2.5, None, 2.5, 1]
    assert ranks([None], True) == [None]


def test_differences_are_of_common_tasks_and_corrected_together():
    def row(task, value, status="done"):
        return {"task": task, "clip": f"c{task}", "status": status, "metrics": {"m": value}}

    base = values_of([row("1", 1.0), row("2", 2.0), row("3", None), row("4", 9.0, "failed")], "m")
    assert base == {"1": ("c1", 1.0), "2": ("c2", 2.0)}
    found = difference("x", "m", base, values_of([row("2", 5.0), row("1", 2.0), row("9", 0.0)], "m"))
    assert found is not None and (found.mean, found.n, found.clips, found.p) == (2.0, 2, 2, 0.5)
    assert difference("x", "m", base, {}) is None
    assert [each.p_adjusted for each in adjusted([found, found])] == [1.0, 1.0]
    seeds = values_of([row("1", 1.0), row("1", 3.0)], "m")
    assert seeds == {"1": ("c1", 2.0)}
