"""ControlNets beside an inflated image model: the library's own two forwards, one after the other, and the authors'."""

import json
from copy import copy
from dataclasses import replace

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel

from experiments.config.build import build
from experiments.config.compose import config_of, plain
from experiments.config.identity import backbone_identity, base_identity, counted, method_of
from freemask.attention.math import attend
from freemask.backbones import tiny
from freemask.backbones.controlnets import Control
from freemask.backbones.inflated2d import Inflated2D
from freemask.control.depth import Depth
from freemask.control.edges import Edges
from freemask.control.how import How
from freemask.diffusion.guidance import given_to
from freemask.diffusion.inversions import Inversions
from freemask.errors import UserError
from freemask.masks.plan import Subject
from freemask.types import Clip, EditTask, Given, Taps
from tests.official import control as official
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import FORCED, FREE, Ledger

FRAMES, SIZE = 3, (10, 6)  # of the latents; pixels are twice as many
STRENGTHS = {"a": [0.7, 1.3], "b": [1.0, 0.25]}


def made(count, **options):
    options = {"attention": "frame", "shared_norm": False} | options
    return Inflated2D.random(0, dtype="float64", max_tokens=20, control=count, **options)


@pytest.fixture(scope="module")
def backbone():
    return made(2)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def latents(streams=2):
    return drawn(streams, FRAMES, 4, *SIZE, seed=1)


def images(seed):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(FRAMES, 3, *(2 * side for side in SIZE), generator=rng, dtype=torch.float64)


def conditions(strengths=STRENGTHS, **more):
    return {
        name: Given(
            {
                "text": drawn(20, 16, seed=seed),
                "control": images(10 + seed),
                "control.1": images(20 + seed),
                "control_strength": torch.tensor(strengths[name]),
                **more,
            }
        )
        for seed, name in enumerate("ab")
    }


def library(count=2):
    """The same networks, as the library makes them."""
    unet = tiny.parts(0, torch.float64, "epsilon", 20, image=True).unet.eval()
    return unet, MultiControlNetModel(tiny.control_nets(unet, 0, count)).eval()


@torch.no_grad()
def by_the_library(x, t, given, *, networks=None, into_middle=False):
    """Both forwards of the library for every frame of every stream, as its pipelines call them."""
    unet, nets = networks or library()
    out = []
    for clip, each in zip(x, given.values(), strict=True):
        parts, frames = each.parts, []
        strengths = parts.get("control_strength", torch.ones(len(nets.nets))).tolist()
        for f, picture in enumerate(clip):
            texts = [parts[key] if key in parts else parts["text"] for key in ("text", "control_text")]
            text, beside = ((text[f] if text.ndim == 3 else text)[None] for text in texts)
            shown = [parts["control"][f][None], parts.get("control.1", parts["control"])[f][None]]
            down, middle = nets(
                picture[None], t, beside, shown[: len(nets.nets)], strengths, return_dict=False
            )
            hook = None
            if into_middle:  # both who takes the last map of the way down get the sum, as if it were that map
                last = down[-1]
                down = [*down[:-1], torch.zeros_like(last)]
                block = unet.down_blocks[-1].resnets[-1]
                hook = block.register_forward_hook(lambda module, args, maps, last=last: maps + last)
            more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            frames.append(unet(picture[None], t, text, **more).sample[0])
            if hook is not None:
                hook.remove()
        out.append(torch.stack(frames))
    return torch.stack(out)


def close(ours, theirs, atol=1e-12):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def apart(ours, theirs):
    return float((ours - theirs).abs().max()) > 1e-3


def test_two_controlnets_equal_the_librarys_two_forwards(backbone):
    x, given = latents(), conditions()
    theirs = by_the_library(x, 500, given)
    close(backbone.predict(x, 500, given), theirs)
    seen = []
    taps = Taps(lambda where, qkv: seen.append(where.site.name) or attend(qkv))
    close(backbone.predict(x, 500, given, taps=taps), theirs)
    assert seen == list(backbone.sites)  # attention in a ControlNet is no site
    assert set(backbone.takes) == {"text", "control", "control.1", "control_strength", "control_text"}
    for change in ({"control": images(5)}, {"control_strength": torch.tensor([1.0, 0.0])}):
        other = {name: each.plus(**change) for name, each in given.items()}
        assert apart(backbone.predict(x, 500, other), theirs)


def test_text_for_every_frame_and_text_for_the_controlnets_alone(backbone):
    x, given = latents(), conditions()
    given["a"] = given["a"].plus(text=drawn(FRAMES, 20, 16, seed=7))
    close(backbone.predict(x, 500, given), by_the_library(x, 500, given))
    given["b"] = given["b"].plus(control_text=drawn(20, 16, seed=8))
    theirs = by_the_library(x, 500, given)
    close(backbone.predict(x, 500, given), theirs)
    assert apart(theirs[1], by_the_library(x, 500, conditions())[1])


def test_a_strength_is_one_where_it_is_left_out_and_one_number_is_for_all(backbone):
    x, given = latents(), conditions({"a": [1.0, 1.0], "b": [0.5, 0.5]})
    expected = by_the_library(x, 500, given)
    bare = {name: dict(each.parts) for name, each in given.items()}
    del bare["a"]["control_strength"]
    bare["b"]["control_strength"] = torch.tensor(0.5)
    close(backbone.predict(x, 500, {name: Given(parts) for name, parts in bare.items()}), expected)


def test_strength_0_is_no_controlnet(backbone):
    """Of one stream, of one ControlNet, and of all: then none runs."""
    x, text = latents(), {name: Given({"text": each.parts["text"]}) for name, each in conditions().items()}
    without = made(0).predict(x, 500, text)
    calls = []
    hooks = [
        net.register_forward_hook(lambda *_, place=place: calls.append(place))
        for place, net in enumerate(backbone.control.nets)
    ]
    close(backbone.predict(x, 500, conditions({"a": [0.0, 0.0], "b": [0.0, 0.0]})), without, atol=0)
    assert not calls
    one = conditions({"a": [0.0, 0.0], "b": [1.0, 0.0]})
    out = backbone.predict(x, 500, one)
    assert calls == [0]
    for hook in hooks:
        hook.remove()
    close(out[0], without[0])
    close(out[1], by_the_library(x, 500, one)[1])
    first = {
        name: Given({k: v for k, v in each.parts.items() if k != "control.1"}) for name, each in one.items()
    }
    lone = {
        name: each.plus(control_strength=each.parts["control_strength"][:1]) for name, each in first.items()
    }
    close(made(1).predict(x, 500, lone), out)


def test_the_middle_block_sees_the_last_addition_where_asked(backbone, monkeypatch):
    x, given = latents(), conditions()
    usual = backbone.predict(x, 500, given)
    monkeypatch.setattr(backbone.control, "how", replace(backbone.control.how, into_middle=True))
    close(backbone.predict(x, 500, given), by_the_library(x, 500, given, into_middle=True))
    monkeypatch.undo()
    close(backbone.predict(x, 500, given), usual, atol=0)
    assert apart(usual, by_the_library(x, 500, given, into_middle=True))


class OverFrames(torch.nn.GroupNorm):
    """Mean and variance over channels of a group, frames and pixels of one clip."""

    def forward(self, x):
        groups = x.reshape(len(x), self.num_groups, -1)
        mean = groups.mean((0, 2), keepdim=True)
        spread = ((groups - mean) ** 2).mean((0, 2), keepdim=True)
        scaled = ((groups - mean) / (spread + self.eps).sqrt()).reshape(x.shape)
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


def test_norms_are_shared_in_the_controlnet_as_in_the_network():
    unet, nets = library(1)
    for module in (*unet.modules(), *nets.modules()):
        for key, norm in list(module.named_children()):
            if isinstance(norm, torch.nn.GroupNorm) and key != "norm":  # that of a transformer
                norm.__class__ = OverFrames
    given = Given({"text": drawn(20, 16), "control": images(1)})
    x = latents(1)
    texts = given.parts["text"].expand(FRAMES, -1, -1)
    with torch.no_grad():
        down, middle = nets.nets[0](x[0], 500, texts, given.parts["control"], return_dict=False)
        more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        theirs = unet(x[0], 500, texts, **more).sample
    ours = made(1, shared_norm=True)
    close(ours.predict(x, 500, {"cond": given})[0], theirs)
    assert apart(made(1).predict(x, 500, {"cond": given})[0], theirs)


def test_gradients_flow_through_the_controlnet(backbone):
    x, given = latents().requires_grad_(), conditions()
    shown = images(3).requires_grad_()
    given["a"] = given["a"].plus(control=shown)
    backbone.predict(x, 500, given)[0].square().sum().backward()
    assert float(shown.grad.abs().max()) > 0 and float(x.grad[0].abs().max()) > 0
    assert all(weight.grad is None for net in backbone.control.nets for weight in net.parameters())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"control": None}, "must be given 'control'"),
        ({"control.1": None}, r"must be given 'control\.1'"),
        ({"control": images(1)[:2]}, "2 x 3 x 20 x 12"),
        ({"control": images(1)[:, :1]}, "3 x 1 x 20 x 12"),
        ({"control.1": images(1)[..., :6]}, "'control.1' has the wrong shape"),
        ({"control": images(1) * 2 - 1}, r"in 0\.\.1"),
        ({"control_strength": torch.ones(3)}, "'control_strength' has the wrong shape"),
        ({"control_text": drawn(2, 20, 16)}, "'control_text' has the wrong shape"),
        ({"text": drawn(2, 20, 16)}, "'text' has the wrong shape"),
        ({"text": drawn(20, 12)}, "'text' has the wrong shape"),
        ({"control.2": images(1)}, r"cannot be given 'control\.2'"),
    ],
)
def test_what_does_not_fit_is_refused(backbone, change, said):
    given = conditions()
    parts = {**given["b"].parts, **change}
    given["b"] = Given({name: value for name, value in parts.items() if value is not None})
    with pytest.raises(UserError, match=said):
        backbone.predict(latents(), 500, given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block_out_channels": (8, 16, 16, 24)}, "block_out_channels"),
        ({"cross_attention_dim": 24}, "cross_attention_dim 24"),
        ({"layers_per_block": 1}, "layers_per_block 1"),
        ({"conditioning_channels": 1}, "channels of images 1"),
        ({"in_channels": 9}, "channels of latents 9"),
        ({"conditioning_embedding_out_channels": (8, 8, 8)}, "pixels in a cell of the latent 4"),
        ({"global_pool_conditions": True}, "global_pool_conditions"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
    ],
)
def test_a_controlnet_of_another_network_is_refused(backbone, change, said):
    unet, nets = library(1)
    config = {name: value for name, value in nets.nets[0].config.items() if name[0] != "_"}
    net = ControlNetModel(**{**config, **change})
    with pytest.raises(UserError, match=f"(?s)'control' does not fit.*{said}"):
        Control([net], unet, 2, backbone.noise_path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two ControlNets for the shipped image model."""
    unet, place = Inflated2D.load().unet, tmp_path_factory.mktemp("nets")
    for seed, name in enumerate(("edges", "depth")):
        torch.manual_seed(seed)
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 4))
        for weight in net.parameters():
            if weight.ndim > 1 and not weight.any():
                torch.nn.init.normal_(weight, std=0.2)
        net.save_pretrained(place / name)
    return place


def test_from_folders_through_the_configuration(folders):
    words = [f"model.control=[{folders / 'edges'},{folders / 'depth'}]", "model=embedded_image"]
    config = plain(config_of("edit", words))["model"]
    backbone = build(config, "model")
    assert backbone.describe()["ControlNets"] == 2 and len(backbone.control.nets) == 2
    assert backbone.identity == backbone_identity(config)
    text = backbone.embed("a red car").given
    shown = {"control": torch.rand(2, 3, 64, 64), "control.1": torch.rand(2, 3, 64, 64)}
    x = drawn(1, 2, 12, 16, 16).float()
    out = backbone.predict(x, 500, {"cond": text.plus(**shown)})
    swapped = text.plus(**{"control": shown["control.1"], "control.1": shown["control"]})
    assert out.isfinite().all() and apart(backbone.predict(x, 500, {"cond": swapped}), out)


def test_the_files_of_controlnets_count_and_not_their_places(folders, tmp_path):
    edges, depth = folders / "edges", folders / "depth"
    moved = tmp_path / "another name"
    moved.mkdir()
    for file in edges.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    (moved / ".cache").mkdir()
    (moved / ".cache" / "when").write_text("today")
    ways = [None, edges, depth, [edges, depth], [depth, edges]]
    names = [Inflated2D.identify(control=way) for way in ways]
    names.append(Inflated2D.identify(control=edges, control_middle=True))
    assert len(set(names)) == len(names)
    assert names[0] == Inflated2D.identify() == Inflated2D.identify(control=[], control_middle=True)
    assert names[1] == Inflated2D.identify(control=[moved]) == Inflated2D.load(control=moved).identity

    def of_run(*control):
        words = ["model=embedded_image", f"model.control=[{','.join(map(str, control))}]"]
        return json.dumps(counted(plain(config_of("edit", words))["model"]))

    assert of_run(edges) == of_run(moved) != of_run(depth)
    assert str(edges) not in of_run(edges, depth) != of_run(depth, edges)


def test_codebooks_are_of_the_model_without_its_controlnets(folders):
    loaded = Inflated2D.load(control=folders / "edges", control_middle=True)
    assert loaded.alone == Inflated2D.identify() != loaded.origin and Inflated2D.load().alone == loaded.alone
    made, bare = (Inflated2D.random(0, control=count, control_middle=True) for count in (2, 0))
    assert made.alone == bare.origin == bare.alone != made.origin
    boxes, none = (Inflated2D.random(0, gated=each) for each in (True, False))
    assert boxes.alone == none.origin == none.alone != boxes.origin
    lent = Inflated2D.load(gated="embedded_boxes")
    assert lent.alone == loaded.alone != lent.origin
    words = ["method=freemask", "model=embedded_image", "fusion.temporal=off", "mask=mmc_by_layer"]
    grounded = ["model=embedded_image", "model.gated=embedded_boxes"]
    assert base_identity(plain(config_of("run", grounded))["model"]) == lent.alone
    words += [f"model.control={folders / 'edges'}", "model.control_strength=[0.5]"]
    config = plain(config_of("run", words))
    assert base_identity(config["model"]) == loaded.alone
    known = plain(config_of("run", words[:-2]))
    assert method_of(config) == method_of(known)  # the same codebook
    clip = Clip("c", torch.rand(2, 3, 64, 64))
    task = EditTask("t", "c", "a red car", "a red bus", {"car": "bus"}, "shape")
    mask = build(config["method"]["mask"], "mask")
    for model, told in ((loaded, True), (Inflated2D.load(), False)):
        facts = mask.told(Subject.of(model, clip, task, model.noise_path.times(4)))
        assert facts["codebook"] == "shipped" and ("codebook_without_control" in facts) is told


def test_folders_that_are_none_are_refused(folders, tmp_path):
    with pytest.raises(UserError, match="no such checkpoint folder"):
        Inflated2D.load(control=folders / "edgse")
    with pytest.raises(UserError, match=r"config\.json"):
        Inflated2D.load(control=tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "T2IAdapter"}')
    with pytest.raises(UserError, match="another kind"):
        Inflated2D.load(control=tmp_path)


def test_inversions_under_different_images_are_kept_apart(backbone, tmp_path):
    store, x = Inversions(tmp_path), latents()[0]
    given = conditions()["a"]
    first = store.invert(backbone, x, given, 2)
    assert first.passes == 2 and store.invert(backbone, x, conditions()["a"], 2).passes == 0
    for other in (
        given.plus(control=images(3)),
        given.plus(control_strength=torch.tensor([0.7, 1.2])),
        given.plus(**{"control": given.parts["control.1"], "control.1": given.parts["control"]}),
    ):
        found = store.invert(backbone, x, other, 2)
        assert found.passes == 2 and apart(found.latents[-1], first.latents[-1])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4


@torch.no_grad()
def compared(shared, name, run, *, steps=None, free=True):
    case, ledger = Case.read(shared / "parity" / "golden" / f"{name}.json"), Ledger()
    run(case, ledger, Wanted(steps, free, (), lambda *_: None))
    assert ledger.passed, ledger.table()
    return ledger


def test_the_first_steps_of_the_authors_inversion_with_edges(shared):
    ledger = compared(shared, "tf_controlnet_inversion", official.tokenflow_inversion, steps=2)
    assert ledger.found["inversion: ControlNet", FORCED].count == 13


@pytest.mark.parity
def test_the_authors_inversion_with_edges(shared):
    ledger = compared(shared, "tf_controlnet_inversion", official.tokenflow_inversion)
    assert ledger.found["inversion: latents", FREE].error < 1e-5


@pytest.mark.parametrize("name", ["cv_base", "cv_long", "stm_base"])
def test_the_first_steps_of_the_authors_controlvideo_and_videograin(shared, name):
    compared(shared, name, official.compare, steps=1, free=False)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["cv_base", "cv_smooth", "cv_long", "stm_base", "stm_full"])
def test_the_authors_controlvideo_and_videograin(shared, name):
    compared(shared, name, official.compare)


# --- what they are shown --------------------------------------------------------------------------------------


def square(frames=2):
    """A white square on black, moving right by two pixels."""
    made = torch.zeros(frames, 3, 20, 24)
    for frame, picture in enumerate(made):
        picture[:, 6:14, 5 + 2 * frame : 13 + 2 * frame] = 1
    return made


def test_edges_lie_around_what_is_seen():
    found = Edges()(Clip("c", square()))
    assert found.shape == (2, 3, 20, 24) and set(found.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(found[:, 0], found[:, 2]) and torch.equal(found[1, :, :, 2:], found[0, :, :, :-2])
    near = torch.nn.functional.max_pool2d(square()[:, :1], 3, 1, 1)  # no edge within, none far outside
    inner = -torch.nn.functional.max_pool2d(-square()[:, :1], 5, 1, 2)
    assert not bool((found[:, :1] * (1 - near)).any()) and not bool((found[:, :1] * inner).any())
    assert bool(Edges(0, 1).of(0.01 * square()).any()) and not bool(Edges().of(0.01 * square()).any())
    with pytest.raises(UserError, match="100"):
        Edges(low=200, high=100)


def shown_by(*makers):
    made = copy(Inflated2D.random(0, max_tokens=20, control=len(makers), attention="frame"))
    made.control = Control(
        made.control.nets, made.unet, 2, made.noise_path, How.of(len(makers)).showing(makers)
    )
    return made


class Counted:
    """Images that count how often they are made."""

    calls = 0

    def check(self, clip):
        pass

    def __call__(self, clip, device="cpu"):
        self.calls += 1
        return clip.frames / 2


def test_each_clip_is_looked_at_once_and_not_where_it_brings_its_images():
    counted = Counted()
    backbone, clips = shown_by(counted, Depth()), [Clip("c", square(frames)) for frames in (2, 3)]
    known = [replace(clip, conditions={"control.1": clip.frames}) for clip in clips]
    for clip in (known[0], known[0], known[1], known[1]):
        for prompt in ("a car", ""):
            parts = given_to(backbone, clip, backbone.embed(prompt)).parts
            assert torch.equal(parts["control"], clip.frames / 2) and torch.equal(
                parts["control.1"], clip.frames
            )
    assert counted.calls == 2
    with pytest.raises(UserError, match="nobody knows"):
        backbone.seen(clips[0])


def test_a_clip_that_brings_no_images_is_shown_its_edges(backbone):
    edges = shown_by(Edges(), Edges())
    clip, text = Clip("c", square()), edges.embed("a red car")
    given = given_to(edges, clip, text).parts
    assert all(torch.equal(given[name], Edges()(clip)) for name in ("control", "control.1"))
    own = Clip("c", square(), conditions={"control": 1 - square()})
    brought = given_to(edges, own, text).parts
    assert torch.equal(brought["control"], 1 - square()) and torch.equal(
        brought["control.1"], given["control"]
    )
    assert set(given_to(backbone, clip, backbone.embed("a red car")).parts) == {
        "text"
    }  # nobody makes any here
