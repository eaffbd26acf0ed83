"""The run folder: rows survive whatever happens to their writer, and runs never mix."""

import json
from dataclasses import replace

import pytest

from experiments.config.compose import config_of, plain
from experiments.config.identity import Identity, identity_of
from experiments.jobs.seeds import generator, seed_of
from experiments.runs.store import RunStore, file_name, write_text
from freemask.errors import UserError
from freemask.masks.codebook import SHIPPED, Codebook
from freemask.types import EditTask

ROW = {"status": "done", "finished": "2026-01-01T00:00:00"}
TASK = EditTask("t", "c", "a cat", "a dog", {"cat": "dog"}, "shape", {"region": "/somewhere/mask.png"})


def identity(**changes) -> Identity:
    return Identity({"method": {"steps": 10} | changes, "seed": 0})


def config(**changes) -> dict:
    base = {
        "method": {"_target_": "m", "steps": 10},
        "model": {"_target_": "n", "device": "cpu", "dtype": "float32"},
        "data": {"_target_": "d", "root": "/here"},
        "metric": {},
        "seed": 0,
    }
    return {
        key: value | changes.get(key, {}) if isinstance(value, dict) else changes.get(key, value)
        for key, value in base.items()
    }


def test_rows_come_back(tmp_path):
    store = RunStore.open(tmp_path / "run", identity())
    store.append("w", {"task": "ä 1", "note": "line\nbreak", **ROW})
    assert [row["note"] for row in store.rows()] == ["line\nbreak"]
    assert store.done() == {"ä 1"}


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
    assert len(store.done()) == 6


@pytest.mark.parametrize("cut", range(1, 120, 11))
def test_a_file_cut_anywhere_is_read_as_far_as_it_goes(tmp_path, cut):
    store = RunStore.open(tmp_path / "run", identity())
    for task in "abc":
        store.append("w", {"task": task, **ROW})
    file = tmp_path / "run" / "rows" / "w.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    store.append("w", {"task": "d", **ROW})
    assert {"a", "d"} <= store.done() <= {"a", "b", "c", "d"}


def test_the_last_row_of_a_task_counts_whoever_wrote_it(tmp_path):
    store = RunStore.open(tmp_path / "run", identity())
    store.append("z", {"task": "a", "status": "failed", "finished": "2026-01-01"})
    store.append("a", {"task": "a", "status": "done", "finished": "2026-01-02"})
    assert (store.done(), store.failed()) == ({"a"}, set())


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError):
        RunStore.open(tmp_path / "run", identity()).append("w", {"task": "a", "x": float("nan"), **ROW})


def test_another_configuration_is_refused_and_named(tmp_path):
    RunStore.open(tmp_path / "run", identity())
    RunStore.open(tmp_path / "run", identity())
    with pytest.raises(UserError, match="method.steps: 10 there, 20 here"):
        RunStore.open(tmp_path / "run", identity(steps=20))


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


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"model": {"device": "cuda"}}, True),
        ({"data": {"root": "/there"}}, True),
        ({"seed": 1}, False),
        ({"method": {"steps": 11}}, False),
        ({"model": {"dtype": "float16"}}, False),
        ({"data": {"size": 32}}, False),
        ({"metric": {"x": 1}}, False),
        ({"method": {"features": "cache", "cache_on": "disk", "budget_gb": 1}}, True),
        ({"method": {"inversions": "/there", "inversions_gb": 9}}, True),
        ({"method": {"mask": {"_target_": "m", "threshold": 0.3}}}, False),
        ({"method": {"fusion": {"self": "off"}}}, False),
    ],
)
def test_identity_is_what_changes_a_result(changes, same):
    assert (identity_of(config(), [TASK]).hash == identity_of(config(**changes), [TASK]).hash) is same


def test_identity_sees_what_is_in_a_codebook_but_not_where_it_lies(tmp_path):
    shipped = next(SHIPPED.glob("*.json"))
    for name in ("here", "there"):
        Codebook.read(shipped).write(tmp_path / f"{name}.json")
    replace(Codebook.read(shipped), best_time=Codebook.read(shipped).times[3]).write(tmp_path / "other.json")
    masks = [{"codebook": str(tmp_path / f"{name}.json")} for name in ("here", "there", "other")]
    one, two, three = (identity_of(config(method={"mask": mask}), [TASK]).hash for mask in masks)
    assert one == two != three


@pytest.mark.parametrize(("method", "same"), [("ddim", True), ("freemask", False)])
def test_masks_and_fusion_count_where_the_method_refers_to_them(method, same):
    def identity(*overrides):
        return identity_of(plain(config_of("run", [f"method={method}", *overrides])), [TASK]).hash

    assert (identity("mask=none") == identity("mask=average")) is same
    assert (identity("mask=none", "fusion=self") == identity("mask=none", "fusion=cross")) is same


def test_identity_sees_the_task_list_but_not_where_it_lies():
    elsewhere = EditTask(**{**vars(TASK), "assets": {"region": "/elsewhere/mask.png"}})
    other = EditTask(**{**vars(TASK), "target": "a hog"})
    one, two, three = (identity_of(config(), [task]).hash for task in (TASK, elsewhere, other))
    assert one == two != three
    assert json.dumps(identity_of(config(), [TASK]).record())


def test_seeds_depend_on_seed_and_task_alone():
    assert seed_of(0, "a") == seed_of(0, "a") != seed_of(1, "a")
    assert seed_of(1, "1a") != seed_of(11, "a")
    assert generator(3, "x").initial_seed() == seed_of(3, "x")
