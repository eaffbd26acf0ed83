"""Models of published shape with random weights: no file, the right sizes, and every code path of an edit."""

import json

import pytest
import torch
import yaml
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, TextToVideoSDPipeline, WanPipeline

from experiments.cli.app import main
from experiments.config.choices import content, group
from experiments.config.identity import backbone_identity
from freemask.backbones import checkpoint, tiny, tiny_hunyuan, tiny_wan, weightless
from freemask.backbones.hunyuan import Hunyuan
from freemask.backbones.i2vgen import I2VGen
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.lavie import LaVie
from freemask.backbones.unet3d import UNet3D
from freemask.backbones.wan import Wan
from freemask.backbones.weightless import SHAPES, Weightless, filled, published
from freemask.data.world.source import World
from freemask.errors import UserError
from freemask.methods.ddim import Ddim

CPU, META = torch.device("cpu"), torch.device("meta")
VIDEO, IMAGE, FLOW, ANIMATED, JOINT = (
    "cerspense/zeroscope_v2_576w",
    "CompVis/stable-diffusion-v1-4",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "ali-vilab/i2vgen-xl",
    "hunyuanvideo-community/HunyuanVideo",
)
LAVIE = "YaohuiW/LaVie"
# Millions of parameters, as they were published or counted from the files.
MILLIONS = {
    "zeroscope": {"unet": 1411.2, "vae": 83.65, "text_encoder": 340.4},
    "modelscope": {"unet": 1411.2, "vae": 83.65, "text_encoder": 340.4},
    "sd14": {"unet": 859.5, "vae": 83.65, "text_encoder": 123.1},
    "sd15": {"unet": 859.5, "vae": 83.65, "text_encoder": 123.1},
    "instruct_pix2pix": {"unet": 859.5, "vae": 83.65, "text_encoder": 123.1},
    "sd2_depth": {"unet": 865.9, "vae": 83.65, "text_encoder": 340.4},
    "wan": {"transformer": 1419, "vae": 126.9, "text_encoder": 5681},
    "wan_14b": {"transformer": 14288, "vae": 126.9, "text_encoder": 5681},
    "cogvideox_2b": {"transformer": 1694, "vae": 215.6, "text_encoder": 4762},
    "cogvideox_5b": {"transformer": 5570, "vae": 215.6, "text_encoder": 4762},
    "wan22_5b": {"transformer": 5000, "vae": 704.7, "text_encoder": 5681},
    "wan22_a14b": {"transformer": 14288, "transformer_2": 14288, "vae": 126.9, "text_encoder": 5681},
    "hunyuanvideo": {"transformer": 12821, "vae": 246.5, "text_encoder": 7505, "text_encoder_2": 123.1},
    "hunyuanvideo15": {"transformer": 8327, "vae": 1261, "text_encoder": 7071},
    "i2vgen_xl": {"unet": 1420, "vae": 83.65, "text_encoder": 353, "image_encoder": 632.1},
    # That of the network is Stable Diffusion 1.4's and 49.6 of sixteen layers along frames, four matrices each.
    "lavie": {"unet": 859.5 + 49.6, "vae": 83.65, "text_encoder": 123.1},
    "ltx": {"transformer": 1923, "vae": 419.2, "text_encoder": 4762},
}


def encoder(kind, size):
    own = (
        {"vocab_size": 1000, "max_position_embeddings": 77}
        if kind == "CLIPTextModel"
        else {"vocab_size": 100}
    )
    return {"_class_name": kind, **own, **size}


T5 = {**tiny_wan.TEXT, "feed_forward_proj": "gated-gelu"}
CLIP = {
    "text_encoder": encoder("CLIPTextModel", tiny.TEXT),
    "tokenizer": {"_class_name": "CLIPTokenizer", "model_max_length": 77},
}
KL = {"vae": {"_class_name": "AutoencoderKL", **tiny.VAE}, "scheduler": tiny._scheduler("epsilon")}
TINY = {
    VIDEO: {"unet": {"_class_name": "UNet3DConditionModel", **tiny.UNET}, **CLIP, **KL},
    IMAGE: {"unet": {"_class_name": "UNet2DConditionModel", **tiny.UNET2D}, **CLIP, **KL},
    LAVIE: {"unet": {"_class_name": "LaVieUNet", **tiny.UNET2D}, **CLIP, **KL},
    FLOW: {
        "transformer": {"_class_name": "WanTransformer3DModel", **tiny_wan.NETWORK},
        "vae": {"_class_name": "AutoencoderKLWan", **tiny_wan.VAE},
        "text_encoder": encoder("UMT5EncoderModel", T5),
        "tokenizer": {"_class_name": "T5Tokenizer", "model_max_length": 64},
        "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    },
    ANIMATED: {
        "unet": {"_class_name": "I2VGenXLUNet", **tiny.UNET2D},
        "image_encoder": {"_class_name": "CLIPVisionModelWithProjection", **tiny.VISION},
        "feature_extractor": {"_class_name": "CLIPImageProcessor", **tiny.SEEN},
        **CLIP,
        **KL,
    },
    JOINT: {
        "transformer": {"_class_name": "HunyuanVideoTransformer3DModel", **tiny_hunyuan.NETWORK},
        "vae": {"_class_name": "AutoencoderKLHunyuanVideo", **tiny_hunyuan.VAE},
        "text_encoder": {"_class_name": "LlamaModel", "vocab_size": 2000, **tiny_hunyuan.LANGUAGE},
        "tokenizer": {"_class_name": "LlamaTokenizerFast", "model_max_length": 400},
        **{f"{name}_2": part for name, part in CLIP.items()},
        "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 7.0},
    },
}
LOADS = {
    VIDEO: UNet3D.load,
    IMAGE: Inflated2D.load,
    LAVIE: LaVie.load,
    FLOW: Wan.load,
    ANIMATED: I2VGen.load,
    JOINT: Hunyuan.load,
}


@pytest.fixture(scope="module", autouse=True)
def no_network():
    """Nothing here may ask for a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_download", lambda *_: pytest.fail("the hub was asked"))
        yield


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """The same code over tiny shapes."""
    for place, (hub, parts) in enumerate(TINY.items()):
        plain = json.loads(json.dumps({"hub": hub, "source": "a test", **parts}))
        (tmp_path / f"{place}.yaml").write_text(yaml.safe_dump(plain))
    monkeypatch.setattr(weightless, "SHAPES", tmp_path)
    return tmp_path


def count(files, part):
    return sum(each.numel() for each in files.part(part, (), torch.float16, META).parameters()) / 1e6


@pytest.mark.parametrize("name", MILLIONS)
def test_the_shapes_have_as_many_parameters_as_the_published_models(name):
    """On tensors without memory."""
    files = published(content("model", name)["path"])
    assert {part: count(files, part) for part in MILLIONS[name]} == pytest.approx(MILLIONS[name], rel=1e-3)


def test_every_model_with_the_setting_has_a_shape_and_every_shape_a_model():
    models = {each.name: content("model", each.name) for each in group("model")}
    with_setting = {name for name, said in models.items() if "weights" in said}
    assert with_setting == set(MILLIONS) == {each.stem for each in SHAPES.glob("*.yaml")}
    for file in SHAPES.glob("*.yaml"):
        said = yaml.safe_load(file.read_text())
        assert said["hub"] == models[file.stem]["path"] and "not compared with the files" in said["source"]


@pytest.mark.parametrize("hub", TINY)
def test_an_edit_runs_without_any_file(hub, shapes):
    backbone, data = LOADS[hub](hub, dtype="bfloat16", weights="random"), World(clips=1)
    task = data.tasks()[0]
    edit = Ddim(steps=2)(backbone, data.clip(task), task, torch.Generator().manual_seed(0))
    assert edit.frames.isfinite().all() and edit.frames.std() > 0
    assert backbone.identity.startswith("random-")


@pytest.mark.parametrize("hub", TINY)
def test_the_identity_is_known_before_and_tells_shapes_apart(hub, shapes):
    load = LOADS[hub]
    target = f"{load.__self__.__module__}.{load.__self__.__name__}.load"
    model = {"_target_": target, "path": hub, "weights": "random"}
    before = backbone_identity(model)
    assert before == LOADS[hub](hub, weights="random").identity
    file = shapes / f"{list(TINY).index(hub)}.yaml"
    said = yaml.safe_load(file.read_text())
    said["vae"]["scaling_factor" if "scaling_factor" in said["vae"] else "latents_mean"] = (
        0.25 if "scaling_factor" in said["vae"] else [0.0] * 4
    )
    file.write_text(yaml.safe_dump(said))
    assert backbone_identity(model) != before


def test_weights_are_the_same_each_time_and_no_two_are_alike(shapes):
    first, second = (dict(UNet3D.load(VIDEO, weights="random").unet.named_parameters()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    wide = [each.flatten()[:64] for each in first.values() if each.ndim > 1 and each.numel() >= 64]
    assert len({tuple(each.tolist()) for each in wide}) == len(wide)
    assert all((first[name] == 1).all() for name in first if name.endswith("norm1.weight"))
    assert all((first[name] == 0).all() for name in first if name.endswith("bias"))


def test_numbers_repeat_after_a_prime_number_of_them(monkeypatch):
    """A layer larger than what is drawn: whole rows never are the same."""
    monkeypatch.setattr(weightless, "BLOCK", 101)
    layer = filled(lambda: torch.nn.Linear(10, 40), torch.float32, CPU)
    flat = layer.weight.flatten()
    assert torch.equal(flat[:101], flat[101:202]) and torch.equal(flat[303:], flat[:97])
    assert len({tuple(row.tolist()) for row in layer.weight}) == 40
    drawn = torch.randn(101, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flat[:101], drawn * 30**-0.5)


def video(folder):
    made = tiny.parts(0, torch.float32, "epsilon", 77)
    pipe = TextToVideoSDPipeline(
        vae=made.vae,
        text_encoder=made.text_encoder,
        tokenizer=made.tokenizer,
        unet=made.unet,
        scheduler=DDIMScheduler(),
    )
    pipe.save_pretrained(folder)


def flow(folder):
    made = tiny_wan.parts(0, torch.float32, 32, (1, 2, 2))
    WanPipeline(
        made.tokenizer, made.text_encoder, made.vae, FlowMatchEulerDiscreteScheduler(), made.transformer
    ).save_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("save", [video, flow])
def test_parts_are_as_those_that_are_read_from_files(save, dtype, tmp_path):
    """The same names, sizes and precisions, also of what a class keeps in single precision; the same buffers."""
    save(tmp_path)
    files = checkpoint.find(tmp_path)
    parts = {
        name: {"_class_name": kind, **files.config(name)}
        for name, kind in files.classes.items()
        if name in ("unet", "transformer", "vae", "text_encoder")
    }
    ours = Weightless(tmp_path, files.classes, parts=parts)
    for name in parts:
        theirs, made = files.part(name, (), dtype), ours.part(name, (), dtype)
        expected, got = theirs.state_dict(), made.state_dict()
        assert {key: (each.shape, each.dtype) for key, each in got.items()} == {
            key: (each.shape, each.dtype) for key, each in expected.items()
        }
        kept = dict(theirs.named_buffers())
        for key, each in made.named_buffers():
            assert each.dtype == kept[key].dtype and torch.equal(each, kept[key]), key
        assert all(each.isfinite().all() for each in made.parameters())


def test_what_has_no_shape_is_refused_with_those_that_have_one():
    with pytest.raises(UserError, match="cerspense/zeroscope_v2_576w"):
        UNet3D.load("nobody/nothing", weights="random")
    with pytest.raises(UserError, match="null or random"):
        weightless.find(VIDEO, weights="zeros")


def test_an_edit_by_the_command_says_that_its_picture_means_nothing(shapes, tmp_path, capsys):
    words = [
        "model=zeroscope",
        "model.weights=random",
        "model.device=cpu",
        "model.dtype=float32",
        "metric=pixels",
        "method.steps=2",
    ]
    assert main(["edit", *words, "mask=agreement", f"out={tmp_path}/out", f"paths.runs={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "zeroscope (weights random)" in said and "the picture means nothing" in said


def test_a_word_that_is_no_kind_of_weights_is_refused_by_the_command(capsys):
    assert main(["edit", "model=zeroscope", "model.weights=randon"]) == 2
    said = capsys.readouterr().err
    assert "model.weights" in said and "random" in said
