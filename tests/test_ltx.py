"""LTX-Video through the door: it equals the library's network, pipeline and autoencoder; padding of the text is masked;
checkpoints load or say why not; the command line edits with it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXConditionPipeline, LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from einops import rearrange
from PIL import Image

from experiments.cli.app import main
from freemask.attention.math import attend
from freemask.attention.record import Recording, heat_of_words, recorder
from freemask.backbones import tiny_ltx
from freemask.backbones.ltx import Ltx
from freemask.diffusion.flow import Flow
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert, sample
from freemask.errors import UserError
from freemask.types import Backbone, Given, Grid, Taps

BOTH = ("uncond", "cond")
PROMPT = "the red car on grass, the boat"
BENT = {"use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024}
SHIFT = math.exp(calculate_shift(3 * 4 * 8, 1024, 4096, 0.95, 2.05))  # of the clip below


def saved(folder, **options):
    """A tiny pipeline of the library, saved by it."""
    made = tiny_ltx.parts(0, torch.float32, 32, **options)
    path = FlowMatchEulerDiscreteScheduler(**BENT, max_image_seq_len=4096, shift_terminal=0.1)
    pipe = LTXPipeline(path, made.vae, made.text_encoder, made.tokenizer, made.transformer)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    return pipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ltx")


@pytest.fixture(scope="module")
def pipe(folder):
    return saved(folder)


@pytest.fixture(scope="module")
def ours(folder, pipe):
    return Ltx.load(folder, shift=SHIFT)


def inputs(streams=2, size=(3, 4, 8)):
    frames, height, width = size
    return torch.randn(streams, frames, 8, height, width, generator=torch.Generator().manual_seed(1))


def texts(model, prompts=("", PROMPT)):
    return {name: model.embed(prompt).given for name, prompt in zip(BOTH, prompts, strict=True)}


def close(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def by_the_library(pipe, x, t, prompt, fps=25):
    """Packed, masked and turned by seconds, as the pipeline calls its network."""
    frames, height, width = x.shape[1], *x.shape[-2:]
    text, mask, _, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False, max_sequence_length=32)
    with torch.no_grad():
        out = pipe.transformer(
            pipe._pack_latents(rearrange(x, "s f c h w -> s c f h w")),
            text,
            torch.tensor([t]),
            mask,
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(8 / fps, 8, 8),
        ).sample
    return rearrange(pipe._unpack_latents(out, frames, height, width), "s c f h w -> s f c h w")


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(3, 4, 8), (1, 3, 5), (2, 6, 2)], ids=str)
def test_untouched_equals_the_librarys_forward(ours, pipe, size):
    """Each stream with a text of its own length."""
    x = inputs(size=size)
    made = ours.predict(x, 734.99, texts(ours))
    for place, prompt in enumerate(("", PROMPT)):
        close(made[place, None], by_the_library(pipe, x[place, None], 734.99, prompt))
    close(ours.predict(x, 734.99, texts(ours), taps=Taps(lambda _, qkv: attend(qkv))), made, atol=0)
    assert (made[0] - made[1]).abs().max() > 1e-3


def test_how_much_time_is_between_frames(folder, ours, pipe):
    slow, x, text = Ltx.load(folder, fps=8), inputs(1), ours.embed(PROMPT).given
    made = slow.predict(x, 500.0, {"cond": text})
    close(made, by_the_library(pipe, x, 500.0, PROMPT, fps=8))
    assert (made - ours.predict(x, 500.0, {"cond": text})).abs().max() > 1e-4
    assert slow.identity == Ltx.identify(folder, fps=8) != Ltx.identify(folder) == Ltx.load(folder).identity
    with pytest.raises(UserError, match="fps"):
        Ltx.load(folder, fps=0)


def test_layers_say_where_they_are_and_padding_is_not_seen(ours):
    assert isinstance(ours, Backbone) and (ours.multiple, ours.compression) == (8, 8)
    names = [f"transformer_blocks.{i}.{name}" for i in (0, 1) for name in ("attn1", "attn2")]
    assert list(ours.sites) == names and ours.describe()["sites"] == {"space_time": 2, "cross": 2}
    seen, lengths = [], [ours.embed("").length, ours.embed(PROMPT).length]

    def look(where, qkv):
        assert where.grid == Grid(3, 4, 8) == ours.grid(where.site, 17, 32, 64)
        if where.site.role == "cross":
            allowed = qkv.bias.rows(slice(None)) == 0
            assert allowed.sum(dim=-1).flatten().tolist() == lengths
            assert not allowed[0, ..., lengths[0] :].any()
        seen.append(where.site.name)
        return attend(qkv)

    ours.predict(inputs(), 500.0, texts(ours), taps=Taps(look))
    assert seen == names


def test_a_text_without_a_mask_is_seen_whole(ours):
    text = ours.embed(PROMPT)
    bare, whole = Given({"text": text.tokens}), text.given.plus(mask=torch.ones(32))
    x = inputs(1)
    close(ours.predict(x, 5.0, {"cond": bare}), ours.predict(x, 5.0, {"cond": whole}), atol=0)
    with pytest.raises(UserError, match="must be given 'text'"):
        ours.predict(x, 5.0, {"cond": Given({"mask": torch.ones(32)})})


def test_word_heat_is_the_written_out_one(ours, pipe):
    text, kept, record = ours.embed(PROMPT), {}, Recording()
    x, columns = inputs(1), text.columns["car"]
    ours.predict(
        x, 500.0, {"cond": text.given}, taps=Taps(recorder([heat_of_words("heat", columns)], record))
    )
    layer = pipe.transformer.transformer_blocks[1].attn2
    hook = layer.register_forward_hook(
        lambda _, given, named, out: kept.update(hidden=given[0], text=named["encoder_hidden_states"]),
        with_kwargs=True,
    )
    by_the_library(pipe, x, 500.0, PROMPT)
    hook.remove()
    with torch.no_grad():
        q, k = layer.norm_q(layer.to_q(kept["hidden"])), layer.norm_k(layer.to_k(kept["text"]))
        q, k = (each[0].view(-1, 2, 16).transpose(0, 1) for each in (q, k[:, : text.length]))
        maps = torch.softmax(q @ k.transpose(1, 2) / 4, dim=-1)[..., list(columns)].sum(-1).mean(0)
    close(record.all("heat")["transformer_blocks.1.attn2", 500.0], maps.view(3, 4, 8))


# --- text and codec ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["", PROMPT, "ein grünes Auto", "a red 🚗 on grass"])
def test_text_is_the_librarys(ours, pipe, prompt):
    """The encoder sees the padding there too, which changes what it says of the words."""
    text = ours.embed(prompt)
    theirs, mask, _, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False, max_sequence_length=32)
    close(text.tokens, theirs[0])
    assert text.more["mask"].bool().tolist() == mask[0].bool().tolist() and text.length == int(mask.sum())
    for word, columns in text.columns.items():
        spans = [text.spans[column] for column in columns]
        assert "".join(prompt[start:end] for start, end in dict.fromkeys(spans)).endswith(word)


def test_more_words_than_columns_are_refused(ours):
    with pytest.raises(UserError, match="too long"):
        ours.embed("car " * 40)


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (8, 2), (9, 2), (10, 3)])
def test_frames_to_latents_and_back(ours, pipe, frames, latents):
    clip = torch.rand(frames, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    whole, vae = torch.cat([clip, clip[-1:].expand(8 * latents - 7 - frames, -1, -1, -1)]), pipe.vae
    statistics = vae.latents_mean, vae.latents_std, vae.config.scaling_factor
    with torch.no_grad():
        found = vae.encode(rearrange(whole * 2 - 1, "f c h w -> 1 c f h w")).latent_dist.mode()
        back = vae.decode(found, None).sample
    z = ours.encode(clip)
    close(z, rearrange(pipe._normalize_latents(found, *statistics), "1 c f h w -> f c h w"))
    expected = rearrange(back, "1 c f h w -> f c h w") / 2 + 0.5
    close(ours.decode(z, frames), expected[:frames].clamp(0, 1))


def test_an_autoencoder_that_adds_noise_adds_the_same_each_time(tmp_path):
    pipe = saved(tmp_path, conditioned=True)
    model, state = Ltx.load(tmp_path), torch.random.get_rng_state()
    z = torch.randn(2, 8, 2, 3)
    torch.random.set_rng_state(state)
    first = model.decode(z)
    assert torch.equal(first, model.decode(z)) and torch.equal(state, torch.random.get_rng_state())
    own = rearrange(
        z * pipe.vae.latents_std[:, None, None] + pipe.vae.latents_mean[:, None, None], "f c h w -> 1 c f h w"
    )
    with torch.no_grad():
        torch.manual_seed(0)
        theirs = pipe.vae.decode(own, torch.tensor([0.0])).sample
    close(first, (rearrange(theirs, "1 c f h w -> f c h w") / 2 + 0.5).clamp(0, 1))


# --- the noise path, and a whole clip ---------------------------------------------------------------------------


def test_a_sampled_clip_is_the_librarys(ours, pipe):
    (x,) = inputs(1)
    theirs = pipe(
        PROMPT,
        height=32,
        width=64,
        num_frames=17,
        num_inference_steps=5,
        guidance_scale=3.0,
        latents=pipe._pack_latents(rearrange(x, "f c h w -> 1 c f h w")),
        output_type="latent",
        max_sequence_length=32,
    ).frames
    made = sample(ours, x, guided(ours, ours.embed(PROMPT), 3.0), 5)
    close(made, rearrange(pipe._unpack_latents(theirs, 3, 4, 8), "1 c f h w -> f c h w"))
    assert (made - x).abs().max() > 0.1


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
def test_a_sampled_clip_of_a_late_checkpoint_is_the_librarys(pipe, tmp_path):
    """From 0.9.5 on: other places of frames in time, another grid, another pipeline."""
    parts = {**pipe.components, "scheduler": FlowMatchEulerDiscreteScheduler()}
    late = LTXConditionPipeline(**parts)
    late.set_progress_bar_config(disable=True)
    late.save_pretrained(tmp_path)
    model, rng = Ltx.load(tmp_path), torch.Generator().manual_seed(3)
    assert model.noise_path == Flow(grid="quadratic") and not model.noise_path.warnings
    theirs = late(
        prompt=PROMPT,
        height=32,
        width=64,
        num_frames=17,
        num_inference_steps=6,
        guidance_scale=3.0,
        generator=rng,
        output_type="latent",
        max_sequence_length=32,
    ).frames
    (x,) = rearrange(torch.randn(1, 8, 3, 4, 8, generator=rng.manual_seed(3)), "s c f h w -> s f c h w")
    made = sample(model, x, guided(model, model.embed(PROMPT), 3.0), 6)
    close(made, rearrange(theirs, "1 c f h w -> f c h w"))
    plain = Ltx.load(tmp_path, grid="even")
    assert model.identity == Ltx.identify(tmp_path) != plain.identity


def test_the_path_is_that_of_the_shortest_clips_and_says_so(folder, ours):
    path = Ltx.load(folder).noise_path
    assert path == Flow(shift=math.exp(0.95), grid="even", terminal=0.1)
    assert "1024 video tokens" in path.warnings[0] and not ours.noise_path.warnings
    assert Ltx.load(folder, grid="euler").noise_path.grid == "euler"


def test_inversion_and_sampling_with_one_prompt_reconstruct():
    made = Ltx.random(0, dtype="float64")
    with torch.no_grad():
        made.network.proj_out.weight.mul_(0.002)
        made.network.proj_out.bias.zero_()
    latents, text = made.encode(torch.rand(9, 3, 16, 24)), made.embed(PROMPT)
    noisy = invert(made, latents, text, 6)
    assert (noisy[-1] - latents).abs().max() > 1e-3
    close(sample(made, noisy[-1], text, 6), latents, atol=1e-3)


# --- checkpoints and the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"transformer": ["diffusers", "LTX2VideoTransformer3DModel"]}, "another kind"),
        ({"vae": ["diffusers", "AutoencoderKLWan"]}, "another kind"),
        ({"text_encoder": ["transformers", "UMT5EncoderModel"]}, "another kind"),
    ],
    ids=str,
)
def test_checkpoints_of_another_kind_are_refused(folder, pipe, tmp_path, changes, said):
    for part in folder.iterdir():
        if part.is_dir():
            (tmp_path / part.name).symlink_to(part)
    index = json.loads((folder / "model_index.json").read_text()) | changes
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=said):
        Ltx.load(tmp_path)


def test_cells_that_the_librarys_own_pipeline_cannot_run_are_refused():
    from diffusers import LTXVideoTransformer3DModel

    from freemask.attention.processor import Slot
    from freemask.backbones.ltx_attention import attention

    with pytest.raises(UserError, match="cells of"):
        attention(LTXVideoTransformer3DModel(**tiny_ltx.NETWORK, patch_size=2), Slot())


def test_an_edit_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clip").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)).save(f"clip/{i}.png")
    words = ["edit", "clip", "source=a red car on grass", "target=a blue car on grass", "model=random_ltx"]
    words += ["method=freemask", "mask=agreement", "method.steps=3", "metric=pixels", "out=out"]
    assert main([*words, "size=[32,48]", "frames=8"]) == 0
    row = json.loads(next(Path("out/rows").iterdir()).read_text().splitlines()[-1])
    assert any("1 + 8 k" in said for said in row["warnings"])
    assert row["status"] == "done" and len(list(Path("out/frames").iterdir())) == 8
