"""The run folder: rows survive whatever happens to their writer, and runs never mix."""

import json

import pytest

from experiments.config.fingerprint import FORMAT, Identity
from experiments.jobs.seeds import generator, seed_of
from experiments.runs.rows import file_name, write_text
from experiments.runs.store import RunStore
from freemask.errors import UserError

ROW = {"status": "done", "finished": "2026-01-01T00:00:00"}


def identity(**changes) -> Identity:
    return Identity({"method": {"steps": 10} | changes, "seed": 0})


def ended(store: RunStore, status: str = "done") -> set[str]:
    return {task for task, row in store.latest().items() if row["status"] == status}


def test_rows_come_back(tmp_path):
    store = RunStore.open(tmp_path / "run", identity())
    store.append("w", {"task": "ä 1", "note": "line\nbreak", **ROW})
    assert [row["note"] for row in store.rows()] == ["line\nbreak"]
    assert ended(store) == {"ä 1"}


def test_a_torn_line_costs_itself_only(tmp_path):
    store = RunStore.open(tmp_path / "run", identity())
    store.append("w", {"task": "a", **ROW})
    file = tmp_path / "run" / "rows" / "w.jsonl"
    torn = [
        b'{"task": "b", "status": "do',
        b"\xff\xfe\x00",
        b'["task"]',
        b'{"task": 3, "status": "done"}',
        b"null",
    ]
    for number, piece in enumerate(torn):
        file.write_bytes(file.read_bytes() + piece)
        store.append("w", {"task": f"after {number}", **ROW})
    assert len(ended(store)) == 6


@pytest.mark.parametrize("cut", range(1, 120, 11))
def test_a_file_cut_anywhere_is_read_as_far_as_it_goes(tmp_path, cut):
    store = RunStore.open(tmp_path / "run", identity())
    for task in "abc":
        store.append("w", {"task": task, **ROW})
    file = tmp_path / "run" / "rows" / "w.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    store.append("w", {"task": "d", **ROW})
    assert {"a", "d"} <= ended(store) <= {"a", "b", "c", "d"}


def test_the_last_row_of_a_task_counts_whoever_wrote_it(tmp_path):
    store = RunStore.open(tmp_path / "run", identity())
    store.append("z", {"task": "a", "status": "failed", "finished": "2026-01-01"})
    store.append("a", {"task": "a", "status": "done", "finished": "2026-01-02"})
    assert (ended(store), ended(store, "failed")) == ({"a"}, set())


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError):
        RunStore.open(tmp_path / "run", identity()).append("w", {"task": "a", "x": float("nan"), **ROW})


def test_another_configuration_is_refused_and_named(tmp_path):
    RunStore.open(tmp_path / "run", identity())
    RunStore.open(tmp_path / "run", identity())
    with pytest.raises(UserError, match="method.steps: 10 there, 20 here"):
        RunStore.open(tmp_path / "run", identity(steps=20))


@pytest.mark.parametrize("before", [{}, {"format": FORMAT - 1}, {"format": FORMAT + 1}, {"format": "x"}])
def test_a_folder_of_another_version_is_refused_with_one_message(tmp_path, before):
    known = {key: value for key, value in identity().record().items() if key != "format"}
    (tmp_path / "run.json").write_text(json.dumps(known | before))
    with pytest.raises(UserError, match="another version") as error:
        RunStore.open(tmp_path, identity())
    assert "name=" in error.value.todo


@pytest.mark.parametrize("text", ["", "{}", '{"identity": "x"}', "[]", "\0"])
def test_a_spoilt_record_is_refused_and_left_alone(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="cannot be read"):
        RunStore.open(tmp_path, identity())
    assert (tmp_path / "run.json").read_text() == text


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunStore.open(tmp_path / "run", identity())


@pytest.mark.parametrize(
    "task", ["../../up", "/etc/passwd", "a/b", "..", ".hidden", "", "x" * 300, "a b", "ü", "a\0b"]
)
def test_a_task_cannot_leave_the_folder(tmp_path, task):
    path = RunStore(tmp_path).file("videos", task, ".mp4")
    path.write_text("")
    assert path.parent == tmp_path / "videos"


def test_different_tasks_have_different_files():
    names = ["a b", "a-b", "a/b", "a.b", "A b", "x" * 200, "x" * 201]
    assert len({file_name(name) for name in names}) == len(names)
    assert file_name("bear-shape_2.1") == "bear-shape_2.1"


def test_writing_is_all_or_nothing(tmp_path):
    write_text(tmp_path / "t", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "t", "\ud800")
    assert (tmp_path / "t").read_text() == "old"


def test_seeds_depend_on_seed_and_task_alone():
    assert seed_of(0, "a") == seed_of(0, "a") != seed_of(1, "a")
    assert seed_of(1, "1a") != seed_of(11, "a")
    assert generator(3, "x").initial_seed() == seed_of(3, "x")
