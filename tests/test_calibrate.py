"""`freemask calibrate` from the command to the codebook, on a tiny random network."""

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments.cli.app import main
from experiments.cli.verbs import VERBS
from experiments.config.compose import config_of
from experiments.jobs.calibrate import Heat, Measure, mask_of, words_of
from experiments.loggers.csv import Csv
from experiments.report import alike, calibration, optimum
from experiments.runs.store import RunStore
from freemask.backbones.lavie import LaVie
from freemask.data.world import World
from freemask.masks.bookshelf import find
from freemask.masks.clock import Clock
from freemask.masks.codebook import Codebook
from freemask.masks.ops import Binarise
from freemask.types import Clip, EditTask

SMALL = ["calibrate", "model=random", "paths.runs=out", "steps=2"]
RUN = [*SMALL, "data.size=16", "data.frames=2", "data.clips=3", "maps=0"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("FREEMASK_CODEBOOKS", "FREEMASK_RUNS"):
        monkeypatch.delenv(name, raising=False)


def rows(name: str) -> dict[str, dict]:
    return RunStore(Path("out") / name).latest()


def width(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width


def book(name: str) -> Codebook:
    return Codebook.read(Path("out") / name / "codebook.json")


def test_a_calibration_leaves_rows_codebook_figures_and_page(capsys):
    assert main([*RUN, "name=a", "maps=1", "logger=csv"]) == 0
    found = rows("a")
    assert len(found) == 3 and {row["status"] for row in found.values()} == {"done"}
    made = book("a")
    assert (made.n, made.of, made.clips, made.model, len(made.sites), len(made.times)) == (
        3,
        3,
        3,
        "random",
        16,
        2,
    )
    assert made.data["split"] == "train" and made.made["steps"] == 2
    d = torch.tensor([row["iou"] for row in found.values()], dtype=torch.float64)
    costs = (1 / d.clamp(min=0.01)).mean(0)
    assert [each.mean for each in made.lmmc] == pytest.approx(costs.mean(1).tolist(), abs=1e-4)
    assert [each.mean for each in made.tmmc] == pytest.approx(costs.mean(0).tolist(), abs=1e-4)
    assert made.best_site == made.sites[int(costs.mean(1).argmin())]
    for picture in (
        "curves.png",
        *(str(path.relative_to("out/a")) for path in Path("out/a/maps").glob("*.png")),
    ):
        assert width(Path("out/a") / picture) > 300
        assert f'src="{picture}"' in Path("out/a/index.html").read_text()
    said = capsys.readouterr().out
    assert f"best layer  {made.best_site}" in said and "3 done, 0 failed, 0 without a mask, 0 left" in said
    assert not Path("out/codebooks").exists()  # nobody asked for it
    for row in found.values():  # no mask of this overlap is better than its grid allows
        assert all(most + 1e-4 >= max(line) for most, line in zip(row["ceilings"], row["iou"], strict=True))
    most = {row["task"]: row["ceilings"][0] for row in found.values()}.values()
    assert made.ceilings[0] == pytest.approx(
        {"iou": sum(most) / 3, "cost": sum(1 / each for each in most) / 3}, abs=1e-4
    )
    assert "allows: overlap" in said and "IoU its grid allows" in said
    apart = costs_of_layers(d).mean(0)[-1] - costs_of_layers(d).mean(0).min()
    assert "(the last" in said and f") {apart:+.2f} [" in said


def costs_of_layers(overlaps):
    return (1 / overlaps.clamp(min=0.01)).mean(2)


def test_a_network_that_animates_a_picture_is_shown_the_clips_own():
    assert main([*RUN, "model=random_i2v", "name=i", "data.clips=1"]) == 0
    assert [row["status"] for row in rows("i").values()] == ["done"]


def test_the_best_is_compared_with_others_on_the_same_clips():
    """Ten clips of very different level: what the layers differ by is the same 0.5 on each, and no chance."""
    shape = {
        "sites": ["first", "second", "third"],
        "times": [1, 501, 981],
        "strides": [1] * 3,
        "grids": [[4, 4]] * 3,
    }
    made = {"status": "done", "model": "m", "word": "car", "steps": 3, "commit": "c", "finished": "now"}
    rows = []
    for k in range(10):
        costs = [[1.5 + 3 * k + at + 0.25 * late for late in (1, 0, 3)] for at in (2.0, 0.0, 0.5)]
        overlaps = [[1 / each for each in line] for line in costs]
        rows.append({**shape, **made, "clip": f"clip-{k}", "iou": overlaps})
    about = {
        "model": "m",
        "data": {},
        "binarise": {},
        "phrase": "described",
        "heat": "word",
        "overlap": "foreground",
        "floor": 0.01,
    }
    book = calibration.codebook(rows, about, 10)
    assert book is not None
    time, layer = optimum.told([*rows, {"status": "failed", "clip": "x"}], book)
    assert "981 (noisiest) +0.75 [0.75, 0.75] p=0.002, 1 (clearest) +0.25 [0.25, 0.25]" in time
    assert (
        "third (the last, the second best) +0.50 [0.50, 0.50]" in layer and "first (the first) +2.00" in layer
    )
    assert "second (" not in layer
    assert optimum.told(rows[:1], book) == []  # one clip has no interval


SHAPED = {"sites": ["a", "b", "c", "d"], "times": [1, 981], "strides": [1] * 4, "grids": [[4, 4]] * 4}
ABOUT = {"model": "m", "data": {}, "binarise": {}, "phrase": "all", "heat": "word", "overlap": "foreground"}


def made_of(costs, clips=None):
    """Rows, and their codebook, of costs items x layers x times."""
    known = {"status": "done", "model": "m", "word": "car", "steps": 2, "commit": "c", "finished": "now"}
    made = [
        {**known, **SHAPED, "clip": f"clip {k if clips is None else clips[k]}", "iou": (1 / each).tolist()}
        for k, each in enumerate(costs)
    ]
    return made, calibration.codebook(made, {**ABOUT, "floor": 0.01}, len(made))


def test_halves_of_the_clips_agree_where_the_network_decides_and_not_where_the_clips_do():
    """Every clip has another level. Two layers change places with the clip: in 3 of 8, the other is better."""
    level = torch.linspace(2, 40, 8, dtype=torch.float64)[:, None, None]
    layers, times = torch.tensor([3.0, 1, 4, 2])[:, None], torch.tensor([0.0, 0.5])
    layer, time = alike.told(*made_of(level + layers + times))
    assert "two halves of the 8 clips: Spearman 1.00 (95 % of splits: 1.00 to 1.00)" in layer
    assert layer.startswith("layers") and time.startswith("times") and "the same best one in 100%" in time
    turned = torch.stack([layers if k % 2 else 5 - layers for k in range(8)])
    said, _ = alike.told(*made_of(level + turned + times))
    found = float(said.partition("Spearman ")[2].split()[0])
    assert found < 0  # what one half has too many of, the other has too few of
    assert alike.told(*made_of((level + layers + times)[:3])) == []
    assert alike.told(*made_of(level + layers + times, [0, 0, 1, 1, 2, 2, 2, 2])) == []  # three clips


def test_models_with_the_same_layers_are_compared():
    costs = 5 + torch.tensor([3.0, 1, 4, 2])[None, :, None] + torch.tensor([0.0, 0.5])
    one, turned = made_of(costs)[1], made_of(20 - costs)[1]
    (said,) = alike.between({"one": one, "turned": turned, "other": replace(one, sites=["e", "f", "g", "h"])})
    assert said == "one and turned, rankings compared: Spearman of their 4 layers -1.00, of times -1.00"
    (said,) = alike.between({"one": one, "two": replace(one, times=[1, 961])})
    assert said == "one and two, rankings compared: Spearman of their 4 layers 1.00"


def test_a_second_start_does_only_what_is_missing(capsys):
    assert main([*RUN, "name=a", "install=true", "runner.workers=2", "runner.worker=0"]) == 0
    said = capsys.readouterr().out
    assert "1 left" in said and "not installed" in said
    assert not Path("out/codebooks").exists()  # it is not finished
    first = rows("a")
    assert len(first) == 2 and (book("a").n, book("a").of) == (2, 3)
    assert main([*RUN, "name=a", "runner.workers=2", "runner.worker=1"]) == 0
    assert main([*RUN, "name=a"]) == 0
    assert {task: row["finished"] for task, row in rows("a").items() if task in first} == {
        task: row["finished"] for task, row in first.items()
    }
    assert main([*RUN, "name=b"]) == 0
    assert (book("a").iou, book("a").lmmc) == (book("b").iou, book("b").lmmc)


def test_a_codebook_is_installed_on_request_and_says_what_it_replaces_and_how_to_undo_it(capsys, monkeypatch):
    assert main([*RUN, "name=it's", "data.clips=1"]) == 0
    hint = next(line for line in capsys.readouterr().out.splitlines() if "to install it" in line)
    again = shlex.split(hint.partition("freemask ")[2].partition("   ")[0])
    monkeypatch.setattr(Measure, "heat", lambda *a, **b: pytest.fail("it was measured again"))
    assert main(again) == 0
    said = capsys.readouterr().out
    assert "INSTALLED" in said and "had no codebook" in said and "n = 1 is few" in said
    first = book("it's")
    assert find(first.backbone, ["out/codebooks"]) == (first, next(Path("out/codebooks").glob("*.json")))
    assert main(again) == 0
    assert "installed already" in capsys.readouterr().out


def test_the_one_that_was_installed_steps_aside_even_if_it_is_larger(capsys):
    large, small = [*RUN, "name=large", "install=true"], [*RUN, "name=small", "data.clips=1", "install=true"]
    assert main(large) == 0 and main(small) == 0
    said = capsys.readouterr().out
    undo = said[said.rindex("to undo:") :].splitlines()[0].partition("undo:")[2].strip()
    identity = book("large").backbone
    assert "it replaces:          own, n = 3" in said[said.rindex("INSTALLED") :]
    assert find(identity, ["out/codebooks"]).book == book("small")
    subprocess.run(undo, shell=True, check=True)
    assert find(identity, ["out/codebooks"]).book == book("large")


def test_one_failure_is_a_row_and_a_clip_without_masks_is_counted(monkeypatch, capsys):
    clip, tasks = World.clip, World(split="train", clips=3, kinds=["attribute", "shape", "style"]).tasks()

    def read(self, task):
        if task.id == tasks[0].id:
            raise RuntimeError("the tape is torn")
        found = clip(self, task)
        return Clip(found.id, found.frames) if task.id == tasks[1].id else found

    monkeypatch.setattr(World, "clip", read)
    assert main([*RUN, "name=a"]) == 0
    said = capsys.readouterr().out
    assert "1 done, 1 failed, 1 without a mask, 0 left" in said and "the tape is torn" in said
    assert f"no mask: {tasks[1].id}" in said
    assert (book("a").n, book("a").of) == (1, 2)
    monkeypatch.setattr(World, "clip", clip)
    assert main([*RUN, "name=a", "retry=failed"]) == 0
    assert [row["status"] for row in rows("a").values()] == ["done", "no mask", "done"]


def test_no_mask_at_all_is_an_error_before_anything_is_loaded(monkeypatch, capsys):
    clip = World.clip
    monkeypatch.setattr(World, "clip", lambda self, task: Clip(task.clip, clip(self, task).frames))
    monkeypatch.setattr(
        "freemask.backbones.unet3d.UNet3D.random", lambda *a, **b: pytest.fail("the model was loaded")
    )
    assert main([*RUN, "name=a"]) == 2
    assert "no clip has a mask" in capsys.readouterr().err


def test_another_floor_needs_no_new_measurement_and_another_threshold_a_new_folder(capsys):
    assert main([*RUN, "name=a", "data.clips=1"]) == 0
    before = rows("a")
    assert main([*RUN, "name=a", "data.clips=1", "floor=0.5"]) == 0
    assert rows("a") == before
    assert max(map(max, book("a").cost)) <= 2 and book("a").floor == 0.5
    assert main([*RUN, "name=a", "data.clips=1", "binarise.threshold=0.5"]) == 2
    assert "binarise.threshold: 0.2 there, 0.5 here" in capsys.readouterr().err
    assert main([*RUN, "name=a", "data.clips=1", "heat=share"]) == 2
    assert "heat" in capsys.readouterr().err
    assert main([*RUN, "name=share", "data.clips=1", "heat=share", "heads=true", "maps=1"]) == 0
    assert (book("a").heat, book("share").heat) == ("word", "share")
    layers = [site.partition(":")[0] for site in book("share").sites]
    assert list(dict.fromkeys(layers)) == book("a").sites and len(layers) > len(book("a").sites)


def test_the_official_overlap_counts_the_background(monkeypatch):
    for overlap in ("foreground", "two_class"):
        assert (
            main([*RUN, f"name={overlap}", "data.clips=1", f"overlap={overlap}", "binarise.threshold=0.99"])
            == 0
        )
    foreground, both = (torch.tensor(book(name).iou) for name in ("foreground", "two_class"))
    assert bool((both > foreground).all())


def test_loggers_get_the_curves_point_by_point(monkeypatch):
    seen = []
    monkeypatch.setattr(Csv, "row", lambda self, row, files: seen.append(row))
    assert main([*RUN, "name=a", "data.clips=1", "logger=csv"]) == 0
    made, seen = book("a"), [row["metrics"] for row in seen if "status" not in row]
    assert [point["lmmc"] for point in seen] == [each.mean for each in made.lmmc]
    assert [(point["time"], point["tmmc"]) for point in seen if "time" in point] == [
        (time, each.mean) for time, each in zip(made.times, made.tmmc, strict=True)
    ]
    head = Path("out/a/rows.csv").read_text().splitlines()[0].split(",")
    assert "metrics/best_iou" in head and not {"iou", "sites"} & set(head)


def test_several_models_share_a_figure_and_absent_ones_are_left_out(capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", "nothing-here")
    assert main([*RUN, "name=a", "models=[random,zeroscope]", "data.clips=1"]) == 0
    assert book("a/random").model == "random" and not Path("out/a/zeroscope").exists()
    assert "left out: zeroscope: 'cerspense/zeroscope_v2_576w' is no local folder" in capsys.readouterr().out
    assert (
        width(Path("out/a/curves.png")) > 300 and "random/index.html" in Path("out/a/index.html").read_text()
    )


def test_a_model_of_several_may_have_settings_of_its_own(capsys):
    assert main([*RUN, "name=a", "models=[random,'random_lavie seed=3']", "data.clips=1"]) == 0
    assert book("a/random_lavie").backbone == LaVie.random(3).identity != LaVie.random(0).identity
    Path("lavie_base.pt").write_bytes(b"")
    for entry in ("lavie path=. allow_pickle=false", "lavie path=lavie_base.pt"):
        assert main([*RUN, "name=b", f"models=[random,'{entry}']", "data.clips=1"]) == 0
        assert "to have it: models=[..., 'lavie path=PLACE allow_pickle=true']" in capsys.readouterr().out
    for entries, said in (
        ("random,'random_lavie sed=3'", "did you mean 'seed'?"),
        ("random,'random seed=2'", "'random' once"),
    ):
        assert main([*RUN, "name=c", f"models=[{entries}]"]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        "overlap=both",
        "phrase=first",
        "floor=0",
        "steps=0",
        "heat=mass",
        "budget=0",
        "binarise.pool=2",
        "retry=all",
        "models=[nope]",
    ],
)
def test_wrong_settings_are_refused(wrong, capsys):
    assert main([*RUN, "name=a", wrong]) == 2
    assert wrong.partition("=")[0].split(".")[-1].removesuffix("s")[:4] in capsys.readouterr().err
    assert not Path("out/a/rows").exists()


def test_the_examples_of_the_help_text_compose():
    for example in VERBS["calibrate"].examples:
        words = example.split()[2:]
        config_of("calibrate", words)


def test_each_word_of_each_prompt_is_measured_once():
    style = EditTask("1", "a", "a red car", "oil painting of a red car", {"car": "car"}, "style")
    shape = EditTask("2", "a", "a red car", "a red bus", {"car": "bus"}, "shape")
    other = EditTask("3", "a", "a car", "a bus", {"car": "bus"}, "shape")
    both = EditTask("4", "b", "a car and a dog", "a bus and a cat", {"car": "bus", "dog": "cat"}, "shape")
    items, unclear = words_of([style, shape, other, both])
    assert [item.one.id for item in items] == ["1:car", "3:car", "4:car", "4:dog"] and not unclear
    assert items[3].one.words == {"dog": "cat"} and items[3].task is both


def test_which_mask_belongs_to_a_word():
    def clip(**shown: bool) -> Clip:
        masks = {name.replace("_", " "): torch.full((1, 2, 2), value) for name, value in shown.items()}
        return Clip("a", torch.zeros(1, 3, 2, 2), masks)

    several = clip(car=True, red_car=True, sky=True)
    assert mask_of(several, "Red car") is several.masks["red car"]
    assert mask_of(several, "blue car") is several.masks["car"]
    assert mask_of(several, "dog") is None
    assert mask_of(clip(object1=True), "dog") is not None
    assert mask_of(clip(dog=False), "dog") is None


def test_the_table_holds_the_overlap_of_every_layer_and_time():
    truth = torch.zeros(1, 4, 4, dtype=torch.bool)
    truth[:, :2] = True  # the upper half
    top, left = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    corner = torch.zeros(1, 4, 4)
    corner[0, 0, 0] = 1.0
    heat = Heat.of({("a", 1): top, ("b", 1): corner, ("a", 2): left, ("b", 2): 1 - corner}, [1, 2], Clock(1))
    measure = Measure(2, "last", Binarise(), "foreground", 1.0)
    assert measure.table(heat, truth, lambda *_: None) == [[1.0, 0.33333], [0.125, 7 / 16]]
    assert heat.grids() == [[2, 2], [4, 4]]
    assert measure.ceilings(heat, truth) == [1.0, 1.0]
    truth[:, 1] = False
    assert measure.ceilings(heat, truth) == [0.5, 1.0]


def test_real_clips_in_the_layout_of_davis(shared, tmp_path):
    tasks = [
        {"id": "bear", "clip": "bear", "source": "a bear is walking", "target": "a lion is walking",
         "words": {"bear": "lion"}, "kind": "shape"},
        {"id": "bus", "clip": "bus", "source": "a bus is driving on the road",
         "target": "a red bus is driving on the road", "words": {"bus": "bus"}, "kind": "attribute"},
    ]  # fmt: skip
    (tmp_path / "tasks.yaml").write_text(json.dumps(tasks))
    davis = [
        "data=davis",
        f"data.root={shared / 'clips' / 'DAVIS'}",
        "data.tasks=tasks.yaml",
        "data.frames.count=2",
    ]
    assert main([*SMALL, *davis, "name=a", "data.geometry.short_side=64"]) == 0
    assert (book("a").n, book("a").words) == (2, ["bear", "bus"])
    assert {row["frames"][0] for row in rows("a").values()} == {2}
