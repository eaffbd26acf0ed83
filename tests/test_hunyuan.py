"""HunyuanVideo through the door: it equals the library's network, pipeline and autoencoder; only words are attended to;
words know their columns within the sentence around a prompt; checkpoints load or say why not."""

import json
import os
import shutil

import pytest
import torch
from einops import rearrange

from freemask.attention.layout import on_grid
from freemask.attention.math import attend
from freemask.attention.record import Recording, heat_of_words, recorder
from freemask.backbones import tiny_hunyuan
from freemask.backbones.hunyuan import Hunyuan
from freemask.backbones.hunyuan_text import TEMPLATE
from freemask.diffusion.flow import Flow
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import sample
from freemask.errors import UserError
from freemask.types import Backbone, Given, Taps

PROMPT = "the red car on grass, the boat"
SITES = ["transformer_blocks.0.attn", "single_transformer_blocks.0.attn"]


@pytest.fixture(scope="module")
def backbone():
    return Hunyuan.random(0)


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline

    made = tiny_hunyuan.parts(0, torch.float32, 32)
    pipeline = HunyuanVideoPipeline(
        text_encoder=made.language.encoder,
        tokenizer=made.language.tokenizer,
        transformer=made.transformer.eval(),
        vae=made.vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=made.clip.encoder,
        tokenizer_2=made.clip.tokenizer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    """Saved by diffusers, and under the class that the published checkpoint names."""
    folder = tmp_path_factory.mktemp("hunyuan")
    pipeline.save_pretrained(folder)
    rewrite(folder / "model_index.json", tokenizer=["transformers", "LlamaTokenizerFast"])
    return folder


def rewrite(path, **changes):
    content = {**json.loads(path.read_text()), **changes}
    path.unlink()
    path.write_text(json.dumps(content))


def inputs(size=(3, 8, 8), streams=2):
    frames, height, width = size
    return torch.randn(streams, frames, 4, height, width, generator=torch.Generator().manual_seed(1))


def close(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("size", [(3, 8, 8), (2, 4, 10), (1, 6, 4)], ids=str)
def test_untouched_equals_the_librarys_forward(backbone, pipeline, size):
    """Prompts of different lengths side by side."""
    texts, x = [backbone.embed(prompt) for prompt in (PROMPT, "")], inputs(size)
    text, mask, pooled = (
        torch.stack([each.given.parts[name] for each in texts]) for name in ("text", "mask", "pooled")
    )
    told, strength = torch.tensor([734.5, 734.5]), torch.tensor([6000.0, 6000.0])
    maps = rearrange(x, "s f c h w -> s c f h w")
    with torch.no_grad():
        theirs = pipeline.transformer(maps, told, text, mask, pooled, strength, return_dict=False)[0]
    given = {"cond": texts[0].given, "uncond": texts[1].given}
    made = backbone.predict(x, 734.5, given)
    close(made, rearrange(theirs, "s c f h w -> s f c h w"))
    assert torch.equal(backbone.predict(x, 734.5, given, taps=Taps(lambda _, qkv: attend(qkv))), made)
    assert (made[0] - made[1]).abs().max() > 1e-3


def test_layers_know_where_text_and_video_stand_and_what_is_padding(backbone):
    text, seen = backbone.embed(PROMPT), []
    assert isinstance(backbone, Backbone) and backbone.describe()["sites"] == {"joint": 2}

    def look(where, qkv):
        assert where.grid == backbone.grid(where.site, 9, 16, 24) == (3, 2, 3) and where.text == 32
        assert qkv.k.shape == (1, 1, 2, 18 + 32, 12) and qkv.hidden.shape == (1, 1, 50, 24)
        assert on_grid(torch.arange(50.0)[None], where)[2, 1, 2] == 17
        assert qkv.bias.allowed[0, 0].nonzero().flatten().tolist() == list(range(18 + text.length))
        seen.append(where.site.name)
        return attend(qkv)

    backbone.predict(inputs((3, 4, 6), 1), 500.0, {"source": text.given}, taps=Taps(look))
    assert seen == list(backbone.sites) == SITES


def test_columns_that_are_no_words_change_nothing(backbone):
    x, text = inputs(streams=1), backbone.embed(PROMPT)
    loud = text.tokens.clone()
    loud[text.length :] = 9.0
    made = [backbone.predict(x, 500.0, {"a": text.given.plus(text=each)}) for each in (text.tokens, loud)]
    close(*made, atol=1e-6)
    parts = {name: value for name, value in text.given.parts.items() if name != "mask"}
    assert (backbone.predict(x, 500.0, {"a": Given(parts)}) - made[0]).abs().max() > 1e-4


def test_word_heat_is_that_of_the_written_out_softmax(backbone):
    text, record, kept = backbone.embed(PROMPT), Recording(), {}
    keep = heat_of_words("heat", text.columns["car"])

    def write(where, qkv):
        logits = qkv.q[0, 0] @ qkv.k[0, 0].transpose(1, 2) / 12**0.5
        maps = torch.softmax(logits[:, :18, : 18 + text.length], dim=-1)
        kept[where.site.name] = maps[..., [18 + i for i in text.columns["car"]]].sum(-1).mean(0)
        return attend(qkv)

    taps = Taps(recorder([keep], record, then=write))
    backbone.predict(inputs((3, 4, 6), 1), 500.0, {"a": text.given}, taps=taps)
    for name in SITES:
        close(record.all("heat")[name, 500.0], kept[name].view(3, 2, 3), atol=1e-6)


def test_a_sampled_clip_is_the_pipelines(saved, pipeline):
    """Loaded from files, in one pass; and with guidance by an empty prompt beside it."""
    ours, noise = Hunyuan.load(saved, max_tokens=32, embedded_guidance=4.0), inputs(streams=1)
    size = {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 32, "output_type": "latent"}
    told = {"num_inference_steps": 4, "guidance_scale": 4.0, **size}
    start = rearrange(noise, "s f c h w -> s c f h w")
    assert ours.noise_path == Flow(shift=7.0, grid="even") and ours.guidance == 1.0
    for extra in ({}, {"negative_prompt": "", "true_cfg_scale": 3.0}):
        theirs = pipeline(PROMPT, latents=start.clone(), **told, **extra).frames
        predict = guided(ours, ours.embed(PROMPT), extra.get("true_cfg_scale", 1.0), uncond=ours.embed(""))
        close(rearrange(sample(ours, noise[0], predict, 4), "f c h w -> 1 c f h w"), theirs)


def test_text_is_the_pipelines(backbone, pipeline):
    text = backbone.embed(PROMPT)
    theirs, pooled, mask = pipeline.encode_prompt(PROMPT, max_sequence_length=32)
    close(text.tokens[: text.length], theirs[0, : text.length])
    close(text.more["pooled"], pooled[0])
    assert text.more["mask"].tolist() == mask[0].tolist() and not text.tokens[text.length :].any()


@pytest.mark.parametrize("prompt", [PROMPT, "ein grüner Käfer", "a car 🚗, {braces}"])
def test_words_know_their_columns_within_the_sentence(backbone, prompt):
    """Bytes of one letter are several tokens; what is not of the prompt stands for nothing."""
    text = backbone.embed(prompt)
    for word in prompt.split():
        covered = {i for column in text.columns[word] for i in range(*text.spans[column])}
        assert set(word) <= {prompt[i] for i in covered} <= {*word, " "}
    ids = backbone.reader.language.tokenizer(TEMPLATE.format(prompt))["input_ids"]
    assert list(text.ids) == ids[95:] and len(text.spans) == text.length
    assert text.spans[-1] == (0, 0)  # the end mark


def test_more_words_than_columns_are_refused(backbone):
    with pytest.raises(UserError, match="too long"):
        backbone.embed("zebra " * 10)


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (8, 3)])
def test_frames_to_latents_and_back(backbone, frames, latents):
    vae = backbone.codec.vae
    clip = torch.rand(frames, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    whole = torch.cat([clip, clip[-1:].expand(4 * latents - 3 - frames, -1, -1, -1)])
    with torch.no_grad():
        found = vae.encode(rearrange(whole * 2 - 1, "f c h w -> 1 c f h w")).latent_dist.mode()
        back = rearrange(vae.decode(found).sample, "1 c f h w -> f c h w") / 2 + 0.5
    z = backbone.encode(clip)
    close(z, rearrange(found, "1 c f h w -> f c h w") * 0.476986)
    close(backbone.decode(z, frames), back[:frames].clamp(0, 1))


def test_how_strongly_it_follows_is_told_to_the_network_and_part_of_its_name(saved, backbone):
    x, text = inputs(streams=1), backbone.embed(PROMPT).given
    other = Hunyuan.random(0, embedded_guidance=1.0)
    assert (other.predict(x, 500.0, {"a": text}) - backbone.predict(x, 500.0, {"a": text})).abs().max() > 1e-4
    names = [Hunyuan.identify(saved, embedded_guidance=each) for each in (6.0, 6, 1.0)]
    assert names[0] == names[1] != names[2] and Hunyuan.load(saved, max_tokens=32).origin not in names
    with pytest.raises(UserError, match="embedded_guidance"):
        Hunyuan.random(0, embedded_guidance=-1)


@pytest.mark.parametrize(
    ("part", "name", "said"),
    [
        ("transformer", "HunyuanVideo15Transformer3DModel", "another kind"),
        ("text_encoder", "LlavaForConditionalGeneration", "another kind"),
        ("text_encoder_2", "T5EncoderModel", "another kind"),
    ],
)
def test_checkpoints_of_another_kind_say_so(saved, tmp_path, part, name, said):
    copy = tmp_path / "changed"
    shutil.copytree(saved, copy, copy_function=os.link)
    rewrite(copy / "model_index.json", **{part: ["diffusers", name]})
    with pytest.raises(UserError, match=said):
        Hunyuan.load(copy, max_tokens=32)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_condition_type": "token_replace"}, "token_replace"),
        ({"in_channels": 9}, "9 channels in, 4 out"),
    ],
)
def test_networks_with_more_than_video_and_text_are_refused(options, said):
    from diffusers import HunyuanVideoTransformer3DModel

    from freemask.attention.processor import Slot

    with pytest.raises(UserError, match=said):
        Hunyuan.attention(HunyuanVideoTransformer3DModel(**{**tiny_hunyuan.NETWORK, **options}), Slot())
