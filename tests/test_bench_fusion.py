"""`freemask bench`: its numbers come from measurements, its file survives an interruption."""

import json
from typing import Any

import pytest
import torch

from experiments.cli.app import main
from experiments.cost import work
from experiments.cost.job import SETTING, Cell, Measuring, cells_of
from experiments.cost.machine import peak_of
from experiments.cost.report import data_of, growth
from experiments.cost.work import Edits, drift, in_mode, official_maps, pattern
from experiments.runs.store import RunStore
from freemask.backbones.wan import Wan
from freemask.errors import UserError
from freemask.fusion.settings import Fusion
from freemask.masks.strategies.layer import Layer
from freemask.memory import forget_rss_peak
from freemask.methods.ddim import Ddim
from freemask.methods.flow_edit import FlowEdit
from freemask.methods.invert_fuse import InvertFuse
from freemask.methods.videograin import VideoGrain
from freemask.optical.ops import warped
from freemask.types import EditTask

SMALL = [
    "model=random_image",
    "modes=[cache_host]",
    "grid_modes=[recompute]",
    "frames=[1,2]",
    "steps=[1,2]",
    "at_frames=2",
    "at_steps=2",
    "repeats=1",
    "size=16",
    "kind=shape",  # an edit that uses masks, whatever the method
]
CPU = torch.device("cpu")


def bench(*words, out):
    return main(["bench", *SMALL, f"out={out}", f"paths.runs={out}/runs", *words])


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    assert bench(out=folder) == 0
    return folder


@pytest.fixture(scope="module")
def data(out):
    return json.loads((out / "bench-fusion-random_image.json").read_text())


def test_every_cell_is_measured(data):
    cells = data["cells"].values()
    assert len([each for each in cells if each["what"] == "kept"]) == 3
    assert len([each for each in cells if each["what"] == "time"]) == 3
    # recompute over 2 x 2 cells, one of which is the table's; and the table's other two modes
    assert len([each for each in cells if each["what"] == "memory"]) == 6
    assert all(each["seconds"] > 0 for each in cells if each["what"] == "time")


def test_ratios_are_those_of_the_raw_numbers(data):
    for line in data["summary"]["table"]:
        times = {
            mode: min(
                c["seconds"] for c in data["cells"].values() if c["what"] == "time" and c["mode"] == mode
            )
            for mode in (line["mode"], "plain")
        }
        assert line["ratios"]["seconds"] == times[line["mode"]] / times["plain"]
        peaks = {
            mode: data["cells"][f"memory {mode} 2 frames 2 steps"]["rss_mb"]
            for mode in (line["mode"], "plain")
        }
        assert line["rss_mb"] == peaks[line["mode"]]
        if peaks["plain"] > 0:
            assert line["ratios"]["rss_mb"] == peaks[line["mode"]] / peaks["plain"]


def test_all_ways_of_fusing_are_the_same_edit_and_plain_is_another(data):
    by_mode = {line["mode"]: line for line in data["summary"]["table"]}
    assert by_mode["recompute"]["difference"] == 0
    assert by_mode["cache_host"]["difference"] < 1e-4
    assert by_mode["plain"]["difference"] > 1e-3


def test_what_is_kept(data):
    kept = {line["mode"]: line["kept_mb"] for line in data["summary"]["table"]}
    assert kept["plain"]["features"] == kept["recompute"]["features"] == kept["plain"]["word heat"] == 0
    assert kept["cache_host"]["features"] > 0
    assert kept["recompute"]["word heat"] == kept["cache_host"]["word heat"] > 0
    height, width = data["about"]["latents"][1:]
    assert (height, width) == (8, 8)
    latents = 3 * 2 * 4 * 8 * 8 * 4 / 1e6  # steps + 1, frames, channels, rows, columns, bytes
    assert all(each["latents"] == pytest.approx(latents) for each in kept.values())


def test_the_report_can_be_read(out, data, capsys):
    said = (out / "bench-fusion-random_image.md").read_text()
    assert "2 frames of 16 x 16, 2 steps, float32" in said
    assert data["about"]["device"] in said and "Computed, not measured" in said
    assert data["about"]["commit"] and data["about"]["versions"]["torch"] in said
    for line in data["summary"]["table"]:
        assert f"({line['ratios']['seconds']:.2f})" in next(
            each for each in said.splitlines() if each.startswith(f"| {line['mode']} |")
        )
    assert (out / "bench-fusion-random_image.png").read_bytes().startswith(b"\x89PNG")
    assert bench("--json", out=out) == 0  # nothing is measured again
    assert json.loads(capsys.readouterr().out) == data


def numbers(cell):
    """What a measurement gives, without one."""
    own = {
        "memory": {"rss_mb": 2.0},
        "kept": {"mb": {"features": 0.0, "word heat": 1.0, "latents": 1.0}, "difference": 0.0},
        "time": {"seconds": 3.0, "cpu_seconds": 2.0},
    }
    return own[cell.what]


def test_it_continues_after_an_interruption(tmp_path, monkeypatch, capsys):
    done = []

    def until(most):
        def measure(self, cell):
            if len(done) == most:
                raise KeyboardInterrupt
            done.append(cell.name)
            return numbers(cell)

        monkeypatch.setattr(Measuring, "measure", measure)

    until(4)
    assert bench(out=tmp_path) == 130
    path, store = (
        tmp_path / "bench-fusion-random_image.json",
        RunStore(tmp_path / "runs/bench-fusion-random_image"),
    )
    before, first = list(done), store.latest()
    assert set(first) == {"setting", *before} and not path.exists()

    done.clear()
    until(None)
    assert bench(out=tmp_path) == 0
    second = json.loads(path.read_text())
    assert not set(before) & set(done) and set(second["cells"]) == {*before, *done}
    assert {name: store.latest()[name] for name in before} == {name: first[name] for name in before}

    capsys.readouterr()
    assert bench("repeats=3", out=tmp_path) == 2
    assert "options.repeats: 1 there, 3 here" in capsys.readouterr().err
    assert json.loads(path.read_text()) == second

    done.clear()
    assert bench("fresh=true", out=tmp_path) == 0
    assert len(done) == len(second["cells"])


def test_what_does_not_fit_is_said_and_tried_again(tmp_path, capsys):
    small = ["grid_modes=[]", "method.budget_gb=1e-6"]
    assert bench(*small, out=tmp_path) == 0
    said = capsys.readouterr().out
    assert "time cache_host 2 frames 2 steps #1: the source's features do not fit" in said
    store = RunStore(tmp_path / "runs/bench-fusion-random_image")
    assert {task for task, row in store.latest().items() if row["status"] == "failed"} == {
        f"{what} cache_host 2 frames 2 steps{more}"
        for what, more in (("memory", ""), ("kept", ""), ("time", " #1"))
    }


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["modes=[cash_host]"], "did you mean 'cache_host'?"),
        (["grid_modes=[recomputed]"], "did you mean 'recompute'?"),
        (["method=sdedit"], "modes=null"),
        (["method=ddim"], "method=tokenflow"),
        (
            ["method=anyv2v", "model=random_i2v", "first_frame=truth", "modes=null", "grid_modes=null"],
            "data=world",
        ),
        (["frames=[2,0]"], "frames is too small"),
        (["frames=[2,-4]"], "1 or more"),
        (["frames=4"], "a list [a whole number, ...]"),
        (["at_steps=0"], "at_steps is too small"),
        (["repeats=2.5"], "a whole number"),
        (["size=15"], "a multiple of 2"),
        (["size=[16,16,3]"], "a list [a whole number, a whole number]"),
        (["what=fusion"], "freemask list what"),
        (["method=ddim"], "method=freemask"),
        (["fusion=none"], "fusion=official"),
        (["words=zebra:horse"], "zebra"),
        (["name=../x"], "name=WORD"),
    ],
    ids=" ".join,
)
def test_wrong_words_get_one_clear_message(words, hint, tmp_path, capsys):
    assert bench(*words, out=tmp_path) == 2
    said = capsys.readouterr().err
    assert hint in said and "Traceback" not in said
    assert not list(tmp_path.glob("*.*"))


@pytest.mark.skipif(not forget_rss_peak(), reason="this system cannot reset the mark of resident memory")
@pytest.mark.parametrize("mb", [60, 240])
def test_an_allocation_shows_in_the_peak(mb):
    peak = peak_of(lambda: torch.ones(mb * 250_000).sum(), CPU)  # given back before the end
    assert peak["rss_mb"] == pytest.approx(mb, rel=0.1)
    assert abs(peak_of(lambda: None, CPU)["rss_mb"]) < 2


def test_the_modes_take_turns_and_memory_comes_first():
    options = {"modes": ["plain", "recompute"], "at_frames": 8, "at_steps": 50, "repeats": 2}
    cells = list(cells_of(options | {"grid_modes": ["plain"], "frames": [2, 8], "steps": [50]}))
    assert [cell.what for cell in cells] == ["memory"] * 3 + ["kept"] * 2 + ["time"] * 4
    assert [cell.mode for cell in cells[3:]] == [
        "recompute",
        "plain",
        "plain",
        "recompute",
        "recompute",
        "plain",
    ]
    assert cells[0] == Cell("memory", "plain", 2, 50)
    assert len({cell.name for cell in cells}) == len(cells)


def test_a_machine_that_could_not_be_described_is_an_error_with_its_reason():
    with pytest.raises(UserError, match="out of room"):
        data_of([], [{"task": SETTING, "status": "failed", "message": "out of room"}], {})


def test_growth_is_the_slope_of_the_peaks():
    cells = {
        f"{f} {n}": {
            "what": "memory",
            "mode": "recompute",
            "frames": f,
            "steps": n,
            "rss_mb": 5 + 3 * f + f * n / 100,
        }
        for f in (2, 4, 8)
        for n in (10, 20, 50)
    }
    options = {"grid_modes": ["recompute"], "frames": [2, 4, 8], "steps": [10, 20, 50]}
    found = growth({"parts": {"options": options}, "cells": cells}, "rss_mb")
    assert [each["slope_mb"] for each in found["per_frame"]] == pytest.approx([3.1, 3.2, 3.5])
    assert [each["slope_mb"] for each in found["per_step"]] == pytest.approx([0.02, 0.04, 0.08])
    assert all(each["off_mb"] < 1e-9 for each in found["per_frame"])


def test_what_the_official_code_keeps_of_stable_diffusion():
    """39 GB for 8 frames of 512 x 512 and 50 steps in half precision, with one reference frame; 75 GB with two."""
    sides = {64: 5, 32: 5, 16: 5, 8: 1}  # rows of a grid: layers
    layers = [
        work.Layer(f"{side} {i} {kind}", kind, 8, side * side, 77)
        for side, count in sides.items()
        for i in range(count)
        for kind in ("self", "cross")
    ]
    size = {"frames": 8, "steps": 50, "bytes_each": 2}
    one = official_maps(layers, {}, **size)
    two = official_maps(layers, {layer.name: 2 for layer in layers}, **size)
    assert sum(one.values()) == pytest.approx(39e3, rel=0.01)
    assert sum(two.values()) == pytest.approx(75e3, rel=0.01)
    assert one["cross"] == two["cross"]


def test_the_pattern_is_a_moving_picture():
    clip = pattern(4, 16, 24)
    assert clip.shape == (4, 3, 16, 24) and clip.dtype == torch.float32
    assert float(clip.min()) >= 0 and float(clip.max()) <= 1
    assert all(float((a - b).abs().max()) > 0.05 for a, b in zip(clip, clip[1:], strict=False))
    assert torch.equal(clip, pattern(6, 16, 24)[:4])


def test_the_pattern_moves_as_it_says():
    clip, flow = pattern(3, 48, 64), drift(3, 48, 64)
    inside = (..., slice(4, -4), slice(4, -4))
    moved = (warped(clip[1:], flow.forth) - clip[:-1])[inside].abs().mean()
    assert bool(flow.seen.all()) and moved < (clip[1:] - clip[:-1])[inside].abs().mean() / 20


def test_a_method_that_fuses_nothing_is_measured_against_a_plain_edit(tmp_path, capsys):
    asked = ["modes=null", "grid_modes=null", "frames=[2]", "steps=[2]"]
    assert bench("method=tokenflow", *asked, out=tmp_path) == 0
    assert "What tokenflow costs" in capsys.readouterr().out
    data = json.loads((tmp_path / "bench-tokenflow-random_image.json").read_text())
    assert [line["mode"] for line in data["summary"]["table"]] == ["plain", "edit"]
    assert {each["what"] for each in data["cells"].values()} == {"memory", "time"}
    assert data["summary"]["table"][1]["ratios"]["cpu_seconds"] > 1 and data["about"]["masks"] == "none"
    assert "off recompute" not in (tmp_path / "bench-tokenflow-random_image.md").read_text()


def test_free_is_another_method_with_the_same_masks():
    """It is timed like the others, and compared with nothing, for it is another edit."""
    fused = InvertFuse(3, 4.0, Layer(layer="blocks.0"), Fusion(masked_for=["style"]), heat_gb=1)
    free = in_mode(fused, "free", 5)
    assert isinstance(free, FlowEdit) and list(free.active) == list(range(5))
    assert (free.guidance, free.mask, free.masked_for, free.heat_gb) == (4.0, fused.mask, ["style"], 1)
    options = {"at_frames": 2, "at_steps": 2, "repeats": 1, "modes": ["plain", "recompute", "free"]}
    cells = [*cells_of({**options, "frames": [], "steps": [], "grid_modes": []})]
    assert {cell.what for cell in cells if cell.mode == "free"} == {"memory", "time"}


def test_of_layers_that_see_whole_clips_the_official_code_says_nothing():
    """Their maps are of all frames at once, and have no part in its sums."""
    edits = Edits(Wan.random(), InvertFuse(), EditTask("t", "c", "a car", "a boat", {}, "shape"), 32, 32)
    lane: Any = None  # of a run, which is not asked for this
    assert Measuring(lane, edits, {"at_steps": 2})._official() is None


def test_a_method_that_says_what_it_is_about_is_measured_without_it_too():
    method = VideoGrain(cross=0.5)
    assert work.modes_of(method) == ("plain", "edit", "bare") and work.modes_of(Ddim()) == ("plain", "edit")
    bare = work.in_mode(method, "bare", 7)
    assert (bare.cross, bare.within, bare.steps) == (0, 0, 7) and work.in_mode(method, "edit", 7).cross == 0.5


def test_the_pattern_shows_what_an_edit_is_about():
    task = EditTask("t", "c", "a red car and a cat", "a dog and a cow", {"car": "dog", "cat": "cow"}, "shape")
    masks = work.annotated(work.clip_of(2, 8, 9), task).masks
    assert set(masks) == {"car", "cat"} and not (masks["car"] & masks["cat"]).any()
    assert masks["cat"][..., 4:8].all()
