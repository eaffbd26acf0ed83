"""CogVideoX through the door: it equals the library's network, pipeline and autoencoder; text and video stand where its
layers say; checkpoints load or say why not; the command line edits with it."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image

from experiments.cli.app import main
from freemask.attention.layout import in_rows, on_grid
from freemask.attention.math import attend
from freemask.attention.record import Recording, heat_of_words, recorder
from freemask.backbones import tiny_cogvideox
from freemask.backbones.cogvideox import CogVideoX
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import sample
from freemask.errors import UserError
from freemask.types import Backbone, Taps
from tests.given import given

PROMPT = "the red car on grass, the boat"
# Latent frames, height, width: the native size, a wide one, an upright one, a single picture.
SIZES = [(3, 8, 8), (2, 4, 10), (3, 12, 4), (1, 8, 8)]


@pytest.fixture(scope="module")
def backbones():
    return {rotary: CogVideoX.random(0, rotary=rotary) for rotary in (True, False)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Tiny checkpoints saved by diffusers' own pipeline class."""
    from diffusers import CogVideoXDDIMScheduler, CogVideoXPipeline

    root = tmp_path_factory.mktemp("cogvideox")
    for rotary in (True, False):
        made = tiny_cogvideox.parts(0, torch.float32, 32, rotary)
        path = CogVideoXDDIMScheduler(
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            clip_sample=False,
            rescale_betas_zero_snr=True,
            snr_shift_scale=1.0 if rotary else 3.0,
        )
        pipeline = CogVideoXPipeline(made.tokenizer, made.text_encoder, made.vae, made.transformer, path)
        pipeline.save_pretrained(root / str(rotary))
    return {rotary: root / str(rotary) for rotary in (True, False)}


def library(folder):
    from diffusers import CogVideoXPipeline

    pipeline = CogVideoXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def inputs(size=(3, 8, 8), streams=2):
    rng = torch.Generator().manual_seed(1)
    frames, height, width = size
    x = torch.randn(streams, frames, 4, height, width, generator=rng)
    return x, torch.randn(streams, 32, 16, generator=rng)


def close(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotary", [True, False])
def test_untouched_equals_the_librarys_forward(backbones, saved, rotary):
    """At sizes other than its own as well, where positions are laid over another grid."""
    ours, pipeline = backbones[rotary], library(saved[rotary])
    for size in SIZES:
        x, text = inputs(size)
        at = (4 * size[1], 4 * size[2], size[0], "cpu")
        places = pipeline._prepare_rotary_positional_embeddings(*at) if rotary else None
        with torch.no_grad():
            theirs = pipeline.transformer(x, text, torch.tensor([734.0, 734.0]), image_rotary_emb=places)
        made = ours.predict(x, 734, given(text, ("uncond", "cond")))
        close(made, theirs.sample)
        tapped = ours.predict(x, 734, given(text, ("uncond", "cond")), taps=Taps(lambda _, qkv: attend(qkv)))
        assert torch.equal(tapped, made) and (made[0] - made[1]).abs().max() > 1e-3


def test_layers_know_where_text_and_video_stand(backbones):
    ours = backbones[True]
    (x, text), seen = inputs((3, 4, 6), streams=1), []
    assert isinstance(ours, Backbone) and ours.describe()["sites"] == {"joint": 2} and ours.compression == 4

    def look(where, qkv):
        assert where.grid == ours.grid(where.site, 9, 16, 24) == (3, 2, 3) and where.text == 32
        assert qkv.k.shape == (1, 1, 2, 32 + 18, 16) and qkv.hidden.shape == (1, 1, 50, 32)
        order = torch.arange(50.0)[None]
        grid = on_grid(order, where)
        assert grid[0, 0, 0] == 32 and grid[2, 1, 2] == 49
        assert torch.equal(in_rows(grid, where, text=-1).flatten()[32:], order[0, 32:])
        seen.append(where.site.name)
        return attend(qkv)

    ours.predict(x, 500, given(text, ("source",)), taps=Taps(look))
    assert seen == list(ours.sites) == [f"transformer_blocks.{i}.attn1" for i in (0, 1)]


def test_word_heat_is_that_of_the_written_out_softmax(backbones, saved):
    """Rows of the video, columns of a word, over all keys."""
    ours, network, kept = backbones[True], library(saved[True]).transformer, {}
    text, record = ours.embed(PROMPT), Recording()
    x, columns = inputs((3, 4, 6), streams=1)[0], text.columns["car"]
    ours.predict(
        x, 500, {"source": text.given}, taps=Taps(recorder([heat_of_words("heat", columns)], record))
    )
    layer = network.transformer_blocks[1].attn1
    layer.register_forward_hook(lambda _, args, given, out: kept.update(given), with_kwargs=True)
    with torch.no_grad():
        places = ours._places(3, 4, 6)
        network(x, text.tokens[None], torch.tensor([500.0]), image_rotary_emb=places)
        tokens = torch.cat([kept["encoder_hidden_states"], kept["hidden_states"]], dim=1)[0]
        q, k = (each(tokens).view(-1, 2, 16) for each in (layer.to_q, layer.to_k))
        q, k = layer.norm_q(q)[32:].transpose(0, 1), layer.norm_k(k).transpose(0, 1)
        q, k = turned(q, places), torch.cat([k[:, :32], turned(k[:, 32:], places)], dim=1)
        maps = torch.softmax(q @ k.transpose(1, 2) / 4, dim=-1)[..., list(columns)].sum(-1).mean(0)
    assert list(record.all("heat")) == [(name, 500) for name in ours.sites]
    close(record.all("heat")["transformer_blocks.1.attn1", 500], maps.view(3, 2, 3), atol=1e-6)


def turned(x, places):
    """As complex numbers: pairs of channels, times the unit of their angle."""
    angle = torch.complex(places[0][:, ::2], places[1][:, ::2])
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * angle).flatten(
        -2
    )


# --- text, codec and the whole pipeline -------------------------------------------------------------------------


@pytest.mark.parametrize("rotary", [True, False])
def test_a_sampled_clip_is_the_pipelines(saved, rotary):
    ours, pipeline = CogVideoX.load(saved[rotary], max_tokens=32), library(saved[rotary])
    noise = inputs(streams=1)[0]
    told = {"latents": noise.clone(), "num_inference_steps": 4, "guidance_scale": 6.0}
    size = {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 32}
    theirs = pipeline(PROMPT, **told, **size, output_type="latent").frames
    predict = guided(ours, ours.embed(PROMPT), 6.0, uncond=ours.embed(""))
    close(sample(ours, noise[0], predict, 4), theirs[0])
    assert not ours.noise_path.warnings


def test_text_is_the_pipelines_with_padding_as_the_encoder_sees_it(backbones, saved):
    ours, pipeline = backbones[True], library(saved[True])
    text = ours.embed(PROMPT)
    theirs, empty = pipeline.encode_prompt(PROMPT, max_sequence_length=32)
    close(text.tokens, theirs[0])
    close(ours.embed("").tokens, empty[0])
    assert text.tokens[text.length :].abs().min() > 0 and text.columns["red"] == (1,)


@pytest.mark.parametrize("prompt", ["ein grüner Käfer", "a car 🚗 on grass"])
def test_letters_that_the_tokenizer_does_not_know_have_columns(backbones, prompt):
    text, known = backbones[True].embed(prompt), []
    for word in prompt.split():
        places = {i for column in text.columns[word] for i in range(*text.spans[column])}
        assert {prompt[i] for i in places} == set(word)
        known += text.columns[word]
    assert sorted(known) == list(range(text.length - 1))  # all but the end mark, each in one word


def test_more_words_than_columns_are_refused(backbones):
    with pytest.raises(UserError, match="too long"):
        backbones[True].embed("zebra " * 10)


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (4, 2), (5, 2), (8, 3), (9, 3), (13, 4)])
def test_frames_to_latents_and_back(backbones, frames, latents):
    """The last frame fills up 1 + 4 k. An even number of latents is decoded with the last one twice."""
    ours = backbones[True]
    clip = torch.rand(frames, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    whole = torch.cat([clip, clip[-1:].expand(4 * latents - 3 - frames, -1, -1, -1)])
    z = ours.encode(clip)
    with torch.no_grad():
        found = ours.codec.vae.encode(rearrange(whole * 2 - 1, "f c h w -> 1 c f h w")).latent_dist.mode()
        odd = found if latents % 2 else torch.cat([found, found[:, :, -1:]], dim=2)
        back = rearrange(ours.codec.vae.decode(odd).sample, "1 c f h w -> f c h w") / 2 + 0.5
    assert z.shape == (latents, 4, 4, 6)
    close(z, rearrange(found, "1 c f h w -> f c h w") * 1.15258426)
    close(ours.decode(z, frames), back[:frames].clamp(0, 1))
    assert len(ours.decode(z)) == 4 * latents - 3


# --- checkpoints ------------------------------------------------------------------------------------------------


def test_a_checkpoint_says_what_it_is(saved):
    loaded = CogVideoX.load(saved[False], max_tokens=32)
    assert loaded.identity == CogVideoX.identify(saved[False], max_tokens=32) and not loaded.rotary
    assert loaded.native == (480, 720) and loaded.noise_path.snr_shift_scale == 3.0
    assert CogVideoX.identify(saved[False]) != CogVideoX.identify(saved[True])


def rewrite(path, **changes):
    content = {**json.loads(path.read_text()), **changes}
    path.unlink()
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("model_index.json", {"transformer": ["diffusers", "WanTransformer3DModel"]}, "another kind"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderKLWan"]}, "another kind"),
        ("transformer/config.json", {"patch_size_t": 2}, "belong together|version 1.5"),
        ("transformer/config.json", {"in_channels": 8}, "belong together|8 channels"),
    ],
)
def test_checkpoints_that_cannot_be_run_say_so(saved, tmp_path, file, changes, said):
    copy = tmp_path / "changed"
    shutil.copytree(saved[True], copy, copy_function=os.link)
    rewrite(copy / file, **changes)
    with pytest.raises(UserError, match=said):
        CogVideoX.load(copy, max_tokens=32)


def test_a_tokenizer_that_needs_another_package_says_which(saved, tmp_path, monkeypatch):
    """As the published checkpoints have it."""
    copy = tmp_path / "changed"
    shutil.copytree(saved[True], copy)
    (copy / "tokenizer" / "tokenizer.json").rename(copy / "tokenizer" / "spiece.model")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match="pip install sentencepiece"):
        CogVideoX.load(copy, max_tokens=32)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patch_size_t": 2}, "version 1.5"),
        ({"in_channels": 8}, "8 channels in, 4 out"),
        ({"ofs_embed_dim": 8}, "ofs"),
        ({"use_learned_positional_embeddings": True, "use_rotary_positional_embeddings": True}, "learned"),
    ],
)
def test_networks_with_more_than_video_and_text_are_refused(options, said):
    from diffusers import CogVideoXTransformer3DModel

    from freemask.attention.processor import Slot
    from freemask.backbones.cogvideox_attention import install

    with pytest.raises(UserError, match=said):
        install(CogVideoXTransformer3DModel(**{**tiny_cogvideox.NETWORK, **options}), Slot())


def test_positions_that_were_added_belong_to_a_number_of_columns(saved):
    with pytest.raises(UserError, match="text columns"):
        CogVideoX.load(saved[False], max_tokens=20)
    assert CogVideoX.load(saved[True], max_tokens=20).max_tokens == 20


# --- from the command line --------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clip").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)).save(f"clip/{i}.png")
    words = ["edit", "clip", "source=a red car on grass", "target=a blue car on grass", "metric=pixels"]
    return [*words, "size=[32,48]", "out=out", "method.steps=2"]


def test_an_edit_of_eight_frames_from_the_command_line(clip, saved):
    """A folder of weights, by its path: frames that do not fit 1 + 4 k come back as many."""
    model = [f"model.path={saved[True]}", "model.device=cpu", "model.dtype=float32", "model.max_tokens=32"]
    assert main([*clip, "model=cogvideox_5b", *model, "model.text_dtype=null", "method=ddim"]) == 0
    assert len(list(Path("out/frames").iterdir())) == 8
