"""Tables: means, intervals, what is refused, what is always shown."""

import csv as csvlib
import io

import pytest

from evaluation.tables import render
from evaluation.tables.comparison import compare
from evaluation.tables.grid import BEST
from evaluation.tables.numbers import number
from evaluation.tables.run import csv, differences_grid, means_grid
from evaluation.tables.summary import latest, summarise
from freemask.errors import UserError

UP = {"psnr": {"unit": "dB", "up": True, "description": "nearness"}}
DOWN = {"lpips[random-alex]": {"unit": "", "higher_is_better": False, "description": "distance"}}


def row(method, task, psnr=None, lpips=None, status="done", **more):
    metrics = {"psnr": psnr, "lpips[random-alex]": lpips}
    base = {"task": task, "clip": f"clip {task}", "method": method, "status": status, "seed": 0, "steps": 50}
    base |= {"metrics": metrics if status == "done" else {}, "seconds": {"edit": 2.0, "metrics": 0.5}}
    return {**base, "peak_rss_gb": 1.5, "peak_gpu_gb": None, "commit": "abc", **more}


ROWS = [
    row("ddim", "a", 20.0, 0.4), row("ddim", "b", 24.0, 0.2), row("ddim", "c", status="failed"),
    row("sdedit", "a", 30.0, 0.5), row("sdedit", "b", None, 0.3), row("sdedit", "c", 28.0, 0.7),
]  # fmt: skip


def test_means_counts_and_best():
    summary = summarise(ROWS, UP | DOWN)
    ddim, sdedit = summary.value("ddim", "psnr"), summary.value("sdedit", "psnr")
    assert (ddim["mean"], ddim["n"], ddim["best"]) == (22.0, 2, False)
    assert (sdedit["mean"], sdedit["n"], sdedit["best"]) == (29.0, 2, True)
    assert summary.value("ddim", *DOWN)["best"] and not summary.value("sdedit", *DOWN)["best"]
    first, second = summary.lines
    assert (first.n, first.failures, first.seconds) == (2, 1, 2.5) and (second.n, second.failures) == (3, 0)


def test_a_line_that_failed_on_the_hard_tasks_is_not_best_for_it():
    """Best is best over the tasks that all lines have."""
    rows = [row("whole", "easy", 30.0), row("whole", "hard", 10.0), row("lucky", "easy", 29.0)]
    rows += [row("lucky", "hard", status="failed")]
    summary = summarise(rows, UP)
    assert summary.value("lucky", "psnr")["mean"] > summary.value("whole", "psnr")["mean"]
    assert summary.value("whole", "psnr")["best"] and not summary.value("lucky", "psnr")["best"]


def test_a_tuning_counts_in_every_edit_that_rests_on_it():
    made = {"seconds": {"tuning": 30.0, "edit": 2.0}, "facts": {"tuning_seconds": 30.0, "tuning_kept": False}}
    kept = {"seconds": {"tuning": 0.5, "edit": 2.0}, "facts": {"tuning_seconds": 30.0, "tuning_kept": True}}
    rows = [row("first", "a", 1.0, **made), row("second", "a", 1.0, **kept), row("plain", "a", 1.0)]
    summary = summarise(rows, UP)
    assert [line.seconds for line in summary.lines] == [32.0, 32.0, 2.5]
    assert any("tuning" in note for note in summary.notes) and not summarise(ROWS, UP).notes


def test_equal_means_are_all_best():
    rows = [row(name, task, value) for name in "xyz" for task, value in (("a", 0.1), ("b", 0.2))]
    assert set(summarise(rows, UP).best["psnr"]) == set("xyz")


def test_edits_of_one_clip_make_no_narrower_interval():
    alone = [row("a", str(k), float(k % 5), clip=f"c{k}") for k in range(10)]
    four = [row("a", f"{k}-{t}", float(k % 5), clip=f"c{k}") for k in range(10) for t in range(4)]
    one, other = (summarise(rows, UP).value("a", "psnr") for rows in (alone, four))
    assert (other["low"], other["high"]) == pytest.approx((one["low"], one["high"]))
    assert (one["n"], other["n"], other["clips"]) == (10, 40, 10)


def test_seeds_of_a_task_weigh_as_much_as_one():
    rows = [row("a", "1", value, seed=k) for k, value in enumerate([0.0, 0.0, 0.0, 0.4])] + [
        row("a", "2", 0.9)
    ]
    found = summarise(rows, UP)
    assert found.value("a", "psnr")["mean"] == pytest.approx(0.5) and found.value("a", "psnr")["n"] == 2
    assert (found.lines[0].n, found.lines[0].edits) == (2, 5)


def test_a_line_over_several_devices_says_so():
    rows = [row("a", str(k), 1.0, device=d, frames=[8, 3, 4, 4]) for k, d in enumerate(["cpu", "cuda"])]
    (note,) = summarise(rows, UP).notes
    assert "cpu, cuda" in note and note in render.markdown(means_grid(summarise(rows, UP)))
    several = ["cuda:0 (NVIDIA H100)", "cuda:3 (NVIDIA H100)", "cuda:0 (NVIDIA A100)"]
    alike = [row("a", str(k), 1.0, device=device) for k, device in enumerate(several)]
    assert not summarise(alike[:2], UP).notes and "NVIDIA A100, NVIDIA H100" in summarise(alike, UP).notes[0]
    rows[1]["frames"] = [16, 3, 4, 4]
    assert "16, 8" in summarise(rows, UP).notes[1]


def test_the_last_row_of_a_task_counts():
    again = [*ROWS, row("ddim", "c", 28.0, 0.3)]
    assert len(latest(again)) == len(ROWS)
    assert summarise(again, UP).lines[0].failures == 0
    assert len(latest([*ROWS, row("ddim", "c", 28.0, seed=1)])) == len(ROWS) + 1


def test_mixtures_are_refused_unless_allowed():
    commits = [*ROWS, row("ddim", "d", 1.0, commit="def")]
    with pytest.raises(UserError, match="(?s)commit.*abc, def"):
        summarise(commits, UP)
    assert summarise(commits, UP, mixed=["commit"]).value("ddim", "psnr")["n"] == 3
    with pytest.raises(UserError, match="steps"):
        summarise([*ROWS, row("ddim", "d", 1.0, steps=10)], UP)
    summarise([*ROWS, row("other", "d", 1.0, steps=10)], UP)
    with pytest.raises(UserError, match="no rows"):
        summarise([])


def test_rows_describe_their_columns():
    facts = {"psnr": {"name": "psnr", "unit": "dB", "higher_is_better": True, "description": "nearness"}}
    summary = summarise([{**line, "columns": facts} for line in ROWS])
    assert summary == summarise(ROWS, facts) == summarise(ROWS, UP)
    assert [(c.name, c.arrow) for c in summary.columns] == [("psnr", "↑"), ("lpips[random-alex]", "")]
    assert not summary.value("ddim", "lpips[random-alex]")["best"]


def shown_(summary, width=None):
    return render.text(means_grid(summary), width)


def wanted(low_high):
    return f"[{number(low_high['low'])}, {number(low_high['high'])}]"


def test_text_is_aligned_and_complete():
    summary = summarise(ROWS, UP | DOWN)
    head, rule, *lines = shown_(summary, 200).splitlines()
    assert "psnr ↑ dB" in head and "lpips[random-alex] ↓" in head and "failures" in head
    assert lines[0].split()[:3] == ["ddim", "2", "1"] and lines[1].split()[:3] == ["sdedit", "3", "0"]
    assert f"29.00* {wanted(summary.value('sdedit', 'psnr'))} (n=2)" in lines[1]
    assert len(rule) >= max(len(line) for line in (head, lines[0], lines[1]))
    assert "GPU" not in head and "host GB" in head


def test_wide_tables_are_turned():
    summary = summarise(ROWS, UP | DOWN)
    lines = shown_(summary, 80).splitlines()
    assert lines[0].split() == ["method", "ddim", "sdedit"]
    assert lines[2].split() == ["n", "2", "3"] and lines[3].split() == ["failures", "1", "0"]
    ending = f"29.00* {wanted(summary.value('sdedit', 'psnr'))} (n=2)"
    assert lines[4].startswith("psnr ↑ dB") and lines[4].endswith(ending)


def test_too_wide_tables_lose_their_intervals():
    lines = shown_(summarise(ROWS, UP | DOWN), 60).splitlines()
    assert lines[4].split() == ["psnr", "↑", "dB", "22.00", "29.00*", "(n=2)"]
    assert max(map(len, lines[:8])) <= 60


def test_markdown_has_the_best_in_bold():
    shown = render.markdown(means_grid(summarise(ROWS, UP | DOWN)))
    head, rule, ddim, sdedit = shown.splitlines()[:4]
    assert head.count("|") == rule.count("|") == ddim.count("|") == sdedit.count("|")
    assert "**29.00**" in sdedit and "**0.300**" in ddim and "**22" not in ddim
    assert "nearness" in shown


def test_csv_keeps_full_precision():
    lines = list(csvlib.DictReader(io.StringIO(csv(summarise(ROWS, UP | DOWN)))))
    assert [line["method"] for line in lines] == ["ddim", "sdedit"]
    assert float(lines[0]["lpips[random-alex].mean"]) == pytest.approx(0.3) and lines[1]["psnr.n"] == "2"
    assert lines[0]["failures"] == "1" and lines[0]["peak_gpu_gb"] == ""


def test_only_what_is_tested_and_clear_is_marked():
    """An interval that leaves out 0 is not enough where many are compared."""
    rows = [row("a", str(k), 20.0, 0.1) for k in range(10)]
    rows += [
        row("b", str(k), 20.0 + [3, 1, 4, -2, 5, 2, -1, 4, 2, 0][k] / 4, 0.3 + 0.01 * k) for k in range(10)
    ]
    rows += [row(name, str(k), 20.0 + (-1) ** k, 0.1) for name in "cdef" for k in range(10)]
    found = compare(rows, "a", columns=UP | DOWN, by="method")
    told = found.paired.value("b", "psnr")
    assert told.low > 0 and told.p <= 0.05 < told.p_adjusted and not told.clear
    grid = differences_grid(found.paired)
    cells = {block.title: block.parts[0].cells for block in grid.blocks}
    assert cells["b"][1].place == 0 and "better" not in cells["b"][1].text and "p=" in cells["b"][1].text
    assert cells["b"][2].place == BEST and cells["b"][2].text.endswith(" worse")
    assert f"all {len(found.paired.differences)} comparisons" in grid.notes[0]


def test_metric_errors_and_only_failures_are_shown():
    rows = [row("ddim", "a", 20.0, metric_errors={"lpips": "no luck"}), row("bad", "a", status="failed")]
    shown = shown_(summarise(rows, UP))
    assert "metric errors" in shown
    bad = next(line for line in shown.splitlines() if line.startswith("bad"))
    assert bad.split()[:3] == ["bad", "0", "1"]
    assert "20.00" in shown and "20.00*" not in shown and "[" not in shown.splitlines()[2]
    assert "bad" in render.markdown(means_grid(summarise(rows, UP))) and "bad" in csv(summarise(rows, UP))


def test_html_of_a_plain_grid_has_a_head_for_every_cell():
    shown = render.html_table(means_grid(summarise(ROWS, UP)))
    first = shown[shown.index("<tbody>") : shown.index("</tbody>")]
    assert shown.count("<th>") == first.count("<th ") + first.count("<td")
