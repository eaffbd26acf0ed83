"""One interval and one test over clips against written-out versions, and what is made of many of them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.stats import simulation
from evaluation.stats.many import holm, ranks
from evaluation.stats.paired import adjusted, difference, quotient_difference
from evaluation.stats.values import Parts, common, distinct, mean_of, parts_of, quotient_of, values_of
from freemask.statistics import MOST, by_clip, freedom, mean, quantile, quotient, quotient_apart, spearman

RNG = np.random.default_rng(5)


def clustered(rng, clips, most=4):
    clip = np.repeat(np.arange(clips), rng.integers(1, most + 1, clips))
    return clip.tolist(), (rng.normal(size=clips)[clip] + rng.normal(size=len(clip)))


def written_out(values, clips):
    """Sandwich error, degrees of freedom and skewness, clip by clip; the corrected t turned round by bisection."""
    names, middle = sorted(set(clips)), float(np.mean(values))
    many, n = len(names), len(values)
    apart = [sum(v - middle for v, c in zip(values, clips, strict=True) if c == name) for name in names]
    sizes = [clips.count(name) for name in names]
    error = math.sqrt(sum(a**2 for a in apart) * many / (many - 1)) / n
    degrees = max(1, math.floor(sum(sizes) ** 2 / sum(s**2 for s in sizes) + 1e-9) - 1)
    skew = float(stats.skew(apart, bias=False)) / math.sqrt(many) if many >= 6 else 0.0

    def corrected(t):
        return t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6

    def turned(wanted):
        low, high = -1e4, 1e4
        for _ in range(200):
            half = (low + high) / 2
            low, high = (half, high) if corrected(half) < wanted else (low, half)
        return low

    wide = stats.t.ppf(0.975, degrees)
    low = middle - max(wide, turned(wide)) * error
    high = middle - min(-wide, turned(-wide)) * error
    t = middle / error
    agreed = corrected(t) if corrected(t) * t > 0 else 0
    p = max(2 * stats.t.sf(min(abs(t), abs(agreed)), degrees), 2 / 2**many)
    return low, high, p


@pytest.mark.parametrize("clips", [3, 5, 6, 11, 30])
def test_interval_and_p_are_those_written_out(clips):
    for k in range(20):
        groups, values = clustered(np.random.default_rng([clips, k]), clips)
        values = np.exp(values) - 1 if k % 2 else values + 0.5
        found = mean(values.tolist(), groups)
        assert (found.low, found.high, found.p) == pytest.approx(
            written_out(values.tolist(), groups), rel=1e-9
        )
        assert (found.n, found.clips) == (len(values), clips) and found.value == pytest.approx(values.mean())


def test_symmetric_equal_clips_have_the_t_interval_of_the_text_book():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    found = mean(values, range(7))
    wanted = stats.t.interval(0.95, 6, 4, stats.sem(values))
    assert (found.low, found.high) == pytest.approx(wanted)
    shifted = mean([value - 2.5 for value in values], range(7))
    assert shifted.p == pytest.approx(stats.ttest_1samp(values, 2.5).pvalue)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-5, 50)), min_size=8, max_size=40))
def test_p_and_interval_say_the_same(tasks):
    """From six clips on; of fewer, no p is small enough for anything."""
    clips, values = zip(*tasks, strict=True)
    found = mean(values, clips)
    if found.clips < 2:
        assert math.isnan(found.p) and math.isnan(found.low)
    elif found.clips < 6:
        assert found.p > 0.05
    elif found.low != found.high and min(abs(found.low), abs(found.high)) > 1e-9:
        assert (found.p <= 0.05) == (found.low > 0 or found.high < 0)


def test_tasks_of_one_clip_are_no_more_than_one():
    """Ten copies of each value tell no more: neither interval nor p changes."""
    values = RNG.normal(0.4, 1, 12)
    once = mean(values.tolist(), range(12))
    ten = mean(np.repeat(values, 10).tolist(), np.repeat(np.arange(12), 10).tolist())
    assert ten[1:3] + ten[5:] == pytest.approx(once[1:3] + once[5:]) and (ten.n, ten.clips) == (120, 12)


def test_a_clip_with_most_of_the_tasks_leaves_few_degrees_of_freedom():
    assert freedom(np.array([1] * 10)) == 9 and freedom(np.array([3] * 10)) == 9
    assert freedom(np.array([90] + [1] * 9)) == 1 and freedom(np.array([2, 2, 1, 1, 1, 1])) == 4
    assert freedom(np.ones(5000)) == MOST and quantile(MOST) == pytest.approx(1.96, rel=0.01)


def test_a_quotient_over_ones_is_a_mean():
    clips, ours = clustered(RNG, 9)
    theirs = ours + RNG.normal(0.3, 1, len(ours))
    one, two, ones = ours.tolist(), theirs.tolist(), [1.0] * len(ours)
    assert quotient(one, ones, clips) == pytest.approx(mean(one, clips))
    wanted = mean((ours - theirs).tolist(), clips)
    assert quotient_apart((one, ones), (two, ones), clips) == pytest.approx(wanted)


def test_a_quotients_error_is_what_leaving_out_clips_says():
    """The jackknife needs no derivative, and is the same but for terms of second order."""
    rng = np.random.default_rng(2)
    clips, noise = clustered(rng, 60)
    above, below = 25 + noise, 2 + 0.2 * rng.normal(size=len(noise))
    found = quotient(above.tolist(), below.tolist(), clips)
    sums, _ = by_clip(np.stack([above, below], 1), clips)
    without = [np.divide(*(sums.sum(0) - sums[k])) for k in range(60)]
    error = math.sqrt(np.var(without) * 59)
    assert found.high - found.low == pytest.approx(
        2 * quantile(freedom(np.bincount(clips))) * error, rel=0.05
    )


def test_what_is_no_number_has_no_p():
    found = mean([1.0, math.nan, 2.0], "abc")
    assert math.isnan(found.value) and math.isnan(found.p)
    assert mean([0.0, 0.0], "ab").p == 1.0 and quotient([1.0], [0.0], "a") is None
    assert math.isnan(mean([3.0], "a").low) and mean([3.0], "a").value == 3.0


def test_few_clips_that_all_agree_are_little_evidence():
    """Equal differences have no spread; turning signs would still give them 2 / 2^clips."""
    for clips in (2, 5, 8):
        assert mean([0.125] * clips, range(clips)).p == 2 / 2**clips
    # tied quotients too: exchanging whole clips of equal magnitude cannot say less
    one, two = ([2.0, 1.0, 2.0], [1.0] * 3), ([1.0, 2.0, 1.0], [1.0] * 3)
    assert quotient_apart(one, two, "abc").p >= 2 / 2**3


def test_differences_of_rounding_are_none():
    base = {str(k): (str(k), 20.0 + k) for k in range(6)}
    near = {task: (clip, value + 1e-9) for task, (clip, value) in base.items()}
    (found,) = adjusted([difference("x", "m", base, near)])
    assert found.mean == 0 and found.p == 1 and not found.clear
    far = {task: (clip, value + 0.01) for task, (clip, value) in base.items()}
    assert adjusted([difference("x", "m", base, far)])[0].clear
    parts = Parts(base, {task: (clip, 1.0) for task, (clip, _) in base.items()})
    assert quotient_difference("x", "m", parts, Parts(near, parts.below)).mean == 0


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
    assert ranks(list(np.array([3.0, 1.0, 2.0])), True) == [1, 3, 2]


# Values of rows


def row(task, value, status="done", **more):
    return {"task": task, "clip": f"c{task}", "status": status, "metrics": {"m": value}} | more


def test_differences_are_of_common_tasks_and_corrected_together():
    base = values_of([row("1", 1.0), row("2", 2.0), row("3", None), row("4", 9.0, "failed")], "m")
    assert base == {"1": ("c1", 1.0), "2": ("c2", 2.0)}
    found = difference("x", "m", base, values_of([row("2", 5.0), row("1", 2.0), row("9", 0.0)], "m"))
    assert found is not None and (found.mean, found.n, found.clips, found.p) == (2.0, 2, 2, 0.5)
    assert difference("x", "m", base, {}) is None
    assert [each.p_adjusted for each in adjusted([found, found])] == [1.0, 1.0]


def test_every_task_weighs_the_same_however_many_seeds_it_has():
    """The mean and the paired difference are of the same numbers."""
    rows = [row("1", value, seed=k) for k, value in enumerate([0.0, 0.0, 0.0, 0.4])] + [row("2", 0.9, seed=0)]
    assert mean_of(values_of(rows, "m")).value == pytest.approx((0.1 + 0.9) / 2)
    base = {"1": ("c1", 0.1), "2": ("c2", 0.9)}
    assert difference("x", "m", base, values_of(rows, "m")).mean == pytest.approx(0)


def test_an_edit_that_lies_in_two_folders_counts_once():
    rows = [row("1", 1.0, seed=0, run="a", finished="1"), row("1", 3.0, seed=0, run="a", finished="2")]
    assert [each["metrics"]["m"] for each in distinct([*rows, rows[0]])] == [3.0]
    assert len(distinct([*rows, row("1", 1.0, seed=1, run="a"), row("1", 1.0, seed=0, run="b")])) == 3


def test_only_means_over_the_same_tasks_are_ranked():
    """A line that failed on the hard task is not better for it."""
    whole = {"easy": ("a", 2.0), "hard": ("b", 0.0)}
    assert common({"whole": whole, "easy": {"easy": ("a", 1.5)}}) == {"whole": 2.0, "easy": 1.5}
    assert common({"whole": whole, "other": {"x": ("a", 1.5)}}) == {} == common({})


def test_a_quotients_parts_are_of_the_tasks_that_have_both():
    rows = [row("1", 2.0), row("2", 4.0), row("3", 9.0)]
    for each, below in zip(rows, (1.0, 2.0, None), strict=True):
        each["metrics"]["below"] = below
    parts = parts_of(rows, ("m", 10), ("below", 1))
    assert quotient_of(parts).value == pytest.approx(20.0) and quotient_of(parts).n == 2
    assert quotient_of(Parts({}, {})) is None


# What it is worth


def test_intervals_cover_and_null_tables_carry_few_marks(monkeypatch):
    """A small part of reports/statistics.md."""
    monkeypatch.setattr(simulation, "TABLES", 600)
    monkeypatch.setattr(simulation, "NULLS", 100)
    ours, plain = simulation.coverage("normal", 8)
    assert 0.93 <= ours <= 0.98 and plain < ours
    assert simulation.marked("normal", 10)[0] <= 0.07
    assert simulation.marked("normal", 20, 2.0)[0] > 0.9


def test_rankings_are_compared_as_the_library_does():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        one, other = (
            rng.integers(0, 5, 9).tolist(),
            rng.normal(size=9).tolist(),
        )  # the first with equal values
        assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)
    assert (spearman([1, 2, 9], [0, 5, 6]), spearman([1, 2, 9], [3, 2, 1]), spearman([1, 1], [1, 2])) == (
        1,
        -1,
        0,
    )
