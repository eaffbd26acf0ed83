"""The frozen plan, claims, signs of life, and the state of a run: what every engine stands on."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.cli.app import main
from experiments.commands.status import RunStatus, find
from experiments.config.identity import Identity
from experiments.jobs import worker
from experiments.jobs.lanes import Lane
from experiments.runs import presence
from experiments.runs.claims import Claims
from experiments.runs.plan import Frozen, Launch, Plan
from experiments.runs.presence import Desk, Owner
from experiments.runs.rows import RowIndex
from experiments.runs.store import RunStore
from freemask.data.world import World
from freemask.errors import UserError
from freemask.types import EditTask

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
TASKS = [EditTask(f"t{number}", "c", "a cat", "a dog", {"cat": "dog"}, "shape") for number in range(5)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def plan():
    config = {"method": {"_target_": "m", "steps": 2}, "model": {"_target_": "n", "device": "cpu"}, "seed": 0}
    frozen = [Frozen(name, ["seed=0"], config, Identity({"seed": 0, "name": name})) for name in ("a", "b")]
    return Plan(frozen, TASKS)


def desk(run: Path, **changes) -> Desk:
    return Desk(run, replace(Owner.me("test", 0), **changes), {})


def row(task: str, status: str = "done", finished: str = "2026-01-01T00:00:00", **more) -> dict:
    return {"task": task, "status": status, "finished": finished, **more}


def rows(name: str) -> dict[str, dict]:
    return RunStore(Path("out") / name).latest()


# The plan.


def test_a_plan_is_read_as_it_was_written(plan, tmp_path):
    path = plan.write(tmp_path)
    found = Plan.read(path)
    assert found == plan and found.write(tmp_path) == path
    assert found.variants[0].identity.hash == plan.variants[0].identity.hash
    assert len(list((tmp_path / "plans").iterdir())) == 1


def test_a_changed_plan_is_refused_and_written_anew_by_its_own_command(plan, tmp_path):
    path = plan.write(tmp_path)
    path.write_text(path.read_text().replace('"steps": 2', '"steps": 3'))
    with pytest.raises(UserError, match="changed after it was frozen"):
        Plan.read(path)
    assert plan.write(tmp_path) == path and Plan.read(path) == plan
    with pytest.raises(UserError, match="cannot be read"):
        Plan.read(tmp_path / "plans" / "none.json")


def test_workers_read_the_plan_and_nothing_else(monkeypatch):
    """What happens to the task list and the configuration after the plan is frozen reaches nobody."""
    assert main([*SMALL, "name=a", "limit=1"]) == 0
    assert main([*SMALL, "name=b", "limit=1"]) == 0
    (path,) = Path("out/b/plans").glob("*.json")
    for each in Path("out/b/rows").iterdir():
        each.unlink()
    monkeypatch.setattr(World, "tasks", lambda self: pytest.fail("the task list was read again"))
    monkeypatch.setattr(
        "experiments.config.compose.config_of", lambda *a, **b: pytest.fail("it was composed again")
    )
    assert worker.main([str(path), "--share", "0/3", "--keep", "none"]) == 0
    (one,), (other,) = rows("a").values(), rows("b").values()
    same = ("task", "metrics", "facts", "seed", "steps", "method", "model", "run", "source", "target")
    assert {key: one[key] for key in same} == {key: other[key] for key in same}


def test_one_task_of_a_plan(capsys):
    assert main([*SMALL, "name=a", "limit=1"]) == 0
    assert main([*SMALL, "name=a", "limit=3", "runner.workers=3", "runner.worker=1"]) == 0
    path = max(Path("out/a/plans").glob("*.json"), key=lambda each: each.stat().st_mtime_ns)
    wanted = Plan.read(path).tasks[2].id
    assert len(rows("a")) == 2 and wanted not in rows("a")
    assert worker.main([str(path), "--task", wanted, "--keep", "none"]) == 0
    assert rows("a")[wanted]["status"] == "done" and len(rows("a")) == 3
    assert worker.main([str(path), "--task", "nothing"]) == 2
    assert "no such task" in capsys.readouterr().err


def test_shares_cover_the_list_once_and_the_rest_is_everything_else():
    for count in (1, 2, 3, 7):
        parts = [worker.part(TASKS, index, count) for index in range(count)]
        assert sorted(task.id for mine, _ in parts for task in mine) == [task.id for task in TASKS]
        for mine, rest in parts:
            assert {task.id for task in mine} | {task.id for task in rest} == {task.id for task in TASKS}
            assert len(mine) + len(rest) == len(TASKS)


# What is left to do.


def test_failures_are_done_again_only_if_they_are_older_than_the_launch(plan, tmp_path):
    def lane(retry: str | None) -> Lane:
        return Lane.open(plan.variants[0], Launch(plan.write(tmp_path), retry, "none", tmp_path))

    store = lane(None).store
    store.append("w", row("t0"))
    store.append("w", row("t1", "failed", "2026-01-01T00:00:01"))
    store.append("w", row("t2", "failed", "2026-01-01T00:00:03"))
    wanted = {
        retry: [task.id for task in TASKS if lane(retry).needs(task.id)]
        for retry in (None, "2026-01-01T00:00:02")
    }
    assert wanted == {None: ["t3", "t4"], "2026-01-01T00:00:02": ["t1", "t3", "t4"]}
    assert not lane("2026-01-01T00:00:02").needs("t1", retry=False)


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


def test_a_task_has_one_owner_at_a_time(tmp_path):
    with desk(tmp_path) as one, desk(tmp_path, writer="other") as two:
        first, second = Claims(tmp_path, one), Claims(tmp_path, two)
        assert first.take("t/0") and not second.take("t/0") and second.take("t/1")
        first.drop("t/0")
        assert second.take("t/0") and not first.take("t/0")
        for task in ("t/0", "t/1"):
            second.drop(task)
    assert not list((tmp_path / "claims").iterdir()) and not list((tmp_path / "workers").iterdir())


def gone() -> Owner:
    """A process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(Owner.me("gone", 0), pid=process.pid, born="1")


def test_a_dead_owner_blocks_nothing(tmp_path):
    dead = gone()
    with desk(tmp_path) as mine:
        claims = Claims(tmp_path, mine)
        (tmp_path / "claims").mkdir()
        (tmp_path / "claims" / "t.0").write_text(dead.text())
        (tmp_path / "claims" / "u.3").write_text(
            replace(dead, pid=os.getpid()).text()
        )  # the number came round again
        assert claims.take("t") and claims.take("u")
        claims.sweep()
        assert sorted(path.name for path in (tmp_path / "claims").iterdir()) == ["t.1", "u.4"]


def test_owners_on_other_machines_live_as_long_as_they_are_heard_of(tmp_path):
    elsewhere = replace(Owner.me("far", 0), host="far:0", pid=1)
    with desk(tmp_path) as mine:
        sign = tmp_path / "workers" / f"{elsewhere.writer}.json"
        assert not mine.alive(elsewhere)
        sign.write_text(elsewhere.text())
        assert mine.alive(elsewhere)
        then = time.time() - presence.STALE - 5
        os.utime(sign, (then, then))
        assert not mine.alive(elsewhere)
        mine.tidy()
        assert not sign.exists()


def test_a_living_worker_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(presence, "BEAT", 0.02)
    with desk(tmp_path) as mine:
        (path,) = (tmp_path / "workers").iterdir()
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1 and mine.alive(mine.owner)


def race(folder: Path, number: int, tasks: int) -> None:
    with desk(folder, writer=f"w{number}") as mine:
        claims = Claims(folder, mine)
        for task in [f"t{each}" for each in range(tasks)] * 3:
            if (folder / f"{task}.done").exists() or not claims.take(task):
                continue
            if not (folder / f"{task}.done").exists():
                (folder / f"{task}.{number}.did").touch()
                time.sleep(0.001)
                (folder / f"{task}.done").touch()
            claims.drop(task)


def test_processes_that_race_for_dead_claims_never_share_a_task(tmp_path):
    tasks, dead = 40, gone()
    (tmp_path / "claims").mkdir()
    for number in range(tasks):
        (tmp_path / "claims" / f"t{number}.{number % 2}").write_text(dead.text())
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=race, args=(tmp_path, number, tasks)) for number in range(4)]
    for each in racers:
        each.start()
    for each in racers:
        each.join(60)
    assert [each.exitcode for each in racers] == [0] * 4
    assert sorted(path.name.split(".")[0] for path in tmp_path.glob("*.did")) == sorted(
        f"t{n}" for n in range(tasks)
    )


# The state of a run.


def test_status_counts_what_the_latest_plan_asks_for(plan, tmp_path, capsys):
    run = tmp_path / "out" / "a"
    plan.write(run)
    for each in plan.variants:
        RunStore.open(run / str(each.name), each.identity)
    (run / "run.json").write_text(json.dumps({"variants": {"a": [], "b": []}, "reference": "a"}))
    for task, status in (("t0", "done"), ("t1", "failed"), ("t1", "done"), ("t2", "failed")):
        RunStore(run / "a").append(
            "w", row(task, status, f"2026-01-01T00:00:0{task[1]}", seconds={"edit": 2.0})
        )
    with desk(run) as mine:
        assert Claims(run / "b", mine).take("t4")
        assert main(["status", "a", "paths.runs=out", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert main(["status", "a", "--paths.runs", "out"]) == 0
    said = capsys.readouterr().out
    counts = [(each["name"], each["done"], each["failed"], each["left"]) for each in found["variants"]]
    assert counts == [("a", 2, 1, 2), ("b", 0, 0, 5)]
    assert found["seconds_left"] == 14.0 and found["doing"][0]["task"] == "t4"
    assert "about 14 s to go with 1 worker at work" in said and "b: t4" in said
    assert RunStatus.read(run).workers == []


def test_status_finds_runs_wherever_they_lie(plan, tmp_path, capsys):
    for name in ("one", "sweep/two", "sweep/three"):
        RunStore.open(tmp_path / "runs" / name, Identity({}))
    assert [path.name for path in find(tmp_path / "runs")] == ["one", "three", "two"]
    assert main(["status"]) == 0 and capsys.readouterr().out.count("done") == 3
    assert main(["status", "sweep"]) == 0 and "three" in capsys.readouterr().out
    assert main(["status", "tow"]) == 2 and "there is no such run" in capsys.readouterr().err
    assert main(["status", "paths.run=x"]) == 2
    assert main(["status", "paths.runs=nowhere"]) == 0 and "no runs in nowhere" in capsys.readouterr().out


def test_status_loads_no_torch():
    code = (
        "import sys; from experiments.cli.app import main; main(['status']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_status_of_many_rows_is_quick(tmp_path):
    """A tenth of a hundred thousand rows of a real row's length, in a tenth of what is allowed."""
    run, plan = tmp_path / "run", Plan([], [replace(TASKS[0], id=f"t{n}") for n in range(10_000)])
    store = RunStore.open(run, Identity({}))
    replace(plan, variants=[Frozen(None, [], {}, Identity({}))]).write(run)
    filler = {"columns": {f"c{n}": {"name": "c", "description": "d" * 60} for n in range(20)}}
    for writer in range(8):
        lines = [json.dumps(row(f"t{n}", seconds={"edit": 1.0}, **filler)) for n in range(writer, 8000, 8)]
        (store.folder / "rows" / f"{writer}.jsonl").write_text("\n".join(lines) + "\n")
    begun = time.process_time()
    found = RunStatus.read(run).variants[""]
    assert (found.of("done"), found.left) == (8000, 2000)
    assert time.process_time() - begun < 3


def test_the_time_between_edits_is_told(tmp_path):
    store = RunStore.open(tmp_path / "run", Identity({}))
    for second in (0, 11, 22):
        store.append("w", row(f"t{second}", finished=f"2026-01-01T00:00:{second:02}", seconds={"edit": 10.0}))
    assert RunStatus.read(tmp_path / "run").overhead() == pytest.approx(0.1)


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


def test_fabric_starts_ranks_of_its_own(capfd):
    assert main([*SMALL, "name=a", "limit=3", "runner=fabric", "runner.devices=2"]) == 0
    said = capfd.readouterr()
    assert "2 processes on this node" in said.err and "3 done, 0 failed, 0 left" in said.out
    assert {path.name.split("-")[1] for path in Path("out/a/rows").iterdir()} <= {"0", "1"}
    assert len(list(RowIndex(Path("out/a")).news())) == 3
    assert main([*SMALL, "name=b", "limit=3"]) == 0
    assert {task: each["metrics"] for task, each in rows("a").items()} == {
        task: each["metrics"] for task, each in rows("b").items()
    }


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
