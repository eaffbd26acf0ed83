"""Gated layers (GLIGEN): against the library's own call, shut and half open, files, refusals."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from freemask.attention.math import attend
from freemask.attention.rewire import by_themselves
from freemask.backbones import tiny
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


def test_a_checkpoint_from_its_files(tmp_path):
    """In the layout of diffusers, as GLIGEN's inpainting network lies there."""
    made = tiny.parts(0, torch.float32, "epsilon", 77, image=True)
    options = {key: value for key, value in made.scheduler.items() if not key.startswith("_")}
    StableDiffusionPipeline(
        made.vae, made.text_encoder, made.tokenizer, torch.nn.Module.float(network(5)),
        DDIMScheduler(**options), None, None, requires_safety_checker=False,
    ).save_pretrained(tmp_path)  # fmt: skip
    backbone = Inflated2D.load(tmp_path, attention="all", shared_norm=False)
    assert {"boxes", "phrases", "gates", "channels"} <= set(backbone.takes)
    assert backbone.describe()["gated layers"] == "boxes with phrases"
    parts = {**given().parts, "channels": torch.zeros(1, 5, 6, 10), "text": backbone.embed("a car").tokens}
    x = drawn(1, FRAMES, 4, 6, 10).float()
    made = backbone.predict(x, 500, {"a": Given({name: each.float() for name, each in parts.items()})})
    assert made.shape == x.shape and bool(torch.isfinite(made).all())
