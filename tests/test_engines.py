"""The frozen plan, claims, signs of life, the state of a run, the engines: what every kind of work stands on."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.cli.app import main
from experiments.config.identity import Identity
from experiments.engines import fabric
from experiments.engines.fabric import Fabric
from experiments.engines.local import Local
from experiments.engines.start import Order, carry_out
from experiments.jobs import worker
from experiments.jobs.job import Lane
from experiments.runs.claims import Claims, Presence, present, writer_name
from experiments.runs.plan import Item, Launch, Plan
from experiments.runs.record import Record
from experiments.runs.rows import RowIndex
from experiments.runs.run import below
from experiments.runs.status import RunStatus
from experiments.runs.store import RunStore
from freemask.data.world import World
from freemask.errors import UserError
from tests.plain_job import plan_of

SMALL = [
    *(
        "run",
        "model=random",
        "metric=pixels",
        "method=sdedit",
        "method.steps=2",
        "keep=none",
        "paths.runs=out",
    ),
    *("data.size=16", "data.frames=2", "data.clips=4"),
]
ITEMS = [Item(f"t{number}") for number in range(5)]
SILENT = {"logger": {"_target_": "experiments.loggers.base.Logger"}}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def plan():
    return plan_of(ITEMS, ("a", "b"))


def row(task: str, status: str = "done", finished: str = "2026-01-01T00:00:00", **more) -> dict:
    return {"task": task, "status": status, "finished": finished, **more}


def rows(name: str) -> dict[str, dict]:
    return RunStore(Path("out") / name).latest()


# The plan.


def test_a_plan_is_read_as_it_was_written(plan, tmp_path):
    path = plan.write(tmp_path)
    found = Plan.read(path)
    assert found == replace(plan, variants=[replace(each, overrides=[]) for each in plan.variants])
    assert found.write(tmp_path) == path and len(list((tmp_path / "plans").iterdir())) == 1


def test_a_changed_plan_is_refused_and_written_anew_by_its_own_command(plan, tmp_path):
    path = plan.write(tmp_path)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 3'))
    with pytest.raises(UserError, match="changed after it was frozen"):
        Plan.read(path)
    assert plan.write(tmp_path) == path and Plan.read(path).items == plan.items
    with pytest.raises(UserError, match="cannot be read"):
        Plan.read(tmp_path / "plans" / "none.json")


def test_workers_read_the_plan_and_nothing_else(monkeypatch):
    """What happens to the task list and the configuration after the plan is frozen reaches nobody."""
    assert main([*SMALL, "name=a", "limit=1"]) == 0
    (path,) = Path("out/a/plans").glob("*.json")
    (before,) = rows("a").values()
    for each in Path("out/a/rows").iterdir():
        each.unlink()
    monkeypatch.setattr(World, "tasks", lambda self: pytest.fail("the task list was read again"))
    for place in ("experiments.config.compose.composed", "experiments.jobs.variants.composed"):
        monkeypatch.setattr(place, lambda *a, **b: pytest.fail("it was composed again"))
    assert worker.main([str(path), "--share", "0/3", "--keep", "none"]) == 0
    (after,) = rows("a").values()
    same = (
        "task",
        "metrics",
        "facts",
        "seed",
        "steps",
        "method",
        "model",
        "run",
        "source",
        "target",
        "choices",
    )
    assert {key: before[key] for key in same} == {key: after[key] for key in same}


def test_one_item_of_a_plan(plan, tmp_path, capsys):
    path = plan.write(tmp_path)
    assert worker.main([str(path), "--item", "t2"]) == 0
    assert [list(RunStore(tmp_path / name).latest()) for name in ("a", "b")] == [["t2"], ["t2"]]
    assert worker.main([str(path), "--item", "nothing"]) == 2
    assert "no such item" in capsys.readouterr().err


def test_shares_cover_the_list_once_and_the_rest_is_everything_else():
    for count in (1, 2, 3, 7):
        parts = [worker.part(ITEMS, index, count) for index in range(count)]
        assert sorted(item.id for mine, _ in parts for item in mine) == [item.id for item in ITEMS]
        for mine, rest in parts:
            assert {item.id for item in mine} | {item.id for item in rest} == {item.id for item in ITEMS}
            assert len(mine) + len(rest) == len(ITEMS)


# What is left to do.


def lane(plan: Plan, folder: Path, **launch) -> Lane:
    return Lane.open(plan.variants[0], Launch(plan.write(folder), "none", folder, **launch))


def test_failures_are_done_again_only_if_they_are_older_than_the_launch(plan, tmp_path):
    store = lane(plan, tmp_path).store
    store.append("w", row("t0"))
    store.append("w", row("t1", "failed", "2026-01-01T00:00:01"))
    store.append("w", row("t2", "failed", "2026-01-01T00:00:03"))

    def wanted(**launch) -> list[str]:
        return [item.id for item in ITEMS if lane(plan, tmp_path, **launch).needs(item)]

    then = "2026-01-01T00:00:02"
    assert wanted() == ["t3", "t4"]
    assert wanted(redo=then) == ["t1", "t3", "t4"]
    assert wanted(redo=then, whole=True) == ["t0", "t1", "t3", "t4"]
    assert not lane(plan, tmp_path, redo=then).needs(ITEMS[1], again=False)


def test_an_item_counts_by_its_mark_and_only_for_its_variants(tmp_path):
    items = [Item("t0", {}, {"a": "new"}), Item("t1", {}, {"b": "new"}), Item("t2")]
    one = lane(plan_of(items, ("a", "b")), tmp_path)
    one.store.append("w", row("t0", mark="old"))
    one.store.append("w", row("t2"))
    one.index.refresh()
    assert [one.needs(item) for item in items] == [True, False, False]
    one.store.append("w", row("t0", mark="new"))
    one.index.refresh()
    assert not one.needs(items[0])


def test_an_index_reads_only_what_is_new(tmp_path):
    store, index = RunStore.open(tmp_path / "run", Identity({})), RowIndex(tmp_path / "run")
    store.append("v", row("a", "failed", "2026-01-02"))
    assert [each["task"] for each in index.news()] == ["a"]
    file = tmp_path / "run" / "rows" / "v.jsonl"
    file.write_bytes(file.read_bytes() + b'{"task": "b", "sta')  # killed while it wrote
    assert list(index.news()) == []
    store.append("v", row("c"))
    store.append("w", row("a", "done", "2026-01-01"))
    assert sorted(each["task"] for each in index.news()) == ["a", "c"] and list(index.news()) == []
    assert index.last["a"].status == "failed"  # the younger row counts, in whatever order they are read
    file.write_bytes(file.read_bytes() + json.dumps(row("d")).encode())  # whole but for its line break
    assert [each["task"] for each in index.news()] == ["d"] and list(index.news()) == []


# Claims.


def test_an_item_has_one_owner_at_a_time(tmp_path):
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("t/0") and not second.take("t/0") and second.take("t/1")
    first.drop("t/0")
    assert second.take("t/0") and not first.take("t/0")
    for item in ("t/0", "t/1"):
        second.drop(item)
    assert not list((tmp_path / "claims").iterdir())


HOLD = """
import sys, time
from pathlib import Path
from experiments.runs.claims import Claims, Presence
run = Path(sys.argv[1])
with Presence(run, "w") as me:
    claims = Claims(run)
    assert claims.take("t")
    me.doing("a", "t")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_dead_owner_blocks_nothing_and_is_forgotten(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    mine = Claims(tmp_path)
    (one,) = present(tmp_path)
    assert (one.writer, one.pid, one.variant, one.item) == ("w", process.pid, "a", "t")
    assert not mine.take("t")
    process.kill()
    process.communicate()
    assert mine.take("t") and list(present(tmp_path)) == []
    assert not list((tmp_path / "workers").iterdir())


def test_without_locks_items_are_done_all_the_same(tmp_path, monkeypatch):
    """Perhaps twice, with equal rows; no file is left that would block them after a kill."""

    def missing(*given):
        raise OSError(errno.ENOSYS, "this file system has no locks")

    monkeypatch.setattr(fcntl, "flock", missing)
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("t") and second.take("t")
    with Presence(tmp_path, "w"):
        assert [each.writer for each in present(tmp_path)] == ["w"]
    for each in (first, second):
        each.drop("t")
    assert not list((tmp_path / "claims").iterdir())


def race(folder: Path, number: int, items: int) -> None:
    with Presence(folder, f"w{number}"):
        claims = Claims(folder)
        for item in [f"t{each}" for each in range(items)] * 3:
            if (folder / f"{item}.done").exists() or not claims.take(item):
                continue
            if not (folder / f"{item}.done").exists():
                (folder / f"{item}.{number}.did").touch()
                time.sleep(0.001)
                (folder / f"{item}.done").touch()
            claims.drop(item)


def test_processes_that_race_never_share_an_item(tmp_path):
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=race, args=(tmp_path, number, 40)) for number in range(4)]
    for each in racers:
        each.start()
    for each in racers:
        each.join(60)
    assert [each.exitcode for each in racers] == [0] * 4
    done = sorted(path.name.split(".")[0] for path in tmp_path.glob("*.did"))
    assert done == sorted(f"t{number}" for number in range(40))


# The state of a run.


def test_status_counts_what_the_latest_plan_asks_for(plan, tmp_path, capsys):
    run = tmp_path / "out" / "a"
    plan.write(run)
    for each in plan.variants:
        RunStore.open(run / str(each.name), each.identity)
    Record("tests.plain_job", variants={"a": [], "b": []}, reference="a").write(run)
    for item, status in (("t0", "done"), ("t1", "failed"), ("t1", "done"), ("t2", "failed")):
        finished = f"2026-01-01T00:00:0{item[1]}"
        RunStore(run / "a").append("w", row(item, status, finished, seconds={"edit": 2.0}))
    with Presence(run, writer_name("test", 0)) as me:
        me.doing("b", "t4")
        assert main(["status", "a", "paths.runs=out", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert main(["status", "a", "--paths.runs", "out"]) == 0
    said = capsys.readouterr().out
    counts = [(each["name"], each["done"], each["failed"], each["left"]) for each in found["variants"]]
    assert counts == [("a", 2, 1, 2), ("b", 0, 0, 5)]
    assert found["seconds_left"] == 14.0 and found["doing"][0]["task"] == "t4"
    assert "about 14 s to go with 1 worker at work" in said and "b: t4" in said
    assert RunStatus.read(run).workers == []


def test_status_finds_runs_wherever_they_lie(tmp_path, capsys):
    for name in ("one", "sweep/two", "sweep/three"):
        RunStore.open(tmp_path / "runs" / name, Identity({}))
    assert [path.name for path in below(tmp_path / "runs")] == ["one", "three", "two"]
    assert main(["status"]) == 0 and capsys.readouterr().out.count("done") == 3
    assert main(["status", "sweep"]) == 0 and "three" in capsys.readouterr().out
    (tmp_path / "runs" / "sweep" / "two" / "run.json").write_text("{")
    assert main(["status", "sweep"]) == 0
    said = capsys.readouterr()
    assert "three" in said.out and "two: the run's record cannot be read" in said.err
    (tmp_path / "runs/tows").mkdir()  # no run, as the folder of inversions beside them is none
    assert main(["status", "tow"]) == 2
    told = capsys.readouterr().err
    assert "there is no run 'tow'" in told and "tows" not in told
    assert main(["status", "paths.run=x"]) == 2
    assert main(["status", "paths.runs=nowhere"]) == 0 and "no runs in nowhere" in capsys.readouterr().out


def test_status_of_many_rows_is_quick(tmp_path):
    """A tenth of a hundred thousand rows, in a tenth of what is allowed."""
    run, items = tmp_path / "run", [Item(f"t{number}") for number in range(10_000)]
    plan = plan_of(items)
    store = RunStore.open(run, plan.variants[0].identity, Record("tests.plain_job", {"parts": {}}))
    plan.write(run)
    for writer in range(8):
        lines = [json.dumps(row(f"t{n}", seconds={"edit": 1.0})) for n in range(writer, 8000, 8)]
        (store.folder / "rows" / f"{writer}.jsonl").write_text("\n".join(lines) + "\n")
    begun = time.process_time()
    found = RunStatus.read(run).variants[""]
    assert (found.of("done"), found.left) == (8000, 2000)
    assert time.process_time() - begun < 3


def test_the_time_between_edits_of_one_worker_is_told(tmp_path):
    store = RunStore.open(tmp_path / "run", Identity({}))
    for second in (0, 11, 22):
        for writer in ("v", "w"):
            one = row(f"{writer}{second}", finished=f"2026-01-01T00:00:{second:02}", writer=writer)
            store.append(writer, {**one, "seconds": {"edit": 10.0}})
    assert RunStatus.read(tmp_path / "run").between() == pytest.approx(1.0)
    one = row("v30", finished="2026-01-01T00:00:30", writer="v")
    store.append("v", {**one, "seconds": {"edit": 100.0}})  # by a clock that was set back
    assert RunStatus.read(tmp_path / "run").between() == 0


def test_a_worker_that_goes_from_variant_to_variant_does_not_wait_between_them(tmp_path):
    for place, variant in enumerate("ab"):
        store = RunStore.open(tmp_path / "run" / variant, Identity({}))
        for second in (12 * place, 24 + 12 * place):
            one = row(
                f"t{second}", finished=f"2026-01-01T00:00:{second:02}", seconds={"edit": 10.0}, writer="w"
            )
            store.append("w", one)
    Record("tests.plain_job", {"parts": {}}, variants={"a": [], "b": []}).write(tmp_path / "run")
    assert RunStatus.read(tmp_path / "run").between() == pytest.approx(2.0)


def test_processes_of_other_nodes_take_no_threads_from_those_of_this_one(monkeypatch):
    calls = []
    monkeypatch.setattr(fabric, "_processes", lambda found, watch: calls.extend(found) or [])
    monkeypatch.setattr(fabric.os, "cpu_count", lambda: 8)
    view = SimpleNamespace(launch=None, lanes=(), say=lambda line: None, watch=None)
    assert Fabric(devices=2, nodes=4, accelerator="cpu").work(view)  # pyright: ignore[reportArgumentType]
    assert [call.args for call in calls] == [(None, "cpu", rank, 8, 4) for rank in (0, 1)]


def test_status_does_not_take_measuring_again_for_editing(tmp_path):
    store = RunStore.open(tmp_path / "run", Identity({}))
    for second in (0, 11):
        one = row(f"t{second}", finished=f"2026-01-01T00:00:{second:02}", seconds={"edit": 10.0}, writer="w")
        store.append("w", one)
        again = {**one, "finished": f"2026-01-02T00:00:{second:02}", "evaluation": {}, "writer": "later"}
        store.append("later", again | {"seconds": {"edit": 30.0}})
    found = RunStatus.read(tmp_path / "run")
    assert found.between() == pytest.approx(1.0) and found.variants[""].mean == 10.0


# A start, whatever the work.


def test_a_start_does_what_is_left_and_tells_columns_once(tmp_path, capsys):
    order = Order(plan_of(ITEMS[:3], ("a", "b")), tmp_path / "run", "a")
    first = carry_out(replace(order, plan=plan_of(ITEMS[:2], ("a", "b"))), SILENT, Local())
    assert (len(first.rows), first.left, first.speaks) == (4, 0, True)
    second = carry_out(order, SILENT, Local())
    assert "4 of 6 tasks need no work here" in capsys.readouterr().err
    assert [(each["variant"], each["task"]) for each in second.rows] == [
        (name, f"t{number}") for name in "ab" for number in range(3)
    ]
    assert second.run.columns() == {"x": {"unit": "letters"}}
    assert all("columns" not in each for each in second.run.stores["a"].rows())


def test_workers_started_by_hand_each_do_their_share(tmp_path):
    order = Order(plan_of(ITEMS), tmp_path / "run")
    first = carry_out(order, SILENT, Local(worker=1, workers=2))
    assert [each["task"] for each in first.rows] == ["t1", "t3"] and first.left == 3
    assert carry_out(order, SILENT, Local(worker=0, workers=2)).left == 0


def test_what_others_had_in_hand_is_done_when_they_have_let_go(plan, tmp_path):
    """Somebody holds t1 while this worker goes through the list, and dies at its end."""
    launch, somebody = Launch(plan.write(tmp_path), "none", tmp_path), Claims(tmp_path / "a")
    (tmp_path / "a").mkdir()
    assert somebody.take("t1")

    def hear(row, files) -> None:
        if (row["variant"], row["task"]) == ("a", "t4"):
            somebody.drop("t1")

    with worker.Worker(launch, "w", hear=hear) as one:
        one.share(plan.items)
    assert set(RunStore(tmp_path / "a").latest()) == {item.id for item in ITEMS}


def test_folders_of_another_kind_or_version_are_refused_and_left_alone(tmp_path):
    folder, order = tmp_path / "run", Order(plan_of(ITEMS[:1]), tmp_path / "run")
    carry_out(order, SILENT, Local())
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for other, said in (
        (replace(order.plan, job="edit"), "another kind of run"),
        (plan_of(ITEMS[:1], ("a",)), "one configuration"),
        (
            replace(order.plan, variants=[replace(order.plan.variants[0], identity=Identity({"seed": 1}))]),
            "seed",
        ),
    ):
        with pytest.raises(UserError, match=said):
            carry_out(replace(order, plan=other), SILENT, Local())
    assert kept == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({"identity": record["identity"], "parts": record["parts"]}))
    with pytest.raises(UserError, match="another"):
        carry_out(replace(order, plan=replace(order.plan, job="edit")), SILENT, Local())


# What is refused.


WRONG = [
    (["runner=fabric", "runner.devices=0"], "1 or more"),
    (["runner=fabric", "runner.devices=two"], "1 or more, or auto"),
    (["runner=fabric", "runner.accelerator=tpu"], "runner.accelerator=tpu"),
    (["runner=slurm", "runner.array=0"], "1 or more"),
    (["runner=slurm", "runner.cluster=lokal"], "did you mean 'local'?"),
    (["runner=ray", "runner.workers=0"], "1 or more"),
    (["runner=ray", "runner.gpus=-1"], "0 or more"),
]


@pytest.mark.parametrize(("words", "hint"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_engines_check_their_settings(words, hint, capsys):
    assert main([*SMALL, *words]) == 2
    assert hint in capsys.readouterr().err and not Path("out").exists()


@pytest.mark.parametrize(("engine", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_library_that_is_not_there_is_named(engine, module, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    assert main([*SMALL, f"runner={engine}", "limit=1"]) == 2
    assert f"freemask[{engine}]" in capsys.readouterr().err


def test_slurm_without_slurm_is_refused(monkeypatch, capsys):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    assert main([*SMALL, "runner=slurm", "limit=1"]) == 2
    assert "there is no SLURM here" in capsys.readouterr().err


def test_a_full_disk_ends_the_run_in_words_and_the_next_start_goes_on(monkeypatch, capsys):
    opened = os.open

    def full(path, *more, **named):
        if str(path).endswith(".jsonl"):
            raise OSError(28, "No space left on device")
        return opened(path, *more, **named)

    assert main([*SMALL, "name=a", "limit=1"]) == 0
    before = rows("a")
    with monkeypatch.context() as patch:
        patch.setattr("experiments.runs.store.os.open", full)
        assert main([*SMALL, "name=a", "limit=2"]) == 2
    assert "No space left" in capsys.readouterr().err and rows("a") == before
    assert main([*SMALL, "name=a", "limit=2"]) == 0
    assert len(rows("a")) == 2


# The engines themselves: each starts processes, which load torch, so each is tested once.


def test_fabric_starts_ranks_of_its_own_and_outlives_one(tmp_path, capfd):
    slow = [Item(item.id, {"seconds": 0.3}) for item in ITEMS[1:]]  # the death comes while others are at work
    deadly = [Item("t0", {"deadly": str(tmp_path / "died")}), *slow]
    ended = carry_out(Order(plan_of(deadly), tmp_path / "run"), SILENT, Fabric(devices=2, accelerator="cpu"))
    said = capfd.readouterr().err
    assert "2 processes on this node" in said and "ended with exit code 9" in said
    assert ended.left == 0 and {each["task"] for each in ended.rows} == {item.id for item in ITEMS}
    assert len(list(RowIndex(tmp_path / "run").news())) == 5


@pytest.mark.filterwarnings(
    "ignore:subprocess .* is still running", "ignore:Exception ignored in. <function Popen"
)
def test_slurm_array_on_this_machine(capfd):
    pytest.importorskip("submitit")
    local = ["runner=slurm", "runner.cluster=local", "runner.array=8", "runner.gpus=0"]
    assert main([*SMALL, "name=a", "limit=1", *local]) == 0
    said = capfd.readouterr()
    assert "submitted 1 job" in said.err and "freemask status" in said.err and "done" not in said.out
    deadline = time.monotonic() + 300
    while RunStatus.read(Path("out/a")).variants[""].left and time.monotonic() < deadline:
        time.sleep(0.3)
    assert main([*SMALL, "name=a", "limit=1", *local]) == 0  # nothing is left: tables and page, no jobs
    assert "1 done, 0 failed, 0 left" in capfd.readouterr().out
    assert len(list(RowIndex(Path("out/a")).news())) == 1


@pytest.mark.long
def test_ray_replaces_a_worker_that_dies(capfd):
    pytest.importorskip("ray")
    words = [*SMALL, "name=a", "limit=4", "runner=ray", "runner.workers=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.cli.app", *words], stderr=subprocess.PIPE, text=True
    )
    killed = 0
    while process.poll() is None:
        doing = RunStatus.read(Path("out/a")).doing if Path("out/a").exists() else ()
        if doing and not killed:
            killed = int(doing[0]["writer"].rpartition("-")[2])
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert process.returncode == 0 and killed and "a worker died and is replaced" in said
    found = list(RowIndex(Path("out/a")).news())
    assert len(found) == len({each["task"] for each in found}) == 4
    assert {each["status"] for each in found} == {"done"}
