"""A folder of other people's videos is enough for `freemask evaluate`: names are matched to tasks."""

from pathlib import Path

import pytest

from experiments.cli.app import main
from experiments.jobs.videos import holds_videos, read_videos
from experiments.runs.store import RunStore
from freemask.data.world import World
from freemask.data.write import write_frames
from freemask.errors import UserError

IDS = ["car-shape", "car-style", "bear_1", "bear.1", "été"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`theirs`, in which the files of a test are made."""
    monkeypatch.chdir(tmp_path)
    Path("theirs").mkdir()
    return Path("theirs")


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    ("names", "entries"),
    [
        (["car-shape.mp4"], {("theirs", "car-shape")}),
        (["Car-Shape.MOV", "CAR-STYLE/1.png"], {("theirs", "car-shape"), ("theirs", "car-style")}),
        (["car style.mp4"], {("theirs", "car-style")}),
        (["bear_1.mp4", "E\u0301te\u0301.mp4"], {("theirs", "bear_1"), ("theirs", "été")}),
        (["a/car-shape.mp4", "b/car-shape/1.png"], {("a", "car-shape"), ("b", "car-shape")}),
        (["car-shape.mp4", "b/car-shape.mp4"], {("theirs", "car-shape"), ("b", "car-shape")}),
        (["car-shape.mp4", "notes.txt", ".car-style.mp4"], {("theirs", "car-shape")}),
        (["a/car-shape.mp4", "a/sheet.png"], {("a", "car-shape")}),
    ],
)
def test_names_are_matched_to_tasks(folder: Path, names: list[str], entries: set[tuple[str, str]]) -> None:
    found = read_videos(fill(folder, *names), IDS).entries
    assert {(each.method, each.id) for each in found} == entries and len(found) == len(entries)


def test_what_matches_nothing_is_told_both_ways(folder: Path) -> None:
    fill(folder, "car-shape.mp4", "car-shpe.mp4", "zebra.mp4")
    missing, wrong, strange = read_videos(folder, IDS, "mine").notes
    assert missing.startswith("mine:") and "4 of 5 tasks" in missing and "car-style" in missing
    assert "car-shpe.mp4" in wrong and "did you mean 'car-shape'" in wrong
    assert "zebra.mp4" in strange


@pytest.mark.parametrize(
    ("names", "method", "hint"),
    [
        (["zebra.mp4"], None, "zebra.mp4"),
        (["notes.txt"], None, "no videos"),
        (
            ["car-shape.mp4", "car-shape/1.png"],
            None,
            "car-shape.mp4 and car-shape|car-shape and car-shape.mp4",
        ),
        (["a b/car-shape.mp4"], None, "'a b'"),
        (["a/car-shape.mp4"], "mine", "name the methods: a"),
        (["car-shape.mp4"], "../x", "'../x'"),
    ],
)
def test_folders_that_are_refused(folder: Path, names: list[str], method: str | None, hint: str) -> None:
    with pytest.raises(UserError) as refused:
        read_videos(fill(folder, *names), IDS, method)
    assert "theirs" in str(refused.value) and any(each in str(refused.value) for each in hint.split("|"))


def test_two_tasks_of_one_spelling_are_told_apart_or_not_at_all(folder: Path) -> None:
    found = read_videos(fill(folder, "x-y.mp4", "z.mp4"), ["x(y", "x)y", "z"])  # slug makes x-y of both
    assert [each.id for each in found.entries] == ["z"] and "x-y.mp4" in found.notes[1]


def test_a_folder_without_videos_is_none(folder: Path) -> None:
    assert not holds_videos(fill(folder, "a/notes.txt", "table.md"))
    assert holds_videos(fill(folder, "a/1.mp4"))


@pytest.mark.parametrize("said", [["theirs"], ["manifest=theirs"], ["theirs", "method_name=mine", "name=o"]])
def test_a_folder_is_measured(folder: Path, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    world = World(clips=2, frames=2, size=16)
    task, other = world.tasks()
    answer = world.oracle(task)
    assert answer is not None
    write_frames(folder / task.id.upper(), answer)
    quick = ["metric=pixels", "paths.runs=out", "data.size=16", "data.frames=2", "data.clips=2"]
    assert main(["evaluate", *said, *quick]) == 0
    told = capsys.readouterr()
    assert "1 of 2 tasks" in told.out + told.err and other.id in told.out + told.err
    name, method = ("o", "mine") if "name=o" in said else ("outside-theirs", "theirs")
    (row,) = RunStore(Path("out") / name / method).rows()
    assert (row["task"], row["method"], row["status"]) == (task.id, method, "done")
    assert row["metrics"]["oracle_psnr"] == 100
