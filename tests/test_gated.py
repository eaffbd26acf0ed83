"""Gated layers (GLIGEN): against the library's own call, shut and half open, files, refusals."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from freemask.attention.math import attend
from freemask.attention.rewire import by_themselves
from freemask.backbones import gated_weights, tiny
from freemask.backbones.controlnets import Control
from freemask.backbones.gated import MOST
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.inflation import Inflation
from freemask.backbones.unet import placed
from freemask.control.edges import Edges
from freemask.control.how import How
from freemask.errors import UserError
from freemask.types import Given, Taps
from tests.given import seeded

FRAMES = 3


def network(more=0):
    """A network as GLIGEN's, whose gates are open: of one that has learnt nothing they are shut."""
    torch.manual_seed(more)
    channels = {"in_channels": 4 + more, "out_channels": 4}
    unet = UNet2DConditionModel(**{**tiny.UNET2D, **channels, "attention_type": "gated"})
    for name, weight in unet.named_parameters():
        if ".fuser.alpha" in name or "null_" in name:
            torch.nn.init.normal_(weight)
    return torch.nn.Module.double(unet).eval()


@cache
def gated(more=0, attention="frame", control=False):
    made = replace(tiny.parts(0, torch.float64, "epsilon", 20, image=True), unet=network(more))
    parts = placed(made, "cpu")
    nets = []
    if control:
        nets = tiny.control_nets(tiny.parts(0, torch.float64, "epsilon", 20, image=True).unet, 0, 1)
    how = How.of(len(nets), attention=attention).showing((Edges(20, 40),) * len(nets))
    beside = Control(nets, parts.unet, parts.codec.multiple, parts.noise_path, how)
    inflation = Inflation.of(made.unet.config, attention, 0, False)
    return Inflated2D(parts, inflation, name=f"gated {more} {attention}", control=beside)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def boxes(seed=0, things=2):
    found = torch.rand(FRAMES, things, 5, generator=seeded(seed), dtype=torch.float64)
    found[..., 4] = 1
    found[1, 0, 4] = 0  # not there in the second frame
    return found


def given(things=2, **more):
    parts = {
        "text": drawn(20, 16),
        "boxes": boxes(things=things),
        "phrases": drawn(FRAMES, things, 16, seed=3),
    }
    return Given({**parts, **more})


def by_the_library(unet, x, parts):
    """Frames as pictures of a batch, their things filled up to thirty."""
    told = None
    if "boxes" in parts:
        fill = torch.zeros(FRAMES, MOST - parts["boxes"].shape[1], 21, dtype=torch.float64)
        both = torch.cat([torch.cat([parts["boxes"], parts["phrases"]], dim=2), fill], dim=1)
        things = {"boxes": both[..., :4], "masks": both[..., 4], "positive_embeddings": both[..., 5:]}
        told = {"gligen": things}
    text = parts["text"].expand(FRAMES, -1, -1)
    with torch.no_grad():
        return unet(x, 500, text, cross_attention_kwargs=told).sample


def test_boxes_are_read_as_by_the_library():
    """Two streams with other boxes; things that are not there count as nothing. A stream without boxes beside one that
    has some is one whose gates are shut."""
    backbone, unet, x = gated(), network(), drawn(2, FRAMES, 4, 6, 10, seed=1)
    first, second = given(), given(things=1)
    with torch.no_grad():
        made = backbone.predict(x, 500, {"a": first, "b": second})
        lone = Given({"text": first.parts["text"]})
        beside = backbone.predict(x, 500, {"a": lone, "b": second})
        alone = backbone.predict(x[:1], 500, {"a": lone})
    for place, each in enumerate((first, second)):
        torch.testing.assert_close(made[place], by_the_library(unet, x[place], each.parts), atol=1e-9, rtol=0)
    plain = by_the_library(unet, x[0], lone.parts)
    for without in (beside[0], alone[0]):
        torch.testing.assert_close(without, plain, atol=1e-9, rtol=0)
    torch.testing.assert_close(beside[1], made[1], atol=1e-9, rtol=0)
    assert float((made[0] - plain).abs().max()) > 1e-3


def test_gates_that_are_half_open():
    """As if their weights were so much smaller: of a hyperbolic tangent."""
    backbone, unet, x = gated(), network(), drawn(1, FRAMES, 4, 6, 10, seed=1)
    with torch.no_grad():
        made = backbone.predict(x, 500, {"a": given(gates=torch.tensor(0.3))})[0]
        for name, weight in unet.named_parameters():
            if ".fuser.alpha" in name:
                weight.copy_((0.3 * weight.tanh()).atanh())
    torch.testing.assert_close(made, by_the_library(unet, x[0], given().parts), atol=1e-7, rtol=0)


def test_frames_look_at_each_other_in_gated_layers_too_and_taps_do_not_hear_them():
    backbone, x, heard = gated(attention="all"), drawn(1, FRAMES, 4, 6, 10, seed=1), set()

    def tap(where, qkv):
        heard.add(where.site.name)
        return attend(qkv)

    with torch.no_grad():
        alone = backbone.predict(x, 500, {"a": given()}, taps=Taps(attention=tap, look=by_themselves))[0]
        together = backbone.predict(x, 500, {"a": given()})[0]
    assert heard == set(backbone.sites) and not any("fuser" in name for name in heard)
    torch.testing.assert_close(alone, by_the_library(network(), x[0], given().parts), atol=1e-9, rtol=0)
    assert float((alone - together).abs().max()) > 1e-4


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"boxes": torch.zeros(2, 2, 5)}, "wrong shape"),
        ({"boxes": torch.zeros(FRAMES, 2, 4)}, "wrong shape"),
        ({"phrases": torch.zeros(FRAMES, 1, 16)}, "wrong shape"),
        ({"boxes": torch.full((FRAMES, 2, 5), 1.5)}, "must be in 0..1"),
        ({"gates": torch.tensor(2.0)}, "must be in 0..1"),
        ({"boxes": torch.zeros(FRAMES, 31, 5), "phrases": torch.zeros(FRAMES, 31, 16)}, "at most 30"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(more, said):
    with pytest.raises(UserError, match=said):
        gated().predict(drawn(1, FRAMES, 4, 6, 10), 500, {"a": given(**more)})


def test_a_network_that_reads_pictures_of_things_is_refused():
    config = {**tiny.UNET2D, "attention_type": "gated-text-image"}
    with pytest.raises(UserError, match="gated-text-image"):
        Inflation.of(config, "frame", None, False)


def saved(folder, unet):
    """In the layout of diffusers."""
    made = tiny.parts(0, torch.float32, "epsilon", 77, image=True)
    options = {key: value for key, value in made.scheduler.items() if not key.startswith("_")}
    StableDiffusionPipeline(
        made.vae, made.text_encoder, made.tokenizer, torch.nn.Module.float(unet),
        DDIMScheduler(**options), None, None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_checkpoint_from_its_files(tmp_path):
    """As GLIGEN's inpainting network lies there."""
    saved(tmp_path, network(5))
    backbone = Inflated2D.load(tmp_path, attention="all", shared_norm=False)
    assert {"boxes", "phrases", "gates", "channels"} <= set(backbone.takes)
    assert backbone.describe()["gated layers"] == "boxes with phrases"
    parts = {**given().parts, "channels": torch.zeros(1, 5, 6, 10), "text": backbone.embed("a car").tokens}
    x = drawn(1, FRAMES, 4, 6, 10).float()
    made = backbone.predict(x, 500, {"a": Given({name: each.float() for name, each in parts.items()})})
    assert made.shape == x.shape and bool(torch.isfinite(made).all())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A network with gated layers, and its twin without."""
    whole = network()
    plain = UNet2DConditionModel(**{**tiny.UNET2D, "in_channels": 4, "out_channels": 4})
    plain.load_state_dict(
        {key: value for key, value in whole.state_dict().items() if key in plain.state_dict()}
    )
    made = tmp_path_factory.mktemp("gated")
    return saved(made / "whole", whole), saved(made / "plain", plain)


def test_gated_layers_of_another_network_are_as_if_they_had_been_there(folders):
    whole, plain = folders
    options = {"attention": "all", "least_channels": 0}
    own, alone = (Inflated2D.load(each, **options) for each in folders)
    lent = Inflated2D.load(plain, gated=whole, **options)
    parts = {name: each.float() for name, each in given().parts.items()} | {"text": own.embed("a car").tokens}
    x = drawn(1, FRAMES, 4, 6, 10).float()
    one, other = (each.predict(x, 500, {"a": Given(parts)}) for each in (own, lent))
    torch.testing.assert_close(other, one, rtol=0, atol=0)
    silent = lent.predict(x, 500, {"a": Given({**parts, "gates": torch.tensor(0.0)})})
    torch.testing.assert_close(silent, alone.predict(x, 500, {"a": Given({"text": parts["text"]})}))
    assert float((silent - other).abs().max()) > 1e-4
    names = {Inflated2D.identify(plain, gated=each) for each in (None, whole)}
    assert len(names) == 2 and lent.identity == Inflated2D.identify(plain, gated=whole, **options)


def test_fresh_gated_layers_change_nothing_and_listen(folders):
    """All that they add is zero, but not what they would learn from."""
    unet = network().float()
    for name in [name for name, _ in unet.named_modules() if name.endswith(gated_weights.LAYER)]:
        unet.get_submodule(name.removesuffix(f".{gated_weights.LAYER}")).fuser = None
    gated_weights.put(unet, gated_weights.build(unet))
    x, text = drawn(1, 4, 6, 10).float(), drawn(1, 5, 16).float()
    boxes = torch.tensor([[[0.1, 0.1, 0.6, 0.6]]])
    told = {"boxes": boxes, "masks": torch.ones(1, 1), "positive_embeddings": drawn(1, 1, 16).float()}
    seen = unet(x, 500, text, cross_attention_kwargs={"gligen": told}).sample
    torch.testing.assert_close(seen, unet(x, 500, text).sample)
    seen.square().sum().backward()
    assert all(
        float(p.grad.abs().max()) > 0
        for n, p in unet.named_parameters()
        if "to_out.0.weight" in n and "fuser" in n
    )


def test_gated_layers_that_do_not_fit_are_refused(folders, tmp_path):
    from safetensors.torch import save_file

    whole, plain = folders
    weights, file = gated_weights.read(whole), tmp_path / "layers.safetensors"
    key = next(key for key in weights if key.endswith("fuser.linear.weight"))
    for wrong, said in (
        (weights | {key: weights[key][:, :3].contiguous()}, "do not fit.*fuser.linear"),
        ({name: each for name, each in weights.items() if name != key}, "no such tensor"),
        (
            weights | {f"up_blocks.9.{gated_weights.LAYER}.linear.weight": weights[key].clone()},
            "no such layer",
        ),
        ({"conv_in.weight": weights[key].clone()}, "no gated layers among"),
    ):
        save_file(wrong, file)
        with pytest.raises(UserError, match=f"(?s){said}"):
            Inflated2D.load(plain, gated=file)
    file.write_bytes(b"no weights")
    for path, layers, said in (
        (plain, file, "could not be read"),
        (plain, tmp_path / "none", "no gated layers here(?s:.*)model.gated=null does without"),
        (whole, whole, "gated layers of its own(?s:.*)add model.gated=null"),
        ("somebody/model", "embedded_boxes", "trained for model=embedded_image"),
    ):
        with pytest.raises(UserError, match=said):
            Inflated2D.load(path, gated=layers)


def test_a_random_network_may_have_gated_layers_or_none():
    with_them, without = (Inflated2D.random(0, gated=each, shared_norm=False) for each in (True, None))
    assert "boxes" in with_them.takes and "boxes" not in without.takes
    assert with_them.identity != without.identity == Inflated2D.random(0, shared_norm=False).identity
    x = drawn(1, FRAMES, 4, 6, 10).float()
    parts = {name: each.float() for name, each in given().parts.items()} | {
        "text": with_them.embed("a car").tokens
    }
    read, not_read = (
        with_them.predict(x, 500, {"a": Given({**parts, "gates": torch.tensor(gate)})}) for gate in (1.0, 0.0)
    )
    assert float((read - not_read).abs().max()) > 1e-3
    with pytest.raises(UserError, match="model.gated=embedded_boxes") as refused:
        Inflated2D.random(0, gated="embedded_boxes")
    assert refused.value.todo == "add model.gated=true"
