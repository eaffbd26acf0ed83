"""What is said of ControlNets where there is none, or none that could be meant: refused before a model is loaded."""

from pathlib import Path

import pytest

from experiments.cli.app import main
from experiments.config.compose import composed
from experiments.jobs.variants import Composition, unused
from freemask.backbones.inflated2d import Inflated2D
from freemask.errors import UserError

BAD = [
    (
        ["model=embedded_image", "model.control_images=edges"],
        "model.control_images=edges, model.control=null",
    ),
    (["model=random_image", "model.control_edges.low=20"], "(model=random_image: =1)"),
    (["model=embedded", "model.control=embedded_edges"], "model=embedded_image model.control=embedded_edges"),
    (["model=embedded", "model.control=DIR"], "embedded_image, instruct_pix2pix, random_image, sd14, sd15"),
    (["method=controlvideo", "model=random_image"], "add model.control=1"),
    (["method=controlvideo", "model=random_image", "model.control=0"], "came:     model.control=0"),
    (["method=controlvideo", "model=sd15"], "this model needs one of its own"),
    (["method=controlvideo", "model=sd15"], "model.control_images=edges"),
    (["method=ground_a_video", "model=sd15"], "model.control_images=depth model.control_depth.weights=DIR"),
    (["method=controlvideo", "model=sd15", "model.control=null"], "model=sd15 model.control=PATH"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("words", "said"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_what_is_wrong_is_told_before_anything_is_loaded(words, said, capsys, monkeypatch):
    def never(*args, **more):
        raise AssertionError("something was loaded")

    monkeypatch.setattr("freemask.backbones.inflated2d.load", never)
    monkeypatch.setattr("freemask.backbones.checkpoint._download", never)
    usual = [] if any(word.startswith("method=") for word in words) else ["method=ddim"]
    assert main(["edit", *usual, *words]) == 2
    shown = capsys.readouterr().err
    assert said in shown and "do next" in shown and "went wrong" not in shown


def test_variants_are_looked_at_one_by_one(capsys):
    one = ["model=embedded_image", "model.control_strength=0.5"]
    run = ["run", "method=ddim", "method.steps=1", "data.clips=1", "logger=none", "name=x"]
    assert main([*run, *one, "variants={with: [method.steps=1], without: [model.control=null]}"]) == 2
    assert "no ControlNet" in capsys.readouterr().err and not Path("runs").exists()


def test_where_it_is_said_that_there_is_none_a_line_tells_what_changes_nothing():
    typed = ["method=ddim", "model=embedded_image", "model.control=null", "model.control_strength=0.5"]
    made = composed("edit", typed)
    command = Composition(made.cfg, made.choices, typed)
    assert unused(typed, [command]) == [
        "note: the model has no ControlNet: model.control_strength=0.5 changes nothing"
    ]
    more = [*typed, "model.control=embedded_edges"]
    other = Composition(composed("edit", more).cfg, made.choices, more)
    assert unused(typed, [command, other]) == []


def test_a_shipped_controlnet_fits_copies_of_the_shipped_model_alone(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="needs one of its own"):
        Inflated2D.identify("somebody/model", control="embedded_edges")
    with pytest.raises(UserError, match="needs one of its own"):
        Inflated2D.shows("somebody/model", ["embedded_depth"])
    assert Inflated2D.shows(tmp_path, "embedded_edges")["control"] is not None


def test_a_misfit_is_told_by_its_files(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(
        '{"_class_name": "ControlNetModel", "block_out_channels": [320, 640], "cross_attention_dim": 768}'
    )
    monkeypatch.setattr("freemask.backbones.inflated2d.load", None)
    with pytest.raises(UserError, match=r"(?s)does not fit.*block_out_channels \[320, 640\]"):
        Inflated2D.load(control=tmp_path)
