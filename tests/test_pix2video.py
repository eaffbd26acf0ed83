"""Pix2Video: against a written-out twin that goes frame by frame, odd clips, depth, masks, refusals."""

from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from torch.nn.functional import interpolate

from experiments.cli.app import main
from experiments.config.compose import config_of, plain
from experiments.runs.store import RunStore
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.control.depth import Depth, as_channel
from freemask.errors import UserError
from freemask.methods.pix2video import ALONE, Pix2Video
from freemask.methods.pnp import Pnp
from freemask.types import Clip, EditTask
from tests.given import Half, seeded
from tests.test_conditions import backbone_of, network

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")


def clip(frames=3):
    depth = torch.rand(frames, 12, 20, generator=seeded(1))
    return Clip("c", torch.rand(frames, 3, 12, 20, generator=seeded(0)), depth=depth)


def run(method, backbone, source=None, task=TASK):
    return method(backbone, source or clip(), task, seeded(0))


@pytest.fixture(scope="module")
def backbone():
    return backbone_of(True)


@pytest.fixture(scope="module")
def seeing():
    """The same with a fifth channel, which is shown depth."""
    whole = copy(backbone_of(True, 1))
    whole.depth = Depth()
    return whole


class Ended:
    """A backbone that notes the latents that were decoded."""

    def __init__(self, backbone):
        self.backbone, self.latents = backbone, None

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def decode(self, latents, frames=None):
        self.latents = latents
        return self.backbone.decode(latents, frames)


# --- the twin -------------------------------------------------------------------------------------------------


class Handed:
    """Self-attention, softmax written out: of the decoder, on features that other frames have left."""

    def __init__(self, twin, name):
        self.twin, self.name = twin, name

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None):
        self.twin.left[self.name] = hidden.detach()
        others = self.twin.handed if self.name.startswith("up_blocks") else []
        seen = torch.cat([left[self.name] for left in others], dim=1) if others else hidden
        q, k, v = attn.to_q(hidden), attn.to_k(seen), attn.to_v(seen)
        heads = []
        for part in torch.arange(attn.inner_dim).chunk(attn.heads):
            logits = q[..., part] @ k[..., part].transpose(1, 2) / len(part) ** 0.5
            heads.append(logits.softmax(-1) @ v[..., part])
        return attn.to_out[0](torch.cat(heads, dim=-1))


class Twin:
    """One frame after the other, all its steps, one text after the other, after the method card."""

    def __init__(self, method, texts, more, channels=None):
        self.method, self.texts, self.channels = method, texts, channels
        self.handed, self.left = [], {}
        self.unet = network(True, more).requires_grad_(False)
        for name, module in self.unet.named_modules():
            if name.endswith("attn1"):
                module.set_processor(Handed(self, name))
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        self.table = torch.cumprod(1 - betas, 0).double()

    def called(self, x, t, text, frame, handed=()):
        """What is predicted, and what it leaves to later frames."""
        self.handed, self.left = list(handed), {}
        seen = x if self.channels is None else torch.cat([x, self.channels[frame : frame + 1]], dim=1)
        return self.unet(seen, t, text[None]).sample, self.left

    def inverted(self, x, times, frame):
        now = self.table[0]
        for t in times:
            eps, _ = self.called(x, t, self.texts["source"], frame)
            clean = (x - (1 - now).sqrt() * eps) / now.sqrt()
            now = self.table[t]
            x = now.sqrt() * clean + (1 - now).sqrt() * eps
        return x

    def run(self, latents, times):
        made, steps = [], len(times)
        pulled = int(steps * self.method.pull_share) + (self.method.variant == "official")
        first, previous = [], []
        for frame in range(len(latents)):
            x, mine = self.inverted(latents[frame : frame + 1], times, frame), []
            for s, t in enumerate(reversed(times)):
                pulling = frame > 0 and s < pulled and self.method.pull > 0
                through = pulling and self.method.variant == "paper"
                x = x.detach().requires_grad_(through)
                left, eps = {}, {}
                for side in ("uncond", "cond"):
                    handed = [first[s][side], previous[s][side]] if frame else []
                    if self.method.look == ("first",):
                        handed = handed[:1]
                    eps[side], left[side] = self.called(x, t, self.texts[side], frame, handed)
                guided = eps["uncond"] + self.method.guidance * (eps["cond"] - eps["uncond"])
                now, below = self.table[t], self.table[times[-2 - s] if s + 1 < steps else 0]
                clean = (x - (1 - now).sqrt() * guided) / now.sqrt()
                after = below.sqrt() * clean + (1 - below).sqrt() * guided
                if pulling:
                    from_where = x if through else clean.detach().requires_grad_()
                    there = clean if through else from_where
                    distance = (previous[s]["clean"] - there).square().mean()
                    after = after - self.method.pull * torch.autograd.grad(distance, from_where)[0]
                x = after.detach()
                mine.append({**left, "clean": clean.detach()})
            first, previous = first or mine, mine
            made.append(x)
        return torch.cat(made)


@pytest.mark.parametrize("more", [0, 1], ids=["plain", "with depth"])
@pytest.mark.parametrize(
    ("frames", "settings"),
    [
        (4, {}),
        (4, {"variant": "paper"}),
        (2, {"pull_share": 1, "negative": "grass"}),
        (3, {"look": ("first",), "pull": 0}),
        (1, {}),
    ],
    ids=str,
)
def test_all_frames_at_once_are_those_of_the_twin_that_goes_one_by_one(
    backbone, seeing, frames, settings, more
):
    ended = Ended(seeing if more else backbone)
    method = Pix2Video(steps=4, guidance=3.0, **settings)
    edit = run(method, ended, clip(frames))
    channels = None
    if more:
        depth = interpolate(clip(frames).depth[:, None], size=(6, 10), mode="bicubic", align_corners=False)
        channels = torch.stack([2 * (d - d.min()) / (d.max() - d.min()) - 1 for d in depth]).double()
    assert edit.facts["sees_depth"] == bool(more)
    prompts = {"source": TASK.source, "uncond": method.negative, "cond": TASK.target}
    texts = {side: ended.embed(prompt).tokens for side, prompt in prompts.items()}
    twin = Twin(method, texts, more, channels)
    made = twin.run(ended.encode(clip(frames).frames), ended.noise_path.times(4))
    torch.testing.assert_close(ended.latents, made, atol=1e-5, rtol=0)


# --- settings -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def usual(backbone):
    return run(Pix2Video(steps=4, guidance=3.0), backbone).frames


@pytest.mark.parametrize(
    "change",
    [
        {"look": ("first",)}, {"look": (-1,)}, {"look": ()}, {"layers": ["up_blocks.2.*"]}, {"pull": 10},
        {"pull": 0}, {"pull_share": 1}, {"variant": "paper"}, {"negative": "grass"}, {"inversion_steps": 8},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_the_edit(backbone, usual, change):
    made = run(Pix2Video(**{"steps": 4, "guidance": 3.0, **change}), backbone).frames
    assert float((made - usual).abs().max()) > 1e-6


@pytest.mark.parametrize(
    ("steps", "share", "official", "paper"), [(50, 0.5, 26, 25), (10, 0.5, 6, 5), (4, 1, 4, 4), (4, 0, 0, 0)]
)
def test_in_how_many_steps_frames_are_pulled(steps, share, official, paper):
    for variant, count in (("official", official), ("paper", paper)):
        assert Pix2Video(steps=steps, pull_share=share, variant=variant).pulled == count
    assert Pix2Video(pull=0).pulled == 0


def test_the_published_pull_goes_an_eightieth_of_the_way():
    assert Pix2Video().share(torch.zeros(2, 4, 64, 64)) == pytest.approx(1 / 81.92)


def test_a_gradient_that_is_no_number_is_refused_with_what_to_do(backbone):
    with pytest.raises(UserError, match="variant=official"):
        run(Pix2Video(steps=2, variant="paper"), Broken(backbone))


class Broken(Ended):
    """A network that answers with numbers too large."""

    def predict(self, x, t, given, **more):
        return self.backbone.predict(x, t, given, **more) * (1e308 if "cond" in given else 1)


def test_one_frame_is_a_plain_edit_and_says_so(backbone):
    edit = run(Pix2Video(steps=3, guidance=3.0), backbone, clip(1))
    plain_one = run(Pnp(steps=3, guidance=3.0, convolution_share=0, attention_share=0), backbone, clip(1))
    torch.testing.assert_close(edit.frames, plain_one.frames, atol=1e-6, rtol=0)
    assert ALONE in edit.warnings
    assert ALONE not in run(Pix2Video(steps=1), backbone, clip(2)).warnings


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "Paper"}, {"look": ("last",)}, {"look": ("first", 1)}, {"pull": -1},
        {"pull_share": 1.5}, {"steps": 0}, {"inversion_steps": 3}, {"guidance": -1}, 
        {"look": ("frist",)},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises((UserError, TypeError)):
        Pix2Video(**settings)


def test_layers_and_models_that_do_not_fit_are_refused(backbone):
    with pytest.raises(UserError, match="names no layer"):
        run(Pix2Video(steps=1, layers=["up_block.1"]), backbone)
    with pytest.raises(UserError, match="model=embedded_image"):
        run(Pix2Video(steps=1), backbone_of(False))


# --- depth ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny checkpoint in the layout of Stable Diffusion 2 with depth, as diffusers saves it."""
    folder = tmp_path_factory.mktemp("depth")
    made = tiny.parts(0, torch.float32, "epsilon", 77, image=True)
    options = {key: value for key, value in made.scheduler.items() if not key.startswith("_")}
    StableDiffusionPipeline(
        made.vae, made.text_encoder, made.tokenizer, torch.nn.Module.float(network(True, 1)),
        DDIMScheduler(**options), None, None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_model_with_depth_from_its_files(saved, tmp_path, monkeypatch, capsys):
    """It sees the depth that the clip's data knows, in other methods too; of a clip without, none is ever loaded."""
    monkeypatch.chdir(tmp_path)
    words = ["model=sd2_depth", f"model.path={saved}", "model.dtype=float32", "method.steps=2", "keep=none"]
    small = ["metric=pixels", "paths.runs=out", "data.size=16", "data.frames=3", "data.clips=1", "limit=1"]
    for method, told in (("pix2video", True), ("ddim", None)):
        assert main(["run", *words, *small, f"method={method}", f"name={method}"]) == 0
        (row,) = RunStore(Path("out") / method).latest().values()
        assert row["status"] == "done" and row["facts"].get("sees_depth") is told
    folder = Path("frames")
    folder.mkdir()
    Image.new("RGB", (16, 16)).save(folder / "0.png")
    prompts = ["--source", "a red car", "--target", "a blue car"]
    monkeypatch.setattr(Inflated2D, "load", None)
    capsys.readouterr()
    assert main(["edit", "frames", *prompts, "method=pix2video", *words[:2]]) == 2
    assert "nobody knows the depth" in capsys.readouterr().err


def test_each_frame_has_its_own_range_of_depth():
    near = torch.tensor([[0.2, 0.6], [0.5, 0.5]])[:, None, None]
    torch.testing.assert_close(as_channel(near, 1, 2)[:, 0, 0], torch.tensor([[-1.0, 1.0], [-1.0, -1.0]]))


def test_depth_is_asked_of_the_clip_or_brought(seeing):
    with pytest.raises(UserError, match="nobody knows the depth"):
        run(Pix2Video(steps=1), seeing, replace(clip(), depth=None))
    brought = torch.rand(3, 1, 6, 10, generator=seeded(3))
    other = run(Pix2Video(steps=2), seeing, replace(clip(), depth=None, conditions={"channels": brought}))
    assert other.facts["sees_depth"] is True
    assert not torch.equal(other.frames, run(Pix2Video(steps=2), seeing).frames)


def test_a_network_without_such_a_channel_and_other_words_are_refused(saved):
    for words, said in (({"channels": "edges"}, "image beside latents"), ({"channels": "depth"}, "no image")):
        with pytest.raises(UserError, match=said):
            Inflated2D.load("embedded_image", **words)
    assert Inflated2D.shows(channels="depth") == {"channels": Depth()} and Inflated2D.shows() == {}


def test_the_yaml_makes_the_constructors_defaults():
    made = plain(config_of("edit", ["method=pix2video"]))["method"]
    given = {"steps", "guidance", "layers", "pull", "pull_share", "negative", "variant", "inversion_steps"}
    assert {name: made[name] for name in given} == {name: getattr(Pix2Video(), name) for name in given}
    assert tuple(made["look"]) == Pix2Video().look


# --- masks ----------------------------------------------------------------------------------------------------


def test_a_mask_of_all_or_nothing_and_of_a_half(backbone, usual):
    """Everything may change: as without a mask; nothing may: the clip, as the autoencoder has it."""
    method = Pix2Video(steps=4, guidance=3.0, mask=Half(1))
    for variant in ("official", "paper"):
        free = run(replace(method, variant=variant), backbone)
        bare = run(Pix2Video(steps=4, guidance=3.0, variant=variant), backbone)
        torch.testing.assert_close(free.frames, bare.frames, atol=1e-5, rtol=0)
    held = run(replace(method, mask=Half(0)), backbone)
    own = backbone.decode(backbone.encode(clip().frames))
    torch.testing.assert_close(held.frames, own, atol=1e-5, rtol=0)
    assert held.facts["mask_acts_on"] == "self-attention, latents in steps 1-4 of 4"
    half = run(replace(method, mask=Half(), composite="pixels"), backbone)
    assert torch.equal(half.frames[..., 10:], clip().frames[..., 10:])
    assert not torch.equal(half.frames[..., :10], clip().frames[..., :10])
    style = replace(TASK, kind="style")
    assert torch.equal(run(method, backbone, task=style).frames, usual)
