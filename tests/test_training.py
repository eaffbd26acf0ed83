"""The embedded models: recipes do what they say, and what ships is what the report measured."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import freemask
from experiments.workshop import boxes, recipes
from experiments.workshop.attention import Attention
from experiments.workshop.clip import hard_negatives, swap_word
from experiments.workshop.codec import Reconstruction, patches, principal, set_linear_encoder
from experiments.workshop.control import ControlDiffusion
from experiments.workshop.corpus import Corpus, build_corpus
from experiments.workshop.diffusion import ImageDiffusion, PictureDiffusion, VideoDiffusion
from experiments.workshop.flow import COLUMNS, FlowMatching
from experiments.workshop.loop import rate
from experiments.workshop.muon import Muon, orthogonal, split_parameters
from experiments.workshop.networks import (
    LOUD,
    autoencoder,
    grow,
    grow_eyes,
    picture_unet,
    text_encoder,
    transformer,
    unet2d,
    unet3d,
)
from experiments.workshop.tokenizer import learn_merges, vocabulary, world_words, write_tokenizer
from freemask.backbones.i2vgen import I2VGen, along
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.backbones.wan import Wan
from freemask.control.edges import Edges
from freemask.data.world.source import clip_of, truth
from freemask.data.world.spec import CLASSES, COLORS, PARTS, SPLITS, sample_scene
from freemask.diffusion.guidance import given_to
from freemask.errors import UserError
from freemask.methods.ground_a_video_field import box_of
from freemask.types import Clip, Given
from tests.given import given

PACKAGE = Path(freemask.__file__).parent
WEIGHTS = PACKAGE / "weights"
REPORT = PACKAGE.parent / "reports" / "embedded.json"
KEYS = {
    "vae_psnr", "class_acc", "color_acc", "background_acc", "real_class_acc", "real_color_acc",
    "real_background_acc", "inversion_psnr", "mask_iou", "mask_iou_untrained", "n", "seeds", "commit",
}  # fmt: skip


def test_every_word_of_the_world_is_one_token_of_clips_tokenizer(tmp_path):
    from transformers import CLIPTokenizer

    size = write_tokenizer(tmp_path)
    reader = CLIPTokenizer.from_pretrained(tmp_path)
    assert len(reader) == size
    for word in world_words():
        assert len(reader(word).input_ids) == 3, word
    caption = sample_scene(3).caption
    assert len(reader(caption).input_ids) == len(caption.split()) + 2
    assert (
        reader.decode(reader("Ukiyo-e, ü?").input_ids, skip_special_tokens=True).replace(" ", "")
        == "ukiyo-e,ü?"
    )


def test_merges_are_learned_in_one_order():
    assert learn_merges(["ab", "abc"]) == learn_merges(["abc", "ab"])


def test_the_linear_encoder_is_the_projection_it_claims_to_be():
    frames = torch.rand(6, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    weight, bias = principal(frames, 12)
    vae = autoencoder(12).eval()
    set_linear_encoder(vae, weight, bias)
    expected = torch.einsum("kc,bchw->bkhw", weight, patches(frames)) + bias[:, None, None]
    assert torch.allclose(vae.encode(frames).latent, expected, atol=1e-4)
    flat = expected.permute(0, 2, 3, 1).reshape(-1, 12).double()
    assert torch.allclose(flat.var(0).mean(), torch.tensor(1.0).double(), atol=0.02)
    assert torch.allclose(flat.mean(0), torch.zeros(12).double(), atol=1e-3)


def test_the_video_network_starts_as_the_image_network_frame_by_frame():
    torch.manual_seed(0)
    flat, video = unet2d(4).eval(), unet3d(4).eval()
    new = grow(flat, video)
    assert new and all("temp" in name or "transformer_in" in name for name in new)
    x, text = torch.randn(3, 4, 16, 16), torch.randn(1, 77, 64)
    with torch.no_grad():
        alone = flat(x, 500, text.expand(3, -1, -1)).sample
        together = video(x.transpose(0, 1)[None], 500, text).sample[0].transpose(0, 1)
    assert torch.allclose(alone, together, atol=1e-4)


def test_the_image_to_video_network_starts_as_the_video_network_with_columns_of_nothing():
    torch.manual_seed(0)
    video, made, nothing = unet3d(6).eval(), picture_unet(6).eval(), torch.randn(64)
    new = grow_eyes(video, made, nothing)
    parts = {name.split(".")[0] for name in new}
    assert parts == {
        "conv_in", "image_latents_proj_in", "image_latents_temporal_encoder", "image_latents_context_embedding",
        "context_embedding", "fps_embedding",
    }  # fmt: skip
    assert set(new) <= {name for name, _ in made.named_parameters()} and "conv_in.bias" not in new
    x, text, picture = torch.randn(1, 6, 8, 16, 16), torch.randn(1, 77, 64), torch.randn(1, 6, 16, 16)
    columns = 64 + 6  # of the picture's latent, and of what an image encoder would say
    given = (torch.tensor([8.0]), along(picture, 8), torch.randn(1, 1, 64))
    with torch.no_grad():
        alone = video(x, 500, torch.cat([text, nothing.expand(1, columns, 64)], 1)).sample
        shown = made(x, 500, *given, text).sample
    torch.testing.assert_close(shown, alone, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        handed = made.image_latents_proj_in(given[1][0].transpose(0, 1))  # f c h w
        rows = made.image_latents_temporal_encoder(handed.permute(2, 3, 0, 1).flatten(0, 1))
    loud = LOUD * picture[0].permute(1, 2, 0).flatten(0, 1)
    evened = torch.nn.functional.layer_norm(loud, (6,))  # as attention sees it
    torch.testing.assert_close(handed[0], LOUD * picture[0])
    for frame in range(8):
        own = loud if frame == 0 else torch.full((256, 6), LOUD * frame / 7)
        torch.testing.assert_close(rows[:, frame], own + LOUD * evened, atol=1e-4, rtol=1e-4)


def test_orthogonal_flattens_singular_values():
    for shape in ((16, 40), (40, 16)):
        matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
        values = torch.linalg.svdvals(orthogonal(matrices))
        assert values.max() < 1.3 and values.min() > 0.5


def test_muon_learns_a_small_regression():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.SiLU(), torch.nn.Linear(16, 1))
    x = torch.randn(256, 8)
    y = (x[:, :1] * x[:, 1:2]).tanh()
    optimiser = Muon(split_parameters(net, matrix_lr=0.02, vector_lr=0.01))
    losses = []
    for _ in range(150):
        loss = (net(x) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.update(torch.ones(()))
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_muon_is_the_written_out_rule_for_each_parameter_alone():
    """Matrices of equal and of other shapes (one a convolution), vectors; two steps, the second at half the rate."""
    rng = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (6, 4), (4, 6), (6, 2, 2, 1), (5,), (3,)]
    weights = [torch.randn(shape, generator=rng).requires_grad_() for shape in shapes]
    groups = [
        {"params": weights[:4], "lr": 0.1, "matrix": True},
        {"params": weights[4:], "lr": 0.01, "matrix": False},
    ]
    optimiser, expected = Muon(groups), [each.detach().clone() for each in weights]
    kept = [(torch.zeros_like(each), torch.zeros_like(each)) for each in expected]
    for step, factor in enumerate((1.0, 0.5), 1):
        for place, each in enumerate(weights):
            each.grad = gradient = torch.randn(each.shape, generator=rng)
            first, second = kept[place]
            if each.ndim > 1:
                first.copy_(0.95 * first + 0.05 * gradient)
                ahead = (0.05 * gradient + 0.95 * first).flatten(1)
                scale = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
                update = orthogonal(ahead[None])[0].view_as(each) * scale * 0.1
            else:
                first.copy_(0.9 * first + 0.1 * gradient)
                second.copy_(0.98 * second + 0.02 * gradient**2)
                hat = first / (1 - 0.9**step), second / (1 - 0.98**step)
                update = hat[0] / (hat[1].sqrt() + 1e-8) * 0.01
            expected[place] -= factor * update
        optimiser.update(torch.tensor(factor))
    for each, value in zip(weights, expected, strict=True):
        torch.testing.assert_close(each.detach(), value)


@pytest.mark.parametrize("length", [None, 5])
def test_attention_that_learns_is_the_librarys(length):
    from diffusers.models.attention_processor import Attention as Layer
    from diffusers.models.attention_processor import AttnProcessor

    layer = Layer(8, cross_attention_dim=length and 6, heads=2, dim_head=4)
    x, text = torch.randn(3, 7, 8), None if length is None else torch.randn(3, length, 6)
    layer.set_processor(AttnProcessor())
    expected = layer(x, encoder_hidden_states=text)
    layer.set_processor(Attention())
    torch.testing.assert_close(layer(x, encoder_hidden_states=text), expected)


def test_the_rate_warms_up_and_falls_to_zero():
    values = [rate(step, step / 100, warmup=10, decay=0.5) for step in range(101)]
    assert values[0] == pytest.approx(0.1) and values[30] == 1 and values[75] == pytest.approx(0.5)
    assert values[100] == 0


def test_held_out_seeds_cannot_be_trained_on(tmp_path):
    with pytest.raises(UserError, match="training split"):
        build_corpus(tmp_path, len(SPLITS["train"]) + 1)


def test_wrong_captions_are_wrong_in_one_thing():
    dice = random.Random(0)
    for seed in range(60):
        caption = sample_scene(seed).caption
        for wrong in hard_negatives(caption, dice):
            assert wrong != caption
        changed = swap_word(caption, CLASSES, dice)
        differing = [a for a, b in zip(caption.split(), changed.split(), strict=True) if a != b]
        assert len([word for word in differing if word not in ("a", "an")]) == 1
    assert swap_word("an orange car", ("orange", "red"), dice) == "a red car"
    assert set(COLORS).isdisjoint(CLASSES)


def test_a_job_draws_the_same_data_for_the_same_step():
    from experiments.workshop.clip import Contrast

    job = Contrast(corpus(4), batch=3)
    one, two = (job.batch(torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.isfinite(job.loss(*one))


def corpus(clips: int) -> Corpus:
    frames = np.random.default_rng(0).integers(0, 255, (clips, 8, 3, 64, 64), dtype=np.uint8)
    return Corpus(torch.from_numpy(frames), tuple(sample_scene(i).caption for i in range(clips)))


def small_codec():
    vae = autoencoder(4, width=16, blocks=1)
    set_linear_encoder(vae, torch.randn(4, 48, generator=torch.Generator().manual_seed(0)), torch.zeros(4))
    return vae


def test_clips_are_encoded_once_for_each_codec(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.workshop.corpus.AT_ONCE", 2)
    there = replace(corpus(3), folder=tmp_path)
    vae = small_codec()
    latents = there.latents(vae)
    with torch.no_grad():
        expected = vae.encode(there.frames[2].float() / 127.5 - 1).latent
    assert latents.dtype == torch.float16 and latents.shape == (3, 8, 4, 16, 16)
    torch.testing.assert_close(latents[2].float(), expected, atol=2e-3, rtol=2e-3)
    (file,) = tmp_path.glob("*.npy")
    before = file.stat().st_mtime_ns
    assert torch.equal(there.latents(vae), latents) and file.stat().st_mtime_ns == before
    set_linear_encoder(vae, torch.ones(4, 48), torch.zeros(4))
    assert not torch.equal(there.latents(vae), latents) and len(list(tmp_path.glob("*.npy"))) == 2
    assert torch.equal(corpus(3).latents(small_codec()), latents)  # without a folder nothing is kept


def test_the_diffusion_jobs_learn_velocities_of_their_clips():
    torch.manual_seed(0)
    latents = torch.randn(3, 8, 4, 16, 16).half()
    captions = [sample_scene(i).caption for i in range(3)]
    image = ImageDiffusion(latents, captions, batch=40)
    noisy, target, t, texts = image.batch(torch.Generator().manual_seed(1))
    signal, spread = image.levels[t].T[..., None, None, None, None]
    clean = signal * noisy - spread * target
    assert noisy.shape == (40, 1, 4, 16, 16) and (t.diff() >= 0).all() and t[-1] > 950
    rows = [
        next(i for i, f in enumerate(latents.float().flatten(0, 1)) if (f - each[0]).abs().max() < 1e-4)
        for each in clean
    ]
    said = [each.tolist() for each in image.ids[image.caption]]
    empty = image.ids[0].tolist()
    assert {text in (said[row // 8], empty) for row, text in zip(rows, texts.tolist(), strict=True)} == {True}
    assert 0 < sum(text == empty for text in texts.tolist()) < 12
    few = [each[:2] for each in (noisy, target, t, texts)]
    assert torch.isfinite(image.loss(*few))
    video = VideoDiffusion(image.unet, image.text_encoder, latents, captions, batch=1, spatial=0.5)
    noisy, target, t, texts = video.batch(torch.Generator().manual_seed(1))
    assert noisy.shape == (1, 8, 4, 16, 16) and texts.shape[1:] == (77, 64)
    assert torch.isfinite(video.loss(noisy, target, t, texts))
    rates = {(group["lr"], group["matrix"]) for group in video.groups(0.2, 0.02)}
    assert rates == {(0.2, True), (0.1, True), (0.02, False), (0.01, False)}


def test_the_job_that_animates_shows_each_clip_its_own_first_frame_as_the_backbone_will():
    captions = [sample_scene(i).caption for i in range(3)]
    latents, shipped = torch.randn(3, 8, 12, 16, 16).half(), I2VGen.load("embedded_i2v", text_skip=0)
    start, encoder = UNet3D.load("embedded").unet, shipped.reader.encoder
    job = PictureDiffusion(start, encoder, latents, captions, batch=20, spatial=0.5)
    noisy, target, t, texts, picture = job.batch(torch.Generator().manual_seed(1))
    signal, spread = job.levels[t].T[..., None, None, None, None]
    torch.testing.assert_close((signal * noisy - spread * target)[:, 0], picture, atol=1e-4, rtol=0)
    job.loss(*(each[:1] for each in (noisy, target, t, texts, picture))).backward()
    first = job.unet.conv_in.weight.grad
    assert first[:, 12:].any() and not first[:, :12].any()
    job.unet.load_state_dict(shipped.unet.state_dict())
    told = {"text": texts[0], "image": torch.zeros(64), "image_latents": picture[0], "fps": torch.tensor(8.0)}
    with torch.no_grad():
        found = job.predict(noisy[:1], t[:1], texts[:1], picture[:1])[0]
    wanted = shipped.predict(noisy[:1], int(t[0]), {"cond": Given(told)})[0]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    rates = {(group["lr"], group["matrix"]) for group in job.groups(0.2, 0.02)}
    assert rates == {(0.2, True), (0.1, True), (0.02, False), (0.01, False)}


@pytest.mark.filterwarnings("ignore")
def test_the_recipe_that_animates_ends_in_a_checkpoint_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "_corpus", lambda run: corpus(3))
    run = RUN | {"folder": tmp_path, "weights": tmp_path / "weights", "clips": 3}
    settings = {
        "steps": 1,
        "warmup": 1,
        "decay": 0.5,
        "average": 0.5,
        "save_every": 1,
        "batch": 1,
        "spatial": 0.5,
    }
    settings |= {"matrix_lr": 0.01, "vector_lr": 0.001}
    with pytest.raises(UserError, match="t2v"):
        recipes.i2v(run, **settings)
    (tmp_path / "weights").mkdir(exist_ok=True)
    (tmp_path / "weights/t2v").symlink_to(WEIGHTS / "t2v")
    recipes.i2v(run, **settings)
    made, start = I2VGen.load(tmp_path / "weights/i2v", text_skip=0), UNet3D.load("embedded")
    assert made.unet.conv_in.weight[:, 12:].any()
    assert torch.equal(made.embed("a red car").tokens, start.embed("a red car").tokens)
    frames = corpus(1).frames[0] / 255
    assert torch.equal(made.seen(Clip("", frames))["image_latents"], start.encode(frames[:1])[0])


def test_the_flow_job_learns_velocities_from_clean_to_noise_as_the_backbone_will_use_it():
    latents, captions = torch.randn(3, 8, 12, 16, 16).half(), [sample_scene(i).caption for i in range(3)]
    shipped = Wan.load(WEIGHTS / "dit", max_tokens=COLUMNS)
    network = transformer(12, 8)
    network.load_state_dict(shipped.network.state_dict())
    job = FlowMatching(network, shipped.reader.encoder, latents, captions, batch=200, frames=1)
    noisy, velocity, t, texts = job.batch(torch.Generator().manual_seed(1))
    level = (t / 1000)[:, None, None, None, None]
    gaps = (
        ((noisy - level * velocity) - latents.float().flatten(0, 1)[:, None, None]).abs().amax((2, 3, 4, 5))
    )
    assert gaps.amin(0).max() < 1e-4  # each is a frame of the clips
    assert t.min() > 0 and t.max() < 1000 and 0.6 < ((t > 250) & (t < 750)).float().mean() < 0.8
    read = torch.stack([shipped.embed(caption).tokens for caption in ("", *captions)])
    torch.testing.assert_close(job.texts(torch.arange(4)), read, atol=2e-3, rtol=0)
    known = (texts[:, None] - job.texts(torch.arange(4))).abs().amax((2, 3)) == 0
    assert known.any(1).all() and 5 < known[:, 0].sum() < 40  # a tenth without caption
    (inner, outer), names = job.groups(0.2, 0.02), dict(job.transformer.named_parameters())
    assert (inner["lr"], inner["matrix"], outer["lr"], outer["matrix"]) == (0.2, True, 0.02, False)
    assert len(inner["params"]) == 10 * 8 and len(inner["params"]) + len(outer["params"]) == len(names)
    clip, told = latents[:1].float(), job.texts(torch.tensor([1]))
    found = job.predict(clip[:, :3], torch.tensor([400.0]), told)[0]  # half a cell is empty
    wanted = shipped.predict(clip[:, :3], 400.0, given(told, ["cond"]))[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_transformers_recipe_ends_in_a_checkpoint_that_goes_on_from_its_stills(tmp_path, monkeypatch):
    for name, like in (("codec", "t2i/vae"), ("t2i", "t2i")):
        (tmp_path / "weights").mkdir(exist_ok=True)
        (tmp_path / "weights" / name).symlink_to(WEIGHTS / like)
    monkeypatch.setattr(recipes, "_corpus", lambda run: corpus(3))
    run = RUN | {"folder": tmp_path, "weights": tmp_path / "weights", "clips": 3}
    settings = {
        "steps": 2,
        "warmup": 1,
        "decay": 0.5,
        "average": 0.5,
        "save_every": 2,
        "batch": 1,
        "blocks": 1,
    }
    settings |= {"matrix_lr": 0.01, "vector_lr": 0.001}
    with pytest.raises(UserError, match="dit_stills"):
        recipes.dit(run, **settings, start="dit_stills")
    recipes.dit_stills(run, **settings, start=None)
    still = Wan.load(tmp_path / "weights/dit_stills", max_tokens=COLUMNS)
    assert still.network.proj_out.weight.abs().max() > 0 and still.network.config.num_layers == 1
    recipes.dit(run, **settings | {"matrix_lr": 0.0, "vector_lr": 0.0}, start="dit_stills")
    made = Wan.load(tmp_path / "weights/dit", max_tokens=COLUMNS)
    for name, value in made.network.state_dict().items():
        assert torch.equal(value, still.network.state_dict()[name]), name
    assert torch.equal(made.embed("a red car").tokens, still.embed("a red car").tokens)


def behind_t2i(folder, monkeypatch):
    """A run that has what the image stage leaves, and two steps of training."""
    (folder / "weights").mkdir()
    for name, like in (("codec", "t2i/vae"), ("t2i", "t2i")):
        (folder / "weights" / name).symlink_to(WEIGHTS / like)
    monkeypatch.setattr(recipes, "_corpus", lambda run: corpus(3))
    run = RUN | {"folder": folder, "weights": folder / "weights", "clips": 3}
    return run, {"steps": 2, "warmup": 1, "decay": 0.5, "average": 0.0, "save_every": 2, "batch": 2}


@pytest.mark.filterwarnings("ignore")
def test_the_recipe_of_edges_leaves_a_controlnet_beside_an_image_network_that_stays(tmp_path, monkeypatch):
    """It begins as the image network by itself; what it learns lets edges have a say, and the door takes it."""
    run, settings = behind_t2i(tmp_path, monkeypatch)
    recipes.control(run, **settings, kind="edges", matrix_lr=0.01, vector_lr=0.01)
    made = Inflated2D.load(
        tmp_path / "weights/t2i", control=tmp_path / "weights/control_edges", control_images="edges"
    )
    clip = clip_of(sample_scene(0), "c")
    told, x = given_to(made, clip, made.embed("a red car")), made.encode(clip.frames[:2])
    told = told.plus(control=told.parts["control"][:2])

    def said(strength):
        given = {"cond": told.plus(control_strength=torch.tensor(strength))}
        return made.predict(x[None], 500, given)[0]

    plain = Inflated2D.load(tmp_path / "weights/t2i").predict(
        x[None], 500, {"cond": made.embed("a red car").given}
    )
    torch.testing.assert_close(said(0.0), plain[0])
    assert float((said(1.0) - plain[0]).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", ["edges", "depth"])
def test_images_are_those_of_the_frames_that_are_learnt_from(kind):
    flat, known = unet2d(4), corpus(3)
    clips = [clip_of(sample_scene(SPLITS["train"][place]), "c") for place in range(3)]
    latents = torch.arange(3 * 8).reshape(3, 8, 1, 1, 1).expand(3, 8, 4, 16, 16).half()  # which frame it is
    encoder = text_encoder(len(vocabulary()))
    job = ControlDiffusion(flat, encoder, known, latents, kind=kind, batch=6)
    job.noised = lambda clean, rng: (clean, clean, torch.zeros(6))
    clean, _, _, texts, images = job.batch(torch.Generator().manual_seed(0))
    places = clean[:, 0, 0, 0, 0].long()
    assert len(places.unique()) > 3 and texts.shape == (6, 77, 64)
    for place, found in zip(places.tolist(), images, strict=True):
        frame = known.frames[place // 8, place % 8].float() / 255
        wanted = Edges().of(frame[None])[0] if kind == "edges" else clips[place // 8].depth[place % 8]
        assert torch.equal(found, wanted.expand(3, -1, -1))


RUN = {"seed": 3, "fresh": False, "logger": "csv", "processes": 1, "accelerator": "cpu"}


@pytest.mark.filterwarnings("ignore")
def test_the_recipe_of_boxes_leaves_gated_layers_for_an_image_network_that_stays(tmp_path, monkeypatch):
    """They begin as nothing, learn, and are read by the network that they are put into."""
    run, settings = behind_t2i(tmp_path, monkeypatch)
    recipes.boxes(run, **settings, matrix_lr=0.01, vector_lr=0.01)
    made = Inflated2D.load(
        tmp_path / "weights/t2i", gated=tmp_path / "weights/boxes", attention="frame", shared_norm=False
    )
    scene = sample_scene(0)
    (phrase, box), *_ = boxes.told(scene, 0)
    text, spoken = made.embed(scene.caption), made.embed(phrase)
    x = made.encode(clip_of(scene, "c").frames[:1])
    told = {"boxes": box[None, None], "phrases": spoken.tokens[spoken.length - 1][None, None]}

    def said(gates):
        given = text.given.plus(**told, gates=torch.tensor(gates))
        return made.predict(x[None], 500, {"cond": given})[0]

    plain = Inflated2D.load(tmp_path / "weights/t2i", attention="frame", shared_norm=False)
    torch.testing.assert_close(said(0.0), plain.predict(x[None], 500, {"cond": text.given})[0])
    assert float((said(1.0) - said(0.0)).abs().max()) > 1e-3


def test_boxes_are_told_of_by_what_is_in_them():
    """By colour and class, by a class alone, parts by theirs; and the last tokens of phrases are the reader's."""
    scene = next(each for each in map(sample_scene, range(100)) if each.things[0].part_color)
    thing = scene.things[0]
    masks = truth(scene)
    full, part = f"{thing.color} {thing.cls}", f"{thing.part_color} {PARTS[thing.cls]}"
    found = dict(boxes.told(scene, 2, ((1, 1, 0),)))
    assert list(found) == [full, part] and list(dict(boxes.told(scene, 2, ((1, 0, 1),)))) == [thing.cls]
    assert not boxes.told(scene, 2, ((0, 1, 1),))
    torch.testing.assert_close(found[full], box_of(masks.things[0])[2])
    torch.testing.assert_close(found[part], box_of(masks.parts[0][PARTS[thing.cls]])[2])
    from transformers import CLIPTextModel

    reader = Inflated2D.load()
    encoder = CLIPTextModel.from_pretrained(WEIGHTS / "t2i/text_encoder", dtype=torch.float32)
    said = boxes._last_tokens(encoder, [full, thing.cls])
    for row, phrase in zip(said, (full, thing.cls), strict=True):
        text = reader.embed(phrase)
        torch.testing.assert_close(row, text.tokens[text.length - 1])


@pytest.mark.filterwarnings("ignore")
def test_training_by_the_clock_counts_what_earlier_starts_took(tmp_path, monkeypatch):
    from experiments.workshop import loop

    clock, rates = iter(range(1000)), []  # a second for each look
    monkeypatch.setattr(loop, "monotonic", lambda: float(next(clock)))
    true_rate = loop.rate
    monkeypatch.setattr(
        loop, "rate", lambda step, done, **k: rates.append(done) or true_rate(step, done, **k)
    )
    settings = {"steps": None, "seconds": 10, "warmup": 1, "decay": 0.5, "average": 0.9, "save_every": 1}
    settings |= {"matrix_lr": 0.01, "vector_lr": 0.001}

    def build():
        return Reconstruction(small_codec(), corpus(3), batch=2)

    first = loop.fit(build, settings, tmp_path, RUN)
    assert first.global_step == len(rates) > 2 and rates == sorted(rates) and 0.5 < rates[-1] < 1
    again = loop.fit(build, settings | {"seconds": 20}, tmp_path, RUN)
    later = rates[first.global_step :]
    assert again.global_step > first.global_step and 0.4 < later[0] < 0.6 and later[-1] < 1


@pytest.mark.filterwarnings("ignore")
def test_a_killed_training_continues_as_if_nothing_had_happened(tmp_path, monkeypatch):
    """The same weights, bit for bit, whether or not the run died between two checkpoints."""
    from experiments.workshop.loop import fit

    settings = {"steps": 5, "warmup": 1, "decay": 0.5, "average": 0.9, "save_every": 2}
    settings |= {"matrix_lr": 0.01, "vector_lr": 0.001}

    def build():
        return Reconstruction(small_codec(), corpus(3), batch=2)

    run = RUN
    whole = fit(build, settings, tmp_path / "whole", run)
    calls, true_loss = [], Reconstruction.loss

    def dying(self, *batch):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("killed")
        return true_loss(self, *batch)

    monkeypatch.setattr(Reconstruction, "loss", dying)
    with pytest.raises(RuntimeError, match="killed"):
        fit(build, settings, tmp_path / "killed", run)
    again = fit(build, settings, tmp_path / "killed", run)
    assert len(calls) == 4 + 3
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, again.average.state_dict()[name]), name
    finished = fit(build, settings | {"steps": 4}, tmp_path / "killed", run)
    stored = torch.load(tmp_path / "killed/last.ckpt", weights_only=False)["state_dict"]
    assert len(calls) == 4 + 3
    for name, value in finished.average.state_dict().items():
        assert torch.equal(value, stored[f"average.{name}"]), name


def test_shipped_weights_are_small_and_complete():
    sizes = {path: path.stat().st_size for path in WEIGHTS.rglob("*.safetensors")}
    assert sum(sizes.values()) <= 60e6 and max(sizes.values()) <= 14e6
    from safetensors import safe_open

    for path in sizes:
        with safe_open(path, framework="pt") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 -- not a dict
        assert kinds <= {"F16", "I64"}, path
    for pipeline in ("t2i", "t2v", "i2v"):
        index = json.loads((WEIGHTS / pipeline / "model_index.json").read_text())
        assert all((WEIGHTS / pipeline / part).is_dir() for part in index if not part.startswith("_"))


def test_shipped_video_network_has_the_originals_shape():
    from diffusers import UNet3DConditionModel

    net = UNet3DConditionModel.from_pretrained(WEIGHTS / "t2v" / "unet")
    text = [n for n, m in net.named_modules() if n.endswith("attn2") and ".attentions." in n]
    assert len(net.config.block_out_channels) == 4 and len(text) == 16


def test_the_shipped_image_model_is_an_ordinary_diffusers_folder():
    from diffusers import AutoencoderDC, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    folder = WEIGHTS / "t2i"
    net = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    vae = AutoencoderDC.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    reader = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    assert DDIMScheduler.from_pretrained(folder / "scheduler").config.prediction_type == "v_prediction"
    ids = torch.tensor(reader(["a red car on grass"], padding="max_length", max_length=77).input_ids)
    with torch.no_grad():
        out = net(torch.randn(1, net.config.in_channels, 16, 16), 500, text(ids).last_hidden_state).sample
        frames = vae.decode(out).sample
    assert out.shape[-2:] == (16, 16) and frames.shape == (1, 3, 64, 64) and torch.isfinite(frames).all()


def test_the_report_states_every_figure():
    document = json.loads(REPORT.read_text())
    assert set(document) >= KEYS
    for name, bar in document["bars"].items():
        assert bar["met"] == (document[name] >= bar["bar"])
    start = SPLITS["heldout"]
    assert all(a in start and b - 1 in start for a, b in document["seeds"].values())
    for name, values in (("class", CLASSES), ("color", COLORS)):
        counts = [document["generated_by"][name][value]["n"] for value in values]
        assert max(counts) - min(counts) <= 1
