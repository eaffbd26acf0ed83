"""HunyuanVideo 1.5 through the door: it equals the library's network and pipeline, whose text it sorts and pads in
another way; words know their columns within a conversation; what it cannot run is refused."""

import json

import pytest
import torch
from einops import rearrange

from freemask.attention.math import attend
from freemask.attention.processor import Slot
from freemask.backbones import tiny_hunyuan15
from freemask.backbones.hunyuan15 import Hunyuan15
from freemask.backbones.hunyuan_text import SYSTEM
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import sample
from freemask.errors import UserError
from freemask.types import Backbone, Taps

PROMPT = "the red car on grass, the boat"


@pytest.fixture(scope="module")
def backbone():
    return Hunyuan15.random(0)


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import ClassifierFreeGuidance, FlowMatchEulerDiscreteScheduler, HunyuanVideo15Pipeline
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    made = tiny_hunyuan15.parts(0, torch.float32, 48)
    letters = T5EncoderModel(T5Config(vocab_size=400, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    pipeline = HunyuanVideo15Pipeline(
        text_encoder=made.language.encoder,
        tokenizer=made.language.tokenizer,
        transformer=made.transformer.eval(),
        vae=made.vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=letters,
        tokenizer_2=ByT5Tokenizer(),
        guider=ClassifierFreeGuidance(guidance_scale=4.0),
    )
    pipeline.vision_states_dim = 8
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hunyuan15")
    pipeline.save_pretrained(folder)
    return folder


def inputs(size=(3, 8, 8), streams=2):
    frames, height, width = size
    return torch.randn(streams, frames, 4, height, width, generator=torch.Generator().manual_seed(1))


def close(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("size", [(3, 8, 8), (2, 4, 10), (1, 6, 4)], ids=str)
def test_untouched_equals_the_librarys_forward(backbone, pipeline, size):
    """Prompts of different lengths side by side; letters and a picture padded as its pipeline does."""
    texts, x = [backbone.embed(prompt) for prompt in (PROMPT, "")], inputs(size)
    text, mask = (torch.stack([each.given.parts[name][:-2] for each in texts]) for name in ("text", "mask"))
    maps = rearrange(x, "s f c h w -> s c f h w")
    more = {
        "encoder_hidden_states_2": torch.zeros(2, 256, 16),
        "encoder_attention_mask_2": torch.zeros(2, 256),
        "image_embeds": torch.zeros(2, 729, 8),
    }
    with torch.no_grad():
        whole = torch.cat([maps, torch.zeros(2, 5, *maps.shape[2:])], dim=1)
        theirs = pipeline.transformer(whole, torch.tensor([734.5] * 2), text, mask, **more).sample
    given = {"cond": texts[0].given, "uncond": texts[1].given}
    made = backbone.predict(x, 734.5, given)
    close(made, rearrange(theirs, "s c f h w -> s f c h w"))
    assert torch.equal(backbone.predict(x, 734.5, given, taps=Taps(lambda _, qkv: attend(qkv))), made)
    assert (made[0] - made[1]).abs().max() > 1e-3


def test_layers_know_where_text_and_video_stand_and_what_is_padding(backbone):
    text, seen = backbone.embed(PROMPT), []
    assert isinstance(backbone, Backbone) and backbone.describe()["sites"] == {"joint": 2}

    def look(where, qkv):
        assert where.grid == backbone.grid(where.site, 9, 16, 24) == (3, 4, 6)
        assert where.text == len(text.tokens) == 50 and qkv.k.shape == (1, 1, 2, 72 + 50, 12)
        assert qkv.bias.allowed[0, 0].nonzero().flatten().tolist() == list(range(72 + text.length))
        seen.append(where.site.name)
        return attend(qkv)

    backbone.predict(inputs((3, 4, 6), 1), 500.0, {"source": text.given}, taps=Taps(look))
    assert seen == list(backbone.sites)


def test_a_sampled_clip_is_the_pipelines(saved, pipeline):
    """Loaded from files."""
    ours, noise = Hunyuan15.load(saved, max_tokens=48), inputs(streams=1)
    size = {"height": 32, "width": 32, "num_frames": 9, "output_type": "latent"}
    start = rearrange(noise, "s f c h w -> s c f h w")
    theirs = pipeline(PROMPT, latents=start, num_inference_steps=4, **size).frames
    predict = guided(ours, ours.embed(PROMPT), 4.0, uncond=ours.embed(""))
    close(rearrange(sample(ours, noise[0], predict, 4), "f c h w -> 1 c f h w"), theirs)
    assert ours.identity == Hunyuan15.identify(saved, max_tokens=48)


@pytest.mark.parametrize("prompt", [PROMPT, "", "ein grüner Käfer", "a car 🚗 assistant"])
def test_text_is_the_pipelines_and_words_know_their_columns(backbone, pipeline, prompt):
    assert pipeline.system_message == SYSTEM
    text = backbone.embed(prompt)
    theirs, mask, *_ = pipeline.encode_prompt(prompt)
    assert text.more["mask"].sum() == mask.sum() == text.length
    close(text.tokens[: text.length], theirs[0, : text.length])
    for word in prompt.split():
        covered = {i for column in text.columns[word] for i in range(*text.spans[column])}
        assert set(word) <= {prompt[i] for i in covered} <= {*word, " "}
    assert not text.tokens[text.length :].any() and text.spans[-1] == (0, 0)


def test_frames_to_latents_and_back(backbone, pipeline):
    clip, vae = torch.rand(8, 3, 16, 24, generator=torch.Generator().manual_seed(0)), pipeline.vae
    whole = rearrange(torch.cat([clip, clip[-1:]]) * 2 - 1, "f c h w -> 1 c f h w")
    with torch.no_grad():
        found = vae.encode(whole).latent_dist.mode()
        back = rearrange(vae.decode(found).sample, "1 c f h w -> f c h w") / 2 + 0.5
    z = backbone.encode(clip)
    close(z, rearrange(found, "1 c f h w -> f c h w") * 1.03682)
    close(backbone.decode(z, 8), back[:8].clamp(0, 1))


def test_what_is_not_run_is_refused(backbone, saved):
    from diffusers import HunyuanVideo15Transformer3DModel

    with pytest.raises(UserError, match="quotation marks"):
        backbone.embed('a sign with "open" on it')
    with pytest.raises(UserError, match="too long"):
        backbone.embed("zebra " * 20)
    for options, said in (({"task_type": "i2v"}, "i2v"), ({"in_channels": 4}, "4 channels in, 4 out")):
        with pytest.raises(UserError, match=said):
            Hunyuan15.attention(
                HunyuanVideo15Transformer3DModel(**{**tiny_hunyuan15.NETWORK, **options}), Slot()
            )
    index = saved / "model_index.json"
    kept = index.read_text()
    index.write_text(json.dumps({**json.loads(kept), "text_encoder": ["transformers", "LlamaModel"]}))
    with pytest.raises(UserError, match="another kind"):
        Hunyuan15.load(saved, max_tokens=48)
    index.write_text(kept)
