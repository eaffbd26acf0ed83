"""What ControlNets are shown of a clip: edges and depth, by words, and pictures of any kind from files."""

import json
from functools import wraps

import pytest
import torch
from PIL import Image

from experiments.cli.app import main
from experiments.config.compose import config_of, plain
from experiments.config.identity import counted
from freemask.backbones.inflated2d import Inflated2D
from freemask.control import images
from freemask.control.depth import Depth
from freemask.control.edges import Edges
from freemask.control.files import Files
from freemask.data.frames import FrameRange
from freemask.data.geometry import Geometry
from freemask.data.held import taken
from freemask.data.world.source import clip_of
from freemask.data.world.spec import Wishes, sample_scene
from freemask.errors import UserError
from freemask.types import Clip


@pytest.fixture(scope="module")
def clip():
    return clip_of(sample_scene(10_000_007, Wishes(things=2), frames=3), "two")


def plain_clip(frames=3, height=16, width=24):
    return Clip("bus", torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(0)))


# --- depth ----------------------------------------------------------------------------------------------------


def test_depth_is_what_the_world_knows(clip):
    shown = Depth()(clip)
    assert shown.shape == clip.frames.shape and torch.equal(shown[:, 0], clip.depth)
    assert torch.equal(shown[:, 0], shown[:, 2])


def test_depth_is_cut_and_scaled_with_the_frames(clip):
    smaller = taken(clip, Geometry(short_side=32), FrameRange(count=2))
    assert smaller.depth.shape == smaller.frames[:, 0].shape == (2, 32, 32)
    assert float((smaller.depth - clip.depth[:2, ::2, ::2]).abs().mean()) < 0.05
    cut = taken(clip, Geometry(height=32, width=64, crop="center"), FrameRange())
    assert torch.equal(cut.depth, clip.depth[:, 16:48])


@pytest.fixture(scope="module")
def dpt(tmp_path_factory):
    """DPT with random weights, and what prepares its pictures."""
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    place, size = tmp_path_factory.mktemp("dpt"), {"height": 32, "width": 32}
    shape = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    shape |= {
        "image_size": 32,
        "patch_size": 8,
        "backbone_out_indices": [0, 1, 2, 3],
        "fusion_hidden_size": 8,
    }
    torch.manual_seed(0)
    config = DPTConfig(**shape, neck_hidden_sizes=[8, 8, 8, 8], is_hybrid=False)
    DPTForDepthEstimation(config).save_pretrained(place)
    DPTImageProcessor(size=size, keep_aspect_ratio=False).save_pretrained(place)
    return place


def test_a_network_estimates_depth_where_nobody_knows_it(dpt, clip):
    found = Depth(dpt)(plain_clip())
    assert found.shape == (3, 3, 16, 24) and found.aminmax() == (0, 1)
    assert torch.equal(found[:, 0], found[:, 1])
    assert not torch.equal(Depth(dpt)(clip), Depth()(clip))  # weights that are named are used


def test_one_scale_serves_all_frames():
    from freemask.control.depth import estimated

    frames = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 3, 4, 4)
    found = estimated(lambda frame: 7 * frame[0] + 2, frames)
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([0.0, 0.5, 1.0]))
    assert not estimated(
        lambda frame: frame[0], frames[:1]
    ).any()  # a flat frame is far, and no number is lost


def test_depth_that_nobody_knows_and_networks_of_other_kinds_are_refused(dpt, tmp_path):
    with pytest.raises(UserError, match=r"(?s)nobody knows the depth.*'bus'.*control_depth\.weights"):
        Depth().check(plain_clip())
    with pytest.raises(UserError, match="no such checkpoint folder"):
        Depth(tmp_path / "missing").check(plain_clip())
    config = json.loads((dpt / "config.json").read_text())
    for change in ({"model_type": "zoedepth"}, {"depth_estimation_type": "metric"}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match="dpt or depth_anything"):
            Depth(tmp_path).check(plain_clip())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="could not be read"):  # no weights
        Depth(tmp_path)(plain_clip())


# --- files ----------------------------------------------------------------------------------------------------


def written(folder, count=3, size=(24, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(count):
        Image.new("RGB", size, (40 * place, 0, 255)).save(folder / f"{place + 8}.png")
    return folder


def test_pictures_are_those_of_the_clip_in_their_order(tmp_path):
    written(tmp_path / "bus")
    found = Files(str(tmp_path / "{clip}"))(plain_clip())
    assert found.shape == (3, 3, 16, 24)  # 8, 9, 10: numbers are counted
    assert (found[:, 0, 0, 0] * 255).round().tolist() == [0, 40, 80] and bool((found[:, 2] == 1).all())
    written(tmp_path / "large", size=(48, 32))
    torch.testing.assert_close(Files(str(tmp_path / "large"))(plain_clip()), found)


def test_files_that_do_not_fit_are_refused(tmp_path):
    for name, count, size, said in (
        ("few", 2, (24, 16), "2 images"),
        ("many", 4, (24, 16), "frames=4"),
        ("wide", 3, (48, 16), "(?s)another shape.*48x16"),
    ):
        with pytest.raises(UserError, match=said):
            Files(str(written(tmp_path / name, count, size)))(plain_clip())
    with pytest.raises(UserError, match="'bos' in"):
        Files(str(tmp_path / "bos")).check(plain_clip())
    broken = written(tmp_path / "broken")
    for name in ("8.png", "10.png"):
        (broken / name).write_text("no picture")
    with pytest.raises(UserError, match=r"(?s)8\.png.*10\.png"):
        Files(str(broken)).check(plain_clip())


def test_pictures_count_by_what_is_in_them(tmp_path):
    def of_run(*asked):
        words = ["model=embedded_image", f"'model.control_images=[{','.join(asked)}]'"]
        return counted(plain(config_of("edit", [words[0], words[1].strip("'")]))["model"])["control_images"]

    (moved, own), place = (written(tmp_path / name / "bus") for name in ("b", "a")), tmp_path / "a"
    assert of_run(str(own)) == of_run(str(moved)) != of_run("edges")
    before = of_run(f"'{place}/{{clip}}'")
    written(own, size=(8, 8))
    assert of_run(f"'{place}/{{clip}}'") != before and of_run(str(own)) != of_run(str(moved))


def test_a_word_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = counted(plain(config_of("edit", ["model=sd15", "model.control_images=depth"]))["model"])
    written(tmp_path / "depth")
    after = counted(plain(config_of("edit", ["model=sd15", "model.control_images=depth"]))["model"])
    assert before == after and before["control_images"] == "depth"
    assert images.shown("x", "depth") == (Depth(),)


# --- who shows what -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nets", "asked", "wanted"),
    [
        (None, None, ()),
        (None, "edges", ()),
        ("embedded_edges", None, (Edges(),)),
        (["embedded_depth", "embedded_edges", "some/net"], None, (Depth(), Edges(), None)),
        (["some/net", "embedded_edges"], ["depth", "poses/{clip}"], (Depth(), Files("poses/{clip}"))),
        (["some/net", "other/net"], "depth", (Depth(), Depth())),
        ("embedded_edges", "depth", (Depth(),)),
    ],
)
def test_each_is_shown_what_is_asked_for_or_what_it_was_taught(nets, asked, wanted):
    assert images.shown(nets, asked) == wanted


def test_how_edges_and_depth_are_made_is_said_once(dpt):
    edges, depth = Edges(1, 2), Depth(dpt)
    assert images.shown(["a/b", "c/d", "e/f"], ["depth", "edges", "depth"], edges, depth) == (
        depth,
        edges,
        depth,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.control=embedded_edges", "model.control_images=[edges,depth]"], ["for 1 ControlNet"]),
        (["model.control=embedded_edges", "model.control_images=dept"], ["did you mean 'depth'"]),
        (["model.control=embedded_edges", "model.control_images=poses/here"], ["no such file or folder"]),
        (["model.control=embedded_edges", "model.control_strength=[1,2]"], ["2 for 1"]),
        (["model.control=embedded_edges", "model.control_strength=strong"], ["control_strength"]),
        (["model.control=embedded_edges", "model.control_window=[0.5,0.2]"], ["control_window"]),
        (["model.control=embedded_edges", "model.control_window=0.5"], ["control_window"]),
        (["model.control=FOLDER"], ["'control'", "model.control_images=edges"]),
        (
            ["model.control=[embedded_edges,FOLDER]", "model.control_images=[nowhere/a,nowhere/b]"],
            ["2 ControlNets", "nowhere/a", "nowhere/b"],
        ),
        (
            ["clip=CLIP", "model.control=embedded_edges", "model.control_images=depth"],
            ["nobody knows the depth"],
        ),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_there(words, said, tmp_path, monkeypatch, capsys):
    own = tmp_path / "net"
    (own).mkdir()
    (own / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    filmed = written(tmp_path / "film")
    never = wraps(Inflated2D.load)(
        lambda **_: pytest.fail("a model was loaded")
    )  # what it says of settings is kept
    monkeypatch.setattr(Inflated2D, "load", never)
    words = [each.replace("FOLDER", str(own)).replace("CLIP", str(filmed)) for each in words]
    prompts = ["source=a red car on grass", "target=a blue car on grass"]
    assert main(["edit", "model=embedded_image", "method=ddim", f"out={tmp_path}/out", *prompts, *words]) == 2
    told = capsys.readouterr().err
    for each in said:
        assert each in told
