"""`freemask doctor tasks=FILE`: what was understood of a list, a line for each task, and every bad line."""

import json
from pathlib import Path

import pytest

from experiments.cli.app import main
from experiments.doctor.tasks import lines
from freemask.data.tasks import read_tasks
from freemask.data.write import write_frames

GOOD = """\
- {clip: one, source: a car on a road, target: a bus on a road}
- {clip: one, source: a car on a road, target: a red car on a road, kind: attribute, words: "car: car"}
- {id: sails, clip: two, source: a boat sails, target: a boat sails in the desert}
"""
BAD = """\
- {clip: two, sorce: a boat, target: a dog}
- {clip: two, source: a boat, target: a dog, words: "cat -> dog"}
"""


@pytest.fixture(autouse=True)
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    Path("good.yaml").write_text(GOOD)
    Path("bad.yaml").write_text(GOOD + BAD)
    Path("long.csv").write_text(
        "clip,source,target\n"
        f"{'folder/' * 9}clip.mp4,{'a very ' * 30}long car,{'a very ' * 30}long bus\n"
        "b,a car,a bus\n"
    )


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["doctor", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_line_for_each_task(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = doctor(capsys, "tasks=good.yaml")
    head, bus, red, sails, unsure, *counts = out.splitlines()
    assert code == 0 and head.split()[:4] == ["id", "clip", "kind", "words"]
    assert bus.split()[:3] == ["one-shape", "one", "shape*"] and "car -> bus*" in bus
    assert bus.endswith("a [car -> bus] on a road")
    assert "attribute " in red and "*" not in red and "[+ red]" in red
    assert "background*" in sails and "not sure" in unsure and "kind: background" in unsure
    assert "3 tasks on 2 clips" in counts[1] and "kind of 2" in counts[2] and "not sure of 1" in counts[2]


def test_bad_lines_come_after_the_good_ones(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = doctor(capsys, "tasks=bad.yaml")
    assert code == 2 and "3 tasks on 2 clips" in out
    assert "2 bad lines" in err and "line 4: unknown field 'sorce'" in err and "line 5: 'cat'" in err
    code, out, err = doctor(capsys, "tasks=bad.yaml", "--json")
    told = json.loads(out)
    assert code == 2 and not err and {each["line"] for each in told["wrong"]} == {4, 5}
    assert [bool(each["guessed"]) for each in told["tasks"]] == [True, False, True]


def test_it_fits_into_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = lines(read_tasks("long.csv"))
    assert len(said) == 6 and max(map(len, said)) <= 100
    assert said[1].startswith("folder-folde…-clip-shape ") and said[1].endswith("…long [car -> bus]")


def test_nothing_is_cut_where_no_terminal_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    out = doctor(capsys, "tasks=long.csv")[1]
    assert "…" not in out and "folder/" * 9 in out and f"{'a very ' * 30}long [car -> bus]" in out


def test_clips_are_looked_up_in_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    write_frames(Path("clips/one"), torch.zeros(8, 3, 16, 16))
    code, out, _ = doctor(capsys, "tasks=good.yaml", "data=folder", "data.root=clips")
    assert code == 1 and "1 of 2 clips of the list are not there: two" in out
    code, out, _ = doctor(capsys, "tasks=good.yaml", "data=folder", "data.root=clips", "data.clips=[one]")
    assert code == 0 and "2 tasks (attribute, shape) on 1 clips" in out


@pytest.mark.parametrize(
    ("words", "hint"),
    [(["tasks=god.yaml"], "good.yaml"), (["tasks=good.yaml", "data=world"], "tasks of their own")],
)
def test_what_cannot_be_looked_at(capsys: pytest.CaptureFixture[str], words: list[str], hint: str) -> None:
    code, out, err = doctor(capsys, *words)
    assert code == 2 and hint in err and not out
