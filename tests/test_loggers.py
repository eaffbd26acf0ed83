"""Mirrors of a run: nothing is sent twice, and nothing that happens to a mirror reaches the run."""

import csv
import gc
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from experiments.cli.app import main
from experiments.loggers import wandb_run
from experiments.loggers.base import Guarded, Logger, flat, numbers
from experiments.loggers.csv import Csv
from experiments.loggers.ledger import Ledger
from experiments.loggers.wandb import Wandb, summary
from experiments.loggers.wandb_file import records, steps
from experiments.runs.store import RunStore
from freemask.errors import UserError

RECORD = {"identity": "0123456789abcdef", "parts": {"method": {"steps": 2}, "seed": 0}}
TWO = {"identity": "fedcba9876543210", "parts": {name: {"method": {"name": name}} for name in ("a", "b")}}
RUN = [
    *("run", "model=random", "metric=pixels", "method=ddim", "method.steps=1", "paths.runs=out", "name=a"),
    *("data.size=16", "data.frames=2", "data.clips=4", "keep=none"),
]


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No key, no home with a key in it, a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    yield
    import wandb

    wandb.teardown()
    for each in gc.get_objects():  # W&B does not bury its dead
        if type(each) is subprocess.Popen and each.returncode is None:
            each.wait(10)


def row(task: str, finished: str = "1", **more) -> dict:
    return {
        "task": task,
        "status": "done",
        "message": "",
        "words": {"cat": "dog"},
        "metrics": {"psnr": 20.0, "clip": None},
        "seconds": {"sampling": 0.5},
        "peak": {"sampling": {"rss_gb": 1.0, "gpu_gb": None}},
        "peak_rss_gb": 1.5,
        "facts": {"mask_share": 0.1, "features": "cache"},
        "finished": finished,
        "files": {},
        **more,
    }


def launch(logger: Logger, folder: Path, rows: list[dict], record: dict = RECORD, **more) -> list[str]:
    """As `freemask run` and `freemask calibrate` call it: `heard` rows of this launch and the points of curves one by
    one, then all rows."""
    said: list[str] = []
    folder.mkdir(exist_ok=True)
    guarded = Guarded(logger, said.append)
    guarded.start(folder, record)
    heard = more.get("heard", len(rows))
    for each in [*rows[len(rows) - heard :], *more.get("points", ())]:
        guarded.row(each, {})
    guarded.end(rows)
    return said


def sent(folder: Path) -> dict[str, list[dict]]:
    """What lies in the W&B files of all launches: lines of history by run id."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    found: dict[str, list[dict]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for each in records(path.read_bytes()):
            record = Record()
            record.ParseFromString(each)
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                }
                found.setdefault(path.stem.removeprefix("run-"), []).append(
                    items | {"step": record.history.step.num}
                )
    return found


# W&B.


def test_every_row_is_sent_once_over_three_launches(tmp_path, capsys):
    folder = tmp_path / "run"
    rows = [row(f"t{number}") for number in range(5)]
    assert launch(Wandb(), folder, rows[:2]) == []
    assert capsys.readouterr().err.count("\n") == 1
    assert launch(Wandb(), folder, rows[:2]) == []
    assert capsys.readouterr().err == "" and len(list(folder.glob("wandb/offline-run-*"))) == 1
    assert launch(Wandb(), folder, rows, heard=1) == []  # two more were written by a launch without a mirror
    ((name, lines),) = sent(folder).items()
    assert name == "run-0123456789abcdef"
    assert [line["task"] for line in lines if "task" in line] == ["t0", "t1", "t4", "t2", "t3"]
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps)) and sum("rows" in line for line in lines) == 2
    first = lines[0]
    assert (first["metrics/psnr"], first["peak/sampling/rss_gb"], first["done"]) == (20.0, 1.0, 1)
    assert "metrics/clip" not in first


def test_a_task_that_is_done_again_is_another_entry(tmp_path):
    folder = tmp_path / "run"
    launch(Wandb(), folder, [row("t", status="failed", metrics={})])
    launch(Wandb(), folder, [row("t", finished="2")])
    (lines,) = sent(folder).values()
    assert [line["done"] for line in lines if "task" in line] == [0, 1]


def test_variants_are_runs_of_one_group(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        wandb_run.Session,
        "_begin",
        lambda self, channel, mode: seen.append(self._about[channel]) or Recorder(),
    )
    rows = [row("t", variant=name) for name in ("a", "b")]
    assert launch(Wandb(), tmp_path / "run", rows, TWO) == []
    assert [each["name"] for each in seen] == ["run/a", "run/b"]
    assert {each["group"] for each in seen} == {"run"} and {each["job_type"] for each in seen} == {"edit"}
    assert len({each["id"] for each in seen}) == 2 and seen[0]["config"]["method"] == {"name": "a"}
    from experiments.config.identity import Identity

    assert seen[0]["id"] == f"run-{Identity(TWO['parts']['a']).hash}"


class Recorder:
    """A W&B run that is resumed online: it has the steps below `step` already."""

    def __init__(self, step: int = 0) -> None:
        self.step, self.summary, self.logged = step, {}, []

    def log(self, values: dict, step: int) -> None:
        self.logged.append((step, values.get("task")))

    def finish(self) -> None: ...


def test_online_a_run_gets_only_steps_that_it_lacks(tmp_path, monkeypatch):
    """The ledger of a killed process may lack the last entry; W&B has it under its step."""
    run = Recorder(step=2)
    monkeypatch.setattr(wandb_run.Session, "_begin", lambda self, channel, mode: run)
    launch(Wandb(mode="online"), tmp_path / "run", [row(f"t{number}") for number in range(4)])
    assert run.logged == [(2, "t2"), (3, "t3"), (4, None)]


def test_previews_are_as_many_as_asked_over_all_launches(tmp_path):
    folder = tmp_path / "run"
    (folder / "videos").mkdir(parents=True)
    rows = []
    for number in range(3):
        Image.new("RGB", (8, 8)).save(folder / f"videos/{number}.gif")
        (folder / f"videos/{number}.gif").rename(folder / f"videos/{number}.mp4")
        rows.append(row(f"t{number}", files={"video": f"videos/{number}.mp4"}))
    for count in (1, 3):
        assert launch(Wandb(videos=2), folder, rows[:count], heard=0) == []
    (lines,) = sent(folder).values()
    assert [line["task"] for line in lines if "video" in line] == ["t0", "t1"]
    kept = list(folder.glob("wandb/offline-run-*/files/media/videos/*.mp4"))
    assert len(kept) == 2


def test_curves_of_a_calibration_are_sent_once(tmp_path):
    folder, points = tmp_path / "run", []
    for k in range(3):
        one = {f"{name}{end}": 0.1 * k for name in ("lmmc", "tmmc") for end in ("", "_low", "_high")}
        points.append({"task": f"point {k}", "metrics": {"layer": k, "time": 100 * k, **one}})
    for _ in range(2):
        assert launch(Wandb(), folder, [row("t")], points=points) == []
    (lines,) = sent(folder).values()
    assert [line["task"] for line in lines if "task" in line] == ["t"]
    drawn = [key for line in lines for key in line if key.split("_")[0] in ("lmmc", "tmmc")]
    assert sorted(drawn) == ["lmmc_table", "tmmc_table"]


def test_a_key_without_a_network_means_offline_with_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_run, "REACH", 1)
    rows = [row("t", variant=name) for name in ("a", "b")]
    assert launch(Wandb(), tmp_path / "run", rows, TWO) == []
    told = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(told) == 1 and "offline" in told[0] and "wandb sync" in told[0]
    assert [len(lines) for lines in sent(tmp_path / "run").values()] == [2, 2]


def service() -> int:
    """The process of W&B that belongs to this one."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        if name.startswith("wandb-core") and int(rest.split()[1]) == os.getpid():
            return int(path.parent.name)
    raise AssertionError("W&B has no process")


@pytest.mark.filterwarnings(
    "ignore:subprocess .* is still running:ResourceWarning"
)  # W&B does not bury its dead
def test_a_killed_wandb_does_not_touch_the_run(monkeypatch, capfd):
    send = Wandb.row

    def killing(self, row, files):
        if self._ledger.count("", "row ") == 2:
            os.kill(service(), signal.SIGKILL)
        send(self, row, files)

    monkeypatch.setattr(Wandb, "row", killing)
    assert main([*RUN, "logger=wandb"]) == 0
    said = capfd.readouterr().err
    assert said.count("logger Wandb stopped") == 1 and "Traceback" not in said
    rows = RunStore(Path("out/a")).latest()
    assert len(rows) == 4 and {each["status"] for each in rows.values()} == {"done"}
    monkeypatch.setattr(Wandb, "row", send)
    assert main([*RUN, "logger=wandb"]) == 0
    (lines,) = sent(Path("out/a")).values()
    assert sorted(line["task"] for line in lines if "task" in line) == sorted(rows)
    numbers = [line["step"] for line in lines]
    assert len(numbers) == len(set(numbers)) and sum("rows" in line for line in lines) == 1


def test_a_second_process_leaves_the_mirror_to_the_first(tmp_path):
    (tmp_path / "run").mkdir()
    first = Ledger(tmp_path / "run", "wandb")
    assert first.mine
    said = launch(Wandb(), tmp_path / "run", [row("t")])
    assert len(said) == 1 and "another process mirrors this run" in said[0]
    first.close()
    assert launch(Wandb(), tmp_path / "run", [row("t")]) == []


def test_the_summary_is_of_all_edits_that_are_done():
    rows = [row("a"), row("b", metrics={"psnr": 30.0}), row("c", status="failed", metrics={"psnr": 0.0})]
    found = summary(rows)
    assert (found["done"], found["failed"], found["mean/psnr"]) == (2, 1, 25.0)


@pytest.mark.parametrize("wrong", [{"mode": "of"}, {"videos": -1}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(UserError):
        Wandb(**wrong)


def test_steps_on_disk_are_read_as_far_as_a_file_goes(tmp_path):
    folder = tmp_path / "run"
    launch(Wandb(), folder, [row(f"t{number}", note="x" * 2000) for number in range(40)])
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    name, whole = "run-0123456789abcdef", path.read_bytes()
    assert steps(folder, name) == set(range(41))
    path.write_bytes(whole[: len(whole) // 2])
    found = steps(folder, name)
    assert found == set(range(len(found))) and 0 < len(found) < 41
    path.write_bytes(b"")
    assert steps(folder, name) == set()


# The ledger.


def test_a_ledger_survives_torn_lines_and_keeps_its_numbers(tmp_path):
    first = Ledger(tmp_path, "x")
    for key in ("row a", "row b", "table 1"):
        first.add("", key)
    first.add("v", "row a")
    first.close()
    path = tmp_path / "loggers/x.jsonl"
    path.write_bytes(path.read_bytes() + b'{"channel": "", "key": "row c", "st')
    second = Ledger(tmp_path, "x")
    second.add("", "row d")
    second.close()
    third = Ledger(tmp_path, "x")
    assert third.has("", "row d") and not third.has("", "row c") and third.has("v", "row a")
    assert (third.next(""), third.count("", "row "), third.next("v")) == (4, 3, 1)


def test_a_ledger_knows_what_may_not_have_arrived(tmp_path):
    first = Ledger(tmp_path, "x")
    first.add("", "row a")
    first.settle("")
    first.add("", "row b")
    first.add("v", "row a")
    first.close()
    second = Ledger(tmp_path, "x")
    assert second.unsure() == {"": {"row b": 1}, "v": {"row a": 0}}
    second.forget("", "row b")
    assert not second.has("", "row b") and second.next("") == 2
    for channel in ("", "v"):
        second.settle(channel)
    assert second.unsure() == {}


# TensorBoard and CSV.


def test_tensorboard_goes_on_where_it_was(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from experiments.loggers.tensorboard import TensorBoard

    folder = tmp_path / "run"
    rows = [row(f"t{number}", variant=name) for number in range(3) for name in ("a", "b")]
    for count in (2, 2, 6):
        assert launch(TensorBoard(), folder, rows[:count], TWO, heard=min(count, 2)) == []
    for name in ("a", "b"):
        events = EventAccumulator(str(folder / "tensorboard" / name))
        events.Reload()
        assert [each.step for each in events.Scalars("metrics/psnr")] == [0, 1, 2]
        assert "peak/sampling/rss_gb" in events.Tags()["scalars"]


def test_tensorboard_draws_curves_over_layer_and_time(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from experiments.loggers.tensorboard import TensorBoard

    points = [
        {"task": f"point {k}", "metrics": {"layer": k, "lmmc": 0.5, "time": 100 * k, "tmmc": 0.25}}
        for k in range(3)
    ]
    for _ in range(2):
        assert launch(TensorBoard(), tmp_path / "run", [row("t")], points=points) == []
    events = EventAccumulator(str(tmp_path / "run/tensorboard/curves"))
    events.Reload()
    assert [each.step for each in events.Scalars("curves/tmmc")] == [0, 100, 200]
    assert [each.name for each in (tmp_path / "run/tensorboard").iterdir() if each.is_dir()] == ["curves"]


def test_csv_is_the_whole_run_each_time(tmp_path):
    rows = [row("t0"), row("t,1", message="two\nlines")]
    for count in (1, 2, 2):
        assert launch(Csv(), tmp_path / "run", rows[:count]) == []
    with (tmp_path / "run/rows.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [each["task"] for each in found] == ["t0", "t,1"] and found[1]["message"] == "two\nlines"
    assert found[0]["metrics/psnr"] == "20.0" and json.loads(found[0]["words"]) == {"cat": "dog"}


def test_flat_and_numbers():
    cells = flat(row("t"))
    assert cells["peak/sampling/gpu_gb"] is None and cells["facts/features"] == "cache"
    found = numbers(row("t", facts={"x": 1}, metrics={"ok": True}))
    assert found == {"seconds/sampling": 0.5, "peak/sampling/rss_gb": 1.0, "peak_rss_gb": 1.5}
