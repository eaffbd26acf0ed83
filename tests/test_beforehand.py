"""What can be known of an edit before its model is loaded is refused before it is loaded."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.cli.app import main
from experiments.config import choices
from experiments.config.build import build
from experiments.config.compose import config_of, plain
from experiments.config.identity import class_of
from experiments.jobs import beforehand
from freemask.data.frames import FrameRange
from freemask.data.one import OneClip
from freemask.errors import UserError

WORLD = ["model=random", "paths.runs=out", "metric=pixels", "data.size=16", "data.frames=2", "data.clips=3"]
PROMPTS = ["source=a red car", "target=a red bus", "task=shape"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, count in (("clip", 3), ("masks/clip", 2), ("flat", 2)):
        (tmp_path / name).mkdir(parents=True)
        for k in range(count):
            pixels = np.full((20, 30, 3), 255 * (k % 2), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(bytes(range(250)))


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr("experiments.jobs.edit.model_of", lambda *a: pytest.fail("the model was loaded"))


WRONG = [
    (["edit", "clip", *PROMPTS, "mask=segmentation"], "annotated clip"),
    (["edit", "clip", *PROMPTS, "mask=oracle"], "annotated clip"),
    (["edit", "clip", *PROMPTS, "mask=segmentation", "mask.folder=nowhere"], "no such file"),
    (["edit", "clip", *PROMPTS, "mask=segmentation", "mask.folder=masks"], "2 masks"),
    (["edit", "clip", *PROMPTS, "mask=segmentation", "mask.folder=masks/clip"], "2 masks"),
    (["edit", "mask=segmentation", "mask.folder=masks"], "a folder called"),
    (["edit", "broken.mp4", *PROMPTS, "method=ddim"], "cannot be opened as a video"),
    (["edit", "empty", *PROMPTS, "method=ddim"], "holds no pictures"),
    (["edit", "clip", *PROMPTS, "method=ddim", "frames=4"], "too short"),
    (
        ["edit", "source=a car and a dog", "target=oil painting of a car and a dog", "mask=agreement"],
        "words=",
    ),
    (
        ["edit", "clip", *PROMPTS, "method=controlvideo", "model=random_image", "model.control=0"],
        "no ControlNet",
    ),
    (["edit", "method=tokenflow", "method.base=controlnet", "model=random_image"], "no ControlNet"),
    (["edit", "method=flowedit", "model=random_wan", "mask=clusters"], "within a frame"),
    (["edit", "method=freemask", "model=random_cogvideox", "mask=clusters"], "within a frame"),
    (["run", "method=flowedit", "model=random_ltx", "mask=clusters"], "within a frame"),
    (["run", "mask=segmentation", "mask.folder=nowhere"], "no such file"),
    (["run", "mask=segmentation", "mask.folder=masks"], "a folder called"),
    (["run", "mask=segmentation", "mask.folder=flat"], "one clip"),
    (["run", "variants={a: [method=ddim], b: [mask=segmentation, mask.folder=masks]}"], "variant 'b'"),
]


@pytest.mark.parametrize(("words", "hint"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_it_is_refused_without_a_model(words, hint, no_model, capsys):
    assert main([words[0], *WORLD, *words[1:]]) == 2
    assert hint in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["edit", "start=-1"], "start=-1"),
        (["edit", "frames=0"], "frames=0"),
        (["edit", "size=[16,0]"], "size=[16, 0]"),
        (["run", "limit=0"], "limit=0"),
        (["doctor", "tasks=nowhere.csv"], "nowhere.csv"),
    ],
)
def test_it_is_refused_before_the_verb_is_imported(words, hint, monkeypatch, capsys):
    monkeypatch.setattr("experiments.cli.app.main_of", lambda verb: pytest.fail("the verb was imported"))
    assert main(words) == 2
    assert hint in capsys.readouterr().err


def test_a_run_in_which_some_tasks_can_be_done_goes_on():
    assert main(["run", *WORLD, "mask=segmentation", "method.steps=1", "limit=1", "name=r", "keep=none"]) == 0


@pytest.mark.parametrize("words", [
    ["model=random_wan", "task=style"],  # no edit of this kind has a mask
    ["model=random_image", "task=shape"],
])  # fmt: skip
def test_a_mask_is_looked_at_where_one_is_made_and_a_model_may_lack_its_layers(words):
    usual = ["method=flowedit", "mask=clusters", "data.kinds=[style,shape]", "data.size=16", "data.clips=2"]
    config = plain(config_of("edit", [*usual, *words]))
    tasks = {task.kind: task for task in build(config["data"], "data").tasks()}
    kind = "style" if "task=style" in words else "shape"
    beforehand.refuse(config, tasks[kind], build(config["data"], "data"))
    with pytest.raises(UserError, match="within a frame"):
        beforehand.refuse(config | {"model": {"_target_": "freemask.backbones.wan.Wan.random"}}, tasks["shape"],
                          build(config["data"], "data"))  # fmt: skip


def test_models_say_truly_which_layers_they_lack():
    for name in (option.name for option in choices.group("model") if option.name.startswith("random")):
        model = plain(config_of("edit", [f"model={name}"]))["model"]
        roles = {site.role for site in build(model, "model").sites.values()}
        assert not roles & set(getattr(class_of(model), "lacking", ())), name


def test_a_glimpse_has_all_frames_and_few_pixels():
    one = OneClip("clip", {"source": "a car", "target": "a bus"}, frames=FrameRange())
    assert beforehand.glimpse(one, one.task).frames.shape == (3, 3, 16, 24)
    assert one.geometry.short_side is None and one.frames.count is None
    assert beforehand.glimpse(one, one.task, 2).frames.shape[0] == 2
