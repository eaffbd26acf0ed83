"""`freemask table`: a paper's table from rows, what it never does, and how it does with many rows."""

import cProfile
import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
from synthetic_rows import row as synthetic
from synthetic_rows import run_of, write

from evaluation.tables.chosen import family
from evaluation.tables.filled import UNIFORM, fill
from evaluation.tables.paper import main_grid, paired_grid
from evaluation.tables.papers import read
from evaluation.tables.render import html_table, latex, markdown, tex, text
from experiments.cli.app import main
from experiments.commands.table import Mixed
from experiments.config import choices
from experiments.config.fingerprint import Identity
from experiments.runs.plan import Item, Plan, Variant
from experiments.tables.rows import folders, planned, rows_of, stores

REAL = {"clip_text[vit_b_32]": 28.0, "clip_frame[vit_b_32]": 0.95, "masked_psnr": 26.0, "lpips[alex]": 0.3}
STAND_IN = {
    "clip_text[embedded]": 80.0,
    "clip_frame[embedded]": 0.9,
    "masked_psnr": 30.0,
    "lpips[random-alex]": 0.1,
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREEMASK_RUNS", "runs")


def rows(variant, metrics, count=8, first=0, **more):
    """Real clips, unless `clip` says otherwise; values move a little from task to task."""
    for k in range(first, first + count):
        values = {name: value * (1 + 0.01 * k) for name, value in metrics.items()}
        yield synthetic(variant, f"task-{k}", values, **{"clip": f"bear-{k}", **more})


def record(*words):
    assert main(["table", *words]) == 0
    name = words[0].replace("/", "-")
    return json.loads(Path(f"reports/tables/{name}.json").read_text())


def line(found, key):
    return next(each for each in found["lines"] if each["line"] == key)


def test_without_rows_every_line_has_its_mark_and_its_command(capsys):
    assert main(["table", "freemask/2"]) == 0
    said = capsys.readouterr().out
    assert said.count("ours: not run yet") == 8 and "ours: no method yet" not in said
    assert "freemask run experiment=freemask/table2 only=[fatezero_mmc]" in said
    assert "0.952*" in said and "nothing here stands for people" in said
    for suffix in ("md", "tex", "csv", "html", "json"):
        assert Path(f"reports/tables/freemask-2.{suffix}").stat().st_size > 500
    assert main(["table", "st-modulator/1"]) == 0
    assert "ours: no method yet" not in capsys.readouterr().out


def test_ours_the_published_value_and_the_difference(capsys):
    write("runs/freemask-table2/freemask", rows("freemask", REAL))
    found = record("freemask/2")
    ours, published = (line(found, "freemask")[key] for key in ("ours", "published"))
    assert published == dict(zip(ours | {"edit": 0, "image": 0, "quality": 0}, PRINTED, strict=True))
    mean = sum(0.95 * (1 + 0.01 * k) for k in range(8)) / 8
    assert ours["temp"]["mean"] == pytest.approx(mean) and ours["temp"]["n"] == 8
    assert ours["temp"]["apart"] == pytest.approx(mean - 0.952)
    assert ours["temp"]["low"] < mean < ours["temp"]["high"]
    assert ours["clip"]["mean"] == pytest.approx(0.28 * 1.035)  # the paper prints cosines, we 100 times that
    assert set(ours) == {"temp", "clip", "m_psnr", "lpips"}
    said = capsys.readouterr().out
    assert re.search(r"difference +\+0\.031 ", said) and "ours, n=8" in said
    assert line(found, "fatezero")["ours"] == {} and found["differences"] == []


PRINTED = [0.952, 0.282, 25.94, 0.366, 7.68, 9.23, 8.90]


def test_edits_of_one_clip_count_together():
    made = list(rows("freemask", REAL))
    alone = fill(read("freemask/2"), made).line("freemask").cells["temp"]
    pairs = fill(read("freemask/2"), [each | {"clip": f"c{k // 2}"} for k, each in enumerate(made)])
    cell = pairs.line("freemask").cells["temp"]
    assert cell.mean == pytest.approx(alone.mean) and cell.high - cell.low > 1.1 * (alone.high - alone.low)


def test_stand_ins_are_shown_and_never_subtracted(capsys):
    write("runs/freemask-table2/freemask", rows("freemask", STAND_IN))
    found = record("freemask/2")
    ours = line(found, "freemask")["ours"]
    assert {key for key, cell in ours.items() if cell["apart"] is not None} == {"m_psnr"}
    assert (
        "clip_frame[embedded], the paper's is of vit_b_32; no difference is shown" in capsys.readouterr().out
    )


def test_clips_of_the_embedded_world_are_never_subtracted(capsys):
    write("runs/freemask-table2/freemask", rows("freemask", REAL, clip="world-10000000"))
    ours = line(record("freemask/2"), "freemask")["ours"]
    assert len(ours) == 4 and all(cell["apart"] is None for cell in ours.values())
    assert "clips of the embedded world, which are not the paper's" in capsys.readouterr().out


def test_a_column_is_of_one_network_in_the_whole_table():
    write("runs/freemask-table2/freemask", rows("freemask", REAL))
    write("runs/freemask-table2/fatezero", rows("fatezero", STAND_IN))
    found = record("freemask/2")
    assert next(c["our_column"] for c in found["columns"] if c["key"] == "temp") == "clip_frame[vit_b_32]"
    assert set(line(found, "fatezero")["ours"]) == {"m_psnr"}
    assert {each["column"] for each in found["differences"]} == {"m_psnr"}
    assert any("FateZero lack clip_frame[vit_b_32]" in each["why"] for each in found["missing"])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"commit": "dead" * 9}, "commit"),
        ({"run": "x"}, "run"),
        ({"steps": 5}, "steps"),
        ({"model": "x"}, "model"),
        ({"device": "cuda"}, "device"),
        ({"dtype": "float16"}, "dtype"),
        ({"frames": [16, 3, 64, 64]}, "frames"),
    ],
)
def test_nothing_is_averaged_over_a_mixture_unasked(change, key, capsys):
    write("runs/freemask-table2/freemask", rows("freemask", REAL, 4))
    write("runs/freemask-table2/freemask", rows("freemask", REAL, 4, 4, **change))
    assert main(["table", "freemask/2"]) == 2
    said = capsys.readouterr().err
    assert f"mixed=[{key}]" in said and "FreeMask" in said and "(4 rows)" in said
    assert not Path("reports").exists()
    assert main(["table", "freemask/2", f"mixed=[{key}]"]) == 0
    assert "averages over 2" in capsys.readouterr().out


def test_every_mixture_that_is_refused_can_be_asked_for():
    assert set(get_args(Mixed)) == set(UNIFORM)


def test_lines_of_different_commits_are_told_apart(capsys):
    write("runs/freemask-table2/freemask", rows("freemask", REAL, dirty=True))
    write("runs/freemask-table2/fatezero", rows("fatezero", REAL, commit="dead" * 9))
    record("freemask/2")
    said = capsys.readouterr().out
    assert "FreeMask: commit c0ffeec0ffee." in said and "FateZero: commit deaddeaddead." in said
    assert "Made with local changes to that commit: FreeMask." in said


def test_failures_count_and_enter_no_mean(capsys):
    write("runs/freemask-table2/freemask", rows("freemask", REAL, 6))
    write("runs/freemask-table2/freemask", rows("freemask", {}, 2, 6, status="failed", message="torn"))
    write("runs/freemask-table2/fatezero", rows("fatezero", {}, 3, status="failed", message="torn"))
    found = record("freemask/2")
    assert (line(found, "freemask")["n"], line(found, "freemask")["failures"]) == (6, 2)
    said = capsys.readouterr().out
    assert "ours, n=6, 2 failed" in said and "ours: every edit failed" in said
    assert "2 of 8 edits failed: freemask run experiment=freemask/table2 only=[freemask] retry=failed" in said
    assert (
        "FateZero: 3 of 8 tasks have a row: freemask run experiment=freemask/table2 only=[fatezero]" in said
    )


def test_the_last_row_of_a_task_counts_and_torn_lines_do_not():
    write("runs/freemask-table2/freemask", rows("freemask", {}, 2, status="failed"))
    write("runs/freemask-table2/freemask", rows("freemask", REAL, 2, finished="2027"))
    path = Path("runs/freemask-table2/freemask/rows/w.jsonl")
    path.write_bytes(path.read_bytes() + b'\n{"task": "task-0", "status": "fai\n[1]\n{"task": 3}\n\xff\xfe\n')
    assert [row["status"] for row in rows_of(path.parent.parent)] == ["done", "done"]


def test_rows_with_strange_numbers_do_no_harm():
    strange = [{"masked_psnr": "much"}, {"masked_psnr": True}, {"masked_psnr": None}, ["list"], "text"]
    made = [synthetic("freemask", f"task-{k}", each, clip="x") for k, each in enumerate(strange)]
    write("runs/freemask-table2/freemask", [*made, *rows("freemask", REAL, 3, 10)])
    path = Path("runs/freemask-table2/freemask/rows/w.jsonl")
    path.write_text(path.read_text() + '\n{"task": "n", "status": "done", "metrics": {"masked_psnr": NaN}}\n')
    found = rows_of(path.parent.parent)
    assert sum(row["metrics"].get("masked_psnr") is not None for row in found) == 3


def test_differences_to_the_reference_stand_beside_the_published_ones(capsys):
    write("runs/freemask-table2/freemask", rows("freemask", REAL))
    lower = {name: value * 0.9 for name, value in REAL.items()}
    write("runs/freemask-table2/fatezero", rows("fatezero", lower))
    found = record("freemask/2")
    temp = next(each for each in found["differences"] if each["column"] == "temp")
    assert temp["variant"] == "fatezero" and temp["n"] == 8 and temp["clear"]
    assert temp["mean"] == pytest.approx(-0.095 * 1.035)
    assert temp["p"] == 2 / 2**8 and temp["p_adjusted"] == pytest.approx(4 * temp["p"]) and temp["clips"] == 8
    said = re.sub(r"\n +", " ", capsys.readouterr().out)
    assert "Compared with FreeMask" in said and "for all 4 comparisons" in said
    assert re.search(r"published +-0\.015 +-0\.004 +-3\.220 +\+0\.017", said)
    assert record("freemask/2", "reference=fatezero")["differences"][0]["variant"] == "freemask"


def test_rows_that_are_no_line_of_the_paper_stand_after_it():
    write("runs/freemask-table2/freemask", rows("freemask", REAL))
    write("runs/mine", rows(None, REAL, method="sdedit", choices={"method": "sdedit"}))
    found = record("freemask/2", "runs=[freemask-table2,mine]")
    assert [each["title"] for each in found["lines"]][-1] == "sdedit"
    assert found["lines"][-1]["published"] == {} and found["lines"][-1]["n"] == 8


def test_an_outside_methods_rows_fill_its_line():
    write("runs/theirs", rows(None, REAL, method="tokenflow", choices={"method": "tokenflow"}))
    found = record("freemask/2", "runs=theirs")
    assert line(found, "tokenflow")["ours"]["m_psnr"]["apart"] == pytest.approx(26 * 1.035 - 25.41)


def made(variant, method, **chosen):
    return list(rows(variant, REAL, method=method, choices={"method": method, **chosen}))


@pytest.mark.parametrize("name", ["freemask/2", "fatezero/1", "st-modulator/1"])
def test_a_plain_run_fills_its_methods_line(name):
    """FateZero's rows are FateZero's, whatever class it is made of, and never FreeMask's."""
    metrics = {"clip_text[vit_b_32]": 30.0, "clip_frame[vit_b_32]": 0.9}
    found = rows(None, metrics, method="fatezero", choices={"method": "fatezero", "mask": "fatezero"})
    filled = fill(read(name), found)
    assert [each.key for each in filled.lines if each.rows] == ["fatezero"]


def test_choices_tell_lines_apart_and_names_only_where_they_leave_several():
    def claimed(*groups):
        filled = fill(read("freemask/2"), [row for group in groups for row in group])
        return {
            each.key: {(row["variant"], row["method"]) for row in each.rows}
            for each in filled.lines
            if each.rows
        }

    masked = made("any name", "fatezero", mask="mmc_by_layer")
    assert claimed(masked) == {"fatezero_mmc": {("any name", "fatezero")}}
    plain = made(None, "freemask", mask="average")
    assert claimed(plain) == {"own:freemask (mask=average)": {(None, "freemask")}}
    # of several variants that would do, the one of the line's name
    two = made("fatezero", "fatezero", mask="fatezero"), made("frame_by_frame", "fatezero", mask="fatezero")
    assert claimed(*two) == {
        "fatezero": {("fatezero",) * 2},
        "own:frame_by_frame": {("frame_by_frame", "fatezero")},
    }
    assert set(claimed(*(made(name, "fatezero", mask="none") for name in "ab"))) == {"own:a", "own:b"}
    table = read("st-modulator/3")
    assert table.line_of(made("cross", "videograin")[0]).key == "cross"
    assert table.line_of(made(None, "videograin")[0]) is None


def test_rows_that_do_not_say_what_made_them_are_left_out(capsys):
    write("runs/freemask-table2/freemask", [each | {"choices": None} for each in rows("freemask", REAL)])
    found = record("freemask/2")
    assert line(found, "freemask")["ours"] == {} and [each["line"] for each in found["lines"]][8:] == []
    assert "8 rows are left out" in capsys.readouterr().out


def test_the_same_edits_in_two_folders_count_once(capsys):
    for folder, count in (("a", 8), ("b", 4)):
        write(f"runs/{folder}", rows("freemask", REAL, count))
    found = record("freemask/2", "runs=[a,b]")
    assert line(found, "freemask")["ours"]["m_psnr"]["mean"] == pytest.approx(26 * 1.035)
    assert (
        line(found, "freemask")["n"] == 8
        and "4 rows are of edits that lie in several" in capsys.readouterr().out
    )


def test_a_rival_that_failed_on_the_hard_tasks_does_not_rank_first():
    hard = list(rows("freemask", REAL, 4)) + list(rows("freemask", {k: v / 9 for k, v in REAL.items()}, 4, 4))
    lucky = list(rows("fatezero", {name: value * 0.99 for name, value in REAL.items()}, 4))
    filled = fill(read("freemask/2"), [*hard, *lucky])
    column = next(each for each in filled.table.columns if each.key == "m_psnr")
    assert filled.line("fatezero").cells["m_psnr"].mean > filled.line("freemask").cells["m_psnr"].mean
    assert filled.ranks(column, published=False) == {"fatezero": 2, "freemask": 1}


def test_all_of_several_that_are_equally_best_are_marked():
    groups = [made("fatezero", "fatezero", mask="x"), made(None, "tokenflow"), made(None, "anyv2v")]
    filled = fill(read("freemask/2"), [row for group in groups for row in group])
    shown = {block.title: block.parts[0].cells[0].place for block in main_grid(filled, {}).blocks}
    assert [shown[title] for title in ("FateZero", "Tokenflow", "AnyV2V")] == [1, 1, 1]


def test_costs_are_shown_and_never_subtracted(capsys):
    write("runs/st-modulator-table1/fatezero", rows("fatezero", REAL))
    ours = line(record("st-modulator/2"), "fatezero")["ours"]
    assert ours["time"]["mean"] == pytest.approx(5 / 60) and ours["ram"]["mean"] == pytest.approx(1.3)
    assert "gpu" not in ours and all(cell["apart"] is None for cell in ours.values())
    assert "another machine" in capsys.readouterr().out


def test_variants_of_a_metric_do_not_stand_for_it():
    metrics = {"clip_text[vit_b_32]": 30.0, "warp_error[exact]": 3.0, "warp_error[raft_large,mse]": 9.0}
    filled = fill(read("st-modulator/1"), list(rows("fatezero", metrics)))
    assert filled.chosen["warp_err"] == "warp_error[exact]" and not filled.obstacles["clip_t"]
    assert filled.chosen["q_edit"] == "clip_text[vit_b_32] / warp_error[exact]"
    assert filled.obstacles["warp_err"] == filled.obstacles["q_edit"] != ""
    metrics |= {"warp_error[raft_large]": 2.0}
    filled = fill(read("st-modulator/1"), list(rows("fatezero", metrics)))
    assert filled.chosen["warp_err"] == "warp_error[raft_large]" and not filled.obstacles["warp_err"]
    assert not filled.obstacles["q_edit"]
    assert family("q_edit[a,b]") == ("q_edit", ["a", "b"]) and family("psnr") == ("psnr", [])


def test_q_edit_is_one_mean_over_the_other_as_in_the_paper():
    """Of edits that differ much, the mean of their ratios is another number."""
    told = []
    for variant, each in {
        "fatezero": [(30, 1), (20, 4), (10, 16)],
        "st_modulator": [(36, 1), (20, 2)],
    }.items():
        for k, (said, moved) in enumerate(each):
            metrics = {
                "clip_text[vit_b_32]": said,
                "warp_error[raft_large]": moved,
                "q_edit[x]": said / moved,
            }
            method = {"st_modulator": "videograin"}.get(variant, variant)
            told.append(synthetic(variant, f"task-{k}", metrics, clip=f"bear-{k}", method=method))
    told.append(synthetic("fatezero", "task-9", {"clip_text[vit_b_32]": 99.0}, clip="bear-9"))
    filled = fill(read("st-modulator/1"), told)
    cell = filled.line("fatezero").cells["q_edit"]
    assert cell.n == 3 and cell.mean == pytest.approx(60 / 21) and cell.low < cell.mean < cell.high
    assert cell.apart == pytest.approx(60 / 21 - 10.96)
    assert filled.line("st_modulator").cells["q_edit"].mean == pytest.approx(56 / 3)
    (apart,) = [each for each in filled.differences if each.column == "q_edit"]
    assert (apart.n, apart.clips) == (2, 2) and apart.mean == pytest.approx(50 / 5 - 56 / 3)


def test_json_is_all_that_is_printed(capsys):
    write("runs/freemask-table2/freemask", rows("freemask", REAL))
    assert main(["table", "freemask/2", "--json", "out=there"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(Path("there/freemask-2.json").read_text())
    assert found["source"]["table"] == 2 and found["missing"]


def test_the_csv_has_a_line_for_each_cell():
    write("runs/freemask-table2/freemask", rows("freemask", REAL))
    record("freemask/2")
    cells = list(csv.DictReader(Path("reports/tables/freemask-2.csv").read_text().splitlines()))
    assert len(cells) == 8 * 7
    (temp,) = [each for each in cells if (each["line"], each["column"]) == ("freemask", "temp")]
    assert float(temp["difference"]) == pytest.approx(float(temp["ours"]) - float(temp["published"]))
    assert temp["our_column"] == "clip_frame[vit_b_32]" and temp["rank"] == temp["published_rank"] == "1.0"


def test_every_format_marks_the_best_and_the_second():
    grid = main_grid(fill(read("freemask/2"), []), {})
    assert "**0.952**" in markdown(grid) and "<u>0.941</u>" in markdown(grid)
    assert r"\textbf{0.952}" in latex(grid, "x") and r"\underline{0.941}" in latex(grid, "x")
    assert "<b>0.952</b>" in html_table(grid) and "<u>0.941</u>" in html_table(grid)
    assert "0.952*" in text(grid) and "0.941'" in text(grid)


def test_latex_is_whole_and_escaped():
    filled = fill(read("freemask/2"), [*rows("freemask", REAL), *rows("my_50%_$", REAL)])
    grids = [main_grid(filled, {}, ["100% & more_"]), paired_grid(filled)]
    for grid in grids:
        shown = latex(grid, "x")
        body = shown[shown.index(r"\toprule") : shown.index(r"\bottomrule")]
        lines = [each for each in body.splitlines() if each.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", each)) for each in lines}) == 1
        assert not any(re.match(r"\s*\[", each) for each in lines)
        for pair in (r"\begin{table}", r"\begin{tabular}"):
            assert shown.count(pair) == shown.count(pair.replace("begin", "end")) == 1
        assert shown.count("{") - shown.count(r"\{") == shown.count("}") - shown.count(r"\}")
        assert r"my\_50\%\_\$" in shown
    assert tex("a_b & 5%") == r"a\_b \& 5\%"
    assert tex("p<0.001 [-.5, 1e-3] a-1") == "p$<$0.001 [$-$.5, 1e-3] a-1"


def test_markdown_rows_have_equal_cells_and_html_escapes():
    filled = fill(read("freemask/2"), list(rows("<b>|x", REAL)))
    lines = [each for each in markdown(main_grid(filled, {})).splitlines() if each.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", each)) for each in lines}) == 1
    assert "&lt;b&gt;|x" in html_table(main_grid(filled, {}))


def test_freemask_1_says_what_the_settings_do(capsys):
    found = record("freemask/1")
    cells = {(each["line"], each["column"]): each for each in found["cells"]}
    for column in ("sm", "tm", "m_sa", "m_ca", "m_ta", "m_l"):
        assert cells["freemask", column]["ours"] is True
    assert [cells["fatezero", column]["ours"] for column in ("sm", "m_sa", "m_ta")] == [False, True, False]
    assert [cells["video_p2p", column]["ours"] for column in ("m_l", "zero_shot")] == [True, False]
    assert cells["tokenflow", "zero_shot"]["ours"] is True and cells["tokenflow", "backbone"]["ours"] == "SD"
    assert not any(
        cells["tokenflow", column]["ours"] for column in ("sm", "tm", "m_sa", "m_ca", "m_ta", "m_l")
    )
    assert cells["pix2video", "backbone"]["ours"] == "SD-depth" and cells["pix2video", "m_l"]["ours"] is False
    zero = [
        cells["text2video_zero", column]["ours"] for column in ("sm", "tm", "m_sa", "m_ca", "m_ta", "m_l")
    ]
    assert zero == [False] * 5 + [True] and cells["text2video_zero", "backbone"]["ours"] == "SD"
    assert cells["codef", "backbone"]["ours"] == "ControlNet" and cells["codef", "zero_shot"]["ours"] is False
    assert not any(cells["codef", column]["ours"] for column in ("sm", "tm", "m_sa", "m_ca", "m_ta", "m_l"))
    rerender = [cells["rerender", column]["ours"] for column in ("sm", "tm", "m_sa", "m_ca", "m_ta", "m_l")]
    assert rerender == [False] * 5 + [True] and cells["rerender", "backbone"]["ours"] == "ControlNet"
    out = capsys.readouterr().out  # the paper's "w/o shape" is no plain yes
    assert out.count("differs") == 1 and "w/o shape" in out


WRONG = [
    ([], "freemask/2  FreeMask beside seven rivals"),
    (["freemask/3"], "did you mean 'freemask/2'"),
    (["freemask/2", "runs=[nowhere]"], "there is no run 'nowhere'"),
    (["freemask/2", "mixed=[commits]"], "did you mean 'commit'"),
    (["freemask/2", "reference=freemsk"], "the reference has no rows"),
    (["freemask/2", "out=file"], "cannot write the table"),
    (["freemask/2", "nam=x"], "did you mean"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_what_is_wrong_gets_one_message(words, said, capsys):
    Path("file").write_text("")
    assert main(["table", *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and "Traceback" not in shown.err and not Path("reports").exists()


def test_a_table_whose_experiment_is_here_finds_its_variants():
    """Every experiment that a table names exists, and its variants are lines of the table or stand after them."""
    for name in ("freemask/2", "fatezero/1", "st-modulator/1", "st-modulator/2"):
        table = read(name)
        content = choices.content("experiment", table.experiment)
        assert content["name"] == table.experiment.replace("/", "-")
        shared = {each.key for each in table.lines} & set(content["variants"])
        assert shared, name
        methods = {each.name for each in choices.group("method")}
        here = {each.key for each in table.lines if each.method in methods}
        assert here <= set(content["variants"]), name


def test_a_sweep_and_a_plan_are_found():
    write("runs/s/variants-ab/freemask", rows("freemask", REAL, 2))
    write("runs/s/freemask-cd", rows(None, REAL, 2))
    assert [each.name for each in stores(Path("runs/s"))] == ["freemask-cd", "freemask"]
    Path("runs/s/freemask-cd/run.json").unlink()  # as `freemask edit` leaves a folder
    assert [each.name for each in stores(Path("runs/s"))] == ["freemask-cd", "freemask"]
    assert [each.name for each in folders(Path("elsewhere"), ["runs/s"])] == ["s"]
    one = Variant(None, (), {}, {}, Identity({}))
    plan = Plan("edit", [one], [Item(task) for task in "abc"]).write(Path("runs/s/freemask-cd"))
    Plan("evaluate", [one], [Item("a")]).write(Path("runs/s/freemask-cd"))
    assert planned(Path("runs/s/freemask-cd")) == 3
    plan.write_text("{")
    assert planned(Path("runs/s/freemask-cd")) is None


def test_work_grows_with_the_number_of_rows_and_no_faster():
    """Counted in calls of functions, which a busy machine does not change; seconds only against work inside of C."""
    run_of("runs/small", 400)
    run_of("runs/large", 2000)
    assert main(["table", "freemask/2", "runs=[small]"]) == 0  # what is made once is made here
    calls = {}
    for name in ("small", "large"):
        counted, started = cProfile.Profile(), time.process_time()
        assert counted.runcall(main, ["table", "freemask/2", f"runs=[{name}]"]) == 0
        calls[name] = sum(each.callcount for each in counted.getstats())
        assert time.process_time() - started < 12
    assert calls["large"] < 5 * calls["small"]


def test_a_table_needs_no_torch():
    """It must be there in a few seconds, also on a login node."""
    code = (
        "import sys; from experiments.cli.app import main; code = main(['table', 'freemask/2']);"
        "print(code, sorted({'torch', 'diffusers', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
