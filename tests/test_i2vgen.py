"""An image-to-video network behind the door: the library's own forward, its layers, what it is given of a picture."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
from diffusers.pipelines.deprecated.i2vgen_xl.pipeline_i2vgen_xl import _center_crop_wide, _resize_bilinear
from einops import rearrange
from PIL import Image
from transformers import CLIPImageProcessor, CLIPTextModel
from transformers.models.clip.modeling_clip import CLIPVisionModelOutput

from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.attention.math import attend
from freemask.backbones import tiny
from freemask.backbones.i2vgen import I2VGen
from freemask.backbones.pictures import ImageReader
from freemask.backbones.text import TextReader
from freemask.backbones.unet import placed
from freemask.diffusion.guidance import cfg, given_to, guided
from freemask.errors import UserError
from freemask.types import Backbone, Clip, EditTask, Given, Taps

FRAMES, SIZE = 3, (10, 6)
CONFIG = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16, 16),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@cache
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = I2VGenXLUNet(**CONFIG)
        for name, weight in unet.named_parameters():
            if name.endswith("conv4.3.weight"):  # zero at birth, it would hide the layers along frames
                torch.nn.init.normal_(weight, std=0.05)
    return torch.nn.Module.double(unet).eval()


@pytest.fixture(scope="module")
def backbone():
    made = replace(tiny.parts(0, torch.float64, "v_prediction", 20), unet=I2VGenXLUNet(**CONFIG).double())
    made.unet.load_state_dict(network().state_dict())
    return I2VGen(placed(made, "cpu"), name="tiny")


def conditions():
    return {
        name: Given(
            {
                "text": drawn(20, 16, seed=seed),
                "image": drawn(16, seed=seed + 10),
                "image_latents": drawn(4, *SIZE, seed=seed + 20),
                "fps": torch.tensor(8 + seed),
            }
        )
        for seed, name in enumerate(("source", "cond"))
    }


@torch.no_grad()
def by_the_library(x, given):
    out = []
    for clip, each in zip(x, given.values(), strict=True):
        parts = each.parts
        picture = torch.empty(1, 4, FRAMES, *SIZE, dtype=torch.float64)
        picture[0, :, 0], picture[0, :, 1], picture[0, :, 2] = parts["image_latents"], 1 / 2, 2 / 2
        made = network()(
            rearrange(clip, "f c h w -> 1 c f h w"),
            500,
            fps=parts["fps"][None],
            image_latents=picture,
            image_embeddings=parts["image"][None, None],
            encoder_hidden_states=parts["text"][None],
        ).sample[0]
        out.append(rearrange(made, "c f h w -> f c h w"))
    return torch.stack(out)


def latents():
    return drawn(2, FRAMES, 4, *SIZE, seed=1)


def close(ours, theirs, atol=1e-12):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def apart(ours, theirs):
    return float((ours - theirs).abs().max()) > 1e-4


def test_it_is_the_librarys_network(backbone):
    x, given = latents(), conditions()
    theirs = by_the_library(x, given)
    close(backbone.predict(x, 500, given), theirs)
    assert isinstance(backbone, Backbone) and set(backbone.takes) == set(given["cond"].parts)
    for name, value in given["cond"].parts.items():
        changed = {**given, "cond": given["cond"].plus(**{name: value * 2})}
        out = backbone.predict(x, 500, changed)
        close(out[0], theirs[0])
        assert float((out[1] - theirs[1]).abs().max()) > 1e-7, name


def test_taps_see_every_layer_in_order(backbone):
    x, given = latents(), conditions()
    seen, places = [], []

    def look(where, qkv):
        grid, side = where.grid, where.site.stride
        assert (grid.height, grid.width) == tuple(-(-each // side) for each in SIZE)
        rows = {"f": grid.frames, "(h w)": grid.height * grid.width}
        assert qkv.q.shape[:2] == (2, rows[where.site.batch]) and qkv.q.shape[3] == rows[where.site.tokens]
        if where.site.role == "cross":
            assert qkv.k.shape[3] == 20 + 64 + 4  # the text, the picture's latent, its embedding
        seen.append(where.site.name)
        return attend(qkv)

    def features(where, maps):
        assert tuple(maps.shape[3:]) == where.grid[1:]
        places.append(where.site.name)
        return maps

    taps = Taps(look, dict.fromkeys(backbone.features, features))
    close(backbone.predict(x, 500, given, taps=taps), by_the_library(x, given))
    assert seen == list(backbone.sites) and set(places) == set(backbone.features)
    assert seen[:3] == [
        "image_latents_temporal_encoder.attn1",
        *(f"transformer_in.transformer_blocks.0.attn{i}" for i in (1, 2)),
    ]
    roles = [(site.role, site.nth) for site in backbone.sites.values()]
    count = {each: roles.count(each) for each in set(roles)}
    assert count == {("self", 0): 16, ("cross", 0): 16, ("temporal", 0): 18, ("temporal", 1): 17}


@pytest.mark.parametrize("nth", [0, 1])
def test_the_two_temporal_layers_of_a_block_are_told_apart(backbone, nth):
    """Queries and keys of the source in one of them: the library's network with its projections overwritten."""
    x, given = latents(), conditions()
    block = "up_blocks.2.temp_attentions.1.transformer_blocks.0"

    def inject(where, qkv):
        site = where.site
        if site.role == "temporal" and site.name.startswith(block) and site.nth == nth:
            q, k = (each[:1].expand_as(each) for each in (qkv.q, qkv.k))
            qkv = replace(qkv, q=q, k=k)
        return attend(qkv)

    ours = backbone.predict(x, 500, given, taps=Taps(inject))
    kept, hooks = {}, []
    layer = network().get_submodule(f"{block}.attn{nth + 1}")
    for key in ("to_q", "to_k"):  # the source runs first, and the other stream gets its answers
        hooks.append(
            layer.get_submodule(key).register_forward_hook(
                lambda module, args, out, key=key: kept.setdefault(key, out)
            )
        )
    theirs = by_the_library(x, given)
    for hook in hooks:
        hook.remove()
    close(ours, theirs)
    assert apart(ours[1], by_the_library(x, given)[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": None}, "must be given 'image'"),
        ({"fps": None}, "must be given 'fps'"),
        ({"fps": torch.tensor([8])}, "'fps' has the wrong shape"),
        ({"image": drawn(1, 16)}, "'image' has the wrong shape"),
        ({"image_latents": drawn(FRAMES, 4, *SIZE)}, "'image_latents' has the wrong shape"),
        ({"text": drawn(FRAMES, 20, 16)}, "'text' has the wrong shape"),
        ({"channels": drawn(1, 4, *SIZE)}, "cannot be given 'channels'"),
    ],
)
def test_what_does_not_fit_is_refused(backbone, change, said):
    given = conditions()
    parts = {**given["cond"].parts, **change}
    given["cond"] = Given({name: value for name, value in parts.items() if value is not None})
    with pytest.raises(UserError, match=said):
        backbone.predict(latents(), 500, given)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (33, 71), (90, 51), (40, 43), (128, 192)])
def test_the_image_encoder_is_shown_what_the_library_shows_it(height, width):
    """The library's own cropping, and its feature extractor."""
    bytes_ = (drawn(3, height, width).sigmoid() * 255).round()
    image = Image.fromarray(bytes_.byte().permute(1, 2, 0).numpy())
    cropped = _resize_bilinear(_center_crop_wide(image, (width, width)), (24, 16))
    extractor = CLIPImageProcessor(crop_size={"height": 16, "width": 24})
    theirs = extractor(
        images=torch.from_numpy(np.array(cropped)).permute(2, 0, 1) / 255,
        do_center_crop=False,
        do_resize=False,
        do_rescale=False,
        return_tensors="pt",
    ).pixel_values
    seen = []
    reader = ImageReader(Encoder(seen), vars(extractor))
    reader((bytes_ / 255).float())
    close(seen[0], theirs, atol=1e-6)


class Encoder(torch.nn.Module):
    """Tells what it is shown."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, images):
        self.seen.append(images)
        return CLIPVisionModelOutput(image_embeds=images.flatten(1))


def test_the_clips_own_first_frame_is_given_unless_somebody_gives_another():
    made = I2VGen.random(max_tokens=20)
    frames = torch.rand(3, 3, 20, 12, generator=torch.Generator().manual_seed(0))
    clip, text = Clip("c", frames, fps=5.0), made.embed("a red car")
    own = given_to(made, clip, text).parts
    close(own["image_latents"], made.encode(frames)[0], atol=1e-5)
    assert bool(own["image"].any()) and float(own["fps"]) == 5.0
    away = given_to(made, clip, made.embed(""), away=True).parts
    assert not bool(away["image"].any()) and torch.equal(away["image_latents"], own["image_latents"])
    other = replace(clip, conditions={"fps": torch.tensor(3), "image": torch.ones(16), "control": frames})
    known = given_to(made, other, text).parts
    assert float(known["fps"]) == 3 and bool((known["image"] == 1).all()) and "control" not in known
    x = made.encode(frames)
    by_hand = made.predict(x.expand(2, *x.shape), 500, {"uncond": Given(away), "cond": Given(own)})
    close(guided(made, given_to(made, clip, text), 2.0)(x, 500), cfg(*by_hand, 2.0), atol=1e-5)
    blind = I2VGen(placed(tiny.parts(0, torch.float32, "epsilon", 20, animated=True), "cpu"), name="blind")
    assert not bool(blind.seen(Clip("c", frames))["image"].any())


@pytest.mark.parametrize("name", ["ddim", "freemask", "reconstruct", "sdedit", "dmt"])
def test_methods_that_know_nothing_of_pictures_run_on_it(name):
    words = [f"method={name}", "model=random_i2v", "mask=average", "method.steps=2"]
    words += ["method.inversion_steps=2", "method.updates=1"] if name == "dmt" else []
    words += ["paths.inversions=null"] if name not in ("sdedit", "reconstruct") else []
    method = build(plain(config_of("edit", words))["method"], "method")
    backbone = I2VGen.random(max_tokens=20)
    clip = Clip("c", torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(0)))
    task = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
    edit = method(backbone, clip, task, torch.Generator().manual_seed(0))
    assert edit.frames.shape == clip.frames.shape


def test_text_is_of_the_last_layer_but_one():
    made = tiny.parts(0, torch.float64, "epsilon", 20)
    whole = made.text_encoder
    config = type(whole.config)(**{**whole.config.to_dict(), "num_hidden_layers": 1})
    shorter = torch.nn.Module.double(CLIPTextModel(config))
    shorter.load_state_dict(whole.state_dict(), strict=False)
    skipping = TextReader(made.tokenizer, whole, skip=1)("a red car")
    close(skipping.tokens, TextReader(made.tokenizer, shorter)("a red car").tokens)
    assert apart(skipping.tokens, TextReader(made.tokenizer, whole)("a red car").tokens)


def test_from_a_folder(backbone, tmp_path):
    made = replace(tiny.parts(0, torch.float64, "v_prediction", 20), unet=network())
    for name in ("unet", "vae", "text_encoder", "tokenizer"):
        getattr(made, name).save_pretrained(tmp_path / name)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(made.scheduler))
    kinds = {"unet": "I2VGenXLUNet", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
    index = {name: ["library", kind] for name, kind in (kinds | {"tokenizer": "CLIPTokenizer"}).items()}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    loaded = I2VGen.load(tmp_path, dtype="float64")
    x, given = latents(), conditions()
    close(loaded.predict(x, 500, given), backbone.predict(x, 500, given), atol=0)
    assert loaded.noise_path.prediction == "v_prediction"
    assert apart(loaded.embed("a red car").tokens, backbone.embed("a red car").tokens)
    whole = I2VGen.load(tmp_path, dtype="float64", text_skip=0, scheduler={"prediction_type": "epsilon"})
    close(whole.embed("a red car").tokens, backbone.embed("a red car").tokens)
    assert loaded.identity == I2VGen.identify(tmp_path) != whole.identity
    assert whole.identity == I2VGen.identify(tmp_path, text_skip=0)
    assert whole.noise_path.prediction == "v_prediction" and not loaded.noise_path.warnings
    assert "prediction_type v_prediction (known: epsilon)" in whole.noise_path.warnings[0]
