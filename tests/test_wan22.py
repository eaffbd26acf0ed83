"""Wan2.2 through the door: two experts that share the path, a time for every token, an autoencoder with cells of its
own. Everything is saved by the library's pipeline, and a sampled clip is the pipeline's."""

import json

import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline
from einops import rearrange

from freemask.attention.math import attend
from freemask.attention.record import Recording, heat_of_words, recorder
from freemask.backbones import tiny_wan
from freemask.backbones.wan import Wan
from freemask.diffusion.flow import Flow
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import sample
from freemask.errors import UserError
from freemask.types import Grid, Taps

PROMPT, CELLS = "the red car on grass", (1, 2, 2)
VAE = {"patch_size": 2, "in_channels": 12, "out_channels": 12, "is_residual": True, "scale_factor_spatial": 8}


def close(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def saved(folder, vae=None, **options):
    """A tiny pipeline of the library, saved by it."""
    made, path = tiny_wan.parts(0, torch.float32, 32, CELLS), FlowMatchEulerDiscreteScheduler(shift=3.0)
    vae = made.vae if vae is None else AutoencoderKLWan(**tiny_wan.VAE | vae)
    pipe = WanPipeline(made.tokenizer, made.text_encoder, vae, path, made.transformer, **options)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    return pipe


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """As TI2V-5B is saved."""
    folder = tmp_path_factory.mktemp("wan22_5b")
    return saved(folder, VAE, expand_timesteps=True), Wan.load(folder), folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """As T2V-A14B is saved: of five steps at shift 3, two are above the boundary."""
    folder, second = tmp_path_factory.mktemp("wan22_a14b"), tiny_wan.parts(1, torch.float32, 32, CELLS)
    pipe = saved(folder, transformer_2=second.transformer, boundary_ratio=0.875)
    return pipe, Wan.load(folder), folder


def noise(streams=1):
    return torch.randn(streams, 3, 4, 4, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_sampled_clip_is_the_librarys(name, request):
    pipe, ours, _ = request.getfixturevalue(name)
    (x,), factor = noise(), pipe.vae_scale_factor_spatial
    theirs = pipe(
        PROMPT,
        height=4 * factor,
        width=8 * factor,
        num_frames=9,
        num_inference_steps=5,
        guidance_scale=5.0,
        latents=rearrange(x, "f c h w -> 1 c f h w"),
        output_type="latent",
        max_sequence_length=32,
    ).frames[0]
    assert ours.noise_path == Flow(shift=3.0, grid="euler")
    made = sample(ours, x, guided(ours, ours.embed(PROMPT), 5.0), 5)
    close(made, rearrange(theirs, "c f h w -> f c h w"))
    assert (made - x).abs().max() > 0.1


def test_an_autoencoder_with_cells_of_its_own(one):
    pipe, ours, _ = one
    assert (ours.multiple, ours.compression) == (16, 4)
    clip = torch.rand(8, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    z = ours.encode(clip)
    assert z.shape == (3, 4, 4, 6) and ours.grid(ours.sites["blocks.0.attn1"], 8, 32, 48) == Grid(3, 2, 3)
    whole = torch.cat([clip, clip[-1:]])
    with torch.no_grad():
        found = pipe.vae.encode(rearrange(whole * 2 - 1, "f c h w -> 1 c f h w")).latent_dist.mode()
        back = pipe.vae.decode(found).sample
    mean, std = (torch.tensor(tiny_wan.VAE[f"latents_{each}"])[:, None, None] for each in ("mean", "std"))
    close(z * std + mean, rearrange(found, "1 c f h w -> f c h w"))
    close(ours.decode(z, 8), (rearrange(back, "1 c f h w -> f c h w") / 2 + 0.5).clamp(0, 1)[:8])


def test_the_time_says_which_expert_runs(two):
    pipe, ours, _ = two
    x, text, seen = noise(2), ours.embed(PROMPT), []

    def look(where, qkv):
        seen.append(where.site.name)
        return attend(qkv)

    for t, expert in ((1000, pipe.transformer), (875, pipe.transformer), (874.9, pipe.transformer_2)):
        told, maps = torch.tensor([t, t]), rearrange(x, "s f c h w -> s c f h w")
        with torch.no_grad():
            theirs = expert(maps, told, text.tokens.expand(2, -1, -1)).sample
        given = {"uncond": text.given, "cond": text.given}
        close(ours.predict(x, t, given), rearrange(theirs, "s c f h w -> s f c h w"))
        close(ours.predict(x, t, given, taps=Taps(look)), ours.predict(x, t, given), atol=0)
    assert seen == list(ours.sites) * 3 and len(ours.sites) == 4


def linked(folder, to, renamed=None, **changes):
    """The same checkpoint, with another index, and its parts perhaps under other names."""
    for part in folder.iterdir():
        if part.is_dir():
            (to / (renamed or {}).get(part.name, part.name)).symlink_to(part)
    index = json.loads((folder / "model_index.json").read_text()) | changes
    (to / "model_index.json").write_text(json.dumps(index))
    return to


def test_a_layers_heat_at_a_time_is_that_of_the_expert_there(two, tmp_path):
    """The second expert alone has the same heat below the boundary, and another above."""
    _, ours, folder = two
    swap = {"transformer": "transformer_2", "transformer_2": "transformer"}
    below = Wan.load(linked(folder, tmp_path, swap, transformer_2=[None, None], boundary_ratio=None))
    text, heat = ours.embed(PROMPT), []
    for model in (ours, below):
        record, x = Recording(), noise()[0]
        taps = Taps(recorder([heat_of_words("heat", text.columns["car"])], record))
        for t in (400.0, 900.0):
            guided(model, text, taps=taps)(x, t)
        heat.append(record.all("heat"))
    assert len(heat[0]) == 4 and {site for site, _ in heat[0]} == {"blocks.0.attn2", "blocks.1.attn2"}
    same = [key for key in heat[0] if torch.equal(heat[0][key], heat[1][key])]
    assert [t for _, t in same] == [400.0, 400.0]
    assert below.identity != ours.identity


def test_both_experts_may_be_tuned_and_are_part_of_the_identity(two, tmp_path):
    _, ours, folder = two
    other = linked(folder, tmp_path, boundary_ratio=0.9)
    assert ours.identity == Wan.identify(folder) != Wan.identify(other)
    with ours.tuned(["*.blocks.0.attn2.to_q.weight"]) as tuned:
        names = [f"transformer{end}.blocks.0.attn2.to_q.weight" for end in ("", "_2")]
        assert sorted(tuned.weights) == names
    one = sum(weight.numel() for weight in ours.network.transformer.parameters())
    assert ours.describe()["parameters"] == 2 * one


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"boundary_ratio": None}, "which transformer"),
        ({"transformer_2": [None, None]}, "no transformer_2"),
        ({"transformer_2": ["diffusers", "LTXVideoTransformer3DModel"]}, "another kind"),
    ],
    ids=str,
)
def test_experts_without_their_boundary_are_refused(two, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        Wan.load(linked(two[2], tmp_path, **changes))
