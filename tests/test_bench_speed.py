"""`freemask bench what=speed`: where the seconds go, counted and timed; what does not fit is a row, time is kept."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from experiments.cli.app import main
from experiments.commands.bench import presets
from experiments.config.compose import composed
from experiments.cost.counting import Counted, launches_in
from experiments.cost.rungs import BESIDE, TRIED, Clock, Rung, asked, name_of, rung_of, told
from experiments.cost.speed import BY_STEPS, Climbing, growing, whole
from freemask.backbones import quick
from freemask.backbones.quick import quicken
from freemask.memory import stage
from freemask.methods.dmt import Dmt
from freemask.types import Edit

SMALL = ["what=speed", "model=random", "frames=[1,2]", "sizes=[16]", "at_steps=4"]
CPU = torch.device("cpu")


def bench(*words, out):
    return main(["bench", *SMALL, f"out={out}", f"paths.runs={out}/runs", *words])


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    assert bench(out=folder) == 0
    return folder


@pytest.fixture(scope="module")
def data(out):
    return json.loads((out / "bench-speed-fusion-random.json").read_text())


def test_every_rung_is_measured_and_the_ratio_is_that_of_its_seconds(data):
    lines = data["summary"]["table"]
    assert [(line["frames"], line["mode"]) for line in lines] == [
        (frames, mode) for frames in (1, 2) for mode in ("plain", "recompute")
    ]
    for line in lines:
        assert line["state"] == "measured" and line["measured_steps"] == 4
        rung = data["rungs"][line["name"]]
        assert line["seconds"] == pytest.approx(sum(rung["stages"].values()))
        plain = next(each for each in lines if each["mode"] == "plain" and each["frames"] == line["frames"])
        assert line["ratios"]["seconds"] == line["seconds"] / plain["seconds"]
        loops = rung["stages"]["inversion"] + rung["stages"]["sampling"]
        flops = sum(rung["counts"][each]["flops"] for each in ("inversion", "sampling"))
        assert line["flops_per_second"] == pytest.approx(flops / loops) and flops > 0
    assert data["about"]["load_seconds"] > 0


def test_what_is_counted_grows_with_the_streams_that_run(data):
    """Plain: one stream up, two down. With the source beside it: three down; two frames are twice the work."""
    flops = {line["name"]: data["rungs"][line["name"]]["counts"] for line in data["summary"]["table"]}
    plain, fused = flops["plain 1 frames 16"], flops["recompute 1 frames 16"]
    assert plain["sampling"]["flops"] == pytest.approx(2 * plain["inversion"]["flops"], rel=0.05)
    assert fused["sampling"]["flops"] == pytest.approx(3 * plain["inversion"]["flops"], rel=0.15)
    two = flops["plain 2 frames 16"]["inversion"]["flops"]
    assert two == pytest.approx(2 * plain["inversion"]["flops"], rel=0.1)
    assert 0 < plain["sampling"]["copies"] < plain["sampling"]["calls"]


def test_the_report_can_be_read(out, data, capsys):
    said = (out / "bench-speed-fusion-random.md").read_text()
    assert "4 steps, float32" in said and "16 x 16" in said and "GFLOP/s" in said
    assert f"({data['summary']['table'][1]['ratios']['seconds']:.2f})" in said
    assert (out / "bench-speed-fusion-random.png").read_bytes().startswith(b"\x89PNG")
    assert bench("--json", out=out) == 0  # nothing is measured again
    assert json.loads(capsys.readouterr().out) == data


@pytest.mark.parametrize("along_frames", [False, True])
def test_layers_in_quicker_forms_count_as_they_are(along_frames, monkeypatch):
    plain = nn.Conv3d(8, 12, (3, 1, 1), padding=(1, 0, 0)) if along_frames else nn.Linear(8, 12, bias=False)
    quicker, x = copy.deepcopy(plain), torch.rand((2, 8, 5, 6, 6) if along_frames else (2, 5, 8))
    quicken(quicker)
    monkeypatch.setattr(quick, "WORTH_A_PRODUCT", 0)
    monkeypatch.setattr(quick, "WORTH_A_CONVOLUTION", 0)
    found = []
    for layer in (plain, quicker):
        with torch.no_grad(), Counted(torch.device("cpu")).counting() as counts:
            layer(x)
        found.append(counts["flops"])
    assert found[0] == found[1] > 0


def edit_of(seconds, per_step=0.0):
    return lambda self, rung, steps: Edit(
        torch.zeros(1, 3, 2, 2),
        {},
        {"encode": seconds, "inversion": per_step * steps, "sampling": per_step * steps},
    )


def test_what_does_not_fit_into_memory_is_a_row_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    def edit(self, rung, steps):
        if rung.mode == "recompute" and rung.frames == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return edit_of(1.0, 0.25)(self, rung, steps)

    monkeypatch.setattr(Climbing, "_edit", edit)
    assert bench(out=tmp_path) == 0
    said = capsys.readouterr().out
    assert "out of memory" in said and "recompute 1 frames 16: OutOfMemoryError" in said
    table = json.loads((tmp_path / "bench-speed-fusion-random.json").read_text())["summary"]["table"]
    assert [line["state"] for line in table] == ["measured", "out of memory", "measured", "measured"]


def test_few_steps_are_measured_where_time_is_short_and_stand_for_all(tmp_path, monkeypatch, capsys):
    seen = []

    def edit(self, rung, steps):
        seen.append((rung.frames, rung.mode, steps))
        return edit_of(1.0, 10.0)(self, rung, steps)

    monkeypatch.setattr(Climbing, "_edit", edit)
    assert bench("seconds=300", "at_steps=50", "frames=[1,2]", out=tmp_path) == 0
    table = json.loads((tmp_path / "bench-speed-fusion-random.json").read_text())["summary"]["table"]
    assert all(
        line["seconds"] == pytest.approx(1 + 2 * 50 * 10) for line in table if line["state"] == "measured"
    )
    assert "2 of 50" in capsys.readouterr().out
    # Two for what is counted and tried; of 300 s the two shortest clips may have two fifths, of 20 s a step.
    assert [steps for _, mode, steps in seen if mode == "plain"] == [2, 2, 2]
    assert [steps for _, mode, steps in seen if mode == "recompute"] == [2, 2, 5]
    assert [line["state"] for line in table] == ["measured", "measured", "no time left", "no time left"]
    assert table[-1]["expected_step"] == pytest.approx(40)  # twice as much work as the one before


def test_stages_that_do_not_depend_on_steps_are_taken_as_they_are():
    took = {"encode": 2.0, "inversion": 3.0, "sampling": 4.0}
    assert whole(took, 5) == {"encode": 2.0, "inversion": 15.0, "sampling": 20.0}
    fixed = growing(Dmt(inversion_steps=500), "edit")  # an inversion that is as long whatever the edit
    assert whole(took, 5, fixed) == {"encode": 2.0, "inversion": 3.0, "sampling": 20.0}
    assert (
        growing(Dmt(inversion_steps=500), "plain") == growing(Dmt(inversion_steps=None), "edit") == BY_STEPS
    )


RUNGS = [Rung(mode, frames, 64, 64) for frames in (8, 16) for mode in ("plain", "edit")]


@pytest.mark.parametrize(
    ("left", "ahead", "per_step", "steps"),
    [
        (1000, RUNGS, 1.0, 50),  # room for all
        (100, RUNGS, 1.0, 10),  # a fifth for each of the two shortest clips: 20 s
        (100, RUNGS[2:], 1.0, 25),  # half of what is left, without what trying takes
        (60, RUNGS[2:], 1.0, 10),
        (10, RUNGS[2:], 1.0, 2),
        (-5, RUNGS, 1.0, 2),
    ],
)
def test_the_steps_that_there_is_time_for(left, ahead, per_step, steps):
    clock = Clock(left, ahead, 8)
    assert clock.measured(50, per_step) == steps
    assert clock.measured(1, per_step) == 1


def test_a_rung_that_would_take_too_long_is_not_begun():
    assert not Clock(100, RUNGS, 8).too_long(None)
    assert Clock(0, RUNGS, 8).too_long(None)
    most = 100 / (BESIDE + TRIED)
    assert not Clock(100, RUNGS, 8).too_long(most) and Clock(100, RUNGS, 8).too_long(1.01 * most)
    before = {RUNGS[0]: 1.0, RUNGS[1]: 7.0}
    assert told(RUNGS[2], before) == 2.0 and told(RUNGS[3], before) == 14.0
    assert told(Rung("cache_host", 8, 64, 64), before) is None


def test_sizes_are_those_of_the_model():
    plan = list(asked(["plain"], [8, 4], None))
    assert [name_of(each) for each in plan] == [
        f"plain {frames} frames {size}" for frames in (4, 8) for size in ("native", "half")
    ]
    assert [rung_of(each, 8, (320, 576)) for each in plan[:2]] == [
        Rung("plain", 4, 320, 576),
        Rung("plain", 4, 160, 288),
    ]
    (given,) = asked(["plain"], [8], [(512, 512)])
    assert name_of(given) == "plain 8 frames 512x512" and rung_of(given, 8, (320, 576)) == Rung(
        "plain", 8, 512, 512
    )


def test_operations_calls_and_copies_are_counted_by_stages():
    x, layer = torch.zeros(4, 10), nn.Linear(10, 20)
    with torch.no_grad(), Counted(CPU) as meter:
        layer(x)  # in no stage
        with stage("sampling"):
            layer(x.view(2, 2, 10).view(4, 10))
            with stage("masks"):  # within another one: a part of it
                x.clone()
        with stage("sampling"):
            layer(x)
    assert meter.counts == {"sampling": {"flops": 2 * 2 * 4 * 10 * 20, "calls": 3, "copies": 1}}


def test_launches_are_calls_that_launch_or_else_the_kernels():
    def event(key, count, device="CPU"):
        return SimpleNamespace(key=key, count=count, device_type=SimpleNamespace(name=device))

    kernels = [event("gemm", 7, "CUDA"), event("Memcpy HtoD", 2, "CUDA"), event("aten::mm", 9)]
    calls = [event("cudaLaunchKernel", 5), event("cuLaunchKernelEx", 2), event("cudaGraphLaunch", 1)]
    assert launches_in([*kernels, *calls, event("cudaMemcpyAsync", 3)]) == 8
    assert launches_in(kernels) == 7


@pytest.mark.parametrize(
    ("gpu", "words", "model"),
    [
        (False, [], "embedded"),
        (True, [], "zeroscope"),
        (True, ["frames=[8]"], "zeroscope"),
        (True, ["model=wan"], "wan"),
    ],
)
def test_the_full_size_is_for_a_gpu_where_no_model_is_named(gpu, words, model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    made = composed("bench", presets(["what=speed", *words], "speed"))
    assert made.choices["model"] == model and made.cfg.mask.share == 0.5
    if model == "zeroscope":
        assert (made.cfg.model.weights, made.cfg.model.dtype) == ("random", "float16")


def test_a_mask_that_is_named_keeps_its_own_settings():
    made = composed("bench", presets(["what=speed", "mask=average"], "speed"))
    assert made.choices["mask"] == "average" and "share" not in made.cfg.mask
    early = composed("bench", presets(["what=speed_full", "mask.share=0.2"], "speed_full"))
    assert (early.choices["model"], early.cfg.mask.share) == ("zeroscope", 0.2)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["bench", "what=spead"], "freemask list what"),
        (["bench", "what=t2i"], "freemask train what=t2i"),
        (["train", "what=speed"], "freemask bench what=speed"),
        (["bench", *SMALL, "sizes=[[16]]"], "a list [a whole number"),
        (["bench", *SMALL, "seconds=0"], "seconds is too small"),
        (["bench", *SMALL, "modes=[cash]"], "cache_disk"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_wrong_words_get_one_clear_message(words, hint, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert hint in said and "Traceback" not in said
