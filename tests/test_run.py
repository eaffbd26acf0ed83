"""From the command to rows, videos, table and page, on a tiny random network."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.cli.app import main
from experiments.engines.local import Local
from experiments.jobs.edit import Editor
from experiments.jobs.job import kept
from experiments.runs.plan import Item, Plan
from experiments.runs.record import Record
from experiments.runs.store import RunStore
from freemask.data.open import open_clip
from freemask.data.world import World
from freemask.errors import UserError

# There is no codebook of the random model, and FreeMask's default masks need one.
RANDOM = ["model=random", "metric=pixels", "method.steps=1", "paths.runs=out"]
SMALL = [*RANDOM, "method=ddim"]
WORLD = ["data.size=16", "data.frames=2", "data.clips=4"]
RUN = ["run", *SMALL, *WORLD]
NEEDED = "task clip method status metrics seconds peak_rss_gb peak_gpu_gb seed steps commit dirty versions device dtype"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def world():
    return World(clips=4, frames=2, size=16)


def rows(name: str) -> dict[str, dict]:
    return RunStore(Path("out") / name).latest()


def results(name: str) -> dict[str, dict]:
    return {task: row["metrics"] for task, row in rows(name).items()}


def test_a_run_leaves_rows_videos_table_and_page(capsys):
    assert main([*RUN, "name=a"]) == 0
    found = rows("a")
    assert len(found) == 4 and {row["status"] for row in found.values()} == {"done"}
    for row in found.values():
        assert set(NEEDED.split()) <= set(row)
        assert row["metrics"]["oracle_psnr"] > 0
        assert row["peak_rss_gb"] > 0.05 and {"inversion", "sampling", "metrics"} <= set(row["seconds"])
        for file in row["files"].values():
            assert (Path("out/a") / file).stat().st_size > 0
    page = Path("out/a/index.html").read_text()
    (core,) = re.findall(r'^freemask\.give\("core", (.*)\);$', page, re.MULTILINE)
    told = json.loads(core)
    assert sorted(told["tasks"]["id"]) == sorted(found) and told["rows"]["done"] == [1] * 4
    ((linked,), stems) = told["files"], told["tasks"]["stem"]
    assert all(
        (Path("out/a") / each.replace("{}", stem)).is_file() for each in linked.values() for stem in stems
    )
    assert "sheet" in linked and "video" in linked
    said = capsys.readouterr().out
    assert "oracle_psnr" in said and "4 done, 0 failed, 0 left" in said and "index.html" in said
    assert "| ddim |" in Path("out/a/table.md").read_text()


def test_a_second_start_does_only_what_is_missing(monkeypatch, capsys):
    assert main([*RUN, "name=a", "limit=2"]) == 0
    first = rows("a")
    done = []
    edit = Editor.edit
    monkeypatch.setattr(
        Editor, "edit", lambda self, row, task, *more: done.append(task.id) or edit(self, row, task, *more)
    )
    assert main([*RUN, "name=a"]) == 0
    assert len(done) == 2 and not set(done) & set(first)
    assert {task: row["finished"] for task, row in rows("a").items() if task in first} == {
        task: row["finished"] for task, row in first.items()
    }
    assert main([*RUN, "name=a"]) == 0
    assert len(done) == 2


@pytest.mark.parametrize("several", [False, True])
def test_the_chosen_options_are_in_plan_record_and_rows(several):
    shared = {
        "model": "random_image",
        "first_frame": None,
        "flow": None,
        "interpolation": None,
        "tuning": "none",
        "data": "world",
        "metric": "pixels",
    }
    fatezero = shared | {"method": "fatezero", "mask": "fatezero", "fusion": "fatezero"}
    ddim = shared | {"method": "ddim", "mask": None, "fusion": None}
    wanted: dict = {"a": fatezero, "b": ddim} if several else {None: fatezero}
    own = ["variants={a:[method=fatezero,model=random_image],b:[method=ddim,model=random_image]}"]
    own = own if several else ["method=fatezero", "model=random_image"]
    assert (
        main(
            [
                "run",
                *own,
                "method.steps=1",
                "metric=pixels",
                "keep=none",
                "paths.runs=out",
                *WORLD,
                "limit=1",
                "name=a",
            ]
        )
        == 0
    )
    (plan,) = Path("out/a/plans").iterdir()
    for variant in Plan.read(plan).variants:
        folder = variant.folder(Path("out/a"))
        (row,) = RunStore(folder).latest().values()
        assert variant.choices == Record.read(folder).choices == row["choices"] == wanted.pop(variant.name)
        assert row["method"] == variant.choices["method"] and row["status"] == "done"
    assert not wanted


@pytest.mark.parametrize("name", ["..", "../b", "a/../../b", "/b", "a//b", "a/"])
def test_a_name_that_is_no_folder_below_paths_runs_is_refused(name, capsys):
    assert main([*RUN, f"name={name}"]) == 2
    said = capsys.readouterr().err
    assert "name=" in said and "Traceback" not in said and not Path("out").exists() and not Path("b").exists()


def test_another_configuration_cannot_share_the_folder(capsys):
    assert main([*RUN, "name=a", "limit=1"]) == 0
    before = Path("out/a/run.json").read_bytes()
    assert main([*RUN, "name=a", "limit=1", "method.guidance=2"]) == 2
    assert "method.guidance: null there, 2 here" in capsys.readouterr().err
    assert Path("out/a/run.json").read_bytes() == before


def test_one_failure_is_a_row_and_the_run_goes_on(monkeypatch, capsys, world):
    broken = world.tasks()[1].id
    clip = World.clip

    def read(self, task):
        if task.id == broken:
            raise RuntimeError("the tape is torn")
        return clip(self, task)

    monkeypatch.setattr(World, "clip", read)
    assert main([*RUN, "name=a", "keep=none"]) == 0
    assert rows("a")[broken]["status"] == "failed" and "the tape is torn" in rows("a")[broken]["message"]
    assert "3 done, 1 failed" in capsys.readouterr().out
    monkeypatch.setattr(World, "clip", clip)
    assert main([*RUN, "name=a", "keep=none"]) == 0
    assert rows("a")[broken]["status"] == "failed"
    assert main([*RUN, "name=a", "keep=none", "retry=failed"]) == 0
    assert rows("a")[broken]["status"] == "done"
    assert not Path("out/a/videos").exists()


@pytest.mark.parametrize(("keep", "count"), [("all", 10), ("sample", 8), ("none", 0)])
def test_what_is_kept(keep, count):
    items = [Item(str(number)) for number in range(10)]
    assert kept(items, keep) == {str(number) for number in range(count)}


def test_nothing_done_is_exit_code_1(monkeypatch):
    def read(self, task):
        raise RuntimeError("no tape")

    monkeypatch.setattr(World, "clip", read)
    assert main([*RUN, "name=a"]) == 1


@pytest.mark.parametrize("value", [float("nan"), 0.0], ids=["not-a-number", "black"])
def test_broken_frames_are_a_failure(monkeypatch, value):
    from freemask.backbones.unet3d import UNet3D

    decode = UNet3D.decode
    monkeypatch.setattr(UNet3D, "decode", lambda self, latents: torch.full_like(decode(self, latents), value))
    assert main([*RUN, "name=a", "limit=1"]) == 1
    assert next(iter(rows("a").values()))["status"] == "failed"


def test_order_and_workers_change_nothing(monkeypatch, world):
    sdedit = [*RUN, "method=sdedit", "keep=none"]  # draws noise, so that a wrong seed would show
    assert main([*sdedit, "name=a"]) == 0
    tasks = world.tasks()
    monkeypatch.setattr(World, "tasks", lambda self: tasks)
    for worker in (1, 0):
        assert main([*sdedit, "name=b", "runner.workers=2", f"runner.worker={worker}"]) == 0
    assert results("a") == results("b")
    assert len(list(Path("out/b/rows").glob("*.jsonl"))) == 2
    monkeypatch.setattr(Local, "share", lambda self, items: items[::-1])
    assert main([*sdedit, "name=c"]) == 0
    assert results("a") == results("c")


def test_another_seed_is_another_result():
    for seed in (0, 1):
        assert main([*RUN, "method=sdedit", "keep=none", "limit=1", f"name={seed}", f"seed={seed}"]) == 0
    assert results("0") != results("1")


def test_a_sweep_is_one_run_with_a_variant_for_every_combination(capsys):
    sweep = [*RUN, "-m", "method=ddim,sdedit", "method.steps=1,2", "limit=1", "keep=none", "name=s"]
    assert main(sweep) == 0
    assert "Compared with ddim+steps-1" in capsys.readouterr().out
    files = sorted(Path("out/s").glob("*/rows/*"))
    names = [f"{method}+steps-{steps}" for method in ("ddim", "sdedit") for steps in (1, 2)]
    assert [path.parent.parent.name for path in files] == names
    made = {name: list(rows(f"s/{name}").values()) for name in names}
    assert {name: [(row["method"], row["steps"]) for row in each] for name, each in made.items()} == {
        name: [(name.split("+")[0], int(name[-1]))] for name in names
    }
    before = {path: path.stat().st_mtime_ns for path in files}
    assert main(sweep) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_a_sweep_over_what_variants_share_is_one_run_after_the_other(capsys, monkeypatch):
    sweep = [*RUN, "-m", "task=shape,style", "method=sdedit", "limit=1", "keep=none", "name=s"]
    seen = []

    def stopped(*_):
        seen.extend(str(path.parent.name) for path in sorted(Path("out/s").glob("*/plans")))
        raise UserError("no power")

    monkeypatch.setattr("experiments.commands.run.carry_out", stopped)
    assert main(sweep) == 2
    assert (
        seen == ["shape", "style"] * 2
    )  # both are planned before the first begins, and the second is tried too
    assert (
        "shape: 0 done, 0 failed, 1 left" in (main(["status", "paths.runs=out"]), capsys.readouterr().out)[1]
    )


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_loggers_are_fed_from_rows(logger):
    if logger == "tensorboard":
        pytest.importorskip("tensorboard")
    assert main([*RUN, "name=a", "limit=1", f"logger={logger}"]) == 0
    assert list(Path("out/a").glob("rows.csv")) or list(Path("out/a/tensorboard").glob("events*"))


def test_a_broken_logger_never_stops_a_run(monkeypatch, capsys):
    def start(self, folder, record):
        raise ConnectionError("no network")

    monkeypatch.setattr("experiments.loggers.csv.Csv.start", start)
    assert main([*RUN, "name=a", "limit=1", "logger=csv"]) == 0
    assert "no network" in capsys.readouterr().err


EDIT = ["edit", *SMALL, "out=done"]


def edited() -> dict:
    (row,) = RunStore(Path("done")).latest().values()
    return row


def test_edit_of_a_known_clip(capsys):
    assert main([*EDIT, "data.size=16"]) == 0
    assert edited()["metrics"]["oracle_psnr"] > 0
    assert {"edited.mp4", "side-by-side.mp4", "contact-sheet.png", "frames", "rows", "columns.json"} == {
        p.name for p in Path("done").iterdir()
    }
    assert "edited.mp4" in capsys.readouterr().out
    assert len(list(Path("done/frames").glob("*.png"))) == 8
    assert len(open_clip("done/edited.mp4").frames) == 8


def test_edit_with_the_default_method_shows_its_masks(capsys):
    assert main(["edit", *RANDOM, "out=done", "data.size=16", "mask=average", "task=shape"]) == 0
    row, said = edited(), capsys.readouterr().out
    assert row["method"] == "freemask" and 0 <= row["facts"]["mask_share"] <= 1
    assert re.search(r"\n +mask +", said) and "masks.npz" in said
    with np.load("done/masks.npz") as kept:
        assert kept["mask"].shape == (8, 16, 16)


def test_edit_of_a_known_clip_under_other_prompts():
    assert main([*EDIT, "data.size=16", "--target", "a (strange) thing, isn't it"]) == 0
    assert edited()["metrics"]["oracle_psnr"] is None
    assert edited()["target"] == "a (strange) thing, isn't it"


def test_edit_of_a_folder_of_odd_size():
    Path("frames").mkdir()
    for index in range(3):
        Image.new("RGB", (37, 23), (index * 40, 90, 30)).save(f"frames/{index}.png")
    assert (
        main([*EDIT, "frames", "source=a cat", "target=a dog", "words=cat:dog", "kind=shape", "size=16"]) == 0
    )
    assert edited()["frames"][0] == 3 and edited()["words"] == {"cat": "dog"} and edited()["kind"] == "shape"


def test_edit_of_a_picture():
    Image.new("RGB", (24, 16), (200, 90, 30)).save("one.png")
    assert main([*EDIT, "clip=one.png", "--source", "a cat", "--target", "a dog"]) == 0
    assert edited()["frames"][0] == 1


def test_edit_needs_prompts_for_a_file(capsys):
    Image.new("RGB", (24, 16)).save("one.png")
    assert main([*EDIT, "clip=one.png", "--source", "a cat"]) == 2
    assert "target prompt is needed" in capsys.readouterr().err


def test_edit_of_a_file_that_is_no_picture(capsys):
    Path("one.png").write_text("not a picture")
    assert main([*EDIT, "clip=one.png", "source=a cat", "target=a dog"]) == 2
    assert "one.png" in capsys.readouterr().err and not Path("done").exists()


CLIPS = ["DAVIS/JPEGImages/480p/bus", "videos/man-skiing.mp4"]


@pytest.mark.parametrize("clip", CLIPS)
def test_edit_of_real_clips(shared, clip):
    words = [*EDIT, f"clip={shared / 'clips' / clip}", "source=a thing", "target=a red thing", "size=16"]
    assert main(words) == 0
    assert edited()["frames"][0] == 8


def test_doctor_is_json(capsys):
    assert main(["doctor", "--json", "model=zeroscope", "frames=24", "height=320", "width=576"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"versions", "devices", "models", "metrics", "data", "forecast"} <= set(report)
    assert 4 < report["forecast"]["peak_gb"] < 12
    assert "CC-BY-NC" in report["models"]["zeroscope"]["licence"]
