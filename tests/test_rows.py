"""What a row says, and what becomes of rows and files when memory or the disk runs out."""

import mmap
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.cli.app import main
from experiments.jobs import thrift
from experiments.jobs.outcome import Outcome, keep_files, whole
from experiments.runs.rows import RowIndex, columns
from experiments.runs.store import RunStore
from freemask import memory
from freemask.attention.features import Features
from freemask.backbones.codec import Codec
from freemask.backbones.unet3d import UNet3D
from freemask.data.world import World
from freemask.methods.common import Stopwatch
from freemask.types import Clip, Edit, EditTask

CPU = torch.device("cpu")
MB = 10**6
TASKS = 4
RUN = [
    *("run", "model=random", "metric=pixels", "method=sdedit", "method.steps=2", "paths.runs=out"),
    *("data.size=16", "data.frames=2", f"data.clips={TASKS}"),
]
MASKED = [*RUN, "method=freemask", "mask=average", "name=a", "limit=1"]
NEEDED = (
    *(
        "task",
        "clip",
        "kind",
        "source",
        "target",
        "words",
        "method",
        "run",
        "steps",
        "model",
        "status",
        "message",
    ),
    *(
        "metrics",
        "choices",
        "facts",
        "warnings",
        "seconds",
        "peak",
        "peak_rss_gb",
        "peak_gpu_gb",
        "retried",
        "seed",
    ),
    *("commit", "dirty", "versions", "device", "dtype", "frames", "files", "finished"),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(name: str = "a", runs: str = "out") -> dict[str, dict]:
    return RunStore(Path(runs) / name).latest()


def results(name: str = "a", runs: str = "out") -> dict[str, dict]:
    return {task: row["metrics"] for task, row in rows(name, runs).items() if row["status"] == "done"}


def only(name: str = "a") -> dict:
    (row,) = rows(name).values()
    return row


# What is in a row.


def test_a_row_tells_everything():
    assert main(MASKED) == 0
    row = only()
    assert set(NEEDED) <= set(row) and row["retried"] is None
    assert set(columns(Path("out/a"))) == set(row["metrics"])
    assert {"mask_empty_frames", "mask_share"} <= set(row["facts"])
    assert {"inversion", "masks", "sampling", "decoding", "metrics"} <= set(row["peak"]) & set(row["seconds"])
    assert set(row["peak"]) <= set(row["seconds"])
    peaks = [each["rss_gb"] for each in row["peak"].values()]
    assert 0.05 < max(peaks) <= row["peak_rss_gb"] and all(
        each["gpu_gb"] is None for each in row["peak"].values()
    )


def test_an_empty_mask_is_flagged(monkeypatch):
    from freemask.methods import shown

    pictures = shown.pictures

    def empty_in_one_frame(editing):
        found = pictures(editing)
        found["mask"][0] = 0
        return found

    monkeypatch.setattr(shown, "pictures", empty_in_one_frame)
    assert main(MASKED) == 0
    assert only()["facts"]["mask_empty_frames"] == 1 and "empty in 1 of 2 frames" in only()["warnings"][0]


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "not numbers"), (0.0, "the edit is black")])
def test_broken_frames_leave_a_message_and_no_files(monkeypatch, value, said):
    decode = UNet3D.decode
    monkeypatch.setattr(UNet3D, "decode", lambda self, *given: torch.full_like(decode(self, *given), value))
    assert main([*RUN, "name=a", "limit=1"]) == 1
    row = only()
    assert row["status"] == "failed" and said in row["message"] and row["where"] == ""
    assert row["files"] == {} and row["metrics"] == {} and not Path("out/a/videos").exists()


# Peak memory.


def spend(mb):
    """So many megabytes in use for a moment, from the system itself: a heap may have kept some from earlier tests."""
    with mmap.mmap(-1, mb * MB) as block:
        block[:: mmap.PAGESIZE] = b"1" * len(range(0, mb * MB, mmap.PAGESIZE))


def test_every_stage_has_its_own_peak():
    with memory.Meter(CPU) as meter:
        watch = Stopwatch(CPU)
        spend(300)
        with meter.stage("edit"):
            with watch.stage("large"):
                spend(200)
            with watch.stage("small"):
                spend(50)
            with watch.stage("large"):
                spend(10)
        with pytest.raises(ZeroDivisionError), meter.stage("broken"):
            spend(100)
            raise ZeroDivisionError
    peak = {name: (each.rss_gb or 0) * 1000 for name, each in meter.stages.items()}
    assert set(peak) == {"edit", "large", "small", "broken"}
    assert peak["large"] - peak["small"] == pytest.approx(150, abs=15)
    assert peak["broken"] - peak["small"] == pytest.approx(50, abs=15)
    assert peak["edit"] < peak["small"] - 30
    assert (meter.whole.rss_gb or 0) * 1000 - peak["large"] == pytest.approx(100, abs=15)


def test_where_the_system_cannot_forget_a_stage_has_no_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "no" / "such")
    with memory.Meter(CPU) as meter, memory.stage("x"):
        pass
    assert meter.record() == {"x": {"rss_gb": None, "gpu_gb": None}} and (meter.whole.rss_gb or 0) > 0.05


def test_without_a_meter_stages_leave_the_peak_alone():
    memory.forget_rss_peak()
    spend(200)
    before = memory.peak_rss_gb()
    with Stopwatch(CPU).stage("x"):
        pass
    assert memory.peak_rss_gb() >= before


# Memory that runs out.


def too_much() -> None:
    """What PyTorch itself says of more memory than any machine has."""
    torch.empty(1 << 52)


def test_out_of_memory_is_retried_once_with_less(monkeypatch, calm):
    decode, batches = Codec.decode, []

    def hungry(self, latents):
        batches.append(self.batch)
        if self.batch > 1:
            too_much()
        return decode(self, latents)

    monkeypatch.setattr(Codec, "decode", hungry)
    assert main([*RUN, "name=a", "keep=none"]) == 0
    assert batches == [8, 1] * TASKS  # put back for every task
    assert results("a") == calm and len(calm) == TASKS
    for row in rows("a").values():
        assert "tried to allocate" in row["retried"]["message"]
        assert row["retried"]["changed"] == {"model.attention_slicing": "0 -> 8", "model.vae_batch": "8 -> 1"}
        assert row["seconds"]["out of memory"] > 0 and row["message"] == ""


def test_a_second_failure_is_a_row_and_the_run_goes_on(monkeypatch):
    decode, tries = Codec.decode, []

    def hungry(self, latents):
        tries.append(1)
        if len(tries) <= 2:
            too_much()
        return decode(self, latents)

    monkeypatch.setattr(Codec, "decode", hungry)
    assert main([*RUN, "name=a", "keep=none"]) == 0
    failed = [row for row in rows("a").values() if row["status"] == "failed"]
    assert len(failed) == 1 and len(rows("a")) == TASKS and len(tries) == TASKS + 1
    assert "tried to allocate" in failed[0]["message"] and "vae_tiling" in failed[0]["message"]
    assert failed[0]["retried"]["changed"]["model.vae_batch"] == "8 -> 1"


def test_features_are_not_kept_in_the_second_try(monkeypatch):
    monkeypatch.setattr(Features, "put", lambda *words, **more: too_much())
    assert main([*MASKED, "method.features=cache", "keep=none"]) == 0
    assert only()["retried"]["changed"]["method.features"] == "cache -> recompute"
    assert only()["facts"]["features"] == "recompute"


def test_other_failures_are_not_tried_again(monkeypatch):
    tries = []

    def broken(self, task):
        tries.append(task)
        raise RuntimeError("the tape is torn")

    monkeypatch.setattr(World, "clip", broken)
    assert main([*RUN, "name=a", "limit=1"]) == 1
    assert len(tries) == 1 and only()["retried"] is None


@pytest.mark.parametrize(
    ("error", "yes"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("the tape is torn"), False),
        (OSError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, yes):
    assert thrift.ran_out(error) is yes
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        too_much()
    assert thrift.ran_out(caught.value)


def test_what_is_switched_on_to_save_memory_is_switched_off_again(monkeypatch):
    model = UNet3D.random()
    monkeypatch.setattr(model, "attention_slicing", 4)
    with pytest.raises(KeyError), thrift.thrifty(model, len) as (_, changed):  # pyright: ignore[reportArgumentType]
        assert (model.attention_slicing, model.codec.batch) == (4, 1) and list(changed) == ["model.vae_batch"]
        raise KeyError
    assert (model.attention_slicing, model.codec.batch) == (4, 8)


# A disk that is full, read-only or torn.


def forked(words: list[str], limit: int) -> tuple[int, str]:
    """The command in a process that cannot write files of more than so many bytes: `File too large`, as on a disk
    without space for them. Its exit code, and what it said."""
    ear, mouth = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            sys.stdout = sys.stderr = os.fdopen(mouth, "w", buffering=1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            code = main(words)
        finally:
            os._exit(code)
    os.close(mouth)
    with os.fdopen(ear) as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


@contextmanager
def disk(folder: str, size: str):
    Path(folder).mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this user cannot mount a file system: a real full disk is not tested")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def are_whole(folder: Path) -> int:
    """How many edits have frames; none of them is torn."""
    found = list(folder.rglob("frames/*.npz"))
    for path in found:
        with np.load(path) as kept:
            assert kept["frames"].shape == (2, 16, 16, 3)
    assert not [path for path in folder.rglob(".*") if path.is_file() and "frames" in path.parts]
    return len(found)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The numbers of a run that nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("calm"))
        assert main([*RUN, "name=a"]) == 0
        return results()


def test_a_full_disk_loses_nothing_and_the_next_launch_goes_on(capsys, calm):
    with disk("small", "110k") as remount:
        words = [*RUN, "paths.runs=small", "name=a"]
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "No space left on device" in said and "make room" in said and "Traceback" not in said
        before = results("a", "small")
        assert 0 < len(before) < TASKS and are_whole(Path("small/a")) >= len(before)
        remount("size=64m")
        assert main(words) == 0
        assert results("a", "small") == calm
        lines = [row["task"] for row in RunStore(Path("small/a")).rows()]
        assert sorted(lines) == sorted(calm) and are_whole(Path("small/a")) == TASKS


def test_a_read_only_folder_is_one_message_and_stays_as_it_is(capsys, calm):
    with disk("fixed", "64m") as remount:
        words = [*RUN, "paths.runs=fixed", "name=a"]
        assert main([*words, "limit=1"]) == 0
        before = {path: path.read_bytes() for path in Path("fixed").rglob("*") if path.is_file()}
        remount("ro")
        for name in ("a", "b"):
            capsys.readouterr()
            assert main([*words[:-1], f"name={name}"]) == 2
            said = capsys.readouterr().err
            assert "Read-only file system" in said and "fixed" in said and "Traceback" not in said
        remount("rw")
        assert {path: path.read_bytes() for path in Path("fixed").rglob("*") if path.is_file()} == before
        assert main(words) == 0
        assert results("a", "fixed") == calm


@pytest.mark.parametrize("limit", [60, 1500, 6000])
def test_a_file_that_cannot_grow_is_a_message_and_never_half_there(limit, calm):
    """From no room for the run's own record to room for the rows and not for the pictures."""
    code, said = forked([*RUN, "name=a"], limit)
    assert code == 2 and "File too large" in said and "Traceback" not in said
    are_whole(Path("out/a"))
    for path in (*Path("out/a").glob("videos/*"), *Path("out/a").glob("side-by-side/*")):
        assert not path.name.startswith(".")
    assert main([*RUN, "name=a"]) == 0
    assert results() == calm and are_whole(Path("out/a")) == TASKS


def test_a_rows_file_that_was_cut_is_made_whole(calm):
    assert main([*RUN, "name=a", "keep=none"]) == 0
    (file,) = Path("out/a/rows").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 5 // 8])
    left = set(results())
    assert 0 < len(left) < TASKS
    assert main([*RUN, "name=a", "keep=none"]) == 0
    assert results() == calm
    again = [row["task"] for row in RunStore(Path("out/a")).rows()]
    assert sorted(again) == sorted(calm)


def test_a_corrupt_clip_in_the_middle_costs_itself_only(capsys):
    assert main([*RUN, "name=first"]) == 0
    Path("clips").mkdir()
    lines = ["id,clip,source,target,kind"]
    for number, path in enumerate(sorted(Path("out/first/videos").glob("*.mp4"))[:3]):
        shutil.copy(path, f"clips/{number}.mp4")
        lines.append(f"t{number},{number}.mp4,a cat,a red cat,style")
    Path("tasks.csv").write_text("\n".join(lines))
    whole_clip = Path("clips/1.mp4").read_bytes()
    Path("clips/1.mp4").write_bytes(whole_clip[: len(whole_clip) // 2])
    words = [
        *RUN[:6],
        "data=folder",
        "data.root=clips",
        "data.tasks=tasks.csv",
        "data.frames.count=2",
        "name=a",
    ]
    assert main(words) == 0
    assert {task: row["status"] for task, row in rows().items()} == {
        "t0": "done",
        "t1": "failed",
        "t2": "done",
    }
    assert "1.mp4" in rows()["t1"]["message"] and "2 done, 1 failed" in capsys.readouterr().out
    finished = {task: row["finished"] for task, row in rows().items()}
    assert main(words) == 0
    assert {task: row["finished"] for task, row in rows().items()} == finished
    Path("clips/1.mp4").write_bytes(whole_clip)
    assert main([*words, "retry=failed"]) == 0
    assert {row["status"] for row in rows().values()} == {"done"}


def test_a_file_has_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"old")
    with pytest.raises(OSError), whole(path) as part:
        part.write_bytes(b"half")
        raise OSError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with whole(path) as part:
        part.write_bytes(b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_measuring_costs_little():
    """Of an edit that takes 0.1 s, some thousandths: a stage is read twice."""
    with memory.Meter(CPU) as meter:
        import time

        began = time.process_time()
        for _ in range(100):
            with meter.stage("x"):
                pass
        assert (time.process_time() - began) / 100 < 0.002


def test_pictures_that_cannot_be_made_lose_no_numbers(monkeypatch, tmp_path):
    def no_encoder(*_: object) -> None:
        raise ValueError("libx264 is not there")

    monkeypatch.setattr("experiments.jobs.outcome.write_video", no_encoder)
    task, frames = EditTask("t", "c", "a", "b", {}, "style"), torch.zeros(2, 3, 8, 8)
    row = {"task": "t", "status": "done", "metrics": {"x": 1.0}, "warnings": ["before"]}
    outcome = Outcome(row, task=task, clip=Clip("c", frames, {}), edit=Edit(frames))
    assert keep_files(RunStore(tmp_path), outcome) == {} and outcome.row["metrics"] == {"x": 1.0}
    assert outcome.row["warnings"] == ["before", "its pictures cannot be made: libx264 is not there"]


@pytest.mark.parametrize("lost", [0, 1, 9])
def test_a_row_after_a_torn_line_is_whole_and_no_line_is_empty(tmp_path, lost):
    store, index = RunStore(tmp_path), RowIndex(tmp_path)
    one = {"status": "done", "finished": "2026-01-01T00:00:00", "metrics": {}}
    store.append("w", {**one, "task": "a"})
    (file,) = (tmp_path / "rows").iterdir()
    os.truncate(file, file.stat().st_size - lost)
    index.refresh()
    store.append("w", {**one, "task": "b"})
    index.refresh()
    whole_ones = {"b"} if lost > 1 else {"a", "b"}  # without its line break alone nothing of a row is lost
    assert set(store.latest()) == set(index.last) == whole_ones
    assert all(line.strip() for line in file.read_text().splitlines())
