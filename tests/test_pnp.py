"""Plug-and-play: every step against a written-out twin on the library's own network, its layers, windows, refusals."""

from dataclasses import replace

import pytest
import torch

from experiments.config.compose import config_of, plain
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D, Inflation
from freemask.backbones.unet import placed
from freemask.backbones.unet3d import UNet3D
from freemask.diffusion.noise_paths import CLEAN, Ddim, noise_between
from freemask.errors import UserError
from freemask.methods.pnp import Pnp
from freemask.methods.pnp_layers import attentions, convolutions
from freemask.types import NO_TAPS, Clip, EditTask

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
# Of Stable Diffusion, as the authors write them down.
CONVOLUTIONS = ["up_blocks.1.resnets.1.conv2"]
ATTENTIONS = [
    f"up_blocks.{block}.attentions.{place}.transformer_blocks.0.attn1"
    for block, places in ((1, (1, 2)), (2, (0, 1, 2)), (3, (0, 1, 2)))
    for place in places
]


class Watched:
    """A backbone that notes the streams and latents of every call."""

    def __init__(self, backbone):
        self.backbone, self.calls = backbone, []

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def predict(self, x, t, given, *, taps=NO_TAPS):
        self.calls.append((t, dict(zip(given, x, strict=True))))
        return self.backbone.predict(x, t, given, taps=taps)


@pytest.fixture(scope="module")
def backbone():
    return Inflated2D.random(0, dtype="float64", max_tokens=20, attention="frame", shared_norm=False)


def clip(frames=2):
    rng = torch.Generator().manual_seed(0)
    return Clip("c", torch.rand(frames, 3, 12, 20, generator=rng))


def run(method, backbone, task=TASK):
    return method(backbone, clip(), task, torch.Generator().manual_seed(0))


# --- the twin -------------------------------------------------------------------------------------------------


class SourceLooks:
    """Self-attention of three stacked clips with the queries and keys of the first, softmax written out."""

    def __init__(self, twin):
        self.twin = twin

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None):
        q, k, v = attn.to_q(hidden), attn.to_k(hidden), attn.to_v(hidden)
        if self.twin.step < self.twin.attention_steps:
            third = len(hidden) // 3
            q, k = torch.cat([q[:third]] * 3), torch.cat([k[:third]] * 3)
        heads = []
        for rows in torch.arange(attn.inner_dim).chunk(attn.heads):
            logits = q[..., rows] @ k[..., rows].transpose(1, 2) / len(rows) ** 0.5
            heads.append(torch.softmax(logits, dim=-1) @ v[..., rows])
        return attn.to_out[0](torch.cat(heads, dim=-1))


class Twin:
    """The library's network with hooks, and loops after the method card. Stacked are source, negative, target."""

    def __init__(self, method, texts, *, convolution_steps, attention_steps, names):
        self.method, self.texts, self.step = method, texts, 0
        self.convolution_steps, self.attention_steps = convolution_steps, attention_steps
        self.unet = tiny.parts(0, torch.float64, "epsilon", 20, image=True).unet.eval()
        self.lending = tiny.parts(0, torch.float64, "epsilon", 20, image=True).unet.eval()
        for name in names[0]:
            self.lending.get_submodule(name).register_forward_hook(self.convolved)
        for name in names[1]:
            self.lending.get_submodule(name).set_processor(SourceLooks(self))
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        self.table = torch.cumprod(1 - betas, 0).double()

    def convolved(self, module, args, output):
        first = output[: len(output) // 3]
        return torch.cat([first] * 3) if self.step < self.convolution_steps else output

    def invert(self, clean, times):
        """By time of the network: the latent brought to that time's level."""
        z, below, levels = clean, self.table[0], {}
        for t in times:
            eps = self.unet(z, t, self.texts[0].expand(len(z), -1, -1)).sample
            z = (z - (1 - below).sqrt() * eps) / below.sqrt()
            z = self.table[t].sqrt() * z + (1 - self.table[t]).sqrt() * eps
            below, levels[t] = self.table[t], z
        return levels

    def begin(self, clean, levels, first):
        if self.method.start == "inverted":
            return levels[first]
        last = max(levels)
        eps = (levels[last] - self.table[last].sqrt() * clean) / (1 - self.table[last]).sqrt()
        return self.table[first].sqrt() * clean + (1 - self.table[first]).sqrt() * eps

    @torch.no_grad()
    def run(self, clean, down, up):
        """The latent before every step, and the last one."""
        levels, frames = self.invert(clean, up), len(clean)
        x, found = self.begin(clean, levels, down[-1]), []
        for self.step, t in enumerate(reversed(down)):
            found.append(x)
            text = torch.cat([each.expand(frames, -1, -1) for each in self.texts])
            _, negative, target = self.lending(torch.cat([levels[t], x, x]), t, text).sample.chunk(3)
            eps = negative + self.method.guidance * (target - negative)
            below = [0, *down][down.index(t)]
            z = (x - (1 - self.table[t]).sqrt() * eps) / self.table[t].sqrt()
            x = self.table[below].sqrt() * z + (1 - self.table[below]).sqrt() * eps
        return found, x


OTHERS = {
    "convolutions": ["mid_block.resnets.0", "up_blocks.3.resnets.?.conv2", "down_blocks.0.downsamplers.0"],
    "attentions": ["down_blocks.1.*.attn1", "up_blocks.3.attentions.2.*"],
}
OTHER_NAMES = (
    [*OTHERS["convolutions"][::2], *(f"up_blocks.3.resnets.{i}.conv2" for i in range(3))],
    [f"{place}.transformer_blocks.0.attn1" for place in
     ("down_blocks.1.attentions.0", "down_blocks.1.attentions.1", "up_blocks.3.attentions.2")],
)  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "counts", "names"),
    [
        ({}, (4, 2), (CONVOLUTIONS, ATTENTIONS)),
        ({"start": "renoised", "inversion_steps": 10}, (4, 2), (CONVOLUTIONS, ATTENTIONS)),
        ({"inversion_steps": 10, "negative": "a red grass", **OTHERS}, (4, 2), OTHER_NAMES),
        ({"convolution_share": 0.2, "attention_share": 1}, (1, 5), (CONVOLUTIONS, ATTENTIONS)),
        ({"convolution_share": 0.6, "attention_share": 0}, (3, 0), (CONVOLUTIONS, ATTENTIONS)),
    ],
    ids=["usual", "renoised", "other layers", "long attention", "no attention"],
)
def test_every_step_equals_the_written_out_twin(backbone, settings, counts, names):
    method, watched = Pnp(steps=5, guidance=3.0, **settings), Watched(backbone)
    frames = run(method, watched).frames
    path, clean = backbone.noise_path, backbone.encode(clip().frames)
    down, up = path.times(5), path.times(method.inversion_steps or 5)
    texts = [backbone.embed(each).tokens for each in (TASK.source, method.negative, TASK.target)]
    twin = Twin(method, texts, convolution_steps=counts[0], attention_steps=counts[1], names=names)
    before, last = twin.run(clean, down, up)
    edits = [(t, seen) for t, seen in watched.calls if "cond" in seen]
    assert [t for t, _ in edits] == down[::-1] and len(watched.calls) == len(up) + 5
    for (_, seen), expected in zip(edits, before, strict=True):
        torch.testing.assert_close(seen["cond"], expected, atol=1e-9, rtol=0)
        torch.testing.assert_close(seen["uncond"], expected, atol=1e-9, rtol=0)
    assert ["source" in seen for _, seen in edits] == [i < max(counts) for i in range(5)]
    torch.testing.assert_close(frames, backbone.decode(last), atol=1e-6, rtol=0)


# --- its parts ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def usual(backbone):
    return run(Pnp(steps=4, guidance=3.0), backbone).frames


@pytest.mark.parametrize(
    "change",
    [
        {"convolution_share": 0.4},
        {"attention_share": 0.8},
        {"convolutions": ["up_blocks.1.resnets.0.conv2"]},
        {"attentions": ["up_blocks.3.*"]},
        {"negative": "grass"},
        {"start": "renoised", "inversion_steps": 8},
    ],
    ids=str,
)
def test_every_setting_changes_the_edit(backbone, usual, change):
    made = run(Pnp(steps=4, guidance=3.0, **change), backbone).frames
    assert float((made - usual).abs().max()) > 1e-5


def test_guidance_one_needs_no_second_prompt_and_no_source_after_its_windows(backbone):
    watched = Watched(backbone)
    run(Pnp(steps=5, guidance=1), watched)
    assert [list(seen) for _, seen in watched.calls[5:]] == [["source", "cond"]] * 4 + [["cond"]]


@pytest.mark.parametrize(
    ("share", "steps", "count"),
    [(0.8, 50, 40), (0.5, 50, 25), (0.29, 100, 29), (0.99, 10, 9), (1, 7, 7), (0, 7, 0)],
)
def test_a_share_of_the_steps(backbone, share, steps, count):
    lent = Pnp(steps=steps, convolution_share=share, attention_share=0).lent(backbone)
    assert [bool(lent.at(i).features) for i in range(steps)] == [i < count for i in range(steps)]
    assert [lent.awake(i) for i in range(steps)] == [i < count for i in range(steps)]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("level", [CLEAN, 1, 981])
def test_the_noise_between_two_latents(prediction, level):
    path, rng = Ddim(prediction=prediction), torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64)
    found = noise_between(path, clean, path.noised(clean, noise, level), level)
    torch.testing.assert_close(found, noise, atol=1e-12, rtol=0)


def test_both_starts_are_one_where_the_inversion_ends_there(backbone, usual):
    made = run(Pnp(steps=4, guidance=3.0, start="renoised"), backbone).frames
    torch.testing.assert_close(made, usual, atol=1e-6, rtol=0)


def test_a_stored_inversion_is_found_again(backbone, tmp_path):
    made = []
    for _ in range(2):
        watched = Watched(backbone)
        made.append(run(Pnp(steps=3, inversions=str(tmp_path)), watched).frames)
    assert len(watched.calls) == 3 and torch.equal(*made)


# --- which layers ---------------------------------------------------------------------------------------------


def laid(down, up, **options):
    """A network with these blocks."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    config = {**tiny.UNET2D, "block_out_channels": (8,) * len(down), **options}
    unet = UNet2DConditionModel(**config, down_block_types=down, up_block_types=up)
    made = replace(tiny.parts(0, torch.float32, "epsilon", 20, image=True), unet=unet)
    return Inflated2D(placed(made, "cpu"), Inflation.of(unet.config, "frame", 0, False), name="laid")


@pytest.mark.parametrize("make", [lambda: Inflated2D.random(0), Inflated2D.load, lambda: UNet3D.random(0)])
def test_the_layers_of_stable_diffusions_layout_are_the_authors(make):
    lent = Pnp().lent(make())
    assert (lent.convolutions, lent.attentions) == (CONVOLUTIONS, ATTENTIONS)
    assert (lent.convolution_steps, lent.attention_steps) == (40, 25)


def test_the_layers_of_other_layouts():
    """Three levels of which the finest has no attention (as SDXL), two blocks of attention in each place; and two
    levels with one layer fewer."""
    seen, plain_down = "CrossAttnDownBlock2D", "DownBlock2D"
    wide = laid(
        (plain_down, seen, seen), ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",), transformer_layers_per_block=2
    )
    assert convolutions(wide, None) == ["up_blocks.0.resnets.1.conv2"]
    assert attentions(wide, None) == [
        f"up_blocks.{block}.attentions.{place}.transformer_blocks.{j}.attn1"
        for block, place in ((0, 1), (0, 2), (1, 0), (1, 1), (1, 2))
        for j in (0, 1)
    ]
    small = laid((seen, plain_down), ("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1)
    assert convolutions(small, None) == CONVOLUTIONS
    assert attentions(small, None) == ["up_blocks.1.attentions.1.transformer_blocks.0.attn1"]


def test_a_network_without_such_layers_is_refused_unless_nothing_is_asked_of_them():
    bare = laid(("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "UpBlock2D"))
    for find in (convolutions, attentions):
        with pytest.raises(UserError, match="authors' layers are not found"):
            find(bare, None)
    assert attentions(bare, ["down_blocks.0.*"]) and convolutions(bare, ["up_blocks.1.resnets.2"])
    lent = Pnp(convolution_share=0, attention_share=0).lent(bare)
    assert not any(lent.awake(i) for i in range(50))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"convolutions": ["up_blocks.1.resnets.1.conv3"]}, "did you mean 'up_blocks.1.resnets.1.conv2'"),
        ({"convolutions": ["up_blocks.*", "up_block.1.*"]}, "names no layer"),
        ({"attentions": ["*.attn2"]}, "names no layer"),  # text attention
        ({"attentions": []}, "no layer to act in"),
        ({"inversion_steps": 7}, "passes by"),
        ({"inversion_steps": 3}, "too small"),
    ],
)
def test_what_names_nothing_is_refused(backbone, settings, said):
    with pytest.raises(UserError, match=said):
        run(Pnp(steps=5, **settings), backbone)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0}, {"steps": 2.5}, {"guidance": -1}, {"guidance": float("nan")}, {"start": "renoise"},
        {"convolution_share": 1.1}, {"attention_share": -0.1}, {"attention_share": float("nan")},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises((UserError, TypeError)):
        Pnp(**settings)


def test_choosing_the_method_brings_a_model_whose_frames_are_alone_unless_others_are_named():
    config = plain(config_of("edit", ["method=pnp"]))["model"]
    assert (config["path"], config["attention"], config["shared_norm"]) == ("embedded_image", "frame", False)
    other = plain(config_of("edit", ["model=sd15", "method=pnp", "model.shared_norm=true"]))["model"]
    assert "stable-diffusion-v1-5" in other["path"]
    assert (other["attention"], other["shared_norm"]) == ("frame", True)
