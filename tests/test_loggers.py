"""Mirrors of a run: no row is lost or sent twice, and nothing that happens to a mirror reaches the run."""

import csv
import gc
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from experiments.cli.app import main
from experiments.config.identity import Identity
from experiments.loggers.base import Guarded, Logger, flat, numbers
from experiments.loggers.csv import Csv
from experiments.loggers.mirror import Sent
from experiments.loggers.tensorboard import TensorBoard
from experiments.loggers.wandb import PATIENCE, Wandb, summary
from experiments.runs.store import RunStore

RECORD = {"identity": "0123456789abcdef", "parts": {"method": {"steps": 2}, "seed": 0}}
TWO = {"identity": "fedcba9876543210", "parts": {name: {"method": {"name": name}} for name in ("a", "b")}}
RUN = [
    *("run", "model=random", "metric=pixels", "method=ddim", "method.steps=1", "paths.runs=out", "name=a"),
    *("data.size=16", "data.frames=2", "data.clips=4", "keep=none"),
]


class FakeRun:
    """A W&B run: `lines` are what its server, or its offline folder, holds. A step that it has is passed over."""

    def __init__(self, about: dict, lines: list[dict]) -> None:
        self.about, self.lines, self.summary, self.alive, self.lost = about, lines, {}, True, False

    @property
    def step(self) -> int:
        return self.lines[-1]["step"] + 1 if self.lines else 0

    def log(self, values: dict, step: int, commit: bool) -> None:
        if not self.alive:
            raise BrokenPipeError("W&B is gone")
        if step >= self.step and not self.lost:
            self.lines.append(values | {"step": step})

    def define_metric(self, name: str, summary: str) -> None: ...

    def finish(self) -> None: ...


class FakeWandb(SimpleNamespace):
    """What is used of the module `wandb`: a server with runs by id, and folders of offline starts."""

    class Error(Exception): ...

    def __init__(self) -> None:
        self.key, self.network, self.server, self.runs = True, True, {}, []
        self.Settings = self.Video = self.Table = lambda *args, **named: named
        self.plot = SimpleNamespace(line=lambda table, *_, **__: table["data"])
        self.setup, self.teardowns = lambda **_: None, 0
        self.login = lambda **_: self.key

    def teardown(self) -> None:
        self.teardowns += 1

    def init(self, *, mode: str, id: str, resume: str | None, **about) -> FakeRun:
        if mode == "online" and not self.network:
            raise self.Error("no network\nat all")
        assert resume == ("allow" if mode == "online" else None)
        lines = self.server.setdefault(id, []) if mode == "online" else []
        self.runs.append(FakeRun({"mode": mode, "id": id, **about}, lines))
        return self.runs[-1]


@pytest.fixture
def wandb(monkeypatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """The real library, with no key and no home with a key in it."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    yield
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
    """As `freemask run` and `freemask calibrate` do it: new rows (or the last `heard`) and points one by one as they
    are written, then all rows; with `killed` none of the rest."""
    said: list[str] = []
    known = {(each["task"], each["finished"]) for each in RunStore(folder).rows()}
    new = [each for each in rows if (each["task"], each["finished"]) not in known]
    for each in new:
        RunStore(folder / each.get("variant", "")).append("a", each)
    guarded = Guarded(logger, said.append)
    guarded.start(folder, record)
    for each in [*new[len(new) - more.get("heard", len(new)) :], *more.get("points", ())]:
        guarded.row(each, {name: folder / path for name, path in each.get("files", {}).items()})
    if more.get("killed"):
        logger._sent.close()  # pyright: ignore[reportAttributeAccessIssue] -- as the end of its process would
    else:
        guarded.end(rows)
    return said


def tasks(lines: list[dict]) -> list[str]:
    return [line["task"] for line in lines if "task" in line]


ROWS = [row(f"t{number}") for number in range(6)]


def test_online_every_row_arrives_once_and_a_run_goes_on(wandb, tmp_path):
    assert launch(Wandb(), tmp_path / "run", ROWS[:2]) == []
    assert launch(Wandb(), tmp_path / "run", ROWS[:2]) == [] and len(wandb.runs) == 1
    launch(Wandb(), tmp_path / "run", ROWS, heard=1)  # three were written by a start without a mirror
    ((name, lines),) = wandb.server.items()
    assert name == "run-0123456789abcdef"
    assert tasks(lines) == ["t0", "t1", "t5", "t2", "t3", "t4"]
    assert lines[0] == {
        **{"step": 0, "task": "t0", "done": 1, "metrics/psnr": 20.0, "peak_rss_gb": 1.5},
        **{"seconds/sampling": 0.5, "peak/sampling/rss_gb": 1.0},
    }
    assert wandb.runs[-1].summary["done"] == 6 and len(wandb.runs[-1].summary["rows"]["data"]) == 6
    assert wandb.teardowns == 2
    (tmp_path / "run/wandb/sent.txt").unlink()
    launch(Wandb(), tmp_path / "run", ROWS)  # rather twice than not at all
    assert tasks(lines)[6:] == [f"t{k}" for k in range(6)]


def test_online_what_a_killed_start_lost_is_sent_under_its_own_step(wandb, tmp_path):
    launch(Wandb(), tmp_path / "run", ROWS[:2], killed=True)
    ((_, lines),) = wandb.server.items()
    del lines[1:]  # the second had not arrived
    launch(Wandb(), tmp_path / "run", ROWS[:3])
    assert [(line["step"], line["task"]) for line in lines] == [(0, "t0"), (1, "t1"), (2, "t2")]
    launch(Wandb(), tmp_path / "run", ROWS[:4], killed=True)
    launch(Wandb(), tmp_path / "run", ROWS[:4])  # all had arrived: only the table is missing
    assert tasks(lines) == ["t0", "t1", "t2", "t3"] and wandb.runs[-1].summary["done"] == 4


def test_offline_every_start_with_news_leaves_the_whole_run(wandb, tmp_path, capsys):
    wandb.key = False
    launch(Wandb(), tmp_path / "run", ROWS[:2])
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "offline" in told and "wandb sync" in told
    launch(Wandb(), tmp_path / "run", ROWS[:2])
    assert capsys.readouterr().err == "" and len(wandb.runs) == 1
    launch(Wandb(), tmp_path / "run", ROWS[:4], killed=True)
    wandb.runs[-1].lines.clear()
    launch(Wandb(), tmp_path / "run", ROWS[:4])
    last = wandb.runs[-1].lines
    assert [(line["step"], line["task"]) for line in last] == [(k, f"t{k}") for k in range(4)]


def test_rows_of_an_offline_start_arrive_when_the_network_is_back(wandb, tmp_path):
    for number, mode in enumerate(("online", "offline", "online"), start=1):
        launch(Wandb(mode=mode), tmp_path / "run", ROWS[:number])
    assert tasks(wandb.server["run-0123456789abcdef"]) == ["t0", "t1", "t2"]


def test_a_dead_wandb_does_not_touch_the_run_and_the_next_start_makes_up(wandb, tmp_path):
    class Dying(Wandb):
        def send(self, channel, step, row, video):
            wandb.runs[-1].alive = step < 1
            super().send(channel, step, row, video)

    said = launch(Dying(mode="offline"), tmp_path / "run", ROWS)
    assert len(said) == 1 and "W&B is gone" in said[0] and wandb.teardowns == 1
    assert launch(Wandb(mode="offline"), tmp_path / "run", ROWS) == []
    assert tasks(wandb.runs[-1].lines) == [f"t{k}" for k in range(6)]


def test_without_a_network_there_is_one_line_for_all_variants(wandb, tmp_path, capsys):
    wandb.network = False
    rows = [row("t", variant=name) for name in ("a", "b")]
    assert launch(Wandb(), tmp_path / "run", rows, TWO) == []
    assert capsys.readouterr().err.count("\n") == 1
    assert [each.about["mode"] for each in wandb.runs] == ["offline", "offline"]


def test_a_task_that_is_done_again_is_another_entry(wandb, tmp_path):
    launch(Wandb(), tmp_path / "run", [row("t", status="failed", metrics={})])
    launch(Wandb(), tmp_path / "run", [row("t", finished="2")])
    assert [line["done"] for line in wandb.server["run-0123456789abcdef"]] == [0, 1]


def test_variants_are_runs_of_one_group(wandb, tmp_path):
    assert launch(Wandb(), tmp_path / "run", [row("t", variant=name) for name in ("a", "b")], TWO) == []
    seen = [each.about for each in wandb.runs]
    assert [each["name"] for each in seen] == ["run/a", "run/b"]
    assert {each["group"] for each in seen} == {"run"} and {each["job_type"] for each in seen} == {"edit"}
    assert seen[0]["config"]["method"] == {"name": "a"}
    assert [each.summary["done"] for each in wandb.runs] == [1, 1]
    assert [each["id"] for each in seen] == [f"run-{Identity(TWO['parts'][name]).hash}" for name in "ab"]


def test_previews_are_as_many_as_asked_over_all_starts(wandb, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/v.mp4").write_bytes(b"")
    rows = [ROWS[0], *(row(f"t{k}", files={"video": "v.mp4"}) for k in range(1, 5))]
    for count, mode in ((2, "online"), (4, "online"), (5, "offline")):
        launch(Wandb(videos=2, mode=mode), tmp_path / "run", rows[:count], heard=0)
        assert tasks([line for line in wandb.runs[-1].lines if "video" in line]) == ["t1", "t2"][: count - 1]


def points(cost: float) -> list[dict]:
    one = {f"{name}{end}": cost for name in ("lmmc", "tmmc") for end in ("", "_low", "_high")}
    return [{"task": f"point {k}", "metrics": {"layer": k, "time": 100 * k, **one}} for k in range(3)]


def test_curves_of_a_calibration_are_sent_when_they_have_changed(wandb, tmp_path):
    for cost in (0.5, 0.5, 0.25):
        assert launch(Wandb(), tmp_path / "run", ROWS[:1], points=points(cost)) == []
    lines = wandb.server["run-0123456789abcdef"]
    assert [line["tmmc"][1] for line in lines[1:]] == [[100, 0.5, 0.5, 0.5], [100, 0.25, 0.25, 0.25]]
    launch(Wandb(), tmp_path / "run", ROWS[:2], points=points(0.25))
    assert tasks(lines) == ["t0", "t1"]
    launch(Wandb(mode="offline"), tmp_path / "run", ROWS[:3], points=points(0.25))
    assert "tmmc" in wandb.runs[-1].lines[-1]


@pytest.mark.parametrize("logger", [Wandb, TensorBoard])
def test_a_second_process_leaves_the_mirror_to_the_first(wandb, tmp_path, logger):
    first = Sent(tmp_path / "run" / logger.name / "sent.txt")
    said = launch(logger(), tmp_path / "run", ROWS)
    assert len(said) == 1 and "another process mirrors this run" in said[0] and not wandb.runs
    first.close()
    assert launch(logger(), tmp_path / "run", ROWS) == []


def test_notes_survive_a_torn_line(tmp_path):
    first = Sent(tmp_path / "sent.txt")
    first.add("", "a")
    first.add("v", "a")
    first.settle("v")
    first.add("", "b", preview=True)
    first.close()
    with (tmp_path / "sent.txt").open("a") as file:
        file.write('["", "c')
    for number in (2, 3):
        again = Sent(tmp_path / "sent.txt")
        assert again.add("", f"d{number}") == number
        again.close()
    assert dict(again.entries) == {"": {"a": False, "b": True, "d2": False, "d3": False}, "v": {"a": False}}
    assert again.arrived == {"v": 1}


def test_the_summary_is_of_all_edits_that_are_done():
    rows = [row("a"), row("b", metrics={"psnr": 30.0}), row("c", status="failed", metrics={"psnr": 0.0})]
    found = summary(rows)
    assert (found["done"], found["failed"], found["mean/psnr"]) == (2, 1, 25.0)


# The real library.


def test_the_real_wandb_writes_a_folder(tmp_path, alone, capfd):
    folder = tmp_path / "run"
    (folder / "videos").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "videos/t.gif")
    (folder / "videos/t.gif").rename(folder / "videos/t.mp4")
    rows = [row("t", files={"video": "videos/t.mp4"})]
    assert launch(Wandb(), folder, rows, points=points(0.5)) == []
    told = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(told) == 1 and "there is no key" in told[0]
    (made,) = folder.glob("wandb/offline-run-*-run-0123456789abcdef")
    (table,) = made.glob("files/media/table/rows_*.json")
    content = json.loads(table.read_text())
    assert content["data"][0][content["columns"].index("task")] == "t"
    assert len(list(made.glob("files/media/table/[lt]mmc_*.json"))) == 2
    assert len(list(made.glob("files/media/videos/*.mp4"))) == 1


@pytest.mark.long
def test_a_key_without_a_network_means_offline_with_one_line(tmp_path, alone, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setitem(PATIENCE, "init_timeout", 1)
    rows = [row("t", variant=name) for name in ("a", "b")]
    assert launch(Wandb(), tmp_path / "run", rows, TWO) == []
    told = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(told) == 1 and "offline" in told[0] and "wandb sync" in told[0]
    assert len(list(tmp_path.glob("run/wandb/offline-run-*"))) == 2


def service() -> int:
    """The process of W&B that belongs to this one."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        if name.startswith("wandb-core") and int(rest.split()[1]) == os.getpid():
            return int(path.parent.name)
    raise AssertionError("W&B has no process")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_killed_wandb_process_does_not_touch_the_run(alone, monkeypatch, capfd):
    send = Wandb.send

    def killing(self, channel, step, row, video):
        if step == 2:
            os.kill(service(), signal.SIGKILL)
        send(self, channel, step, row, video)

    monkeypatch.setattr(Wandb, "send", killing)
    assert main([*RUN, "logger=wandb"]) == 0
    said = capfd.readouterr().err
    assert said.count("logger Wandb stopped") == 1 and "Traceback" not in said
    rows = RunStore(Path("out/a")).latest()
    assert len(rows) == 4 and {each["status"] for each in rows.values()} == {"done"}
    monkeypatch.setattr(Wandb, "send", send)
    assert main([*RUN, "logger=wandb"]) == 0
    (table,) = Path("out/a").glob("wandb/offline-run-*/files/media/table/rows_*.json")
    assert len(json.loads(table.read_text())["data"]) == 4


# TensorBoard and CSV.


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return [(each.step, each.value) for each in events.Scalars(name)]


def test_tensorboard_goes_on_where_it_was(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    clock = itertools.count(10**9)  # files are named and read by the second in which they were begun
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    folder = tmp_path / "run"
    rows = [row(f"t{k}", variant=name, metrics={"psnr": k}) for k in range(4) for name in ("a", "b")]
    for count, killed in ((2, False), (2, False), (6, True), (8, False)):
        launch(TensorBoard(), folder, rows[:count], TWO, killed=killed)
    for name in ("a", "b"):
        assert scalars(folder / "tensorboard" / name, "metrics/psnr") == [(k, k) for k in range(4)]
        assert len(scalars(folder / "tensorboard" / name, "peak/sampling/rss_gb")) == 4


def test_tensorboard_shows_some_contact_sheets(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    rows = [row(f"t{k}", files={"sheet": f"{k}.png"}) for k in range(3)]
    for k in range(2):  # of the third there is none
        (tmp_path / "run").mkdir(exist_ok=True)
        Image.new("RGB", (7, 5), (255, 0, 40 * k)).save(tmp_path / f"run/{k}.png")
    for most, shown in ((1, ["sheets/t0"]), (3, ["sheets/t0", "sheets/t1"])):
        launch(TensorBoard(most), tmp_path / "run", rows)
        events = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard"))
        events.Reload()
        assert events.Tags()["images"] == shown
        (first,) = events.Images("sheets/t0")
        assert (first.width, first.height, first.step) == (7, 5, 0)
        shutil.rmtree(tmp_path / "run/tensorboard")


def test_tensorboard_draws_the_latest_curves_over_layer_and_time(tmp_path):
    pytest.importorskip("tensorboard")
    for cost in (0.5, 0.25, 0.25):
        assert launch(TensorBoard(), tmp_path / "run", ROWS[:1], points=points(cost)) == []
    found = scalars(tmp_path / "run/tensorboard/curves", "curves/tmmc")
    assert found == [(0, 0.25), (100, 0.25), (200, 0.25)]


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
