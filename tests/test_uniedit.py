"""UniEdit: both modes and variants against a written-out twin, masks, odd clips, refusals."""

from dataclasses import replace

import pytest
import torch

from experiments.config.compose import config_of, plain
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.backbones.wan import Wan
from freemask.errors import UserError
from freemask.masks.plan import Subject
from freemask.methods.common import Stopwatch
from freemask.methods.null_text_p2p import NullTextP2P
from freemask.methods.pnp import Pnp
from freemask.methods.uniedit import STILL, UniEdit
from freemask.types import Clip, EditTask, silent
from tests.given import Half, seeded
from tests.test_pix2video import Ended

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
SIZES = {60: (6, 10), 15: (3, 5), 6: (2, 3), 2: (1, 2)}  # of latents of 6 x 10, level by level
STEPS = 5


def clip(frames=3):
    return Clip("c", torch.rand(frames, 3, 12, 20, generator=seeded(0)))


def run(method, backbone, frames=3, task=TASK, seed=0):
    return method(backbone, clip(frames), task, seeded(seed))


@pytest.fixture(scope="module")
def backbone():
    return UNet3D.random(0, dtype="float64", max_tokens=20)


class Told(Half):
    """The left half of the clip, and a little more of what the target shows."""

    def plan(self, subject, source, target):
        shows_target = subject.task.source == TASK.target
        return Half(0.7 if shows_target else 0.5).plan(subject, source, target)


# --- the twin -------------------------------------------------------------------------------------------------


class Looks:
    """Softmax written out, on queries, keys and values that the twin has changed."""

    def __init__(self, twin, name):
        self.twin, self.name = twin, name

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None):
        q, k, v = attn.to_q(hidden), attn.to_k(hidden), attn.to_v(hidden)
        rows = len(self.twin.rows)
        q, k, v = (each.reshape(rows, -1, *each.shape[1:]).clone() for each in (q, k, v))
        along = "temp_attentions" in self.name or "transformer_in" in self.name
        (self.twin.along if along else self.twin.within)(self.name, q, k, v)
        heads = []
        for part in torch.arange(attn.inner_dim).chunk(attn.heads):
            logits = q[..., part] @ k[..., part].transpose(-1, -2) / len(part) ** 0.5
            heads.append(logits.softmax(-1) @ v[..., part])
        return attn.to_out[0](torch.cat(heads, dim=-1).reshape(hidden.shape))


class Twin:
    """The library's network, all branches with all their rows, unconditional ones first, after the method card."""

    def __init__(self, method, texts, nulls=None):
        self.method, self.texts, self.nulls, self.rows, self.step = method, texts, nulls, [], 0
        self.unet = tiny.parts(0, torch.float64, "epsilon", 20).unet.eval()
        self.blocks = []
        for name, module in self.unet.named_modules():
            if name.endswith("attn1") or (name.endswith("attn2") and ".attentions." not in name):
                module.set_processor(Looks(self, name))
        order = [f"down_blocks.{i}" for i in range(3)] + ["mid_block", *(f"up_blocks.{i}" for i in (1, 2, 3))]
        for block in order:
            count = 3 if block.startswith("up") else 1 if block == "mid_block" else 2
            self.blocks += [f"{block}.attentions.{i}.transformer_blocks.0.attn1" for i in range(count)]
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        self.table = torch.cumprod(1 - betas, 0).double()

    def mask(self, tokens, share):
        height, width = SIZES[tokens]
        mask = torch.zeros(height, width, dtype=torch.float64)
        mask[:, : int(share * width)] = 1
        return mask.reshape(-1, 1)

    def lender(self, row, branch):
        """Of a row of guidance, that of another branch."""
        side = row.partition(" ")[2]
        return self.rows.index(f"{branch} {side}" if f"{branch} {side}" in self.rows else f"{branch} cond")

    def along(self, name, q, k, v):
        for place, row in enumerate(self.rows):
            if row.startswith("main") and self.motion and self.step < self.method.temporal * STEPS:
                other = self.lender(row, "motion")
                q[place], k[place] = q[other], k[other]

    def within(self, name, q, k, v):
        official = self.method.variant == "official"
        if "source cond" not in self.rows:
            return
        for place, row in enumerate(self.rows):
            bound = row.startswith("main") or (official and self.motion and row.startswith("motion"))
            if bound and self.step < self.structure:
                other = self.lender(row, "source")
                q[place], k[place] = q[other], k[other]
        for place, row in enumerate(self.rows):
            if not row.startswith("main"):
                continue
            source = self.lender(row, "source")
            masked = self.method.mask.__class__ is Told
            inside = self.mask(q.shape[-2], 0.5) if masked else torch.zeros(q.shape[-2], 1)
            if not self.motion and masked and self.step < self.background:
                v[place] = inside * v[place] + (1 - inside) * v[source]
            late = self.blocks.index(name) >= 10 and self.step >= int(0.08 * STEPS)
            if self.motion and late:
                v[place] = inside * v[place] + (1 - inside) * v[source]
                if official:
                    k[place] = inside * k[place] + (1 - inside) * k[source]
                    there, other = self.mask(q.shape[-2], 0.7), self.lender(row, "motion")
                    q[place] = there * q[other] + (1 - there) * q[place]

    def eps(self, latents, t):
        """Of each branch, guided where it has both rows."""
        stacked = torch.stack([latents[row.partition(" ")[0]] for row in self.rows]).transpose(1, 2)
        text = torch.stack([self.text(row, t) for row in self.rows])
        out = dict(zip(self.rows, self.unet(stacked, t, text).sample.transpose(1, 2), strict=True))
        made = {}
        for branch in latents:
            cond = out[f"{branch} cond"]
            away = out.get(f"{branch} uncond", cond)
            made[branch] = away + self.method.guidance * (cond - away)
        return made

    def text(self, row, t):
        if row.endswith("uncond"):
            return self.texts["empty"] if self.nulls is None else self.nulls[t]
        return self.texts["source" if row.startswith("source") else "target"]

    def moved(self, x, eps, now, to):
        now, to = (self.table[max(level, 0)] for level in (now, to))
        return to.sqrt() * (x - (1 - now).sqrt() * eps) / now.sqrt() + (1 - to).sqrt() * eps

    @torch.no_grad()
    def run(self, clean, times):
        self.motion, official = self.method.mode == "motion", self.method.variant == "official"
        masked = self.method.mask.__class__ is Told
        self.structure = {True: 0.3 if official else 0.0, False: 0.5 if masked else 0.4}[self.motion] * STEPS
        self.structure, self.background = int(self.structure + 1e-9), int(0.5 * STEPS)
        levels, x, now = {}, clean, -1
        self.rows, self.motion_was, self.motion = ["source cond"], self.motion, False
        self.step = STEPS  # nothing is borrowed on the way up
        for t in times:
            levels[t] = x = self.moved(x, self.eps({"source": x}, t)["source"], now, t)
            now = t
        self.motion = self.motion_was
        branches = ["source", "main", *["motion"] * self.motion]
        latents = dict.fromkeys(branches, x)
        sides = {branch: ["uncond", "cond"] for branch in branches}
        if not official:
            sides["source"] = ["cond"]
        self.rows = [
            f"{branch} {side}" for side in ("uncond", "cond") for branch in branches if side in sides[branch]
        ]
        for self.step, t in enumerate(reversed(times)):
            below = times[-2 - self.step] if self.step + 1 < len(times) else 0
            latents["source"] = latents["source"] if official else levels[t]
            eps = self.eps(latents, t)
            latents = {branch: self.moved(latents[branch], eps[branch], t, below) for branch in branches}
        return latents["main"]


def nulls_of(method, backbone, told):
    """Null texts as they are found elsewhere (tests/test_null_text.py)."""
    subject = Subject.of(backbone, clip(), TASK, backbone.noise_path.times(STEPS))
    subject = replace(subject, given={**subject.given, "source": backbone.embed(told).given})
    search = NullTextP2P(STEPS, method.guidance, method.inner, shared=True, inversions=method.inversions)
    watch = Stopwatch(backbone.device)
    found = search.nulls(backbone, backbone.encode(clip().frames), subject, watch, silent)
    return {t: given.parts["text"] for t, given in found.uncond.items()}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mask": Told()},
        {"mode": "motion"},
        {"mode": "motion", "mask": Told(), "temporal": 0.6},
        {"variant": "official", "mask": Told()},
        {"variant": "official", "prompt": "source"},
        {"variant": "official", "mode": "motion", "mask": Told()},
    ],
    ids=[
        "appearance",
        "masked",
        "motion",
        "motion masked",
        "official",
        "official unmasked",
        "official motion",
    ],
)
def test_every_edit_is_that_of_the_twin(backbone, settings, tmp_path):
    method = UniEdit(steps=STEPS, guidance=3.0, inner=1, inversions=str(tmp_path), **settings)
    ended = Ended(backbone)
    edit = run(method, ended)
    official, motion = method.variant == "official", method.mode == "motion"
    told = "" if official and not motion and method.prompt is None else TASK.source
    prompts = {"source": told, "target": TASK.target, "empty": ""}
    texts = {name: backbone.embed(prompt).tokens for name, prompt in prompts.items()}
    nulls = nulls_of(method, backbone, told) if official else None
    made = Twin(method, texts, nulls).run(backbone.encode(clip().frames), backbone.noise_path.times(STEPS))
    torch.testing.assert_close(ended.latents, made, atol=1e-5, rtol=0)
    masked = isinstance(method.mask, Told)
    assert edit.facts["mode"] == method.mode and ("mask" in edit.extras) == masked
    if masked:
        steps = "1-5" if motion else "1-2"
        assert edit.facts["mask_acts_on"] == f"values of self-attention in steps {steps} of 5"


# --- settings -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def usual(backbone):
    return {
        mode: run(UniEdit(steps=STEPS, guidance=3.0, mode=mode, mask=Told()), backbone).frames
        for mode in ("appearance", "motion")
    }


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        ("appearance", {"structure": 0.2}), ("appearance", {"background": 0.9}), ("appearance", {"prompt": "empty"}),
        ("appearance", {"guidance": 1}), ("motion", {"structure": 0.4}), ("motion", {"content": 0.6}),
        ("motion", {"layers": ["up_blocks.3.*"]}), ("motion", {"temporal": 0.4}), ("motion", {"guidance": 1}),
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_the_edit(backbone, usual, mode, change):
    made = run(UniEdit(**{"steps": STEPS, "guidance": 3.0, "mode": mode, "mask": Told(), **change}), backbone)
    assert float((made.frames - usual[mode]).abs().max()) > 1e-6


def test_nothing_borrowed_is_a_plain_edit(backbone):
    plain_edit = run(Pnp(steps=3, guidance=3.0, convolution_share=0, attention_share=0), backbone)
    for mode in ("appearance", "motion"):
        bare = UniEdit(steps=3, guidance=3.0, mode=mode, structure=0, content=1, temporal=0)
        torch.testing.assert_close(run(bare, backbone).frames, plain_edit.frames, atol=1e-6, rtol=0)


def test_one_frame_and_two(backbone):
    """Neither has much to lend along frames; the one says so."""
    for frames, said in ((1, True), (2, False)):
        edit = run(UniEdit(steps=2, mode="motion"), backbone, frames)
        assert (STILL in edit.warnings) == said and edit.frames.shape == (frames, 3, 12, 20)
    assert STILL not in run(UniEdit(steps=2), backbone, 1).warnings


def test_a_mask_that_covers_nothing_or_everything(backbone):
    """Everything may change: only structure is the clip's; nothing may: all values are, early on."""
    bare = run(UniEdit(steps=4, guidance=3.0, structure=0.5), backbone).frames
    whole = run(UniEdit(steps=4, guidance=3.0, mask=Half(1)), backbone)
    torch.testing.assert_close(whole.frames, bare, atol=1e-6, rtol=0)
    assert any("covers every pixel" in each for each in whole.warnings)
    none = run(UniEdit(steps=4, guidance=3.0, mask=Half(0)), backbone)
    assert float((none.frames - bare).abs().max()) > 1e-6
    half = run(UniEdit(steps=4, guidance=3.0, mask=Half(), composite="pixels"), backbone)
    assert torch.equal(half.frames[..., 10:], clip().frames[..., 10:])
    style = replace(TASK, kind="style")
    assert run(UniEdit(steps=2, mask=Half()), backbone, task=style).facts["mask_used"] is False


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "look"}, {"variant": "Paper"}, {"structure": 1.5}, {"background": -1}, {"content": 2},
        {"temporal": "all"}, {"prompt": "target"}, {"inner": -1}, {"steps": 0}, {"guidance": -1},
        {"variant": "official", "steps": 200},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises((UserError, TypeError)):
        UniEdit(**settings)


def test_masks_layers_and_models_that_do_not_fit_are_refused(backbone):
    official = UniEdit(steps=2, mode="motion", variant="official")
    style = replace(official, mask=Half())
    for refuse in (
        lambda: official.check(TASK, clip),
        lambda: run(official, backbone),
        lambda: style.check(replace(TASK, kind="style"), clip),
    ):
        with pytest.raises(UserError, match="only with masks"):
            refuse()
    style.check(TASK, clip)
    with pytest.raises(UserError, match="names no layer"):
        run(UniEdit(steps=1, mode="motion", layers=["up_block"]), backbone)
    image = Inflated2D.random(0, max_tokens=20, attention="frame")
    with pytest.raises(UserError, match="temporal attention"):
        run(UniEdit(steps=1, mode="motion"), image)
    assert run(UniEdit(steps=1), image).facts["mode"] == "appearance"
    with pytest.raises(UserError, match="self attention"):
        run(UniEdit(steps=1), Wan.random(0))


def test_the_yaml_makes_the_constructors_defaults():
    made, usual = plain(config_of("edit", ["method=uniedit"]))["method"], UniEdit()
    names = (
        "steps",
        "guidance",
        "mode",
        "structure",
        "background",
        "content",
        "layers",
        "temporal",
        "prompt",
    )
    assert {name: made[name] for name in names} == {name: getattr(usual, name) for name in names}
    assert (made["inner"], made["variant"]) == (usual.inner, usual.variant)
