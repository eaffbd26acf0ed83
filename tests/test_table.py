"""Tables: means, intervals, what is refused, what is always shown."""

import csv as csvlib
import io
import math

import numpy as np
import pytest

from evaluation import render
from evaluation.metric import Column
from evaluation.table import bootstrap, latest, summarise
from freemask.errors import UserError

UP = Column("psnr", "dB", True, "nearness")
DOWN = Column("lpips[random-alex]", "", False, "distance")


def row(method, task, psnr=None, lpips=None, status="done", **more):
    metrics = {"psnr": psnr, "lpips[random-alex]": lpips}
    base = {"task": task, "clip": "c", "method": method, "status": status, "seed": 0, "steps": 50}
    base |= {"metrics": metrics if status == "done" else {}, "seconds": {"edit": 2.0, "metrics": 0.5}}
    return {**base, "peak_rss_gb": 1.5, "peak_gpu_gb": None, "commit": "abc", **more}


ROWS = [
    row("ddim", "a", 20.0, 0.4), row("ddim", "b", 24.0, 0.2), row("ddim", "c", status="failed"),
    row("sdedit", "a", 30.0, 0.5), row("sdedit", "b", None, 0.3), row("sdedit", "c", 28.0, 0.7),
]  # fmt: skip


def test_means_counts_and_best():
    summary = summarise(ROWS, [UP, DOWN])
    ddim, sdedit = summary.value("ddim", "psnr"), summary.value("sdedit", "psnr")
    assert (ddim["mean"], ddim["n"], ddim["best"]) == (22.0, 2, False)
    assert (sdedit["mean"], sdedit["n"], sdedit["best"]) == (29.0, 2, True)
    assert summary.value("ddim", DOWN.name)["best"] and not summary.value("sdedit", DOWN.name)["best"]
    methods = summary.methods.set_index("method")
    assert methods.loc["ddim", ["n", "failures"]].tolist() == [2, 1]
    assert methods.loc["sdedit", ["n", "failures"]].tolist() == [3, 0]
    assert methods.loc["ddim", "seconds"] == 2.5


def test_bootstrap_covers_the_mean_and_is_seeded():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = bootstrap(rng.normal(5, 2, 40).tolist(), seed=trial)
        hits += low <= 5 <= high
    assert 0.88 <= hits / 200 <= 0.99
    values = rng.normal(0, 1, 30)
    low, high = bootstrap(values.tolist(), seed=3)
    assert (low, high) == bootstrap(values.tolist(), seed=3) != bootstrap(values.tolist(), seed=4)
    normal = 1.96 * values.std() / math.sqrt(30)
    assert high - low == pytest.approx(2 * normal, rel=0.15)
    assert all(math.isnan(v) for v in bootstrap([1.0]))


def test_the_last_row_of_a_task_counts():
    again = [*ROWS, row("ddim", "c", 28.0, 0.3)]
    assert len(latest(again)) == len(ROWS)
    assert summarise(again, [UP]).methods.set_index("method").loc["ddim", "failures"] == 0
    assert len(latest([*ROWS, row("ddim", "c", 28.0, seed=1)])) == len(ROWS) + 1


def test_mixtures_are_refused_unless_allowed():
    commits = [*ROWS, row("ddim", "d", 1.0, commit="def")]
    with pytest.raises(UserError, match="(?s)commit.*abc, def"):
        summarise(commits, [UP])
    assert summarise(commits, [UP], mixed=["commit"]).value("ddim", "psnr")["n"] == 3
    with pytest.raises(UserError, match="steps"):
        summarise([*ROWS, row("ddim", "d", 1.0, steps=10)], [UP])
    summarise([*ROWS, row("other", "d", 1.0, steps=10)], [UP])
    with pytest.raises(UserError, match="no rows"):
        summarise([])


def test_rows_describe_their_columns():
    facts = {"psnr": {"name": "psnr", "unit": "dB", "higher_is_better": True, "description": "nearness"}}
    summary = summarise([{**line, "columns": facts} for line in ROWS])
    assert [(c.name, c.arrow) for c in summary.columns] == [("psnr", "↑"), ("lpips[random-alex]", "")]
    assert not summary.value("ddim", "lpips[random-alex]")["best"]


def test_text_is_aligned_and_complete():
    shown = render.text(summarise(ROWS, [UP, DOWN]), width=200)
    head, rule, *lines = shown.splitlines()
    assert "psnr ↑ dB" in head and "lpips[random-alex] ↓" in head and "failures" in head
    assert lines[0].split()[:3] == ["ddim", "2", "1"] and lines[1].split()[:3] == ["sdedit", "3", "0"]
    assert "29.00* [28.00, 30.00] (n=2)" in lines[1]
    assert len(rule) >= max(len(line) for line in (head, lines[0], lines[1]))
    assert "GPU" not in head and "RSS" in head


def test_wide_tables_are_turned():
    shown = render.text(summarise(ROWS, [UP, DOWN]), width=80)
    lines = shown.splitlines()
    assert lines[0].split() == ["method", "ddim", "sdedit"]
    assert lines[2].split() == ["n", "2", "3"] and lines[3].split() == ["failures", "1", "0"]
    assert lines[4].startswith("psnr ↑ dB") and lines[4].endswith("29.00* [28.00, 30.00] (n=2)")


def test_too_wide_tables_lose_their_intervals():
    shown = render.text(summarise(ROWS, [UP, DOWN]), width=60)
    lines = shown.splitlines()
    assert lines[4].split() == ["psnr", "↑", "dB", "22.00", "29.00*"]
    assert "Mean [95%" in shown and max(map(len, lines[:8])) <= 60


def test_markdown_has_the_best_in_bold():
    shown = render.markdown(summarise(ROWS, [UP, DOWN]))
    head, rule, ddim, sdedit = shown.splitlines()[:4]
    assert head.count("|") == rule.count("|") == ddim.count("|") == sdedit.count("|")
    assert "**29.00**" in sdedit and "**0.300**" in ddim and "**22" not in ddim
    assert "nearness" in shown


def test_csv_keeps_full_precision():
    lines = list(csvlib.DictReader(io.StringIO(render.csv(summarise(ROWS, [UP, DOWN])))))
    assert [line["method"] for line in lines] == ["ddim", "sdedit"]
    assert float(lines[0]["lpips[random-alex].mean"]) == pytest.approx(0.3) and lines[1]["psnr.n"] == "2"
    assert lines[0]["failures"] == "1"


def test_metric_errors_and_only_failures_are_shown():
    rows = [row("ddim", "a", 20.0, metric_errors={"lpips": "no luck"}), row("bad", "a", status="failed")]
    shown = render.text(summarise(rows, [UP]))
    assert "metric errors" in shown
    bad = next(line for line in shown.splitlines() if line.startswith("bad"))
    assert bad.split()[:3] == ["bad", "0", "1"]
    assert "20.00" in shown and "20.00*" not in shown and "[" not in shown.splitlines()[2]
    assert "bad" in render.markdown(summarise(rows, [UP])) and "bad" in render.csv(summarise(rows, [UP]))
