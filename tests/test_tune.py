"""`freemask tune`: weights for any number of edits, what it leaves, and the command that it prints."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from experiments.cli.app import main

QUICK = ["model=random_image", "tuning.steps=3", "tuning.rate=1e-3", "size=16", "frames=3"]
PROMPT = "a red car's wheel, turning"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREEMASK_RUNS", "runs")


@pytest.fixture
def clip():
    folder, rng = Path("my clip"), np.random.default_rng(0)
    folder.mkdir()
    for place in range(3):
        pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{place:05d}.png")
    return str(folder)


def row_of(folder):
    (path,) = Path(folder).glob("rows/*.jsonl")
    return json.loads(path.read_text().splitlines()[-1])


def test_what_is_left_serves_the_edit_that_is_named(clip, capsys):
    assert main(["tune", clip, "--source", PROMPT, "out=what's, learnt", *QUICK]) == 0
    said = capsys.readouterr().out
    about = json.loads(Path("what's, learnt/tuning.json").read_text())
    assert about["prompt"] == PROMPT and about["recipe"]["steps"] == 3 and about["frames"] == [3, 3, 16, 16]
    with Image.open("what's, learnt/errors.png") as picture:
        assert min(picture.size) > 200
    names = load_file("what's, learnt/unet/diffusion_pytorch_model.safetensors")
    assert any("attn_temporal.to_q" in name for name in names)
    command = shlex.split(next(line for line in said.splitlines() if "edit with it:" in line))
    words = [each.replace("target=...", "target=a blue car's wheel, turning") for each in command[4:]]
    assert main(["edit", *words, "method.steps=2", "metric=pixels", "out=made"]) == 0
    row = row_of("made")
    assert row["status"] == "done" and row["facts"]["tuning_steps"] == 3 and row["facts"]["tuning_kept"]
    assert row["source"] == PROMPT and "tuning" in row["seconds"] and row["frames"] == [3, 3, 16, 16]


def test_the_same_tuning_is_found_by_an_edit_that_tunes_by_itself(clip):
    assert main(["tune", clip, "--source", PROMPT, *QUICK]) == 0
    edit = [
        "edit",
        clip,
        "--source",
        PROMPT,
        "--target",
        "a blue wheel",
        "method=tune_a_video",
        "metric=pixels",
    ]
    assert main([*edit, *QUICK, "method.steps=2", "out=made"]) == 0
    assert row_of("made")["facts"]["tuning_kept"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tuning=none"], "nothing to tune"),
        (["tuning.path=file.txt"], "nothing to tune"),
        (["tuning.path=somewhere"], "somewhere"),
        (["tuning.steps=0"], "tuning.steps is too small"),
        (["tuning.weights=[conv_nowhere]"], "No weight has such a name"),
        (["frames=1"], "one frame"),
        (["method=freemask", "model=random"], "temporal layers"),
        (["out=file.txt"], "not a file"),
        (["size=[1,2,3]"], "one number or two"),
        (["clip=nowhere.mp4"], "nowhere.mp4"),
    ],
)
def test_what_cannot_be_tuned_is_refused(words, said, clip, capsys):
    Path("file.txt").write_text("here")
    given = [each for each in (f"clip={clip}", "source=a red car") if each.split("=")[0] not in str(words)]
    quick = QUICK if "tuning=none" not in words else ["model=random_image"]
    assert main(["tune", *given, *quick, *words]) == 2
    assert said in (told := capsys.readouterr().err) and "Traceback" not in told


def test_a_clip_that_does_not_do_is_refused_before_the_model_is_loaded(clip, monkeypatch):
    monkeypatch.setattr("experiments.commands.tune.model_of", lambda _: pytest.fail("was loaded"))
    assert main(["tune", f"{clip}/00000.png", "source=a car", "model=random_image"]) == 2


def test_a_clip_without_its_prompt_is_asked_for_it_alone(clip, capsys):
    assert main(["tune", clip, *QUICK]) == 2
    told = capsys.readouterr().err
    assert "source prompt is needed" in told and "target" not in told
