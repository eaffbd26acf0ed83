"""UNet3D: untouched it equals the library, taps are heard and leave nothing behind, checkpoints load or say why not."""

import json
import os

import pytest
import torch
from einops import rearrange

from freemask.attention.math import attend
from freemask.attention.record import Recording, heat_of_words, recorder
from freemask.backbones.unet3d import UNet3D
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert, sample
from freemask.diffusion.noise_paths import CLEAN
from freemask.errors import UserError
from freemask.types import Backbone, Taps
from tests.given import given

SIZES = [(8, 8), (10, 6), (9, 5), (12, 7)]
BOTH = ("uncond", "cond")


@pytest.fixture(scope="module")
def backbone():
    return UNet3D.random(0, dtype="float64", max_tokens=20)


@pytest.fixture(scope="module")
def library():
    """The same network, never touched by a processor of ours."""
    from freemask.backbones import tiny

    return tiny.parts(0, torch.float64, "epsilon", 20).unet.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny checkpoint in Zeroscope's layout, saved by diffusers' own pipeline class."""
    from diffusers import DDIMScheduler, TextToVideoSDPipeline

    from freemask.backbones import tiny

    folder = tmp_path_factory.mktemp("zeroscope")
    made = tiny.parts(0, torch.float32, "epsilon", 20)
    options = {key: value for key, value in made.scheduler.items() if not key.startswith("_")}
    pipeline = TextToVideoSDPipeline(
        vae=made.vae,
        text_encoder=made.text_encoder,
        tokenizer=made.tokenizer,
        unet=made.unet,
        scheduler=DDIMScheduler(**options),
    )
    pipeline.save_pretrained(folder)
    return folder


def inputs(size=(8, 8), streams=2, frames=3):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(streams, frames, 4, *size, generator=rng, dtype=torch.float64)
    return x, torch.randn(streams, 20, 16, generator=rng, dtype=torch.float64)


def by_the_library(unet, x, t, text):
    with torch.no_grad():
        out = unet(rearrange(x, "s f c h w -> s c f h w"), t, text).sample
    return rearrange(out, "s c f h w -> s f c h w")


@pytest.mark.parametrize("size", SIZES)
def test_untouched_equals_the_librarys_forward(backbone, library, size):
    x, text = inputs(size)
    ours = backbone.predict(x, 500, given(text, BOTH))
    torch.testing.assert_close(ours, by_the_library(library, x, 500, text), atol=1e-13, rtol=0)
    taps = Taps(lambda _, qkv: attend(qkv), dict.fromkeys(backbone.features, lambda _, y: y))
    through_taps = backbone.predict(x, 500, given(text, BOTH), taps=taps)
    torch.testing.assert_close(through_taps, ours, atol=1e-13, rtol=0)


@pytest.mark.parametrize("frames", [1, 8])
def test_any_number_of_frames(backbone, library, frames):
    x, text = inputs(frames=frames, streams=1)
    ours = backbone.predict(x, 1, given(text, ("source",)))
    torch.testing.assert_close(ours, by_the_library(library, x, 1, text), atol=1e-13, rtol=0)


def test_streams_are_independent(backbone):
    x, text = inputs(streams=3)
    together = backbone.predict(x, 300, given(text, ("source", "uncond", "cond")))
    for i, stream in enumerate(("source", "uncond", "cond")):
        alone = backbone.predict(x[i, None], 300, given(text[i, None], (stream,)))
        torch.testing.assert_close(together[i], alone[0], atol=1e-13, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="as many streams"):
        backbone.predict(x, 300, given(text[:2], BOTH))


def test_sites_are_complete_and_told_apart(backbone):
    kinds = [site.role for site in backbone.sites.values()]
    assert isinstance(backbone, Backbone)
    assert set(backbone.sites) == {name.removesuffix(".processor") for name in backbone.unet.attn_processors}
    assert kinds.count("cross") == kinds.count("self") == 16 and kinds.count("temporal") == 34
    for site in backbone.sites.values():
        temporal = "temp_attentions" in site.name or "transformer_in" in site.name
        assert (site.role == "temporal") == temporal
        assert (site.batch, site.tokens) == (("(h w)", "f") if temporal else ("f", "(h w)"))


@pytest.mark.parametrize("size", SIZES)
def test_every_call_knows_its_grid_and_order(backbone, size):
    x, text = inputs(size)
    seen = []

    def look(where, qkv):
        f, h, w = where.grid
        batch, tokens = (h * w, f) if where.site.role == "temporal" else (f, h * w)
        assert (f, h, w) == (3, *(-(-side // where.site.stride) for side in size))
        assert (
            qkv.q.shape[:2] == (2, batch)
            and qkv.q.shape[3] == tokens
            and qkv.hidden.shape[:3] == (2, batch, tokens)
        )
        assert qkv.k.shape[3] == (20 if where.site.role == "cross" else tokens)
        assert (where.t, where.streams) == (77, BOTH)
        seen.append(where.site.name)
        return attend(qkv)

    backbone.predict(x, 77, given(text, BOTH), taps=Taps(look))
    assert seen == list(backbone.sites)


def test_a_planted_pixel_arrives_at_its_place(backbone):
    """The layout of tokens: change one latent pixel, and the first layer's inputs change there first."""
    x, text = inputs((9, 5), streams=1)
    kept = []

    def first(where, qkv):
        if where.site.name == "transformer_in.transformer_blocks.0.attn1":
            kept.append(
                rearrange(qkv.hidden[0], "(h w) f c -> f h w c", h=where.grid.height, w=where.grid.width)
            )
        return attend(qkv)

    for value in (0.0, 100.0):
        x[0, 1, :, 6, 2] = value
        backbone.predict(x, 77, given(text, ("source",)), taps=Taps(first))
    change = (kept[1] - kept[0]).abs().sum(-1)
    assert divmod(int(change.argmax()) % 45, 5) == (6, 2) and int(change.argmax()) // 45 == 1


def test_replacing_all_queries_keys_and_values_forgets_the_prompt(backbone):
    x, text = inputs()
    x = x[:1].expand(2, -1, -1, -1, -1)
    kept = {}

    def keep(where, qkv):
        kept[where.site] = qkv
        return attend(qkv)

    recorded = backbone.predict(x[:1], 5, given(text[:1], ("source",)), taps=Taps(keep))
    other = backbone.predict(x[:1], 5, given(text[1:], ("source",)))
    swapped = backbone.predict(
        x[:1], 5, given(text[1:], ("source",)), taps=Taps(lambda at, _: attend(kept[at.site]))
    )
    torch.testing.assert_close(swapped, recorded, atol=1e-13, rtol=0)
    assert (other - recorded).abs().max() > 1e-6


def test_an_exception_in_a_tap_leaves_nothing_behind(backbone):
    x, text = inputs()
    expected = backbone.predict(x, 9, given(text, BOTH))

    def fail(where, qkv):
        if "up_blocks" in where.site.name:
            raise ZeroDivisionError
        return attend(qkv)

    with pytest.raises(ZeroDivisionError):
        backbone.predict(x, 9, given(text, BOTH), taps=Taps(fail))
    torch.testing.assert_close(backbone.predict(x, 9, given(text, BOTH)), expected, atol=0, rtol=0)
    with pytest.raises(RuntimeError, match="outside backbone.predict"):
        by_the_library(backbone.unet, x, 9, text)
    with pytest.raises(RuntimeError, match="inside predict"):
        again = Taps(lambda *_: backbone.predict(x, 9, given(text, BOTH)))
        backbone.predict(x, 9, given(text, BOTH), taps=again)
    with pytest.raises(ValueError, match="returned"):
        backbone.predict(x, 9, given(text, BOTH), taps=Taps(lambda _, qkv: qkv.q[..., :1]))


def test_feature_taps_see_every_module_and_can_replace_it(backbone):
    x, text = inputs((9, 5))
    seen = []

    def look(where, maps):
        assert maps.shape[:2] == (2, 3) and tuple(maps.shape[3:]) == where.grid[1:]
        seen.append(where.site.name)
        return maps

    every = Taps(features=dict.fromkeys(backbone.features, look))
    expected = backbone.predict(x, 9, given(text, BOTH), taps=every)
    assert seen == list(backbone.features)
    silenced = Taps(features={"up_blocks.3.resnets.2": lambda _, maps: maps * 0})
    assert (backbone.predict(x, 9, given(text, BOTH), taps=silenced) - expected).abs().max() > 1e-3


def test_gradients_flow_through_predict(backbone):
    x, text = inputs(streams=1)
    text.requires_grad_(True)
    for taps in (Taps(), Taps(lambda _, qkv: attend(qkv))):
        (found,) = torch.autograd.grad(backbone.predict(x, 9, given(text, ("cond",)), taps=taps).sum(), text)
        assert found.abs().sum() > 0


def test_guidance_one_runs_one_stream(backbone):
    x, _ = inputs(streams=1)
    text = backbone.embed("a red car")
    stacks = []
    taps = Taps(lambda where, qkv: stacks.append(where.streams) or attend(qkv))
    plain = guided(backbone, text, 1.0, taps=taps)(x[0], 9)
    assert set(stacks) == {("cond",)}
    stacks.clear()
    strong = guided(backbone, text, 3.0, taps=taps)(x[0], 9)
    assert set(stacks) == {BOTH}
    none = guided(backbone, backbone.embed(""))(x[0], 9)
    torch.testing.assert_close(strong, none + 3 * (plain - none), atol=1e-12, rtol=0)


def test_heat_of_words_through_the_network(backbone):
    x, _ = inputs((9, 5), streams=1)
    text, kept = backbone.embed("the red car"), Recording()
    keep = heat_of_words("car", text.columns["car"], strides=(1, 2))
    backbone.predict(x, 9, given(text.tokens[None], ("source",)), taps=Taps(recorder([keep], kept)))
    heats = kept.all("car")
    assert len(heats) == 10 and {tuple(heat.shape) for heat in heats.values()} == {(3, 9, 5), (3, 5, 3)}
    assert all(heat.min() > 0 and heat.max() < 1 for heat in heats.values())


def test_attention_slicing_changes_nothing(backbone, monkeypatch):
    x, text = inputs()
    whole = backbone.predict(x, 9, given(text, BOTH))
    monkeypatch.setattr(backbone, "attention_slicing", 2)
    torch.testing.assert_close(backbone.predict(x, 9, given(text, BOTH)), whole, atol=1e-13, rtol=0)


def test_frames_to_latents_and_back(backbone, monkeypatch):
    frames = torch.rand(5, 3, 20, 12, generator=torch.Generator().manual_seed(0))
    latents = backbone.encode(frames)
    assert latents.shape == (5, 4, 10, 6) and backbone.multiple == 2 and backbone.native == (16, 16)
    moments = backbone.codec.vae.encode(frames.double() * 2 - 1).latent_dist
    torch.testing.assert_close(latents, moments.mean * 0.5, atol=1e-12, rtol=0)
    monkeypatch.setattr(backbone.codec, "batch", 2)
    torch.testing.assert_close(backbone.encode(frames), latents, atol=1e-12, rtol=0)
    decoded = backbone.decode(latents * 100)
    assert decoded.shape == frames.shape and decoded.dtype == torch.float32
    assert decoded.min() == 0 and decoded.max() == 1
    with pytest.raises(UserError, match="multiples of 2") as refusal:
        backbone.encode(frames[..., :11])
    assert "20x12" in str(refusal.value)
    with pytest.raises(UserError, match="0..1"):
        backbone.encode(frames * 255)


def test_an_autoencoder_without_a_distribution(backbone):
    from diffusers import AutoencoderDC

    from freemask.backbones.codec import Codec

    torch.manual_seed(0)
    vae = AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
        scaling_factor=0.4,
    )
    codec, frames = Codec(vae, batch=2), torch.rand(3, 3, 8, 12)
    assert codec.multiple == 4
    latents = codec.encode(frames)
    torch.testing.assert_close(latents, vae.encode(frames * 2 - 1).latent * 0.4, atol=1e-5, rtol=1e-4)
    assert codec.decode(latents).shape == frames.shape


def test_prompts(backbone):
    text = backbone.embed("the red car  ")
    assert text.tokens.shape == (20, 16) and text.length == 5
    assert text.columns == {"the": (1,), "red": (2,), "car": (3,)}
    assert backbone.embed("").columns == {} and backbone.max_tokens == 20
    with pytest.raises(UserError, match="too long"):
        backbone.embed("the red car " * 10)


def test_randomness_is_the_seeds_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b, other = (UNet3D.random(seed, max_tokens=20) for seed in (5, 5, 6))
    assert a.identity == b.identity != other.identity
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_saved_by_diffusers_runs_through_the_same_door(saved):
    loaded, made = UNet3D.load(saved), UNet3D.random(0, max_tokens=20)
    x, _ = inputs()
    x, text = x.float(), loaded.embed("the red car")
    torch.testing.assert_close(text.tokens, made.embed("the red car").tokens, atol=1e-6, rtol=0)
    assert text.columns == made.embed("the red car").columns
    both = torch.stack([loaded.embed("").tokens, text.tokens])
    torch.testing.assert_close(
        loaded.predict(x, 500, given(both, BOTH)),
        made.predict(x, 500, given(both, BOTH)),
        atol=1e-5,
        rtol=0,
    )
    frames = torch.rand(2, 3, 12, 16)
    torch.testing.assert_close(loaded.encode(frames), made.encode(frames), atol=1e-5, rtol=0)
    assert loaded.noise_path.times(50)[:2] == [1, 21] and not loaded.noise_path.warnings
    assert loaded.describe()["sites"] == {"temporal": 34, "self": 16, "cross": 16}
    assert UNet3D.load(saved).identity == loaded.identity
    lean = UNet3D.load(saved, vae_slicing=True, vae_tiling=True, vae_batch=1, attention_slicing=1)
    torch.testing.assert_close(lean.encode(frames), made.encode(frames), atol=1e-5, rtol=0)


def test_identity_is_content_not_place(saved, tmp_path):
    import shutil

    from freemask.backbones import identity

    parts = ["unet", "scheduler"]
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    assert identity.of_folder(copy, parts) == identity.of_folder(saved, parts)
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "v_prediction"))
    assert identity.of_folder(copy, parts) != identity.of_folder(saved, parts)


def without(saved, tmp_path, change):
    """A copy (of links) of the checkpoint, changed."""
    import shutil

    copy = tmp_path / "changed"
    shutil.copytree(saved, copy, copy_function=os.link)
    change(copy)
    return copy


def rewrite(path, **changes):
    content = {**json.loads(path.read_text()), **changes}
    path.unlink()
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda to: (to / "model_index.json").unlink(), "not a checkpoint in diffusers layout"),
        (
            lambda to: rewrite(to / "model_index.json", unet=["diffusers", "UNet2DConditionModel"]),
            "another kind",
        ),
        (lambda to: rewrite(to / "model_index.json", vae=["diffusers", "VQModel"]), "another kind"),
        (lambda to: (to / "vae").rename(to / "vea"), "lacks its 'vae'"),
        (lambda to: (to / "unet" / "diffusion_pytorch_model.safetensors").unlink(), "has no weights"),
        (
            lambda to: (to / "unet" / "diffusion_pytorch_model.safetensors").rename(
                to / "unet" / "diffusion_pytorch_model.bin"
            ),
            "allow_pickle",
        ),
        (
            lambda to: rewrite(to / "unet" / "config.json", block_out_channels=[4, 4, 4, 4]),
            "could not be read",
        ),
        (lambda to: (to / "scheduler" / "scheduler_config.json").unlink(), "could not be read"),
    ],
)
def test_broken_checkpoints_say_what_to_do(saved, tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        UNet3D.load(without(saved, tmp_path, change))


def test_unknown_places_say_what_to_do(saved, monkeypatch):
    with pytest.raises(UserError, match="did you mean 'zeroscope0'"):
        UNet3D.load(saved.parent / "zeroscop")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="hf download nobody/nothing"):
        UNet3D.load("nobody/nothing", local_files_only=True)
    for wrong in ({"dtype": "float23"}, {"device": "gpu"}, {"device": "cuda:99"}, {"vae_batch": 0}):
        with pytest.raises(UserError):
            UNet3D.load(saved, **wrong)


def relative(ours, theirs):
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


@pytest.mark.parity
def test_the_authors_whole_inversion_and_edit_without_control(shared):
    """Every step of fm_base: teacher-forced, and free-running within what the manifests' notes allow."""
    from safetensors.torch import load_file

    parity = shared / "parity"
    golden = load_file(parity / "golden" / "fm_base.safetensors")
    story = json.loads((parity / "golden" / "fm_base.json").read_text())
    backbone = UNet3D.load(parity / "models" / "fm_zs_lite")
    source, target = backbone.embed(story["source_prompt"]), backbone.embed(story["editing_prompts"][0])
    upward = guided(backbone, source, stream="source")
    downward = guided(backbone, target, story["guidance_scale"])
    known = rearrange(golden["inv/latents"], "n c f h w -> n f c h w")
    after = rearrange(golden["edit0/latents"], "n c f h w -> n f c h w")
    start = rearrange(golden["edit0/init_latents"][0], "c f h w -> f c h w")
    path, steps = backbone.noise_path, story["num_inference_steps"]
    times = path.times(steps)
    levels = [CLEAN, *times]
    for i, t in enumerate(times):
        made = path.step(known[i], upward(known[i], t), now=levels[i], call=t, to=t)
        assert relative(made, known[i + 1]) < 1e-4
    for i, t in enumerate(reversed(times)):
        x = start if i == 0 else after[i - 1]
        assert (
            relative(path.step(x, downward(x, t), now=t, call=t, to=levels[steps - 1 - i]), after[i]) < 1e-4
        )
    free = invert(backbone, known[0], source, steps)
    assert relative(free[-1], known[-1]) < 1e-3
    assert relative(sample(backbone, free[-1], downward, steps), after[-1]) < 2e-2


def test_the_authors_inversion_step_by_step(shared):
    """Teacher-forced on stored numbers of the official code: text, network, and inversion steps."""
    from safetensors.torch import load_file

    parity = shared / "parity"
    golden = load_file(parity / "golden" / "fm_base.safetensors")
    backbone = UNet3D.load(parity / "models" / "fm_zs_lite")
    empty, source = backbone.embed(""), backbone.embed("a giraffe on the grassland")
    assert relative(torch.stack([empty.tokens, source.tokens]), golden["text/source/uncond_cond"]) < 1e-5
    latents = rearrange(golden["inv/latents"], "n c f h w -> n f c h w")
    times = backbone.noise_path.times(12)
    assert times == golden["inv/timesteps"].tolist()
    levels = [CLEAN, *times]
    for i in (0, 11):
        x, t = latents[i], times[i]
        out = backbone.predict(x[None], t, given(source.tokens[None], ("source",)))[0]
        if i == 0:
            assert relative(out, rearrange(golden["inv/unet_out/00"][0], "c f h w -> f c h w")) < 1e-4
        moved = backbone.noise_path.step(x, out, now=levels[i], call=t, to=t)
        assert relative(moved - x, latents[i + 1] - x) < 1e-4
