"""Wan: a video transformer through the door. Untouched it equals the library; taps, text, codec and times are as its
own code has them; checkpoints load or say why not; the authors' numbers come out; the command line edits with it."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from safetensors.torch import load_file

from experiments.cli.app import main
from freemask.attention.math import attend
from freemask.attention.record import Recording, heat_of_words, recorder
from freemask.backbones import tiny_wan
from freemask.backbones.wan import Wan
from freemask.data.world import World
from freemask.diffusion.flow import Flow
from freemask.diffusion.guidance import guided
from freemask.diffusion.inversions import Inversions, Wish
from freemask.diffusion.loops import invert, sample
from freemask.errors import UserError
from freemask.fusion.policies import Self, Temporal, Window
from freemask.fusion.settings import Policies
from freemask.types import Backbone, Given, Grid, Site, Taps, Where
from freemask.words import columns_of
from tests.given import given

BOTH = ("uncond", "cond")
PROMPT = "the red car on grass, the boat"
# Cells of latent frames, rows and columns; sizes of latents: frames, height, width.
SHAPES = [((1, 2, 2), (3, 4, 6)), ((2, 1, 1), (4, 3, 5)), ((2, 2, 2), (5, 4, 2)), ((1, 2, 2), (1, 12, 10))]


@pytest.fixture(scope="module")
def backbone():
    return Wan.random(0, dtype="float64")


def library(patch=(1, 2, 2)):
    """The same network, never touched by a processor of ours."""
    return tiny_wan.parts(0, torch.float64, 32, patch).transformer.eval()


def inputs(size=(3, 4, 6), streams=2):
    rng = torch.Generator().manual_seed(1)
    frames, height, width = size
    x = torch.randn(streams, frames, 4, height, width, generator=rng, dtype=torch.float64)
    return x, torch.randn(streams, 32, 16, generator=rng, dtype=torch.float64)


def by_the_library(network, x, t, text):
    told = torch.tensor([t] * len(x))
    out = network(rearrange(x, "s f c h w -> s c f h w"), told, text).sample
    return rearrange(out, "s c f h w -> s f c h w")


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def relative(ours, theirs):
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patch", "size"), SHAPES, ids=str)
def test_untouched_equals_the_librarys_forward(patch, size):
    """Where latent frames do not fill their cells, the last one is there twice."""
    ours = Wan.random(0, dtype="float64", patch=list(patch))
    x, text = inputs(size)
    whole = torch.cat([x, x[:, -1:]], dim=1) if size[0] % patch[0] else x
    with torch.no_grad():
        expected = by_the_library(library(patch), whole, 734, text)[:, : size[0]]
    made = ours.predict(x, 734.99, given(text, BOTH))
    close(made, expected)
    close(ours.predict(x, 734.99, given(text, BOTH), taps=Taps(lambda _, qkv: attend(qkv))), made)
    assert (made[0] - made[1]).abs().max() > 1e-3


def test_the_network_is_told_the_time_as_its_path_says(backbone):
    x, text = inputs()
    fractions = Wan.random(0, dtype="float64", grid="euler", shift=1.0)
    with torch.no_grad():
        whole, exact = (by_the_library(library(), x, t, text) for t in (600, 600.5))
    close(backbone.predict(x, 600.5, given(text, BOTH)), whole)
    close(fractions.predict(x, 600.5, given(text, BOTH)), exact)
    assert relative(whole, exact) > 1e-5


def test_streams_are_independent(backbone):
    x, text = inputs(streams=3)
    names = ("source", "uncond", "cond")
    together = backbone.predict(x, 300, given(text, names))
    for i, name in enumerate(names):
        close(together[i], backbone.predict(x[i, None], 300, given(text[i, None], (name,)))[0])


def test_sites_are_complete_and_told_apart(backbone):
    assert isinstance(backbone, Backbone)
    assert list(backbone.sites) == [f"blocks.{i}.{name}" for i in (0, 1) for name in ("attn1", "attn2")]
    for name, site in backbone.sites.items():
        assert site.role == ("cross" if name.endswith("attn2") else "space_time")
        assert (site.batch, site.tokens, site.stride) == ("1", "(f h w)", 2)
    assert backbone.describe()["sites"] == {"space_time": 2, "cross": 2} and backbone.compression == 4
    assert backbone.describe()["prediction"] == "velocity" and not backbone.features


@pytest.mark.parametrize(("patch", "size"), SHAPES, ids=str)
def test_every_call_knows_its_grid_and_order(patch, size):
    ours = Wan.random(0, dtype="float64", patch=list(patch))
    x, text = inputs(size)
    seen = []
    frames, grid = 4 * size[0] - 3, tuple(-(-side // part) for side, part in zip(size, patch, strict=True))
    n = grid[0] * grid[1] * grid[2]

    def look(where, qkv):
        assert where.grid == grid == ours.grid(where.site, frames, 4 * size[1], 4 * size[2])
        assert qkv.q.shape == (2, 1, 2, n, 12) and qkv.hidden.shape == (2, 1, n, 24)
        assert qkv.k.shape[3] == (32 if where.site.role == "cross" else n)
        assert (where.t, where.streams) == (77.5, BOTH)
        seen.append(where.site.name)
        return attend(qkv)

    ours.predict(x, 77.5, given(text, BOTH), taps=Taps(look))
    assert seen == list(ours.sites)


@pytest.mark.parametrize(("frames", "cells"), [(1, 1), (2, 2), (5, 2), (8, 3), (9, 3), (33, 9)])
def test_the_grid_of_a_clip(backbone, frames, cells):
    site = backbone.sites["blocks.0.attn1"]
    assert backbone.grid(site, frames, 32, 48) == (cells, 4, 6)
    assert Wan.random(0, patch=[2, 1, 1]).grid(site, frames, 32, 48) == (-(-cells // 2), 8, 12)


@pytest.mark.parametrize("patch", [(1, 2, 2), (2, 1, 1)], ids=str)
def test_a_planted_pixel_arrives_at_its_place(patch):
    """The layout of tokens: the first layer's inputs change in one cell."""
    ours = Wan.random(0, dtype="float64", patch=list(patch))
    x, text = inputs((4, 4, 6), streams=1)
    kept, changed = [], x.clone()
    changed[0, 3, :, 2, 5] += 1

    def first(where, qkv):
        if where.site.name == "blocks.0.attn1":
            kept.append((where.grid, qkv.hidden[0, 0]))
        return attend(qkv)

    for each in (x, changed):
        ours.predict(each, 5, given(text, ("source",)), taps=Taps(first))
    (grid, before), (_, after) = kept
    moved = (before - after).abs().amax(-1).view(tuple(grid)) > 1e-9
    assert moved.nonzero().tolist() == [[3 // patch[0], 2 // patch[1], 5 // patch[2]]]


def test_what_a_tap_returns_is_heard_by_later_layers(backbone):
    """Zeros instead of attention: as if the library's layer had an output projection of zeros."""
    x, text = inputs()
    theirs, seen = library(), {}

    def silence(where, qkv):
        seen[where.site.name] = qkv.q
        return torch.zeros_like(qkv.q) if where.site.name == "blocks.0.attn1" else attend(qkv)

    ours = backbone.predict(x, 500, given(text, BOTH), taps=Taps(silence))
    silenced = seen["blocks.1.attn1"]
    backbone.predict(
        x, 500, given(text, BOTH), taps=Taps(lambda w, qkv: seen.update({w.site.name: qkv.q}) or attend(qkv))
    )
    assert (seen["blocks.1.attn1"] - silenced).abs().max() > 1e-4
    with torch.no_grad():
        theirs.blocks[0].attn1.to_out[0].weight.zero_()
        close(ours, by_the_library(theirs, x, 500, text))


def test_gradients_are_the_librarys(backbone):
    (x, text), direction = inputs(streams=1), inputs(streams=1)[0]
    grads = []
    for call in (
        lambda x, text: backbone.predict(x, 500, {"cond": Given({"text": text[0]})}),
        lambda x, text: by_the_library(library().requires_grad_(False), x, 500, text),
    ):
        leaves = x.clone().requires_grad_(), text.clone().requires_grad_()
        grads.append(torch.autograd.grad((call(*leaves) * direction).sum(), leaves))
    for ours, theirs in zip(*grads, strict=True):
        close(ours, theirs, atol=1e-11)
        assert ours.abs().max() > 1e-3


def test_what_a_stream_cannot_be_given_is_refused(backbone):
    x, text = inputs(streams=1)
    for parts, said in (
        ({"text": text[0], "image": x[0]}, "cannot be given 'image'"),
        ({"text": text.expand(3, -1, -1)}, "one text for the whole clip"),
        ({}, "must be given 'text'"),
    ):
        with pytest.raises(UserError, match=said):
            backbone.predict(x, 5, {"cond": Given(parts)})
    with pytest.raises(UserError, match="multiples of 2"):
        backbone.predict(x[..., :5], 5, given(text, ("cond",)))
    with pytest.raises(UserError, match="whom to look at"):
        backbone.predict(x, 5, given(text, ("cond",)), taps=Taps(look=lambda where: ("first",)))


def test_some_weights_may_change_for_a_while(backbone):
    x, text = inputs(streams=1)
    call = lambda: backbone.predict(x, 500, given(text, ("cond",)))  # noqa: E731
    before, name = call(), backbone.identity
    with backbone.tuned(["blocks.0.attn2.to_q.weight"]) as tuned:
        with torch.no_grad():
            tuned.weights["blocks.0.attn2.to_q.weight"].mul_(3)
        assert backbone.identity != name and (call() - before).abs().max() > 1e-6
    assert backbone.identity == name and torch.equal(call(), before)
    with backbone.saving_memory():
        close(call(), before)


# --- text and codec ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [PROMPT, "", "ein grünes Auto", "a red 🚗 on grass"])
def test_text_is_the_librarys_with_zeros_behind_the_end(backbone, prompt):
    """As the pipeline of diffusers does it: padded and masked in the encoder, then cut."""
    reader, text = backbone.reader, backbone.embed(prompt)
    padded = reader.tokenizer(prompt, padding="max_length", max_length=32, return_tensors="pt")
    length = int(padded["attention_mask"].sum())
    with torch.no_grad():
        hidden = reader.encoder(padded["input_ids"], padded["attention_mask"]).last_hidden_state[0]
    close(text.tokens[:length], hidden[:length])
    assert text.tokens.shape == (32, 16) and not text.tokens[length:].any() and text.length == length
    assert list(text.ids) == padded["input_ids"][0, :length].tolist()
    for word, columns in text.columns.items():  # split as it may be, and written in any letters
        spans = dict.fromkeys(text.spans[column] for column in columns)
        assert "".join(prompt[start:end] for start, end in spans).endswith(word)


def test_words_know_their_columns(backbone):
    text = backbone.embed(PROMPT)
    written = [PROMPT[start:end] for start, end in text.spans]
    # Of a word that is not known, the blank before it is a token too, and stands for its first letter.
    assert written[:6] == ["the", "red", "car", "o", "o", "n"] and written[-1] == ""
    assert text.columns["red"] == (1,) and text.columns["the"] == (0, written.index("the", 1))
    assert [written[i] for i in text.columns["grass,"]] == ["grass", ","]
    assert [written[i] for i in columns_of(text, ["the boat"])] == ["the", "b", *"boat"]
    assert backbone.embed("").length == 1 and not backbone.embed("").columns
    with pytest.raises(UserError, match="too long"):
        backbone.embed("zebra " * 10)


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (4, 2), (5, 2), (8, 3), (9, 3)])
def test_frames_to_latents_and_back(backbone, frames, latents):
    vae = backbone.codec.vae
    clip = torch.rand(frames, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    whole = torch.cat([clip, clip[-1:].expand(4 * latents - 3 - frames, -1, -1, -1)])
    mean, std = (torch.tensor(tiny_wan.VAE[f"latents_{name}"])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        found = vae.encode(rearrange(whole.double() * 2 - 1, "f c h w -> 1 c f h w")).latent_dist.mode()
        back = vae.decode(found).sample
    z = backbone.encode(clip)
    assert z.shape == (latents, 4, 4, 6)
    close(z * std + mean, rearrange(found, "1 c f h w -> f c h w"))
    expected = rearrange(back, "1 c f h w -> f c h w").float() / 2 + 0.5
    close(backbone.decode(z, frames), expected[:frames].clamp(0, 1), atol=1e-6)
    assert len(backbone.decode(z)) == 4 * latents - 3


def test_frames_that_do_not_fit_are_refused(backbone):
    assert backbone.multiple == 8
    with pytest.raises(UserError, match="multiples of 8"):
        backbone.encode(torch.rand(1, 3, 12, 16))
    with pytest.raises(UserError, match=r"must be in 0\.\.1"):
        backbone.encode(torch.rand(1, 3, 16, 16) * 2)


# --- recordings and loops ---------------------------------------------------------------------------------------


def test_word_heat_has_the_shape_of_the_grid_and_is_the_written_out_one(backbone):
    text = backbone.embed(PROMPT)
    x, columns = inputs((3, 4, 6), streams=1)[0], text.columns["car"]
    record, kept = Recording(), {}
    taps = Taps(recorder([heat_of_words("heat", columns)], record))
    backbone.predict(x, 500.5, {"source": text.given}, taps=taps)
    theirs = library()
    layer = theirs.blocks[1].attn2
    layer.register_forward_hook(lambda _, given, out: kept.update(hidden=given[0], text=given[1]))
    with torch.no_grad():
        by_the_library(theirs, x, 500, text.tokens[None])
        q, k = layer.norm_q(layer.to_q(kept["hidden"])), layer.norm_k(layer.to_k(kept["text"]))
        q, k = (each[0].view(-1, 2, 12).transpose(0, 1) for each in (q, k))
        maps = torch.softmax(q @ k.transpose(1, 2) / 12**0.5, dim=-1)[..., list(columns)].sum(-1).mean(0)
    heat = record.all("heat")
    assert list(heat) == [("blocks.0.attn2", 500.5), ("blocks.1.attn2", 500.5)]
    close(heat["blocks.1.attn2", 500.5], maps.view(3, 2, 3))


@pytest.mark.parametrize("grid", ["euler", "unipc", "wan"])
def test_inversion_and_sampling_with_one_prompt_reconstruct(grid):
    made = Wan.random(0, dtype="float64", grid=grid)
    with torch.no_grad():
        made.network.proj_out.weight.mul_(0.002)  # as quiet as a trained network
    latents, text = made.encode(torch.rand(8, 3, 16, 24)), made.embed(PROMPT)
    noisy = invert(made, latents, text, 6)
    assert len(noisy) == 7 and relative(noisy[-1], latents) > 1e-3
    assert relative(sample(made, noisy[-1], text, 6), latents) < 1e-3


def test_an_inversion_is_found_again_with_its_fractional_times(backbone, tmp_path):
    text, clip = backbone.embed(PROMPT), torch.rand(5, 3, 16, 24)
    latents, times = backbone.encode(clip), backbone.noise_path.times(3)
    wish = Wish([heat_of_words("heat", text.columns["red"], times=times[1:])])
    first, again = (Inversions(tmp_path).invert(backbone, latents, text, times, wish=wish) for _ in range(2))
    assert (first.passes, again.passes) == (3, 0) and torch.equal(again.at(times[-1]), first.latents[-1])
    for key, heat in first.kept.all("heat").items():
        assert key[1] in times[1:] and torch.equal(again.kept.all("heat")[key], heat.cpu())


# --- checkpoints ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny checkpoint saved by diffusers' own pipeline class."""
    from diffusers import UniPCMultistepScheduler, WanPipeline

    folder, made = tmp_path_factory.mktemp("wan"), tiny_wan.parts(0, torch.float32, 32, (1, 2, 2))
    path = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    WanPipeline(made.tokenizer, made.text_encoder, made.vae, path, made.transformer).save_pretrained(folder)
    return folder


def test_a_sampled_clip_is_the_pipelines(saved):
    """As Wan2.1 is published: UniPC's steps on its own grid, guidance by an empty text, padding attended to."""
    from diffusers import WanPipeline

    pipe, ours = WanPipeline.from_pretrained(saved), Wan.load(saved, max_tokens=32)
    pipe.set_progress_bar_config(disable=True)
    x = torch.randn(3, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    theirs = pipe(
        "the red car on grass",
        height=16,
        width=32,
        num_frames=9,
        num_inference_steps=6,
        guidance_scale=5.0,
        latents=rearrange(x, "f c h w -> 1 c f h w"),
        output_type="latent",
        max_sequence_length=32,
    ).frames[0]
    predict = guided(ours, ours.embed("the red car on grass"), 5.0)
    made = sample(ours, x, predict, 6, solver="unipc")
    torch.testing.assert_close(made, rearrange(theirs, "c f h w -> f c h w"), atol=1e-5, rtol=0)
    assert (sample(ours, x, predict, 6) - made).abs().max() > 1e-3  # Euler's steps are others


def changed(saved, tmp_path, change):
    """A copy (of links) of the checkpoint, changed."""
    copy = tmp_path / "changed"
    shutil.copytree(saved, copy, copy_function=os.link)
    change(copy)
    return copy


def rewrite(path, **changes):
    content = {**json.loads(path.read_text()), **changes}
    path.unlink()
    path.write_text(json.dumps(content))


def test_a_checkpoint_saved_by_diffusers_runs_through_the_same_door(saved):
    loaded, made = Wan.load(saved), Wan.random(0)
    assert loaded.noise_path == made.noise_path == Flow(shift=3.0, grid="unipc")
    text, clip = loaded.embed(PROMPT), torch.rand(5, 3, 16, 16)
    close(text.tokens, made.embed(PROMPT).tokens, atol=1e-6)
    assert text.columns == made.embed(PROMPT).columns and loaded.max_tokens == 32
    x = inputs(streams=1)[0].float()
    close(loaded.predict(x, 500, {"a": text.given}), made.predict(x, 500, {"a": text.given}), atol=1e-6)
    close(loaded.encode(clip), made.encode(clip), atol=1e-6)
    assert loaded.native == (480, 832) and loaded.identity == Wan.identify(saved)
    other = Wan.load(saved, grid="euler", shift=5.0, max_tokens=20, native=[64, 64])
    assert other.noise_path == Flow(shift=5.0, grid="euler") and other.max_tokens == 20
    assert other.identity == Wan.identify(saved, grid="euler", shift=5.0, max_tokens=20)
    ways = [{}, {"grid": "euler"}, {"shift": 5.0}, {"max_tokens": 20}]
    assert len({Wan.identify(saved, **way) for way in ways}) == 4


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_precisions(saved, dtype):
    """What the class keeps in single precision stays so where the rest is narrower, and not where it is wider."""
    loaded, exact = Wan.load(saved, dtype=dtype), Wan.load(saved)
    kinds = {name: weight.dtype for name, weight in loaded.network.named_parameters()}
    assert str(loaded.dtype) == f"torch.{dtype}" and kinds["blocks.0.attn1.to_q.weight"] == loaded.dtype
    assert kinds["scale_shift_table"] == (torch.float64 if dtype == "float64" else torch.float32)
    x, text = inputs(streams=1)[0].float(), exact.embed(PROMPT).given
    ours, theirs = (each.predict(x, 500, {"a": text}) for each in (loaded, exact))
    assert relative(ours, theirs) < (0.02 if dtype == "bfloat16" else 1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda to: rewrite(to / "model_index.json", transformer=["diffusers", "LTXVideo"]), "another kind"),
        (lambda to: rewrite(to / "model_index.json", vae=["diffusers", "AutoencoderKL"]), "another kind"),
        (lambda to: (to / "transformer").rename(to / "unet"), "lacks its 'transformer'"),
        (
            lambda to: (to / "transformer" / "diffusion_pytorch_model.safetensors").rename(
                to / "transformer" / "diffusion_pytorch_model.bin"
            ),
            "allow_pickle",
        ),
        (
            lambda to: rewrite(to / "scheduler" / "scheduler_config.json", use_dynamic_shifting=True),
            "use_dynamic_shifting",
        ),
        (lambda to: rewrite(to / "vae" / "config.json", scale_factor_temporal=8), "compresses time"),
    ],
)
def test_checkpoints_that_cannot_be_run_say_so(saved, tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        Wan.load(changed(saved, tmp_path, change))


@pytest.mark.parametrize(
    "options", [{"native": [480]}, {"native": [0, 8]}, {"grid": "oiler"}, {"shift": -1.0}], ids=str
)
def test_wrong_options_are_refused(saved, options):
    with pytest.raises(UserError, match="not possible|euler"):
        Wan.load(saved, **options)


def test_a_noise_path_without_a_shift_has_none_to_choose(saved, tmp_path):
    ddim = changed(
        saved,
        tmp_path,
        lambda to: rewrite(
            to / "scheduler/scheduler_config.json", use_flow_sigmas=False, prediction_type="v_prediction"
        ),
    )
    assert Wan.load(ddim).noise_path.prediction == "v_prediction"
    with pytest.raises(UserError, match="flow matching"):
        Wan.load(ddim, shift=3.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"added_kv_proj_dim": 8, "image_dim": 8}, "add_k_proj"),
        ({"in_channels": 9}, "9 channels in, 4 out"),
        ({"patch_size": (1, 2, 1)}, "2 x 1"),
    ],
)
def test_networks_with_more_than_video_and_text_are_refused(backbone, options, said):
    from diffusers import WanTransformer3DModel

    from freemask.backbones.wan_attention import attention_sites

    with pytest.raises(UserError, match=said):
        attention_sites(WanTransformer3DModel(**{**tiny_wan.NETWORK, **options}))
    fused = library()
    fused.blocks[1].attn1.fuse_projections()
    with pytest.raises(UserError, match="fused"):
        attention_sites(fused)


# --- the authors' numbers ---------------------------------------------------------------------------------------


def stored(parity, name):
    found = load_file(parity / "golden" / f"{name}.safetensors")
    return {
        key: rearrange(value, "... c f h w -> ... f c h w") if value.ndim > 3 and "u8" not in key else value
        for key, value in found.items()
    }


def test_flow_edit_can_be_written_over_the_door(shared):
    """The loop of FlowEdit, as a method's author would write it, on the stored draws: step by step."""
    parity = shared / "parity"
    golden = stored(parity, "flow_flowedit")
    about = json.loads((parity / "golden" / "flow_flowedit.json").read_text())
    backbone = Wan.load(parity / "models" / "flow_wan_tiny", grid="euler", shift=3.0)
    path, empty = backbone.noise_path, backbone.embed("")
    source, target = (
        guided(backbone, backbone.embed(about[f"{name}_prompt"]), about[f"{name}_guidance"], uncond=empty)
        for name in ("source", "target")
    )
    clean, levels = golden["src/latents"], [*path.times(about["steps"])[::-1], -1]
    with torch.no_grad():
        for i in range(about["steps"] - about["n_max"], about["steps"]):
            z, t = golden["edit/latents"][i], levels[i]
            noisy = path.noised(clean, golden[f"edit/noise/{i:02d}/0"], t)
            direction = target(z + noisy - clean, t) - source(noisy, t)
            moved = path.step(z, direction, now=t, call=t, to=levels[i + 1])
            assert relative(moved, golden["edit/latents"][i + 1]) < 1e-4


# --- from the command line --------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path, monkeypatch):

    monkeypatch.chdir(tmp_path)
    Path("clip").mkdir()
    rng = np.random.default_rng(0)
    for i in range(9):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(f"clip/{i}.png")
    return [
        "edit",
        "clip",
        "source=a red car on grass",
        "target=a blue car on grass",
        "metric=pixels",
        "out=out",
    ]


def test_an_edit_from_the_command_line(clip, shared):
    """A folder of weights, by its path."""
    folder = shared / "parity" / "models" / "flow_wan_tiny"
    model = [f"model.path={folder}", "model.device=cpu", "model.dtype=float32", "model.text_dtype=null"]
    words = ["method=ddim", "method.steps=2", "size=[32,48]", "frames=5"]
    assert main([*clip, "model=wan", *model, *words]) == 0
    assert len(list(Path("out/frames").iterdir())) == 5


@pytest.mark.parametrize(("frames", "mask"), [(8, "average"), (5, "agreement"), (9, "average")])
def test_masked_edits_on_latents_of_several_frames(clip, frames, mask):
    words = [f"frames={frames}", "size=[32,48]", "model=random_wan", "method=freemask", f"mask={mask}"]
    words += ["method.steps=3", "task=shape", "words=red:blue", "fusion.temporal=off"]
    assert main([*clip, *words, "task.windows.shape.latent=[0,1]"]) == 0
    masks = np.load("out/masks.npz")
    (found,) = (masks[name] for name in masks.files)
    assert found.shape == (frames, 32, 48)
    for first in range(1, frames, 4):  # the frames of one latent
        assert all((found[i] == found[first]).all() for i in range(first, min(first + 4, frames)))
    row = json.loads(next(Path("out/rows").iterdir()).read_text().splitlines()[-1])
    assert row["status"] == "done" and 0 < row["facts"]["mask_share"] < 1
    (*_, said) = [each for each in row["warnings"] if "cut off" in each] or [""]
    assert (("8 2 times" in said) and ("clip of 9" in said)) is (frames == 8)


def test_layers_of_all_tokens_serve_self_attention_and_then_temporal(clip):
    """The whole fusion by default; each part that acts is told."""
    words = ["frames=5", "size=[32,48]", "model=random_wan", "mask=average", "method.steps=4", "task=shape"]
    for name, more in {"both": [], "self": ["fusion.temporal=off"], "temporal": ["fusion.self=off"]}.items():
        assert main([*clip, *words, f"out={name}", "words=red:blue", *more]) == 0
        row = json.loads(next(Path(name, "rows").iterdir()).read_text().splitlines()[-1])
        acting = row["facts"]["mask_acts_on"].split(", ")
        assert ("self" in acting, "temporal" in acting) == (name != "temporal", name != "self")


def test_where_both_could_act_self_attention_goes_first():
    from freemask.methods.editing import Editing

    both = Site("blocks.0.attn1", "space_time", 1, batch="1", tokens="(f h w)")
    where = Where(both, 1, Grid(2, 4, 4), ("source", "cond"))
    parts = {"temporal": Temporal(Window(0, 9), True), "self": Self(Window(2, 5), True)}
    editing = SimpleNamespace(policies=Policies(parts))
    acting = [Editing.parts_of(editing, where, i) for i in range(10)]
    assert acting == [["temporal"]] * 2 + [["self"]] * 3 + [["temporal"]] * 4 + [[]]


def test_the_transformer_that_ships_knows_its_world():
    """On a held-out clip, half noise: it is told apart by its caption, and the velocity is mostly right."""
    backbone = Wan.load("embedded_dit", max_tokens=32)
    text = backbone.embed("a red car moving left on grass")
    assert (
        text.tokens.shape == (32, 64)
        and not text.tokens[text.length :].any()
        and text.tokens[: text.length].any()
    )
    (task,) = World("heldout", clips=1, kinds=["shape"]).tasks()
    clean = backbone.encode(World("heldout", clips=1, kinds=["shape"]).clip(task).frames)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    x = backbone.noise_path.noised(clean, noise, 500.0)
    assert backbone.grid(backbone.sites["blocks.0.attn1"], 8, 64, 64) == Grid(4, 16, 16)

    def error(prompt):
        given = {"cond": backbone.embed(prompt).given}
        made = backbone.predict(x[None], 500.0, given)[0]
        return float((made - (noise - clean)).square().mean() / (noise - clean).square().mean())

    right, wrong = error(task.source), error("a purple star rising at night")
    assert right < 0.3 and right < 0.8 * wrong


def test_layers_and_times_are_measured_on_latents_of_several_frames(clip):
    words = ["model=random_wan", "data=world", "data.clips=1", "data.size=32", "data.frames=6"]
    assert main(["calibrate", *words, "steps=2", "name=w", "paths.runs=runs", "install=false"]) == 0


def test_what_a_transformer_needs_is_not_made_up(clip, capsys):
    assert main(["doctor", "--json", "model=wan"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (
        "not reckoned" in report["forecast"]["state"] and report["models"]["wan"]["licence"] == "Apache-2.0"
    )
