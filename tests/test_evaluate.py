"""`freemask evaluate`: stored frames measured again, and videos of other code beside a run's own rows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from evaluation.tables.comparison import compare
from experiments.cli.app import main
from experiments.config.fingerprint import Identity
from experiments.jobs import manifest as manifests
from experiments.jobs.evaluate import what_is_left
from experiments.runs.rows import columns
from experiments.runs.run import Run
from experiments.runs.store import RunStore
from freemask.data.geometry import Geometry
from freemask.data.open import open_clip
from freemask.data.world import World
from freemask.data.write import to_bytes, write_frames, write_video
from freemask.errors import UserError

RUN = [
    "run",
    "model=random",
    "metric=pixels",
    "method.steps=2",
    "data.size=16",
    "data.frames=2",
    "data.clips=4",
]
# All of the default suite but CLIP, whose library alone takes as long to load as everything here to run.
SMALL = ["metric=default", "~metric.clip_text", "~metric.clip_frame", "metric.lpips.backbone=random-alex"]
PIXELS = ["metric=pixels", "paths.runs=out"]
DATA = ["data.size=16", "data.frames=2", "data.clips=4"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs that are made once: `masked` (FreeMask with masks), `two` (two variants, of which one had no frames)."""
    folder = tmp_path_factory.mktemp("made")
    runs = f"paths.runs={folder / 'out'}"
    freemask = [*RUN, runs, "method=freemask", "mask=average", "name=masked", *SMALL]
    assert main([*freemask, "limit=2"]) == 0
    both = "variants={ten:['method=ddim'],noisy:['method=sdedit']}"
    assert main([*RUN, runs, "name=two", both, "limit=2"]) == 0
    return folder / "out"


@pytest.fixture
def out(made):
    shutil.copytree(made, "out")
    return Path("out")


@pytest.fixture
def world():
    return World(clips=4, frames=2, size=16)


def lines(store: Path) -> list[dict]:
    return list(RunStore(store).rows())


def latest(store: Path) -> dict[str, dict]:
    return RunStore(store).latest()


# --- a run's stored frames -----------------------------------------------------------------------------


def test_redo_gives_the_numbers_of_the_run(out, capsys):
    before, old = latest(out / "masked"), {path: path.read_bytes() for path in out.glob("masked/rows/*")}
    assert main(["evaluate", "masked", "paths.runs=out", "redo=true", *SMALL]) == 0
    after = latest(out / "masked")
    assert len(before) == 2 and set(after) == set(before)
    for task, row in after.items():
        assert row["metrics"] == before[task]["metrics"]
        assert "evaluated" in row and row["edited_at"] == before[task]["finished"] < row["finished"]
        assert row["metric_warnings"] == before[task]["metric_warnings"]
        untouched = (
            "status",
            "seconds",
            "seed",
            "commit",
            "files",
            "facts",
            "run",
            "method",
            "steps",
            "frames",
        )
        assert {key: row[key] for key in untouched} == {key: before[task][key] for key in untouched}
    assert any(row["metrics"]["mask_iou"] is not None for row in after.values())
    assert all(row["metrics"]["warp_error[exact]"] > 0 for row in after.values())
    assert {path: path.read_bytes() for path in old} == old and len(lines(out / "masked")) == 4
    assert "2 measured, 0 not" in capsys.readouterr().out


def test_a_new_metric_joins_the_old_ones_and_only_what_is_missing_is_measured(out, capsys):
    before = latest(out / "two" / "ten")
    words = ["evaluate", "two", "paths.runs=out", "metric=warp_error", "metric.flow=exact"]
    assert main(words) == 0
    for variant in ("ten", "noisy"):
        for row in latest(out / "two" / variant).values():
            assert row["metrics"]["warp_error[exact]"] > 0 and row["metrics"]["oracle_psnr"] > 0
        assert {"warp_error[exact]", "oracle_psnr"} <= set(columns(out / "two" / variant))
    assert {task: row["metrics"]["oracle_psnr"] for task, row in latest(out / "two" / "ten").items()} == {
        task: row["metrics"]["oracle_psnr"] for task, row in before.items()
    }
    assert "warp_error[exact]" in (out / "two" / "table.md").read_text()
    count = len(lines(out / "two" / "ten"))
    capsys.readouterr()
    assert main(words) == 0
    assert "4 have every number of this suite already" in capsys.readouterr().out
    assert len(lines(out / "two" / "ten")) == count
    assert main([*words, "redo=true"]) == 0
    assert len(lines(out / "two" / "ten")) == count + 2


def test_tasks_without_frames_and_failures_are_named(out, capsys):
    tasks = sorted(latest(out / "masked"))
    (out / "masked" / "frames" / f"{tasks[0]}.npz").unlink()
    redo = ["evaluate", "masked", *PIXELS, "redo=true"]
    assert main(redo) == 0
    said = capsys.readouterr().out
    assert (
        f"its frames were not kept (keep=all keeps them): {tasks[0]}\n" in said
        and "1 measured, 1 not" in said
    )
    (out / "masked" / "frames" / f"{tasks[1]}.npz").write_bytes(b"torn")
    before = len(lines(out / "masked"))
    assert main(redo) == 1
    said = capsys.readouterr().out
    assert f"its stored frames cannot be read: {tasks[1]}" in said and "0 measured, 2 not" in said
    row = latest(out / "masked")[tasks[1]]
    RunStore(out / "masked").append("x", row | {"status": "failed", "message": "m", "finished": "9"})
    assert main(redo) == 1
    assert f"the edit failed, there is nothing to measure: {tasks[1]}" in capsys.readouterr().out
    assert len(lines(out / "masked")) == before + 2  # the torn file's own row, and the one written here
    kept = latest(out / "masked")[tasks[1]]
    assert kept["metrics"] == row["metrics"] and kept["evaluation"]["status"] == "failed"


def test_numbers_that_changed_are_told(out):
    task = sorted(latest(out / "masked"))[0]
    path = out / "masked" / "frames" / f"{task}.npz"
    with np.load(path) as kept:
        arrays = dict(kept)
    np.savez(path, **(arrays | {"frames": 255 - arrays["frames"]}))
    assert main(["evaluate", "masked", *PIXELS, "redo=true"]) == 0
    warnings = {task: row["metric_warnings"] for task, row in latest(out / "masked").items()}
    assert any(each.startswith("oracle_psnr was ") for each in warnings[task])
    assert not any(
        each.startswith("oracle_psnr was ") for other in set(warnings) - {task} for each in warnings[other]
    )


def test_other_data_than_the_runs_is_refused(out, capsys):
    before = lines(out / "masked")
    assert main(["evaluate", "masked", *PIXELS, "data.seed=5", "redo=true"]) == 2
    assert "was made of other data" in capsys.readouterr().err
    assert main(["evaluate", "masked", *PIXELS, *DATA, "redo=true"]) == 0
    assert len(lines(out / "masked")) == len(before) + 2


def test_data_that_has_other_tasks_under_these_names_changes_no_number(out, monkeypatch, capsys):
    tasks = World.tasks
    monkeypatch.setattr(
        World, "tasks", lambda self: [type(t)(**(vars(t) | {"target": "a shark"})) for t in tasks(self)]
    )
    before = {task: row["metrics"] for task, row in latest(out / "masked").items()}
    assert main(["evaluate", "masked", *PIXELS, "redo=true"]) == 1
    assert "the data has another task of this name" in capsys.readouterr().out
    monkeypatch.setattr(World, "tasks", lambda self: tasks(self)[2:])
    assert main(["evaluate", "masked", *PIXELS, "redo=true"]) == 1
    assert "the data has no such task" in capsys.readouterr().out
    assert {task: row["metrics"] for task, row in latest(out / "masked").items()} == before


def test_clips_from_files_come_in_the_size_of_the_run(tmp_path, capsys):
    """Frames of 36x28 were edited at 20x16: the same sources must come out again, whatever size files have."""
    for name in ("a", "b"):
        pictures = torch.rand(3, 3, 28, 36, generator=torch.Generator().manual_seed(ord(name)))
        write_frames(tmp_path / "clips" / name, pictures)
    tasks = [
        {
            "id": name,
            "clip": name,
            "source": "a cat",
            "target": "a dog",
            "words": {"cat": "dog"},
            "kind": "shape",
        }
        for name in ("a", "b")
    ]
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump(tasks))
    files = ["data=folder", "data.root=clips", "data.tasks=tasks.yaml", "data.geometry.short_side=16"]
    own = ["run", "model=random", "method=ddim", "method.steps=2", "data.frames.count=3", "name=files"]
    lpips = ["metric=lpips", "metric.backbone=random-alex", "paths.runs=out"]
    assert main([*own, *files, *lpips]) == 0
    before = latest(Path("out/files"))
    assert main(["evaluate", "files", *lpips, "redo=true"]) == 0
    after = latest(Path("out/files"))
    assert all(
        row["metrics"] == before[task]["metrics"] and "evaluated" in row for task, row in after.items()
    )
    assert not any(each for row in after.values() for each in row["metric_warnings"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "neither a run nor a manifest"),
        (["masked", "manifest=b.csv"], "a run and a manifest"),
        (["nowhere"], "there is no run 'nowhere'"),
        (["empty"], "holds no rows"),
        (["keep=some", "manifest=b.csv"], "keep cannot be 'some'"),
        (["masked", "name=x"], "name belongs to a manifest"),
        (["masked", "method_name=x"], "method_name belongs to a manifest"),
        (["masked", "metric=nothing"], "'nothing' is no metric"),
        (["masked", "redo=maybe"], "redo is of the wrong kind"),
        (["manifest=nowhere.csv"], "there is no such file"),
    ],
)
def test_bad_commands_are_refused(words, says, out, capsys):
    (out / "empty").mkdir()
    before = {path: path.read_bytes() for path in out.rglob("rows/*")}
    assert main(["evaluate", "paths.runs=out", *words]) == 2
    assert says in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("rows/*")} == before


def test_help_shows_a_manifest(capsys):
    assert main(["evaluate", "--help"]) == 0
    said = capsys.readouterr().out
    assert "edited,method,task" in said and "manifest=" in said and "redo=" in said


# --- videos of other code ------------------------------------------------------------------------------


def theirs(world: World, name: str, entries: list[dict]) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(entries))
    return path


def test_an_outside_folder_enters_a_table_beside_a_runs_rows(out, world, capsys):
    """Another method gave the true answers, as PNG folders: it must win, in one table with the run."""
    entries = []
    for task in world.tasks()[:2]:
        write_frames(Path("theirs") / task.id, world.oracle(task))
        entries.append({"edited": task.id, "task": task.id})
    theirs(world, "theirs/edits.yaml", entries)
    assert main(["evaluate", "manifest=theirs/edits.yaml", "method_name=oracle", *DATA, *PIXELS]) == 0
    rows = latest(out / "outside-edits" / "oracle")
    assert len(rows) == 2
    for row in rows.values():
        assert (row["status"], row["method"], row["seconds"], row["warnings"]) == ("done", "oracle", {}, [])
        assert row["measuring"] > 0
        assert row["metrics"]["oracle_psnr"] == 100 and row["commit"] and "evaluated" in row
        assert all((out / "outside-edits" / "oracle" / file).is_file() for file in row["files"].values())
    told = columns(out / "outside-edits" / "oracle")
    together = compare([*latest(out / "masked").values(), *rows.values()], columns=told, by="method")
    assert {line.name for line in together.summary.lines} == {"freemask", "oracle"}
    assert together.summary.value("oracle", "oracle_psnr")["best"]
    assert together.summary.value("oracle", "oracle_psnr")["mean"] == 100
    page = (out / "outside-edits" / "index.html").read_text()
    assert "oracle" in page and "oracle_psnr" in capsys.readouterr().out


def test_outside_rows_are_measured_once_and_again_when_something_changes(out, world, capsys):
    task = world.tasks()[0]
    write_frames("theirs/a", world.oracle(task))
    theirs(world, "theirs/edits.yaml", [{"edited": "a", "task": task.id, "method": "m"}])
    words = ["evaluate", "manifest=theirs/edits.yaml", "name=o", "keep=none", *DATA, "paths.runs=out"]
    for extra, count in [([], 1), ([], 1), (["redo=true"], 2)]:
        assert main([*words, "metric=pixels", *extra]) == 0
        assert len(lines(out / "o" / "m")) == count
    write_frames("theirs/a", 1 - world.oracle(task))
    assert main([*words, "metric=pixels"]) == 0
    assert len(lines(out / "o" / "m")) == 3
    assert latest(out / "o" / "m")[task.id]["metrics"]["oracle_psnr"] < 50
    assert main([*words, "metric=warp_error", "metric.flow=exact"]) == 0
    assert len(lines(out / "o" / "m")) == 4 and not (out / "o" / "m" / "frames").exists()


def test_own_clips_sizes_lengths_and_forms(capsys):
    """A source of four frames of 24x16; a video of it at twice the size, and a folder with two frames less."""
    source = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    write_frames("theirs/source", source)
    larger = torch.nn.functional.interpolate(source, (32, 48), mode="nearest")
    write_video("theirs/large.mp4", larger, 8)
    write_frames("theirs/short", source[:2])
    square = torch.nn.functional.interpolate(source, (16, 16), mode="nearest")
    write_frames("theirs/square", square)
    header = "edited,method,clip,source,target,words,kind,notes\n"
    common = 'source,"a cat, asleep","a dog, asleep",cat->dog,shape,\n'
    text = header + f"large.mp4,large,{common}" + f"short,short,{common}" + f"square,square,{common}"
    Path("theirs/edits.csv").write_text(text + f"source,same,{common}")
    lpips = ["metric=lpips", "metric.backbone=random-alex", "paths.runs=out"]
    assert main(["evaluate", "manifest=theirs/edits.csv", *lpips]) == 0
    found = {
        name: list(latest(Path("out/outside-edits") / name).values()) for name in ("large", "short", "square")
    }
    (large,), (short,), (stretched,) = found.values()
    assert large["task"] == short["task"] == stretched["task"] and large["words"] == {"cat": "dog"}
    assert large["frames"] == [4, 3, 16, 24] and short["frames"] == [2, 3, 16, 24]
    assert large["warnings"] == ["edited frames of 48x32 were brought to the source's 24x16"]
    assert short["warnings"] == ["2 edited frames, 4 of the source: the first 2 of both were measured"]
    assert stretched["warnings"][0].endswith("24x16, which stretched them")
    told = capsys.readouterr().out
    assert "48x32 were brought" in told and "(1x: large/" in told and "the first 2 of both" in told
    assert "data.geometry" not in told  # these sources are read as they are
    value = {name: rows[0]["metrics"]["lpips[random-alex]"] for name, rows in found.items()}
    assert value["short"] == 0 < value["large"] < 0.2
    (same,) = latest(Path("out/outside-edits/same")).values()
    assert same["metrics"]["lpips[random-alex]"] == 0 and same["warnings"] == []
    assert set(json.loads(Path("out/outside-edits/run.json").read_text())["variants"]) == {*found, "same"}


def test_videos_are_measured_at_the_size_that_is_asked_for(tmp_path, capsys):
    source = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    write_frames("clips/c", source)
    tasks = [{"id": "t", "clip": "c", "source": "a red car", "target": "a blue car"}]
    Path("tasks.yaml").write_text(yaml.safe_dump(tasks))
    write_frames("theirs/t", Geometry(height=8, width=8).frames(source))
    data = ["data=folder", "data.root=clips", "data.tasks=tasks.yaml", "data.frames.count=null"]
    metric = ["metric=lpips", "metric.backbone=random-alex", "paths.runs=out"]
    assert main(["evaluate", "theirs", *data, *metric, "name=large"]) == 0
    assert "data.geometry.height" in capsys.readouterr().out
    assert main(["evaluate", "theirs", *data, *metric, "name=small", "data.geometry.height=8"]) == 0
    assert "were brought" not in capsys.readouterr().out
    rows = {name: latest(Path("out") / name / "theirs")["t"] for name in ("large", "small")}
    assert (rows["large"]["frames"], rows["small"]["frames"]) == ([2, 3, 16, 16], [2, 3, 8, 8])
    assert (
        rows["small"]["metrics"]["lpips[random-alex]"] < 1e-3 < rows["large"]["metrics"]["lpips[random-alex]"]
    )


def test_a_region_and_a_json_manifest():
    source = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    write_frames("theirs/source", source)
    edited = source.clone()
    edited[:, :, :8] = 1 - edited[:, :, :8]
    write_frames("theirs/edited", edited)
    white = torch.zeros(1, 3, 16, 24)
    white[:, :, :8] = 1
    write_frames("theirs/region", white.expand(2, -1, -1, -1))
    own = {"clip": "source", "source": "a cat", "target": "a dog", "words": {"cat": "dog"}, "kind": "shape"}
    entries = [{"edited": "edited", "method": "m", "region": "region", "id": "mine", **own}]
    Path("theirs/edits.json").write_text(json.dumps(entries, indent="\t"))
    assert main(["evaluate", "manifest=theirs/edits.json", "name=j", *PIXELS]) == 0
    (row,) = latest(Path("out/j/m")).values()
    assert row["task"] == "mine" and row["metrics"]["masked_psnr"] == 100


def test_one_bad_video_is_a_failed_row_and_the_others_are_measured(out, world, capsys):
    entries = []
    for count, task in enumerate(world.tasks()[:3]):
        write_frames(Path("theirs") / task.id, world.oracle(task)[: 1 if count == 1 else 2])
        entries.append({"edited": task.id, "task": task.id, "method": "m"})
    (Path("theirs") / entries[2]["edited"] / "00001.png").write_bytes(b"torn")
    theirs(world, "theirs/edits.yaml", entries)
    assert main(["evaluate", "manifest=theirs/edits.yaml", "name=o", *DATA, *PIXELS]) == 0
    rows = latest(out / "o" / "m")
    assert [rows[each["task"]]["status"] for each in entries] == ["done", "failed", "failed"]
    assert "1 edited, 2 of the source" in rows[entries[1]["task"]]["message"]
    assert "00001.png" in rows[entries[2]["task"]]["message"]
    assert "1 done, 2 failed" in capsys.readouterr().out


def test_measured_outside_videos_can_be_measured_again_from_what_was_kept(out, world):
    task = world.tasks()[0]
    write_frames("theirs/a", world.oracle(task))
    theirs(world, "theirs/edits.yaml", [{"edited": "a", "task": task.id, "method": "m"}])
    assert main(["evaluate", "manifest=theirs/edits.yaml", "name=o", *DATA, *PIXELS]) == 0
    shutil.rmtree("theirs")
    assert main(["evaluate", "o", *DATA, "paths.runs=out", "metric=warp_error", "metric.flow=exact"]) == 0
    row = latest(out / "o" / "m")[task.id]
    assert row["metrics"]["oracle_psnr"] == 100 and row["metrics"]["warp_error[exact]"] is not None


def test_another_runs_folder_is_left_alone(out, world, capsys):
    write_frames("theirs/a", world.oracle(world.tasks()[0]))
    theirs(world, "theirs/edits.yaml", [{"edited": "a", "task": world.tasks()[0].id, "method": "m"}])
    for name in ("masked", "two"):
        before = {path: path.read_bytes() for path in (out / name).rglob("*") if path.is_file()}
        assert main(["evaluate", "manifest=theirs/edits.yaml", f"name={name}", *DATA, *PIXELS]) == 2
        assert "holds another kind of run" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in (out / name).rglob("*") if path.is_file()} == before
    assert main(["evaluate", "manifest=theirs/edits.yaml", "name=../away", *DATA, *PIXELS]) == 2
    assert "no folder below" in capsys.readouterr().err and not Path("away").exists()


# --- mistakes in a manifest ----------------------------------------------------------------------------

OWN = {"clip": "v", "source": "a cat", "target": "a dog", "kind": "shape", "words": {"cat": "dog"}}
GOOD = {"edited": "v", "method": "m", **OWN}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({**GOOD, "edited": "nowhere.mp4"}, "line 1: edited: there is no 'nowhere.mp4'"),
        ({**GOOD, "edited": ""}, "edited: is missing"),
        ({**GOOD, "edited": 7}, "edited: a text was expected, not 7"),
        ({**GOOD, "method": None}, "method: is missing"),
        ({**GOOD, "method": "../x"}, "method: '../x' cannot name a folder"),
        ({**GOOD, "method": "run.json"}, "cannot name a folder"),
        ({**GOOD, "editd": "v"}, "editd: there is no such field; did you mean 'edited'?"),
        ({**GOOD, "task": "t"}, "task: names a task of the data, which has its own clip"),
        ({"edited": "v", "method": "m"}, "what was edited?"),
        ({**GOOD, "clip": "nowhere"}, "clip: there is no 'nowhere'"),
        ({**GOOD, "kind": "shap"}, "unknown kind 'shap'"),
        ({**GOOD, "words": {"bear": "dog"}}, "'bear' is not in the source prompt"),
        ({**GOOD, "id": "../x"}, "cannot name a folder"),
        ({**GOOD, "region": "nowhere.png"}, "region: there is no 'nowhere.png'"),
        ("just a text", "a task must be written as"),
    ],
)
def test_a_mistake_names_file_line_and_field(entry, says):
    write_frames("v", torch.zeros(2, 3, 8, 8))
    Path("m.yaml").write_text(yaml.safe_dump([entry], sort_keys=False))
    with pytest.raises(UserError) as refused:
        manifests.read_manifest("m.yaml")
    said = str(refused.value)
    assert said.startswith("m.yaml: 1 bad line in the manifest") and says in said


def test_every_bad_line_is_named_at_once_with_its_number():
    write_frames("v", torch.zeros(2, 3, 8, 8))
    Path("m.csv").write_text(
        "edited,method,clip,source,target,kind\n"
        "v,a,v,a cat,a cat in ink,style\n"
        "w,a,v,a cat,a cat in oil,style\n"
        "v,,v,a cat,a cat in oil,style\n"
        "v,a,v,a cat,a cat in ink,style\n"
    )
    with pytest.raises(UserError) as refused:
        manifests.read_manifest("m.csv")
    found = [line.strip().partition(":")[0] for line in str(refused.value).splitlines() if "line " in line]
    assert found == ["line 3", "line 4", "line 5"]
    assert "'a' has an edit of" in str(refused.value) and "in line 2 already" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "a list of entries was expected"),
        ("[1]", "an entry {...} was expected, not 1"),
        ('[{"edited": "v"},\n {"edited" "v"}]', "line 2: not JSON"),
        ("[", "not JSON"),
        ("[]", "holds no entries"),
        ('[\n\n{"edited": "v", "edited": "w", "method": "m"}]', "line 3: edited: is there twice"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_is_no_manifest(text, says):
    Path("m.json").write_text(text)
    with pytest.raises(UserError, match="m.json") as refused:
        manifests.read_manifest("m.json")
    assert says in str(refused.value)


def test_files_that_are_no_manifests(capsys):
    Path("m.txt").write_text("x")
    Path("folder").mkdir()
    Path("m.json").write_bytes(b"\xff\xfe")
    for name in ("m.txt", "folder", "m.json"):
        assert main(["evaluate", f"manifest={name}", "paths.runs=out"]) == 2
        assert name in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_task_that_the_data_does_not_have(world, capsys):
    task = world.tasks()[0]
    write_frames("v", world.oracle(task))
    theirs(world, "m.yaml", [{"edited": "v", "method": "m", "task": task.id[:-1]}])
    assert main(["evaluate", "manifest=m.yaml", *DATA, *PIXELS]) == 2
    assert (
        f"line 1: task: the data has no task '{task.id[:-1]}'; did you mean '{task.id}'?"
        in capsys.readouterr().err
    )
    assert not Path("out").exists()


def test_ids_are_shared_between_methods_and_differ_between_prompts():
    write_frames("v", torch.zeros(2, 3, 8, 8))
    entries = [{**GOOD, "method": name} for name in ("a", "b")]
    entries += [{**GOOD, "method": "a", "target": "a dog, asleep"}]
    Path("m.yaml").write_text(yaml.safe_dump(entries))
    one, two, other = manifests.read_manifest("m.yaml")
    assert one.id == two.id != other.id
    assert [each.line for each in (one, two, other)] == sorted({each.line for each in (one, two, other)})


def test_what_an_entry_leaves_out_is_read_off_its_prompts():
    write_frames("v", torch.zeros(2, 3, 8, 8))
    short = {key: value for key, value in GOOD.items() if key not in ("words", "kind")}
    Path("m.yaml").write_text(yaml.safe_dump([GOOD, {**short, "method": "b"}]))
    said, guessed = manifests.read_manifest("m.yaml")
    assert said.own.plain() == guessed.own.plain() and set(guessed.own.guessed) == {"words", "kind"}


def test_what_is_kept_are_the_frames_that_were_measured(out, world):
    """Eight bits and no codec in between: the stored frames are the edited pictures themselves."""
    task = world.tasks()[0]
    write_frames("theirs/a", world.oracle(task))
    theirs(world, "theirs/edits.yaml", [{"edited": "a", "task": task.id, "method": "m"}])
    assert main(["evaluate", "manifest=theirs/edits.yaml", "name=o", *DATA, *PIXELS]) == 0
    row = latest(out / "o" / "m")[task.id]
    with np.load(out / "o" / "m" / row["files"]["frames"]) as kept:
        assert np.array_equal(kept["frames"], to_bytes(world.oracle(task)))
    assert len(open_clip(out / "o" / "m" / row["files"]["edited"]).frames) == 2


def test_frames_that_a_row_does_not_name_are_not_those_of_its_edit(tmp_path):
    """They may be left from an earlier edit."""
    store = RunStore.open(tmp_path, Identity({}))
    store.file("frames", "t", ".npz").touch()
    store.append("w", {"task": "t", "status": "done", "metrics": {}, "files": {}})
    items, ready, left = what_is_left(
        Run.open(tmp_path), {"p": {"_target_": "evaluation.metrics.masked_psnr.MaskedPsnr"}}, False
    )
    assert (items, ready, [task for task, _ in left]) == ([], 0, ["t"])
