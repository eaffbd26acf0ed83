"""The study columns of a paper's table: filled from answers about the very edits of its lines, by nothing else."""

import csv
import json
import re
from pathlib import Path

import pytest
from raters import GOOD, answers, hand_in, opinion, run_of, study_of
from synthetic_rows import row, write

from experiments.cli.app import main

STUDIED = {"freemask/2": ("edit", "image", "quality"), "fatezero/1": ("edit", "image", "temp")}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return run_of(tmp_path / "runs" / "mine")


def record(name, run):
    assert main(["table", name, f"runs=[{run}]"]) == 0
    return json.loads(Path(f"reports/tables/{name.replace('/', '-')}.json").read_text())


def ours(found, line):
    return next(each["ours"] for each in found["lines"] if each["line"] == line)


def test_without_answers_a_table_is_as_it_was(run):
    before = record("freemask/2", run)
    study = study_of(run, "freemask")
    assert record("freemask/2", run) == before
    hand_in(study, "nonsense", "x.json")
    assert record("freemask/2", run) == before
    assert any("nothing here stands for people" in note for note in before["notes"])


def test_scores_fill_the_columns_of_the_edits_they_are_of(run, capsys):
    study = study_of(run, "freemask")
    for k in range(3):
        hand_in(study, answers(study, f"rater {k}", opinion(freemask=8 + k % 2)))
    hand_in(study, "nonsense", "x.json")
    found = record("freemask/2", run)
    for line, mean in (
        ("freemask", 8 + 1 / 3),
        ("fatezero", GOOD["fatezero"]),
        ("tokenflow", GOOD["tokenflow"]),
    ):
        cells = ours(found, line)
        for key in STUDIED["freemask/2"]:
            assert cells[key]["mean"] == pytest.approx(mean) and cells[key]["raters"] == 3
            assert cells[key]["n"] == 4 and cells[key]["apart"] is None
    assert not set(ours(found, "anyv2v"))
    (note,) = [each for each in found["notes"] if each.startswith("†")]
    assert "3 raters (1 file left out) about 4 tasks on 3 clips, in the study 'freemask'" in note
    assert any("Edit: other people were asked" in each for each in found["notes"])
    assert {each["column"] for each in found["differences"]} == {"m_psnr"}  # the study has its own tests
    cells = list(csv.DictReader(Path("reports/tables/freemask-2.csv").read_text().splitlines()))
    assert {each["raters"] for each in cells if each["column"] == "edit"} == {"3", ""}
    (rank,) = [each["rank"] for each in cells if (each["line"], each["column"]) == ("freemask", "edit")]
    assert float(rank) == 1
    said = capsys.readouterr().out
    assert re.search(r"ours, n=4 .* 8\.333\*", said) and "nothing here stands for people" not in said


def test_places_fill_the_other_papers_columns(run):
    study = study_of(run, "fatezero")
    hand_in(study, answers(study, "a"))
    assert record("freemask/2", run)["notes"] != record("fatezero/1", run)["notes"]
    found = record("fatezero/1", run)
    cells = ours(found, "fatezero")
    assert {key: cells[key]["mean"] for key in STUDIED["fatezero/1"]} == dict.fromkeys(
        STUDIED["fatezero/1"], 3
    )
    assert cells["edit"]["n"] == 3
    assert not set(ours(record("freemask/2", run), "freemask")) & set(STUDIED["freemask/2"])


def test_answers_about_other_edits_fill_nothing(run):
    study = study_of(run, "freemask")
    hand_in(study, answers(study, "a"))
    again = [
        row("freemask", "task-0", {"masked_psnr": 20.0}, run="other") | {"task": task, "finished": "2027"}
        for task in ("first-task", "second-task", "third-task", "fourth-task")
    ]
    write(run / "freemask", again)
    found = record("freemask/2", run)
    assert "edit" not in ours(found, "freemask") and "edit" in ours(found, "fatezero")
    assert any(
        "also asked about freemask: these edits are not in this table" in each for each in found["notes"]
    )


def test_people_of_several_studies_are_not_mixed(run):
    few, more = study_of(run, "freemask", "name=few"), study_of(run, "freemask", "name=more")
    hand_in(few, answers(few, "a", opinion(freemask=1)))
    for rater in ("b", "c"):
        hand_in(more, answers(more, rater))
    found = record("freemask/2", run)
    assert ours(found, "freemask")["edit"]["mean"] == GOOD["freemask"]
    assert any("Other studies of these edits are not shown: few" in each for each in found["notes"])
