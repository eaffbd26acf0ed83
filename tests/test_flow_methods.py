"""FlowEdit and its like, written out once more on the network alone; masks that hold the clip."""

import math
from dataclasses import replace

import pytest
import torch

from freemask.backbones.unet3d import UNet3D
from freemask.backbones.wan import Wan
from freemask.diffusion.noise_paths import CLEAN
from freemask.errors import UserError
from freemask.fusion.settings import Fusion
from freemask.masks.plan import MaskPlan, everywhere
from freemask.masks.strategies.agreement import Agreement
from freemask.masks.strategies.layer import Layer
from freemask.masks.strategies.official import Official
from freemask.masks.strategies.segmentation import Segmentation
from freemask.methods import shown
from freemask.methods.flow_align import FlowAlign
from freemask.methods.flow_edit import FlowEdit, WanEdit
from freemask.methods.invert_fuse import InvertFuse
from freemask.methods.rf_solver import RfSolver
from freemask.methods.uniedit_flow import UniEditFlow
from freemask.types import Clip, EditTask

TASK = EditTask("t", "c", "a red car on grass", "a blue boat on grass", {"car": "boat"}, "shape")
STEPS = 5


@pytest.fixture(scope="module")
def backbone():
    made = Wan.random(0, dtype="float64", max_tokens=20, shift=2.0, grid="euler")
    made.guidance = 2.0
    return made


@pytest.fixture(scope="module")
def clip():
    mask = torch.zeros(5, 16, 24, dtype=torch.bool)
    mask[:, :, 16:] = True
    return Clip("c", torch.rand(5, 3, 16, 24, generator=torch.Generator().manual_seed(0)), {"car": mask})


class Written:
    """What the twins below share: the path from the noisy end, calls without taps, draws as the methods draw."""

    def __init__(self, backbone, clip):
        self.backbone, self.x = backbone, backbone.encode(clip.frames)
        self.rng = torch.Generator().manual_seed(0)
        self.times = backbone.noise_path.times(STEPS)[::-1]
        self.sigmas = [t / 1000 for t in self.times] + [0.0]

    def v(self, x, i, prompt, sigma=None):
        t = self.times[i] if sigma is None else sigma * 1000
        return self.backbone.predict(x[None], t, {"any": self.backbone.embed(prompt).given})[0]

    def cfg(self, x, i, prompt, guidance):
        plain = self.v(x, i, "")
        return plain + guidance * (self.v(x, i, prompt) - plain)

    def noise(self):
        return torch.randn(self.x.shape, generator=self.rng, dtype=torch.float32).to(self.x)

    def frames(self, z):
        return self.backbone.decode(z, 5)


def flowedit(w, first=2, end=4, n_avg=2, own=1.0, new=4.0):
    z, x = w.x, w.x
    for i in range(first, end):
        s, fall, d = w.sigmas[i], w.sigmas[i + 1] - w.sigmas[i], 0
        for _ in range(n_avg):
            zs = (1 - s) * x + s * w.noise()
            d = d + (w.cfg(z + zs - x, i, TASK.target, new) - w.cfg(zs, i, TASK.source, own)) / n_avg
        z = z + fall * d
    if end < STEPS:
        z = z + (1 - w.sigmas[end]) * x + w.sigmas[end] * w.noise() - x
    for i in range(end, STEPS):
        z = z + (w.sigmas[i + 1] - w.sigmas[i]) * w.cfg(z, i, TASK.target, new)
    return z


def dfvedit(w):
    z = w.x
    for i in range(1, STEPS):
        s, n = w.sigmas[i], w.noise()
        d = w.cfg((1 - s) * z + s * n, i, TASK.target, 6.0) - w.cfg(
            (1 - s) * w.x + s * n, i, TASK.source, 2.0
        )
        z = z + (w.sigmas[i + 1] - s) * d
    return z


def flowalign(w):
    z, x = w.x, w.x
    for i in range(1, STEPS):
        s = w.sigmas[i]
        zs = (1 - s) * x + s * w.noise()
        zt = z + zs - x
        vq, own = w.v(zs, i, TASK.source), w.v(zt, i, TASK.source)
        vp = own + 7.8 * (w.v(zt, i, TASK.target) - own)
        z = z + (w.sigmas[i + 1] - s) * (vp - vq) + 0.05 * (zs - s * vq - zt + s * vp)
    return z


def uniedit(w):
    x = w.x
    up = w.sigmas[2:][::-1]  # three of five steps: from clean to the level of the third step
    v = w.v(x, 0, "", sigma=0.0)
    for now, to in zip(up, up[1:], strict=False):
        v = w.v(x + (to - now) * v, 0, "", sigma=to)
        x = x + (to - now) * v
    for i in range(2, STEPS):
        own, new = w.v(x, i, TASK.source), w.v(x, i, TASK.target)
        g = new - own
        m = g.mean(1, keepdim=True)
        m = (m - m.min()) / (m.max() - m.min() + 1e-7)
        x = x + (w.sigmas[i + 1] - w.sigmas[i]) * (4.0 * (1 + m) * g + m * new + (1 - m) * own)
    return x


TWINS = [
    (FlowEdit(STEPS, source_emphasis=0.5, emphasis=2.0, reach=0.6, ending=0.2, noises=2), flowedit),
    (FlowEdit(STEPS, emphasis=3.0, skip=1, coupling="noised"), dfvedit),
    (FlowAlign(STEPS, reach=0.8, pull=0.05), flowalign),
    (UniEditFlow(STEPS, reach=0.6, omega=4.0), uniedit),
]


@pytest.mark.parametrize(("method", "written"), TWINS, ids=[written.__name__ for _, written in TWINS])
def test_written_out(method, written, backbone, clip):
    edit = method(backbone, clip, TASK, torch.Generator().manual_seed(0))
    w = Written(backbone, clip)
    wanted = w.frames(written(w))
    assert float((edit.frames - wanted).abs().max()) < 1e-6
    assert float((wanted - w.frames(w.x)).abs().max()) > 1e-3


MASKED = [
    FlowEdit(STEPS, guidance=9.0, ending=0.4),
    FlowEdit(STEPS, guidance=9.0, solver="unipc"),
    FlowAlign(STEPS, guidance=9.0, pull=0.0),
]


@pytest.mark.parametrize("method", MASKED, ids=["ending", "unipc", "flowalign"])
def test_a_mask_holds_the_clip_outside(method, backbone, clip, monkeypatch):
    """To the last bit of rounding in the latents, where the annotation is not."""
    made = []
    decode = backbone.decode
    monkeypatch.setattr(backbone, "decode", lambda z, frames=None: made.append(z) or decode(z, frames))
    masked = replace(method, mask=Segmentation())
    edit = masked(backbone, clip, TASK, torch.Generator().manual_seed(0))
    moved = (made[0] - backbone.encode(clip.frames)).abs()
    assert float(moved[..., :4].max()) < 1e-9 < 1e-3 < float(moved[..., 4:].max())
    assert torch.equal(edit.extras["mask"] > 0, clip.masks["car"])
    assert "latents" in edit.facts["mask_acts_on"] and edit.facts["mask_empty_frames"] == 0


@pytest.mark.parametrize(
    "method", [FlowEdit(STEPS, guidance=9.0), UniEditFlow(STEPS)], ids=["flowedit", "uniedit"]
)
def test_pixels_are_put_back_where_the_mask_lets_nothing_change(method, backbone, clip):
    """What the autoencoder lets through the border of a latent mask is gone, and told; inside nothing is touched."""
    masked = replace(method, mask=Segmentation())
    plain = masked(backbone, clip, TASK, torch.Generator().manual_seed(0))
    held = replace(masked, composite="pixels")(backbone, clip, TASK, torch.Generator().manual_seed(0))
    outside = (~clip.masks["car"])[:, None].expand_as(clip.frames)
    assert torch.equal(held.frames[outside], clip.frames[outside])
    assert torch.equal(held.frames[~outside], plain.frames[~outside])
    error = float((plain.frames - clip.frames)[outside].square().mean())
    assert held.facts["held_psnr_before_composite"] == pytest.approx(-10 * math.log10(error), abs=1e-3)
    alone = replace(method, composite="pixels")(backbone, clip, TASK, torch.Generator().manual_seed(0))
    assert any("nothing back" in words for words in alone.warnings)


@pytest.mark.parametrize(("kind", "held"), [("style", False), ("shape", True)])
def test_no_pixels_are_put_back_where_the_mask_is_turned_round(kind, held, backbone, clip):
    """Of a style, the rest of the frame is what changes."""
    method = InvertFuse(STEPS, mask=Segmentation(), fusion=Fusion(), composite="pixels")
    edit = method(backbone, clip, replace(TASK, kind=kind), torch.Generator())
    outside = (~clip.masks["car"])[:, None].expand_as(clip.frames)
    assert torch.equal(edit.frames[outside], clip.frames[outside]) == held
    assert any("nothing back" in words for words in edit.warnings) != held


def test_a_pixel_that_is_free_at_any_time_is_not_put_back():
    """Also at times that the picture of the mask leaves out."""
    times, frames = list(range(50)), torch.zeros(1, 3, 5, 10)

    def mask(wanted):
        return torch.nn.functional.one_hot(torch.tensor(wanted.t), 50).reshape(1, 5, 10).float()

    assert shown.ever(MaskPlan(mask), "latent", times, frames).all()
    assert not shown.of_masks(MaskPlan(mask), "latent", times, frames)["mask"].all()


def test_one_step_acts_at_least(backbone, clip):
    edit = FlowAlign(STEPS, reach=1e-9, mask=Segmentation())(
        backbone, clip, TASK, torch.Generator().manual_seed(0)
    )
    assert edit.facts["network_calls"] == 1


def test_outside_the_mask_uniedit_follows_the_source_alone(backbone, clip):
    """With an empty mask it is the inversion, sampled under the clip's own prompt."""
    empty = replace(clip, masks={"car": torch.zeros(5, 16, 24, dtype=torch.bool)})
    method = UniEditFlow(STEPS, mask=Segmentation())
    edit = method(backbone, empty, TASK, torch.Generator())
    own = replace(TASK, target=TASK.source)
    same = UniEditFlow(STEPS, omega=0)(backbone, clip, own, torch.Generator())
    assert torch.allclose(edit.frames, same.frames, atol=1e-6)
    assert any("empty in 5 of 5" in words for words in edit.warnings)


def test_a_style_is_for_the_whole_frame_unless_asked_for(backbone, clip):
    style = replace(TASK, target="pixel red car on grass", words={"car": "car"}, kind="style")
    masked = FlowEdit(STEPS, mask=Segmentation())
    edits = [
        method(backbone, clip, style, torch.Generator().manual_seed(0))
        for method in (masked, FlowEdit(STEPS), replace(masked, masked_for=["style"]))
    ]
    assert torch.equal(edits[0].frames, edits[1].frames) and edits[0].facts["mask_used"] is False
    assert not torch.equal(edits[2].frames, edits[1].frames)
    masked.check(style, lambda: pytest.fail("the clip is not needed where no mask acts"))
    with pytest.raises(UserError, match="shape"):
        FlowEdit(masked_for=["shap"])


@pytest.mark.parametrize("mask", [Layer(layer="blocks.1", share=0.5), Layer(layer="blocks.1"), Agreement()])
def test_heat_costs_one_call_for_each_time_that_is_asked_for(mask, backbone, clip):
    told = []
    FlowEdit(STEPS, mask=mask)(
        backbone, clip, TASK, torch.Generator().manual_seed(0), lambda *step: told.append(step)
    )
    calls = max(total for stage, _, total in told if stage == "heat")
    assert calls == (1 if mask == Layer(layer="blocks.1", share=0.5) else STEPS)


def test_a_mask_of_everything_changes_nothing_of_the_edit(backbone, clip):
    """The noise of the heat is not taken from that of the edit."""
    full = replace(clip, masks={"car": torch.ones(5, 16, 24, dtype=torch.bool)})
    plain = FlowEdit(STEPS)(backbone, full, TASK, torch.Generator().manual_seed(3))

    class Everywhere(Layer):
        def plan(self, subject, source, target):
            assert len(source.all("heat")) == STEPS
            return everywhere()

    for mask in (Segmentation(), Everywhere(layer="blocks.1")):
        masked = FlowEdit(STEPS, mask=mask)(backbone, full, TASK, torch.Generator().manual_seed(3))
        assert torch.equal(masked.frames, plain.frames)


def test_masks_that_look_at_the_edit_itself_are_joined_with_its_own_heat(backbone, clip):
    live = FlowEdit(STEPS, guidance=9.0, noises=2, mask=Official(strides=None))
    edit = live(backbone, clip, TASK, torch.Generator().manual_seed(0))
    assert edit.facts["mask_share"] > 0 and edit.facts["heat_calls"] == STEPS


def test_guidance_leads_away_from_the_negative_text_where_there_is_one(backbone, clip):
    plain, blurry, own = (
        FlowEdit(STEPS, negative=negative)(backbone, clip, TASK, torch.Generator().manual_seed(0)).frames
        for negative in ("", "blurry", TASK.target)
    )
    assert not torch.equal(plain, blurry) and not torch.equal(blurry, own)


def test_a_step_of_rf_solver_costs_two_calls_and_layers_that_lend_change_the_edit(
    backbone, clip, monkeypatch
):
    calls, predict = [], backbone.predict
    monkeypatch.setattr(
        backbone, "predict", lambda x, t, *rest, **more: calls.append(t) or predict(x, t, *rest, **more)
    )
    every = RfSolver(2, guidance=1, inject=2, blocks=1.0, inversion_prompt="source")
    edits = [
        method(backbone, clip, TASK, torch.Generator())
        for method in (every, replace(every, inject=0), replace(every, blocks=0.5))
    ]
    assert [edit.facts["values_from_layers"] for edit in edits] == [2, 2, 1] and len(calls) == 3 * 2 * 4
    assert len({float(edit.frames.double().sum()) for edit in edits}) == 3


def test_values_are_those_of_the_same_step_and_place(backbone, clip):
    """What a layer is lent at a step down is what the inversion had in that step's call, start or middle."""
    from freemask.methods import rf_solver

    put, got = {}, {}

    class Watching(rf_solver.Values):
        def kept(self, where, qkv):
            if self._wants(where):
                put[self.step, self._place(where), where.site.name] = qkv.v
            return super().kept(where, qkv)

        def lent(self, where, qkv):
            if self._wants(where):
                got[self.step, self._place(where), where.site.name] = where.t
            return super().lent(where, qkv)

    whole, rf_solver.Values = rf_solver.Values, Watching
    try:
        RfSolver(STEPS, inject=2, blocks=1.0)(backbone, clip, TASK, torch.Generator())
    finally:
        rf_solver.Values = whole
    assert put.keys() == got.keys() and len(put) == 2 * 2 * 2
    assert {step for step, *_ in put} == set(backbone.noise_path.times(STEPS)[-2:])
    for (step, place, _), t in got.items():
        assert t == step if place == "start" else t < step


def test_fireflow_takes_the_middles_values_where_it_never_asked_at_the_start(backbone, clip):
    fast = RfSolver(STEPS, inject=1, blocks=1.0, solver="fireflow")
    edit = fast(backbone, clip, TASK, torch.Generator())
    none = replace(fast, inject=0)(backbone, clip, TASK, torch.Generator())
    assert edit.facts["values_from_layers"] == 2 and not torch.equal(edit.frames, none.frames)


def test_wan_edit_as_published_and_as_released():
    paper, official = WanEdit(steps=20).settings(), WanEdit("official", 20, mask=Segmentation()).settings()
    assert list(paper.active) == list(range(4, 20)) and list(official.active) == list(range(9, 20))
    assert official.guidance == 12 and paper.guidance is None and paper.emphasis == 2.4 and official.lag
    assert official.mask == Segmentation()
    for refused in (
        lambda: WanEdit("official", guidance=7),
        lambda: WanEdit("official", steps=9),
        lambda: WanEdit("papr"),
    ):
        with pytest.raises(UserError):
            refused()


@pytest.mark.parametrize(
    "make",
    [
        lambda: FlowEdit(reach=0),
        lambda: FlowEdit(ending=1.2),
        lambda: FlowEdit(noises=0),
        lambda: FlowEdit(skip=-1),
        lambda: FlowEdit(guidance=1, source_guidance=1, negative="blurry"),
        lambda: FlowEdit(STEPS, skip=STEPS, ending=0.5),
        lambda: FlowEdit(coupling="none"),
        lambda: FlowEdit(solver="uni"),
        lambda: FlowAlign(reach=1.5),
        lambda: UniEditFlow(steps=2, reach=0.3),
        lambda: RfSolver(solver="euler"),
        lambda: RfSolver(blocks=2),
        lambda: RfSolver(inject=-1),
    ],
)
def test_bad_numbers_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_models_of_curved_paths_are_refused(clip):
    unet = UNet3D.random(0, max_tokens=20)
    with pytest.raises(UserError, match="flow matching"):
        FlowEdit(STEPS)(unet, clip, TASK, torch.Generator())
    assert unet.noise_path.times(2) and CLEAN < 0
