"""The front door in Python: the same edits as the command's, from whatever can stand for a clip."""

import base64
import io
import json
import pydoc
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import evaluation
import freemask
from evaluation import named
from evaluation.case import Case
from experiments.cli.app import main
from experiments.front import said
from freemask.backbones.unet3d import UNet3D
from freemask.data.write import to_bytes, write_frames, write_video
from freemask.errors import UserError
from freemask.types import Clip, EditTask

ROOT = Path(__file__).parent.parent
SOURCE, TARGET = "a red car on a road", "a blue car on a road"
QUICK = ("method.steps=2", "mask=average", "method.inversions=null")


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model():
    return UNet3D.random()


def frames(count: int = 4, high: int = 32, wide: int = 48) -> torch.Tensor:
    ramp = torch.linspace(0.1, 0.9, wide).expand(count, 3, high, wide)
    return (ramp * torch.tensor([1.0, 0.6, 0.3])[None, :, None, None]).clone()


def edit(clip, model, *more, **settings):
    return freemask.edit(clip, SOURCE, TARGET, *QUICK, *more, model=model, progress=None, **settings)


def refused(call: Callable[[], object], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_the_import_waits_for_no_library():
    probe = "import time; t = time.perf_counter(); import freemask, evaluation, sys; t = time.perf_counter() - t\n"
    probe += "print(t < 1, *({'torch', 'hydra', 'numpy', 'diffusers'} & set(sys.modules)))\n"
    probe += "print(callable(freemask.masks), 'edit' in dir(freemask))"
    told = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout.split() == ["True", "True", "True"]


def test_help_shows_the_functions():
    text = pydoc.render_doc(freemask)
    for name in ("edit", "load_model", "load_clip", "masks"):
        assert f"freemask.{name}(" in text
    assert "\n    edit(clip" in re.sub("\b.", "", text)
    with pytest.raises(AttributeError):
        freemask.nothing  # noqa: B018


def test_masks_is_a_function_and_a_package():
    import freemask.masks.heat as heat

    assert freemask.masks.heat is heat and callable(freemask.masks)


def test_an_edit_is_that_of_the_command(tmp_path):
    write_video(tmp_path / "my.mp4", frames(12), 8)
    words = [f"--source={SOURCE}", f"--target={TARGET}", "model=random", "size=32", "seed=3", "metric=pixels"]
    assert main(["edit", "my.mp4", *words, *QUICK, "out=theirs"]) == 0
    result = edit("my.mp4", "random", size=32, seed=3, metric="pixels")
    result.save("ours")
    pictures = sorted(path.name for path in Path("theirs/frames").iterdir())
    assert len(pictures) == len(result.frames) == 8  # of the clip's twelve
    for folder in ("theirs", "ours"):
        kept = freemask.load_clip(f"{folder}/frames").frames
        np.testing.assert_array_equal(to_bytes(kept), to_bytes(result.frames))
    assert {path.name for path in Path("theirs").iterdir()} == {path.name for path in Path("ours").iterdir()}
    rows = [next(Path(folder, "rows").glob("*.jsonl")).read_text() for folder in ("theirs", "ours")]
    theirs, ours = (json.loads(row) for row in rows)
    same = set(theirs) - {"seconds", "peak", "peak_rss_gb", "finished", "metric_seconds"}
    assert {key: theirs[key] for key in same} == {key: ours[key] for key in same}


@pytest.mark.parametrize("kind", ["path", "folder", "picture", "clip", "tensor"])
def test_whatever_can_stand_for_a_clip(kind, tmp_path, model):
    """Fitted to the sizes that the model takes: 30 x 45 is no such size."""
    shown = frames(3, 30, 45)
    write_frames(tmp_path / "frames", shown)
    clip = {
        "path": tmp_path / "my.mp4",
        "folder": "frames",
        "picture": "frames/00000.png",
        "clip": Clip("mine", shown, {"car": torch.ones(3, 30, 45, dtype=torch.bool)}, 12.0),
        "tensor": shown,
    }[kind]
    if kind == "path":
        write_video(clip, shown, 8)
    result = edit(clip, model)
    short = min(model.native)
    assert (
        result.frames.shape
        == result.source.frames.shape
        == (1 if kind == "picture" else 3, 3, short, short * 3 // 2)
    )
    assert result.mask is not None and result.mask.shape == result.frames[:, 0].shape
    if kind == "clip":
        assert result.source.fps == 12 and result.source.masks["car"].shape == result.mask.shape
        assert "mask_iou" in result.metrics


def test_a_clip_in_memory_is_taken_whole_or_in_part(model):
    clip = freemask.load_clip(frames(12), model)
    assert len(clip.frames) == 12 and clip.frames.shape[-2] == min(model.native)
    nth = torch.arange(12)[:, None, None].expand(12, *clip.frames.shape[-2:])
    clip = Clip("mine", clip.frames, {"even": nth % 4 == 0}, 10.0)
    part = freemask.load_clip(clip, frames=3, start=2, stride=2, size=16)
    assert part.frames.shape == (3, 3, 16, 24) and part.fps == 5
    assert [bool(mask.all()) for mask in part.masks["even"]] == [False, True, False]
    assert part.masks["even"].shape == (3, 16, 24)
    assert len(edit(clip, model, frames=2, start=1).frames) == 2


def test_a_file_is_loaded_as_the_command_reads_it(tmp_path, model):
    write_video(tmp_path / "long.mp4", frames(12), 8)
    write_video(tmp_path / "short.mp4", frames(3), 8)
    assert (
        len(freemask.load_clip("long.mp4").frames) == 8 and len(freemask.load_clip("short.mp4").frames) == 3
    )
    assert len(freemask.load_clip("long.mp4", frames=11).frames) == 11
    refused(lambda: freemask.load_clip("short.mp4", frames=4), "too short")
    refused(lambda: freemask.load_clip("long.mp4", steps=4), "steps")
    refused(lambda: freemask.load_clip("none.mp4"), "no such file")
    fitted = freemask.load_clip("short.mp4", model)
    torch.testing.assert_close(edit("short.mp4", model).source.frames, fitted.frames)


def test_a_model_is_used_again(model):
    first, second = edit(frames(2), model), edit(frames(2), model)
    assert torch.equal(first.frames, second.frames) and first.row["model"] == model.identity
    assert first.row["choices"]["model"] is None
    assert not torch.equal(first.frames, edit(frames(2), model, method__guidance=2).frames)
    named = freemask.load_model("random", seed=1)
    assert named.identity != model.identity == freemask.load_model("random").identity


def test_masks_are_those_of_the_edit(model):
    """Eq. 7 turns on what becomes of the word, so the target belongs to it."""
    made = edit(frames(2), model, seed=1)
    found = freemask.masks(frames(2), SOURCE, None, *QUICK, target=TARGET, model=model, progress=None)
    torch.testing.assert_close(found.mask, made.mask)
    assert found.heat is not None and found.heat.shape == found.mask.shape and found.heat.std() > 0
    one = freemask.masks(frames(2), SOURCE, "road", *QUICK, model=model, progress=None)
    assert one.task.words == {"road": "road"} and not torch.equal(one.heat, found.heat)
    files_ = one.save("masks")
    with np.load(files_["masks"]) as kept:
        assert {name: kept[name].shape for name in kept} == dict.fromkeys(
            ["average", "average heat"], one.mask.shape
        )
    assert one.sheet.width > 100 and files_["sheet"].exists() and "road" in repr(one)
    both = freemask.masks(frames(2), SOURCE, ["road", "car"], *QUICK, model=model, progress=None)
    assert list(both.task.words) == ["road", "car"]


def test_masks_of_a_tuned_model_are_those_of_the_edit(model):
    tuned = ("tuning=lora", "tuning.steps=2", "tuning.rate=1e-1")
    made = edit(frames(2), model, *tuned)
    found = freemask.masks(frames(2), SOURCE, None, *QUICK, *tuned, target=TARGET, model=model, progress=None)
    torch.testing.assert_close(found.mask, made.mask)


def test_masks_of_the_embedded_world():
    """The shipped codebook, on the first clip of the data, which is annotated."""
    found = freemask.masks(None, None, "car", "method.steps=2", progress=None)
    assert found.facts["mask_iou"] > 0.5 and found.mask.shape == (8, 64, 64)
    inside = found.source.masks["car"]
    assert found.heat[inside].mean() > 5 * found.heat[~inside].mean()


def test_masks_that_cannot_be_found(model):
    look = freemask.masks
    refused(lambda: look(frames(2), SOURCE, model=model), "which word")
    refused(lambda: look(frames(2), SOURCE, "bus", *QUICK, model=model), "bus", SOURCE)
    refused(lambda: look(frames(2), SOURCE, "car", method="ddim", model=model), "mask")
    refused(lambda: look(frames(2), SOURCE, "car", mask="none", model=model), "mask=none")


def test_what_is_said_arrives(model):
    odd = "a {red} car, 'so' \"called\" ${x} \\ = [1,2]"
    result = freemask.edit(
        frames(1), odd, odd.replace("red", "blue"), *QUICK, model=model, progress=None, words={"car": "car"}
    )
    assert result.task.source == odd and result.task.words == {"car": "car"}
    told = said.Said.of(
        ["source=a, b=c", "method.steps=3"],
        {"fusion__reweight": {"blue": 2.5}, "size": [32, 48], "frames": None, "fusion__skip": ["a b", "c,d"]},
    ).config
    assert told["source"] == "a, b=c" and told["method"]["steps"] == 3 and told["size"] == [32, 48]
    assert told["fusion"]["reweight"] == {"blue": 2.5} and told["fusion"]["skip"] == ["a b", "c,d"]


def test_an_application_of_hydra_keeps_its_own(model):
    with initialize_config_module("conf", version_base="1.3"):
        edit(frames(1), model, metric="pixels")
        assert compose("run").seed == 0
    assert not GlobalHydra.instance().is_initialized()


def test_progress_is_reported(model):
    seen: list[tuple[str, int, int]] = []
    freemask.edit(frames(1), SOURCE, TARGET, *QUICK, model=model, progress=lambda *stage: seen.append(stage))
    assert len({stage for stage, _, _ in seen}) >= 3 and any(done == total == 2 for _, done, total in seen)
    refused(
        lambda: edit(frames(1), model) and freemask.edit(frames(1), SOURCE, TARGET, progress=3), "progress"
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: edit(frames(1)[:, :2], m), ("shape", "permute")),
        (lambda m: edit(frames(1) * 255, m), ("0..1",)),
        (lambda m: edit((frames(1) * 255).byte(), m), ("255",)),
        (lambda m: edit(frames(1) * float("nan"), m), ("finite",)),
        (lambda m: edit(frames(1).numpy(), m), ("array", "height, width, 3")),
        (lambda m: edit(7, m), ("type int",)),
        (lambda m: edit(frames(1), 3), ("no model", "load_model")),
        (lambda m: edit(frames(1), m, "model.dtype=float16"), ("twice", "load_model")),
        (lambda m: edit(frames(1), m, out="x"), ("save",)),
        (lambda m: edit(frames(1), m, "logger=wandb"), ("command",)),
        (lambda m: edit(frames(1), m, masks="all"), ("freemask.masks",)),
        (lambda m: edit(frames(1), m, stepz=3), ("stepz",)),
        (lambda m: edit(frames(1), m, "steps"), ("key=value",)),
        (lambda m: edit(frames(1), m, seed=frames(1)), ("seed", "tensor")),
        (lambda m: freemask.edit(frames(1), SOURCE, model=m), ("target",)),
        (lambda m: edit("no.mp4", m), ("no.mp4",)),
        (lambda m: edit(frames(1), m, words="truck:bus"), ("truck",)),
        (lambda m: edit(frames(1), m, "mask=oracle"), ("annotat",)),  # found out in the edit itself
        (lambda m: freemask.load_model("embeded"), ("embedded",)),
    ],
)
def test_mistakes_say_what_to_do(call, words, model):
    refused(lambda: call(model), *words)


def test_what_changes_nothing_is_said(model):
    result = freemask.edit(
        frames(1), SOURCE, TARGET, "method.steps=1", model=model, progress=None, method="ddim", mask="average"
    )
    assert any("mask" in each for each in result.warnings) and "note:" in repr(result)
    assert result.mask is None


def test_results_are_saved_and_shown(tmp_path, model):
    result = edit(frames(2), model)
    assert result.save("deep/clip.mp4")["edited"].stat().st_size > 500
    assert {"edited", "video", "sheet", "frames", "masks"} <= set(result.save(tmp_path / "out"))
    refused(lambda: result.save("clip.png"), "folder", ".mp4")
    refused(lambda: result.save("clip.gif"), ".mp4")
    Path("file").write_text("")
    refused(lambda: result.save("file"), "a file")
    one = edit(frames(1), model)
    with Image.open(one.save("one.png")["edited"]) as picture:
        assert picture.size == one.frames.shape[:-3:-1]
    for shown in (result, one, freemask.masks(frames(1), SOURCE, "car", *QUICK, model=model, progress=None)):
        html = shown._repr_html_()
        data = re.search(r"base64,([^\"]+)", html)
        assert data and "car" in html and "<img" in html
        assert Image.open(io.BytesIO(base64.b64decode(data[1]))).size == shown.sheet.size
    assert SOURCE in repr(result) and "car" in repr(result)


def test_metrics_by_name():
    before, after = frames(3, 64, 64), frames(3, 64, 64).flip(-1)
    known = sorted(
        each.name[:-3] for each in files("evaluation.metrics").iterdir() if each.name.endswith(".py")
    )
    for name in set(known) - {"__init__"}:
        assert evaluation.metric(name).columns, name
    case = Case(before, after, EditTask("x", "x", SOURCE, TARGET, {}, "attribute"))
    for name in ("lpips", "clip_text", "clip_frame", "frame_accuracy"):
        made = evaluation.metric(name)
        assert made(before, after, prompt=SOURCE, target=TARGET) == next(iter(made.metric(case).values()))
    mask = torch.zeros(3, 64, 64)
    mask[:, :32] = 1
    clip = Clip("x", before, {"car": mask > 0})
    told = {"mask": mask / 2, "words": {"car": "bus"}}
    assert evaluation.metric("mask_iou", threshold=0.4)(clip, after, **told) == 1
    both = evaluation.metric("oracle_psnr").all(
        clip, after, oracle=before, words={"car": "bus"}, kind="shape"
    )
    assert set(both) == {"oracle_psnr", "oracle_psnr.inside"}


def test_metrics_that_cannot_be_had():
    before = frames(3, 64, 64)
    refused(lambda: evaluation.metric("lpip"), "lpips")
    refused(lambda: evaluation.metric("lpips", bckbone="vgg"), "backbone")
    refused(lambda: evaluation.metric("lpips", backbone="resnet"), "resnet")
    refused(lambda: named._frames("source", "my.mp4"), "load_clip")
    refused(lambda: evaluation.metric("lpips")(before, before[:2]), "2 frames")
    refused(lambda: evaluation.metric("lpips")(before, before, maks=1), "masks")
    refused(lambda: evaluation.metric("oracle_psnr")(before, before), "oracle")
    refused(lambda: evaluation.metric("frame_accuracy")(before, before), "prompt")


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_pages_lines_run(page, tmp_path, monkeypatch):
    """As they stand, with two steps and frames."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    write_video(tmp_path / "my.mp4", frames(9, 64, 64), 8)
    composed = said.composed
    quick = lambda verb, words: composed(verb, [*words, "++method.steps=2", "++frames=2"])  # noqa: E731
    monkeypatch.setattr(said, "composed", quick)
    here: dict[str, object] = {}
    exec(compile("".join(blocks), page, "exec"), here)
    assert (tmp_path / "out/edited.mp4").exists()


def test_pictures_and_arrays_stand_for_clips(model):
    made = frames(1)
    array = made.permute(0, 2, 3, 1).numpy()
    as_bytes = (array * 255).round().astype(np.uint8)
    wanted = edit(made[:1], model).frames
    torch.testing.assert_close(edit(array[:1], model).frames, wanted)
    of_bytes = edit(torch.from_numpy(as_bytes[:1]).permute(0, 3, 1, 2) / 255, model).frames
    torch.testing.assert_close(edit(as_bytes[0], model).frames, of_bytes)
    torch.testing.assert_close(edit(Image.fromarray(as_bytes[0]), model).frames, of_bytes)
