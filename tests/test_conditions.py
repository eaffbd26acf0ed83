"""What a stream is conditioned on besides one text: more input channels, and a text for every frame."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from einops import rearrange

from freemask.attention.math import attend
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.inflation import Inflation
from freemask.backbones.unet import placed
from freemask.backbones.unet3d import UNet3D
from freemask.diffusion.inversions import Inversions
from freemask.errors import UserError
from freemask.types import Given, Taps

FRAMES, SIZE = 3, (10, 6)
IMAGE = [True, False]  # an image network over frames, or a video network


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(image, more=0):
    torch.manual_seed(more)
    channels = {"in_channels": 4 + more, "out_channels": 4}
    unet = (
        UNet2DConditionModel(**{**tiny.UNET2D, **channels})
        if image
        else UNet3DConditionModel(**{**tiny.UNET, **channels})
    )
    for name, weight in unet.named_parameters():
        if name.endswith("conv4.3.weight"):  # zero at birth, it would hide the layers along frames
            torch.nn.init.normal_(weight, std=0.05)
    return torch.nn.Module.double(unet).eval()


@cache
def backbone_of(image, more=0):
    made = replace(tiny.parts(0, torch.float64, "epsilon", 20, image=image), unet=network(image, more))
    if not image:
        return UNet3D(placed(made, "cpu"), name="tiny")
    return Inflated2D(placed(made, "cpu"), Inflation.of(made.unet.config, "frame", None, False), name="tiny")


@torch.no_grad()
def by_the_library(image, unet, x, text):
    """One clip: its frames as pictures of a batch, or as a clip. `text` is one for all frames."""
    if image:
        return unet(x, 500, text.expand(len(x), -1, -1)).sample
    return rearrange(
        unet(rearrange(x, "f c h w -> 1 c f h w"), 500, text[None]).sample[0], "c f h w -> f c h w"
    )


def close(ours, theirs, atol=1e-12):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def apart(ours, theirs):
    return float((ours - theirs).abs().max()) > 1e-3


@pytest.mark.parametrize("image", IMAGE)
@pytest.mark.parametrize("more", [1, 5])  # depth; a mask and what is left of the picture
def test_more_input_channels_equal_the_librarys_own_forward(image, more):
    backbone, unet = backbone_of(image, more), network(image, more)
    x, texts = drawn(2, FRAMES, 4, *SIZE, seed=1), drawn(2, 20, 16)
    each, one = drawn(FRAMES, more, *SIZE, seed=2), drawn(1, more, *SIZE, seed=3)
    given = {
        "source": Given({"text": texts[0], "channels": each}),
        "cond": Given({"text": texts[1], "channels": one}),
    }
    out = backbone.predict(x, 500, given)
    repeated = one.repeat(FRAMES, 1, 1, 1)
    for place, channels in enumerate((each, repeated)):
        seen = torch.cat([x[place], channels], dim=1)
        close(out[place], by_the_library(image, unet, seen, texts[place]))
    given["cond"] = given["cond"].plus(channels=each)
    assert apart(backbone.predict(x, 500, given)[1], out[1])
    assert "channels" in backbone.takes and "channels" not in backbone_of(image).takes


@pytest.mark.parametrize("image", IMAGE)
@pytest.mark.parametrize(
    ("channels", "said"),
    [
        (None, "must be given 'channels'"),
        ((FRAMES, 4, *SIZE), "'channels' has the wrong shape"),
        ((FRAMES - 1, 5, *SIZE), "2 x 5 x 10 x 6"),
        ((FRAMES, 5, SIZE[0], SIZE[1] + 1), "3 x 5 x 10 x 7"),
        ((5, *SIZE), "frames, channels, height, width"),
    ],
)
def test_channels_that_do_not_fit_are_refused(image, channels, said):
    given = Given({"text": drawn(20, 16)})
    given = given if channels is None else given.plus(channels=drawn(*channels))
    with pytest.raises(UserError, match=said):
        backbone_of(image, 5).predict(drawn(1, FRAMES, 4, *SIZE), 500, {"cond": given})
    if channels is not None:
        with pytest.raises(UserError, match="cannot be given 'channels'"):
            backbone_of(image).predict(drawn(1, FRAMES, 4, *SIZE), 500, {"cond": given})


def test_inversions_under_different_channels_are_kept_apart(tmp_path):
    backbone, store = backbone_of(True, 1), Inversions(tmp_path)
    x, text = drawn(FRAMES, 4, *SIZE), drawn(20, 16)
    depth = [drawn(FRAMES, 1, *SIZE, seed=seed) for seed in (0, 1)]
    first, other = (store.invert(backbone, x, Given({"text": text, "channels": each}), 2) for each in depth)
    again = store.invert(backbone, x, Given({"channels": depth[0].clone(), "text": text.clone()}), 2)
    assert (first.passes, other.passes, again.passes) == (2, 2, 0)
    assert apart(first.latents[-1], other.latents[-1])
    close(again.latents[-1], first.latents[-1], atol=0)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    named = [Given({"text": text, name: depth[0]}) for name in ("channels", "control")]
    assert named[0].digest != named[1].digest == Given({"text": text, "control": depth[0] + 0}).digest


def test_a_text_for_every_frame_is_a_call_for_every_frame():
    backbone = backbone_of(True)
    x, texts = drawn(2, FRAMES, 4, *SIZE, seed=1), drawn(FRAMES, 20, 16)
    given = {"uncond": Given({"text": texts[1]}), "cond": Given({"text": texts})}
    out = backbone.predict(x, 500, given)
    for f in range(FRAMES):
        alone = {name: Given({"text": each}) for name, each in zip(given, (texts[1], texts[f]), strict=True)}
        close(out[:, f, None], backbone.predict(x[:, f, None], 500, alone))
    assert apart(out[1], backbone.predict(x, 500, {**given, "cond": given["uncond"]})[1])


def test_the_text_layers_of_a_video_network_read_the_text_of_their_frame():
    """The library repeats one text for all frames: here each text layer is handed the frames' own."""
    backbone, unet = backbone_of(False), network(False)
    x, texts = drawn(2, FRAMES, 4, *SIZE, seed=1), drawn(FRAMES, 20, 16)
    given = {"uncond": Given({"text": texts[2]}), "cond": Given({"text": texts})}
    seen = {}

    def look(where, qkv):
        if where.site.role == "cross":
            seen[where.site.name] = qkv.k
        return attend(qkv)

    out = backbone.predict(x, 500, given, taps=Taps(look))
    close(backbone.predict(x, 500, given), out)
    read = torch.stack([texts[2].expand(FRAMES, -1, -1), texts])
    layers = [name for name, site in backbone.sites.items() if site.role == "cross"]
    assert list(seen) == layers and len(layers) == 16
    for name, keys in seen.items():
        layer = unet.get_submodule(name)
        expected = rearrange(read @ layer.to_k.weight.T, "s f l (n d) -> s f n l d", n=layer.heads)
        close(keys, expected.detach())
    for name in layers:
        unet.get_submodule(name).register_forward_pre_hook(
            lambda module, args, named: (args, {**named, "encoder_hidden_states": texts}), with_kwargs=True
        )
    close(out[1], by_the_library(False, unet, x[1], texts[0]))
    close(out[0], by_the_library(False, network(False), x[0], texts[2]))


@pytest.mark.parametrize("image", IMAGE)
@pytest.mark.parametrize("shape", [(FRAMES - 1, 20, 16), (20, 12), (16,)])
def test_texts_that_do_not_fit_are_refused(image, shape):
    given = {"a": Given({"text": drawn(20, 16)}), "b": Given({"text": drawn(*shape)})}
    with pytest.raises(UserError, match="'text' has the wrong shape"):
        backbone_of(image).predict(drawn(2, FRAMES, 4, *SIZE), 500, given)


def test_texts_of_different_length_do_not_fit_together():
    given = {"a": Given({"text": drawn(20, 16)}), "b": Given({"text": drawn(19, 16)})}
    with pytest.raises(UserError, match="does not fit together"):
        backbone_of(True).predict(drawn(2, FRAMES, 4, *SIZE), 500, given)
