"""FLATTEN: every step against a written-out twin on the library's own network, masks, odd input; authors' numbers."""

from dataclasses import replace

import pytest
import torch

from experiments.config.compose import config_of, plain
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.errors import UserError
from freemask.methods.flatten import Flatten
from freemask.optical import raft
from freemask.optical.sources import Auto, Exact
from freemask.types import Clip, EditTask, Grid, OpticalFlow
from tests.given import Half, seeded
from tests.official import compare as command
from tests.official.case import Case
from tests.official.ledger import FORCED
from tests.test_pnp import Watched
from tests.test_trajectories import brute, cells_of, flow_of

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
FRAMES, HEIGHT, WIDTH = 3, 4, 6  # of latents, which are half as large as frames
# Of Stable Diffusion, as the authors write them down.
BRANCHES = ["up_blocks.1.resnets.0", "up_blocks.1.resnets.1", "up_blocks.2.resnets.0"]
LAYERS = [
    f"up_blocks.{block}.attentions.{place}.transformer_blocks.0.attn1"
    for block, place in ((1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 0))
]


def clip(frames=FRAMES, seed=0, flow=True):
    known = flow_of(frames, 8, 12, seed=seed) if flow else None
    return Clip("c", torch.rand(frames, 3, 8, 12, generator=seeded(0)), flow=known)


def run(method, backbone, source=None, task=TASK, seed=0):
    return method(backbone, source or clip(), task, seeded(seed))


@pytest.fixture(scope="module")
def backbone():
    return Inflated2D.random(
        0, dtype="float64", max_tokens=20, attention="all", least_channels=0, shared_norm=True
    )


# --- the twin -------------------------------------------------------------------------------------------------


class Norm(torch.nn.Module):
    """Over all frames of each of the stacked clips."""

    def __init__(self, norm, twin):
        super().__init__()
        self.norm, self.twin = norm, twin

    def forward(self, maps):
        clips = [torch.cat(list(each), dim=-1)[None] for each in maps.chunk(len(maps) // self.twin.frames)]
        made = [torch.cat(self.norm(each).chunk(self.twin.frames, dim=-1)) for each in clips]
        return torch.cat(made)


class Looks:
    """All frames together, softmax written out; at the finest level then token by token along `sites`."""

    def __init__(self, twin, name):
        self.twin, self.name = twin, name

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None):
        twin, frames = self.twin, self.twin.frames
        q, k, v = (make(hidden).reshape(-1, frames * hidden.shape[1], attn.inner_dim) for make in
                   (attn.to_q, attn.to_k, attn.to_v))  # fmt: skip
        if twin.injecting and self.name in LAYERS:
            q, k = q[:1].expand_as(q), k[:1].expand_as(k)
        heads, finest = [], hidden.shape[1] == HEIGHT * WIDTH
        for part in torch.arange(attn.inner_dim).chunk(attn.heads):
            scale = len(part) ** -0.5
            o = (q[..., part] @ k[..., part].transpose(1, 2) * scale).softmax(-1) @ v[..., part]
            if finest and twin.sites:
                new_q, new_k = (q[..., part], k[..., part]) if twin.method.old_qk else (o, o)
                rows = []
                for token, sites in enumerate(twin.sites):
                    weights = (new_k[:, sites] @ new_q[:, token, :, None] * scale).softmax(1)
                    rows.append((weights * o[:, sites]).sum(1))
                o = torch.stack(rows, dim=1)
            heads.append(o)
        return attn.to_out[0](torch.cat(heads, dim=-1).reshape(hidden.shape))


class Twin:
    """The library's network with hooks, and loops after the method card. Stacked are source, negative, target."""

    def __init__(self, method, texts, sites, frames=FRAMES):
        self.method, self.texts, self.sites, self.frames = method, texts, sites, frames
        self.injecting = False
        self.unet = tiny.parts(0, torch.float64, "epsilon", 20, image=True).unet.eval()
        for name, module in self.unet.named_modules():
            if name.endswith("attn1"):
                module.set_processor(Looks(self, name))
            if ".resnets." in name and hasattr(module, "conv2"):
                module.norm1, module.norm2 = Norm(module.norm1, self), Norm(module.norm2, self)
                if name in BRANCHES:
                    module.conv2.register_forward_hook(self.branched)
        self.unet.conv_norm_out = Norm(self.unet.conv_norm_out, self)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        self.table = torch.cumprod(1 - betas, 0).double()

    def branched(self, module, args, output):
        first = output[: self.frames]
        return first.repeat(len(output) // self.frames, 1, 1, 1) if self.injecting else output

    def called(self, clips, t, texts):
        stacked = torch.cat([text.expand(self.frames, -1, -1) for text in texts])
        return self.unet(torch.cat(clips), t, stacked).sample.chunk(len(clips))

    def moved(self, x, eps, now, to):
        now, to = (self.table[max(level, 0)] for level in (now, to))
        return to.sqrt() * (x - (1 - now).sqrt() * eps) / now.sqrt() + (1 - to).sqrt() * eps

    def invert(self, clean, up):
        """By level: the latent of the clip. The released code calls the network where a step begins."""
        if self.method.variant == "official":
            levels = {up[0]: clean}
            for now, to in zip(up, up[1:], strict=False):
                (eps,) = self.called([levels[now]], now, self.texts[:1])
                levels[to] = self.moved(levels[now], eps, now, to)
            return levels
        levels, now, z = {}, -1, clean
        for t in up:
            (eps,) = self.called([z], t, self.texts[:1])
            z, now = self.moved(z, eps, now, t), t
            levels[t] = z
        return levels

    @torch.no_grad()
    def run(self, clean, down, up):
        """The latent before every step, and the last one."""
        levels, found = self.invert(clean, up), []
        x = levels[up[-1] if self.method.variant == "official" else down[-1]]
        for i, t in enumerate(reversed(down)):
            found.append(x)
            self.injecting = i < int(self.method.inject * len(down))
            _, negative, target = self.called([levels[t], x, x], t, self.texts)
            eps = negative + self.method.guidance * (target - negative)
            x = self.moved(x, eps, t, [-1, *down][down.index(t)])
        return found, x


def sites_of(variant):
    """The cells at which each cell looks, by loops."""
    grid, known = Grid(FRAMES, HEIGHT, WIDTH), clip().flow
    order = torch.rand(FRAMES - 1, HEIGHT, WIDTH, generator=seeded(0), dtype=torch.float64)
    points = [cells_of(point, grid) for point in brute(known, grid, variant, order)]
    found = {cell: sorted(point) for point in points for cell in point}
    assert max(map(len, points)) == FRAMES  # otherwise the released code looks at neighbours
    return [found[cell] for cell in range(len(found))]


@pytest.mark.parametrize(
    "settings",
    [
        {"inversion_steps": 4},
        {"inversion_steps": 4, "variant": "official", "old_qk": True, "inject": 0.5},
        {"inversion_steps": None, "variant": "official", "negative": "a red grass"},
        {"inversion_steps": None, "flow_attention": False, "inject": 1},
    ],
    ids=str,
)
def test_every_step_equals_the_written_out_twin(backbone, settings):
    method, watched = Flatten(steps=2, guidance=3.0, **settings), Watched(backbone)
    edit = run(method, watched)
    path, clean = backbone.noise_path, backbone.encode(clip().frames)
    down, up = path.times(2), path.times(method.inversion_steps or 2)
    texts = [backbone.embed(each).tokens for each in ("", method.negative, TASK.target)]
    sites = sites_of(method.variant) if method.flow_attention else []
    before, last = Twin(method, texts, sites).run(clean, down, up)
    edits = [seen for _, seen in watched.calls if "cond" in seen]
    assert len(edits) == 2 and len(watched.calls) == len(up) + 2 - (method.variant == "official")
    for seen, expected in zip(edits, before, strict=True):
        torch.testing.assert_close(seen["cond"], expected, atol=1e-9, rtol=0)
    assert ["source" in seen for seen in edits] == [i < int(2 * method.inject) for i in range(2)]
    torch.testing.assert_close(edit.frames, backbone.decode(last), atol=1e-6, rtol=0)


# --- its parts ------------------------------------------------------------------------------------------------


def short(**settings):
    return Flatten(**{"steps": 2, "guidance": 3.0, "inversion_steps": None, **settings})


@pytest.fixture(scope="module")
def usual(backbone):
    return run(short(), backbone)


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "official"}, {"old_qk": True}, {"flow_attention": False}, {"inject": 0}, {"negative": "grass"},
        {"convolutions": ["up_blocks.1.resnets.1.conv2"]}, {"attentions": ["up_blocks.3.*"]}, {"inversion_steps": 4},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_the_edit(backbone, usual, change):
    made = run(short(**change), backbone).frames
    assert float((made - usual.frames).abs().max()) > 1e-6


def test_the_layers_are_the_authors(backbone):
    lent = Flatten().settings().lent(backbone)
    assert lent.attentions == LAYERS and lent.convolutions == [f"{each}.conv2" for each in BRANCHES]
    assert lent.convolution_steps == lent.attention_steps == 40
    assert Flatten().settings().lent(Inflated2D.load()).attentions == LAYERS


def test_an_inversion_is_kept_for_the_same_motion_alone(backbone, tmp_path):
    """And for other prompts, for the clip is inverted without one."""
    method, counts = short(inversions=str(tmp_path)), []
    for source, task in ((clip(), TASK), (clip(), replace(TASK, target="a dog")), (clip(seed=1), TASK)):
        watched = Watched(backbone)
        edit = run(method, watched, source, task)
        counts.append(len(watched.calls))
        assert edit.facts["inversion_passes"] == counts[-1] - 2
    assert counts == [4, 2, 4]


def test_what_an_edit_says_of_its_trajectories(usual):
    assert usual.facts["flow"] == "exact" and usual.facts["mask_used"] is False
    assert usual.facts["trajectories"] > HEIGHT * WIDTH and 1 < usual.facts["trajectory_frames"] < FRAMES


def test_flow_that_does_not_say_what_is_hidden_is_told_of(backbone):
    known = replace(clip(), flow=OpticalFlow(clip().flow.forth))
    assert any("hidden" in each for each in run(short(steps=1), backbone, known).warnings)
    assert not run(short(steps=1, variant="official"), backbone, known).warnings


# --- masks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_a_mask_of_all_or_nothing_and_the_pixels_outside(backbone, variant):
    """Everything may change: as without a mask; nothing may: the clip, as the autoencoder has it."""
    few = {"steps": 1, "variant": variant}
    plain = run(short(**few), backbone).frames
    whole, none, half = (
        run(short(**few, mask=Half(share), composite=put), backbone)
        for share, put in ((1, "none"), (0, "none"), (0.5, "pixels"))
    )
    torch.testing.assert_close(whole.frames, plain, atol=1e-6, rtol=0)
    held = backbone.decode(backbone.encode(clip().frames))
    torch.testing.assert_close(none.frames, held, atol=1e-6, rtol=0)
    assert half.extras["mask"].shape == (FRAMES, 8, 12) and half.facts["mask_acts_on"].endswith("1-1 of 1")
    assert torch.equal(half.frames[..., 6:], clip().frames[..., 6:])


def test_masks_are_made_of_the_clips_own_prompt_without_the_flow(backbone):
    """`heat` of words comes from an inversion of its own; a style is for the whole frame."""
    from freemask.masks.strategies.average import Average

    watched = Watched(backbone)
    edit = run(short(mask=Average()), watched)
    assert [list(seen) for _, seen in watched.calls[:4]] == [["source"]] * 4 and len(watched.calls) == 6
    assert edit.facts["mask_acts_on"] and all("source" in seen for _, seen in watched.calls)
    method = short(mask=Average())
    assert method.acting_mask(replace(TASK, kind="style")) is not method.mask


# --- odd input ------------------------------------------------------------------------------------------------


def test_one_frame_needs_no_flow_and_says_so(backbone, monkeypatch):
    monkeypatch.setattr(raft, "usual", lambda: None)
    alone = clip(1, flow=False)
    short().check(TASK, lambda: alone)
    edit = run(short(), backbone, alone)
    assert any("one frame" in each for each in edit.warnings) and edit.facts["flow"] == "none"
    assert torch.equal(edit.frames, run(short(flow_attention=False), backbone, alone).frames)


def test_a_clip_whose_motion_nobody_knows_is_refused_before_any_model_is_there(monkeypatch):
    monkeypatch.setattr(raft, "usual", lambda: None)
    for flow in (Auto(), Exact()):
        with pytest.raises(UserError, match="flow"):
            short(flow=flow).check(TASK, lambda: clip(flow=False))
    short().check(TASK, clip)
    short(flow_attention=False).check(TASK, lambda: clip(flow=False))


def test_flow_of_another_size_is_refused(backbone):
    for other in (flow_of(5, 8, 12), flow_of(FRAMES, 16, 24)):
        with pytest.raises(UserError, match="does not fit"):
            run(short(), backbone, replace(clip(), flow=other))


def test_a_network_that_sees_several_frames_is_refused():
    with pytest.raises(UserError, match="FLATTEN .* image model"):
        run(short(), UNet3D.random(0))


@pytest.mark.parametrize(
    "settings",
    [
        {"inject": 1.2}, {"inject": float("nan")}, {"variant": "Paper"}, {"steps": 0}, {"inversion_steps": 1},
        {"flow": {"path": "x"}}, {"guidance": -1}, {"masked_for": ["car"]},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises((UserError, TypeError)):
        short(**settings)


def test_choosing_the_method_brings_a_model_whose_frames_all_look_at_each_other():
    config = plain(config_of("edit", ["method=flatten"]))["model"]
    assert (config["path"], config["attention"], config["least_channels"]) == ("embedded_image", "all", 0)
    assert config["shared_norm"] is True


# --- the authors' own -----------------------------------------------------------------------------------------


def test_trajectories_flow_attention_and_injected_features_of_the_authors(shared):
    """VideoGrain's code holds FLATTEN's; here is the first step of its inversion."""
    ledger = command.compare(Case.read(shared / "parity" / "golden" / "stm_full.json"), steps=1)
    assert ledger.passed, ledger.table()
    for group in ("flow: trajectories", "flow: random picks", "inv: features", "inv: prediction"):
        assert (group, FORCED) in ledger.found
