"""LaVie: its network against one written out, its published file read as it is, taps on its layers along frames."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from experiments.cli.app import main
from experiments.config.build import build
from experiments.config.compose import config_of, plain
from experiments.config.identity import backbone_identity
from experiments.doctor.weights import of
from freemask.attention.math import attend
from freemask.backbones import checkpoint, inflate_weights, lavie_unet, tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.lavie import LaVie
from freemask.errors import UserError
from freemask.types import Backbone, Clip, EditTask, OpticalFlow, Taps
from tests.given import given
from tests.test_methods import state
from tests.written_lavie import Written, drawn

WIDTHS, BOTH = (64, 64, 72, 72), ("uncond", "cond")  # heads of 32 and 36 channels, of which 32 turn
CONFIG = {**tiny.UNET2D, "block_out_channels": WIDTHS}
TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")


@pytest.fixture(scope="module")
def weights():
    return drawn(WIDTHS, 16)


@pytest.fixture(scope="module")
def image_model(tmp_path_factory):
    """As Stable Diffusion 1.4's folder, but without the weights of its own network, which nobody reads."""
    folder = tmp_path_factory.mktemp("sd14")
    made = tiny.parts(0, torch.float32, "epsilon", 20, image=True)
    for name in ("vae", "text_encoder", "tokenizer"):
        getattr(made, name).save_pretrained(folder / name)
    for name, said in {
        "unet/config.json": {"_class_name": "UNet2DConditionModel", **CONFIG},
        "scheduler/scheduler_config.json": {**made.scheduler, "beta_end": 0.5},
        "model_index.json": {
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
        },
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def safe(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lavie")
    save_file(weights, folder / "lavie_base.safetensors")
    return folder


@pytest.fixture(scope="module")
def backbone(safe, image_model):
    return LaVie.load(safe, image_model=image_model, dtype="float64")


def inputs(frames=3, size=(4, 6), streams=2):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(streams, frames, 4, *size, generator=rng, dtype=torch.float64)
    return x, torch.randn(streams, 20, 16, generator=rng, dtype=torch.float64)


def close(ours, theirs, atol=1e-9):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize(("frames", "size"), [(18, (4, 6)), (3, (5, 3)), (1, (8, 8))])
def test_it_is_the_network_written_out(backbone, weights, frames, size):
    """More frames than distances of their own; odd sides; heads wider than what turns. Numbers are of the size 1."""
    x, text = inputs(frames, size)
    written = Written(weights, WIDTHS)
    expected = torch.stack([written(clip, 500, words) for clip, words in zip(x, text, strict=True)])
    close(backbone.predict(x, 500, given(text, BOTH)), expected)
    through = backbone.predict(x, 500, given(text, BOTH), taps=Taps(lambda _, qkv: attend(qkv)))
    close(through, expected)


def test_its_layers_and_what_taps_see_of_them(backbone):
    x, text = inputs(5, (5, 3))
    seen = []

    def look(where, qkv):
        site, (frames, height, width) = where.site, where.grid
        rows, tokens = (height * width, frames) if site.role == "temporal" else (frames, height * width)
        assert qkv.q.shape[:2] == (2, rows) and qkv.q.shape[3] == tokens
        assert (
            site.role != "temporal" or qkv.k.shape[-1] == qkv.v.shape[-1] + frames
        )  # what tells frames apart
        seen.append((site.name.rpartition(".")[2], site.role))
        return attend(qkv)

    backbone.predict(x, 500, given(text, BOTH), taps=Taps(look))
    assert seen == [("attn1", "self"), ("attn2", "cross"), ("attn_temporal", "temporal")] * 16
    assert isinstance(backbone, Backbone) and len(backbone.sites) == len(seen)
    assert set(backbone.sites) == {name.removesuffix(".processor") for name in backbone.unet.attn_processors}


def test_queries_and_keys_of_another_stream_bring_its_attention_along(backbone):
    """Positions are in what a tap sees: the attention of the one clip on the values of the other."""
    x, text = inputs(4)
    maps = {}

    def lend(where, qkv):
        if where.site.role != "temporal":
            return attend(qkv)
        own = qkv.stream(0)
        values = torch.eye(4, dtype=qkv.v.dtype).expand(*own.v.shape[:-1], 4)
        maps[where.site.name] = attend(replace(own, v=values))
        lent = attend(replace(qkv, q=qkv.q[:1].expand_as(qkv.q), k=qkv.k[:1].expand_as(qkv.k)))
        close(lent[1], maps[where.site.name][0] @ qkv.v[1])
        return lent

    lent = backbone.predict(x, 500, given(text, BOTH), taps=Taps(lend))
    plain = backbone.predict(x, 500, given(text, BOTH))
    close(lent[0], plain[0])
    assert len(maps) == 16 and float((lent[1] - plain[1]).abs().max()) > 1e-3


def test_the_file_is_read_by_its_own_names_pickled_only_where_it_is_trusted(
    weights, image_model, backbone, tmp_path
):
    for inside in (weights, {"ema": weights}):
        torch.save(inside, tmp_path / "lavie_base.pt")
        for path in (tmp_path, tmp_path / "lavie_base.pt"):
            with pytest.raises(UserError, match=r"pickled(.|\n)*model.allow_pickle=true"):
                LaVie.load(path, image_model=image_model)
            made = LaVie.load(path, image_model=image_model, dtype="float64", allow_pickle=True)
            x, text = inputs()
            close(made.predict(x, 500, given(text, BOTH)), backbone.predict(x, 500, given(text, BOTH)), 0)
    half = LaVie.load(tmp_path, image_model=image_model, dtype="bfloat16", allow_pickle=True)
    assert half.dtype == torch.bfloat16 and half.predict(x, 500, given(text, BOTH)).isfinite().all()


def test_noise_size_and_identity(backbone, safe, image_model, weights, tmp_path):
    path = backbone.noise_path
    assert (path.beta_schedule, path.beta_start, path.beta_end) == ("linear", 0.0001, 0.02)
    assert path.steps_offset == 1 and backbone.native == (320, 512)
    model = {"_target_": "freemask.backbones.lavie.LaVie.load", "path": str(safe)}
    model["image_model"] = str(image_model)
    assert backbone_identity(model) == backbone.identity == LaVie.identify(safe, image_model=image_model)
    save_file({**weights, "conv_in.bias": weights["conv_in.bias"] + 1}, tmp_path / "lavie_base.safetensors")
    assert LaVie.identify(tmp_path, image_model=image_model) != backbone.identity
    other = shutil.copytree(image_model, tmp_path / "other")
    said = {"_class_name": "UNet2DConditionModel", **CONFIG, "norm_eps": 1e-3}
    (other / "unet/config.json").write_text(json.dumps(said))
    assert LaVie.identify(safe, image_model=other) != backbone.identity


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conv_in.weight": None}, "1 weights do not fit, such as conv_in.weight: not there"),
        ({"temporal.weight": torch.ones(2)}, "expected: no such weight"),
        ({"conv_out.bias": torch.ones(3)}, r"such as conv_out.bias: \(3,\)"),
        (
            {"mid_block.attentions.0.transformer_blocks.0.attn_temp.rotary_emb.freqs": torch.ones(16)},
            "another rotation",
        ),
    ],
)
def test_other_weights_are_refused(weights, image_model, tmp_path, change, said):
    changed = {name: each for name, each in {**weights, **change}.items() if each is not None}
    save_file(changed, tmp_path / "lavie_base.safetensors")
    with pytest.raises(UserError, match=said):
        LaVie.load(tmp_path, image_model=image_model)


def test_a_place_without_it_is_told_how_to_get_it(tmp_path, image_model, monkeypatch):
    with pytest.raises(UserError, match=r"no weights of LaVie(.|\n)*hf download YaohuiW/LaVie lavie_base.pt"):
        LaVie.load(tmp_path, image_model=image_model)
    get = r"lavie_base\.pt, a folder with it(.|\n)*hf download YaohuiW/LaVie lavie_base\.pt"
    for nowhere in (tmp_path / "none", "nobody/has-this"):
        with pytest.raises(UserError, match=get):
            LaVie.load(nowhere, image_model=image_model, local_files_only=True)
    monkeypatch.setattr(checkpoint, "_download", lambda *asked: tmp_path / str(asked[3]))
    with pytest.raises(UserError, match=r"no weights of LaVie"):
        LaVie.load(image_model=image_model, allow_pickle=True)
    torch.save({"a": object}, tmp_path / "lavie_base.pt")
    with pytest.raises(UserError, match="could not be read"):
        LaVie.load(tmp_path, image_model=image_model, allow_pickle=True)


def test_as_temporal_layers_of_an_image_model_it_is_refused_by_its_name(safe, monkeypatch):
    """Its layers are called as those of Tune-A-Video, and stand elsewhere."""
    with pytest.raises(UserError, match="model=lavie"):
        inflate_weights.read(safe / "lavie_base.safetensors")
    with pytest.raises(UserError, match="model=lavie"):
        Inflated2D.random(temporal=str(safe / "lavie_base.safetensors"))


METHODS = ["ddim", "freemask", "fatezero", "sdedit", "reconstruct", "dmt", "uniedit"]


@pytest.mark.parametrize("name", METHODS)
def test_methods_run_on_it(name):
    words = [f"method={name}", "model=random_lavie", "mask=average", "method.steps=2"]
    words += ["method.inversion_steps=null", "method.updates=2"] if name == "dmt" else []
    words += ["paths.inversions=null"] if name not in ("sdedit", "reconstruct") else []
    method = build(plain(config_of("edit", words))["method"], "method")
    backbone = LaVie.random(max_tokens=20)
    frames = torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    clip = Clip("c", frames, flow=OpticalFlow(torch.ones(1, 2, 12, 20)))
    before = state(backbone)
    edit = method(backbone, clip, TASK, torch.Generator().manual_seed(0))
    assert edit.frames.shape == clip.frames.shape and edit.frames.isfinite().all()
    weights, rest = state(backbone)
    assert rest == before[1] and all(torch.equal(each, weights[key]) for key, each in before[0].items())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_it_has_learns_on_a_clip(checkpointing):
    """Gradients find their way through layers that the library does not know of, with or without being made again."""
    backbone = LaVie.random(max_tokens=20)
    x, text = backbone.encode(torch.rand(3, 3, 12, 20)), backbone.embed("a red car").given
    plain = backbone.predict(x[None], 500, {"cond": text})
    with backbone.tuned(["*.attn_temporal.to_q.weight"], checkpointing=checkpointing) as tuned:
        with torch.enable_grad():
            backbone.predict(x[None], 500, {"cond": text}).square().mean().backward()
        assert len(tuned.weights) == 16 and all(bool(each.grad.any()) for each in tuned.weights.values())
    assert torch.equal(plain, backbone.predict(x[None], 500, {"cond": text}))


def test_features_that_are_kept_give_the_same_edit_as_those_that_are_made_again():
    words = ["method=freemask", "model=random_lavie", "mask=average", "method.steps=3", "method.guidance=2"]
    frames = torch.rand(3, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    edits = []
    for features in ("cache", "recompute"):
        more = [f"method.features={features}", "paths.inversions=null"]
        method = build(plain(config_of("edit", [*words, *more]))["method"], "method")
        made = LaVie.random(dtype="float64", max_tokens=20)
        edits.append(method(made, Clip("c", frames), TASK, torch.Generator()).frames)
    close(*edits, 1e-6)


def test_it_is_calibrated_and_edits_with_what_was_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["model=random_lavie", "steps=2", "data.clips=1", "data.frames=2", "paths.runs=runs"]
    assert main(["calibrate", *quick, "name=a", "paths.codebooks=books", "install=true"]) == 0
    assert len(json.loads(Path("runs/a/codebook.json").read_text())["sites"]) == 16
    words = ["edit", "model=random_lavie", "mask=mmc", "method.steps=2", "metric=pixels", "paths.runs=runs"]
    assert main([*words, "paths.codebooks=books", "data.frames=2", "out=e"]) == 0
    assert "mmc" in capsys.readouterr().out


def test_the_doctor_finds_it_with_its_image_model(safe, image_model):
    model = {"_target_": "freemask.backbones.lavie.LaVie.load", "image_model": str(image_model)}
    for path in (safe, safe / "lavie_base.safetensors"):
        assert of({**model, "path": str(path)}) == path
    assert of({**model, "path": str(safe), "image_model": str(safe)}) is None
    assert of({**model, "path": str(image_model)}) is None


def test_kinds_of_distances():
    """Around frame 15 of 31, written down from T5's rule by hand."""
    earlier = [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 10, 11, 11]
    found = lavie_unet.buckets(31)
    assert found[15, :16].tolist() == earlier[::-1] and found[15, 16:].tolist() == [
        16 + e for e in earlier[1:]
    ]
    assert lavie_unet.buckets(80)[0, 40:].unique().tolist() == [31]
