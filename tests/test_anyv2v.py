"""AnyV2V: a written-out twin on the library's own network, windows, first frames, masks; the authors' cases."""

from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from einops import rearrange, repeat
from PIL import Image

from experiments.config.build import build
from experiments.config.compose import composed, config_of, plain
from experiments.jobs.truth import informed
from freemask.attention.layout import on_grid
from freemask.attention.math import attend
from freemask.backbones import tiny
from freemask.backbones.i2vgen import I2VGen
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.data.world.source import World
from freemask.diffusion.noise_paths import CLEAN, Ddim
from freemask.diffusion.solvers import OWN_LEVEL, way
from freemask.errors import UserError
from freemask.masks.plan import MaskPlan
from freemask.methods.anyv2v import AnyV2V
from freemask.methods.common import paths
from freemask.methods.first_frame import Edited, FromFile, Picture, Plain, TrueAnswer, Unedited
from freemask.methods.held import holding, of_frames
from freemask.methods.sdedit import SdEdit
from freemask.types import NO_TAPS, QKV, Clip, EditTask, Grid, Where
from tests.given import Half
from tests.official import anyv2v
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import FORCED, Ledger

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
SAME = replace(TASK, target=TASK.source)
BLOCKS = [(1, 1), (1, 2), *((block, place) for block in (2, 3) for place in (0, 1, 2))]
SHORT = {"steps": 4, "inversion_steps": 8, "guidance": 3.0, "negative": "the grass", "fps": 8}
BRIEF = {**SHORT, "steps": 2, "inversion_steps": 2}


@pytest.fixture(scope="module")
def backbone():
    return I2VGen.random(0, dtype="float64", max_tokens=20)


@cache
def clip(frames=3, fps=5.0):
    rng = torch.Generator().manual_seed(0)
    return Clip("c", torch.rand(frames, 3, 12, 20, generator=rng), fps=fps)


class Painted(Plain):
    """The clip's own in other colours."""

    def __call__(self, backbone, clip, task, rng, progress=None):
        return Picture(clip.frames[0].flip(0))


class Watched:
    """A backbone that notes every call: the time, and what went in by stream."""

    def __init__(self, backbone):
        self.backbone, self.calls = backbone, []

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def predict(self, x, t, given, *, taps=NO_TAPS):
        self.calls.append((t, dict(zip(given, x, strict=True)), given))
        return self.backbone.predict(x, t, given, taps=taps)

    def edits(self):
        return [call for call in self.calls if "cond" in call[1]]


def run(method, backbone, task=TASK, source=None):
    return method(backbone, source or clip(), task, torch.Generator().manual_seed(0))


# --- the twin ---------------------------------------------------------------------------------------------------


class Twin:
    """The library's network, its outputs overwritten by hooks, and loops after the method card. Rows: source,
    negative, edit."""

    def __init__(self, backbone, windows):
        self.unet = tiny.parts(0, torch.float64, "v_prediction", 20, animated=True).unet.eval()
        self.backbone, self.windows, self.step = backbone, windows, None
        self.hook("up_blocks.1.resnets.1.conv2", 0)
        for block, place in BLOCKS:
            for window, kind in ((1, "attentions"), (2, "temp_attentions")):
                for projection in ("to_q", "to_k"):
                    name = f"up_blocks.{block}.{kind}.{place}.transformer_blocks.0.attn1.{projection}"
                    self.hook(name, window)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        self.table = torch.cumprod(1 - betas, 0).double()

    def hook(self, name, window):
        def overwritten(module, args, out):
            if self.step is None or self.step >= self.windows[window]:
                return out
            first = out[: len(out) // 3]
            return torch.cat([first] * 3)

        self.unet.get_submodule(name).register_forward_hook(overwritten)

    def call(self, x, t, rows):
        frames = len(x[0])
        pictures = torch.stack([each["image_latents"] for each in rows])
        where = torch.arange(frames) / max(1, frames - 1)
        along = repeat(
            where.double(), "f -> s c f h w", s=len(rows), c=4, h=x.shape[-2], w=x.shape[-1]
        ).clone()
        along[:, :, 0] = pictures
        out = self.unet(
            rearrange(x, "s f c h w -> s c f h w"),
            t,
            fps=torch.tensor([8.0] * len(rows)),
            image_latents=along,
            image_embeddings=torch.stack([each["image"] for each in rows])[:, None].double(),
            encoder_hidden_states=torch.stack([each["text"] for each in rows]),
        ).sample
        return rearrange(out, "s c f h w -> s f c h w")

    def moved(self, x, v, level, to):
        """A step of DDIM, up or down, with what the network says of the latent's own level."""
        now, then = (self.table[max(each, 0)] for each in (level, to))
        clean = now.sqrt() * x - (1 - now).sqrt() * v
        noise = now.sqrt() * v + (1 - now).sqrt() * x
        return then.sqrt() * clean + (1 - then).sqrt() * noise

    @torch.no_grad()
    def edit(self, frames, edited, texts, method):
        backbone, up = self.backbone, [i * (1000 // method.inversion_steps) + 1 for i in range(8)]
        pictures = [backbone.encode(each[None])[0] for each in (frames[0], edited)]
        said = [backbone.seeing(each) for each in (frames[0], edited)]
        shown = [(said[0], pictures[0]), (torch.zeros_like(said[0]), pictures[1]), (said[1], pictures[1])]
        rows = [
            {"text": backbone.embed(text).tokens, "image": image, "image_latents": latents}
            for text, (image, latents) in zip(texts, shown, strict=True)
        ]
        levels, x = {}, backbone.encode(frames)
        for now, t in zip([CLEAN, *up], up, strict=False):
            levels[t] = x = self.moved(x, self.call(x[None], t, rows[:1])[0], now, t)
        down = [i * (1000 // method.steps) + 1 for i in reversed(range(method.steps))]
        x = levels[down[method.start]]
        for self.step, t in list(enumerate(down))[method.start :]:
            _, away, cond = self.call(torch.stack([levels[t], x, x]), t, rows)
            below = [*down, CLEAN][self.step + 1]
            x = self.moved(x, away + method.guidance * (cond - away), t, below)
        return x


@pytest.mark.parametrize(
    ("shares", "start", "windows"),
    [((0.5, 0.75, 1.0), 1, (2, 3, 4)), ((0.0, 0.0, 0.0), 0, (0, 0, 0)), ((0.25, 0.5, 0.25), 2, (1, 2, 1))],
)
def test_every_step_is_that_of_the_twin(backbone, shares, start, windows):
    names = ("convolution_share", "attention_share", "temporal_share")
    method = AnyV2V(first_frame=Painted(), start=start, **dict(zip(names, shares, strict=True)), **SHORT)
    twin, source = Twin(backbone, windows), clip()
    texts = ("", method.negative, TASK.target)
    theirs = twin.edit(source.frames, source.frames[0].flip(0), texts, method)
    ours = run(method, backbone)
    torch.testing.assert_close(ours.frames, backbone.decode(theirs, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_inversion_is_that_of_the_librarys_scheduler(prediction):
    about = {"set_alpha_to_one": True, "beta_schedule": "scaled_linear", "clip_sample": False}
    path = Ddim(prediction=prediction, set_alpha_to_one=True, rescale_betas_zero_snr=True)
    theirs = DDIMInverseScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        steps_offset=1,
        **about,
        rescale_betas_zero_snr=True,
    )
    theirs.set_timesteps(20)
    x = y = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    travel, times = way(OWN_LEVEL, path, lambda x, t: (x * t / 1000).cos()), path.times(20)
    assert theirs.timesteps.tolist() == times
    for now, t in zip([CLEAN, *times], times, strict=False):
        x = travel(x, now, t)
        y = theirs.step((y * t / 1000).cos(), t, y).prev_sample
    torch.testing.assert_close(x, y, atol=1e-6, rtol=0)
    again = way(OWN_LEVEL, path, lambda x, t: x)(x, times[1], times[0])
    torch.testing.assert_close(again, path.step(x, x, now=times[1], call=times[1], to=times[0]))


# --- windows, layers, rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "start", "shares", "windows"),
    [
        (50, 1, (0.2, 0.2, 0.5), (9, 9, 24)),
        (50, 0, (0.2, 0.2, 0.5), (10, 10, 25)),
        (10, 1, (0.3, 0.4, 0.7), (2, 3, 6)),
        (10, 5, (0.3, 0.4, 0.7), (0, 0, 2)),
        (10, 0, (1.0, 0.0, 0.05), (10, 0, 0)),
    ],
)
def test_windows_are_cut_from_all_steps(backbone, steps, start, shares, windows):
    names = ("convolution_share", "attention_share", "temporal_share")
    lent = AnyV2V(steps=steps, start=start, **dict(zip(names, shares, strict=True))).lent(backbone)
    assert (lent.convolution_steps, lent.attention_steps, lent.temporal_steps) == windows
    found = (lent.convolutions, lent.attentions, lent.temporals)
    assert [bool(each) for each in found] == [bool(each) for each in windows]


def test_the_layers_are_the_authors_unless_others_are_named(backbone):
    lent = AnyV2V().lent(backbone)
    assert list(lent.convolutions) == ["up_blocks.1.resnets.1.conv2"]
    for kind, names in (("attentions", lent.attentions), ("temp_attentions", lent.temporals)):
        expected = [f"up_blocks.{b}.{kind}.{j}.transformer_blocks.0.attn1" for b, j in BLOCKS]
        assert list(names) == expected
    other = AnyV2V(temporals=["mid_block.*"]).lent(backbone)
    assert other.temporals and all(name.startswith("mid_block.") for name in other.temporals)
    with pytest.raises(UserError, match="'temporals' names no layer"):
        AnyV2V(temporals=["mid_block.attentions.*"]).lent(backbone)


@pytest.mark.parametrize(("guidance", "streams"), [(3.0, {"uncond", "cond"}), (1, {"cond"})])
def test_a_source_that_lends_nothing_does_not_run(backbone, guidance, streams):
    watched = Watched(backbone)
    method = AnyV2V(
        first_frame=Painted(), **{**SHORT, "guidance": guidance, "start": 1, "temporal_share": 0.5}
    )
    run(method, watched)
    assert [set(seen) - streams for _, seen, _ in watched.edits()] == [{"source"}, set(), set()]
    inverted = {t: seen["source"] for t, seen, _ in watched.calls if set(seen) == {"source"}}
    t, first, given = watched.edits()[0]
    later = sorted(inverted)[sorted(inverted).index(t) + 1]
    assert torch.equal(
        first["source"], inverted[later]
    )  # what the inversion made at t is seen at the time after it
    pictures = [backbone.seen(Clip("c", each)) for each in (clip().frames[:1], clip().frames[:1].flip(1))]
    for stream, each in given.items():
        own, parts = pictures[stream != "source"], each.parts
        assert torch.equal(parts["image_latents"], own["image_latents"]) and float(parts["fps"]) == 8
        said = own["image"] * (stream != "uncond")
        assert torch.equal(parts["image"], said)


def test_without_fps_the_clips_own_counts(backbone):
    given = replace(AnyV2V(), fps=None).given(backbone, clip(), TASK, clip().frames[0])
    assert {float(each.parts["fps"]) for each in given.values()} == {5.0}
    assert torch.equal(given["source"].parts["text"], backbone.embed("").tokens)
    under = AnyV2V(inversion_prompt="source").given(backbone, clip(), TASK, clip().frames[0])
    assert torch.equal(under["source"].parts["text"], backbone.embed(TASK.source).tokens)


def test_a_still_inversion_is_one_of_the_first_frame(backbone):
    watched = Watched(backbone)
    run(AnyV2V(**{**SHORT, "still": True}), watched)
    first = watched.calls[0][1]["source"]
    assert torch.equal(first, first[:1].expand_as(first)) and not torch.equal(
        first, backbone.encode(clip().frames)
    )


# --- masks ------------------------------------------------------------------------------------------------------


def test_a_mask_holds_the_clip_outside(backbone):
    """Attention of both kinds, the branch and latents; the other half is edited."""
    watched = Watched(backbone)
    method = AnyV2V(first_frame=Painted(), mask=Half(), composite="pixels", **BRIEF)
    edit, own = run(method, watched), backbone.encode(clip().frames)
    plain_edit = run(replace(method, mask=AnyV2V().mask, composite="none"), backbone)
    assert edit.facts["mask_layer"] == "left" and "along frames" in edit.facts["mask_acts_on"]
    inverted = [seen["source"] for _, seen, _ in watched.calls if set(seen) == {"source"}]
    for _, seen, _ in watched.edits()[1:]:
        assert torch.equal(seen["cond"][..., 5:], seen["source"][..., 5:])
        assert not torch.equal(seen["cond"][..., :5], seen["source"][..., :5])
    assert all("source" in seen for _, seen, _ in watched.edits()) and torch.equal(inverted[0], own)
    assert torch.equal(edit.frames[..., 10:], clip().frames[..., 10:])
    assert not torch.equal(edit.frames[..., :10], plain_edit.frames[..., :10])
    style = run(method, backbone, replace(TASK, kind="style"))
    assert style.facts["mask_used"] is False


@pytest.mark.parametrize("kind", ["attentions", "temp_attentions"])
def test_attention_within_and_along_frames_is_the_clips_outside(backbone, kind):
    name = f"up_blocks.2.{kind}.1.transformer_blocks.0.attn1"
    site, grid = backbone.sites[name], Grid(3, 4, 6)
    rows, tokens = (3, 24) if kind == "attentions" else (24, 3)
    q, k, v = torch.randn(3, 2, rows, 2, tokens, 5, generator=torch.Generator().manual_seed(0))
    asked = []

    def mask(wanted):
        asked.append(wanted)
        return Half().plan(None, None, None)(wanted)

    where = Where(site, 500, grid, ("source", "cond"))
    inside = partial(of_frames, MaskPlan(mask), range(3), 3)
    own = attend(QKV(q, k, v, 1.0))
    out = holding(NO_TAPS, inside, ()).attention(where, QKV(q, k, v, 1.0))
    clips, plain_edit, held = (on_grid(each.sum((1, 3)), where) for each in (own[0], own[1], out[1]))
    assert torch.equal(out[0], own[0]) and asked[0].use == ("self" if kind == "attentions" else "temporal")
    assert torch.equal(held[..., :3], plain_edit[..., :3]) and torch.equal(held[..., 3:], clips[..., 3:])


# --- first frames -----------------------------------------------------------------------------------------------


def test_a_file_of_another_size_is_brought_to_the_clips(backbone, tmp_path):
    image = Image.new("RGB", (33, 17), (200, 10, 10))
    image.save(tmp_path / "c.png")
    found = FromFile(str(tmp_path / "{clip}.png"))(backbone, clip(), TASK, torch.Generator())
    assert found.frame.shape == (3, 12, 20) and found.facts == {"first_frame": "file c.png"}
    assert "33x17" in found.warnings[0] and "20x12" in found.warnings[0]
    torch.testing.assert_close(found.frame.mean((1, 2)), torch.tensor([200, 10, 10]) / 255)
    image.resize((20, 12)).save(tmp_path / "d.jpg")
    listed = replace(TASK, assets={"first_frame": str(tmp_path / "d.jpg")})
    assert not FromFile()(backbone, clip(), listed, torch.Generator()).warnings


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda place: FromFile(), "edited first frame is needed"),
        (lambda place: FromFile(str(place / "nothing.png")), "no such file"),
        (lambda place: FromFile(str(place / "torn.png")), "not a picture"),
        (lambda place: TrueAnswer(), "true answer of this edit is not known"),
        (lambda place: TrueAnswer().knowing(None), "true answer of this edit is not known"),
    ],
)
def test_a_first_frame_that_is_not_there_is_refused(backbone, tmp_path, made, said):
    (tmp_path / "torn.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=said):
        run(AnyV2V(first_frame=made(tmp_path), **SHORT), backbone)


def test_what_can_be_seen_without_a_model_is_refused_without_one(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"no picture")
    for name, said in (("x", "no such file"), ("torn", "not a picture")):
        with pytest.raises(UserError, match=said):
            AnyV2V(first_frame=FromFile(str(tmp_path / f"{name}.png"))).check(TASK, clip)


def test_the_true_answer_is_a_bound_and_says_so(backbone):
    data = World(clips=1, frames=2, size=16)
    task = data.tasks()[0]
    method = informed(AnyV2V(first_frame=TrueAnswer(), **{**SHORT, "steps": 2}), data, task)
    edit = run(method, backbone, replace(task, target=TASK.target), data.clip(task))
    assert torch.equal(method.first_frame.frame, data.oracle(task)[0])
    assert edit.facts["first_frame_bound"] is True and any("bound" in each for each in edit.warnings)
    assert isinstance(informed(SdEdit(), data, task), SdEdit)


def test_an_editor_of_pictures_edits_the_first_frame_alone(backbone):
    seen, editor = [], SdEdit(steps=2, guidance=2.0)

    def load(device):
        seen.append(device)
        return Inflated2D.random(0, max_tokens=20)

    found = Edited(load, editor)(backbone, clip(), TASK, torch.Generator().manual_seed(3))
    first = replace(clip(), frames=clip().frames[:1])
    alone = editor(Inflated2D.random(0, max_tokens=20), first, TASK, torch.Generator().manual_seed(3))
    assert torch.equal(found.frame, alone.frames[0]) and seen == ["cpu"]
    assert found.facts["first_frame"] == "SdEdit"


@pytest.mark.parametrize("name", ["none", "file", "truth", "sdedit", "pnp", "fatezero"])
def test_each_choice_is_built_with_a_model_that_is_not_yet_loaded(name, monkeypatch):
    monkeypatch.setattr(Inflated2D, "load", lambda *given, **named: pytest.fail("loaded"))
    made = composed("run", ["method=anyv2v", "model=random_i2v", f"first_frame={name}"])
    first = build(plain(made.cfg)["method"], "method").first_frame
    kinds = {"none": Unedited, "file": FromFile, "truth": TrueAnswer}
    assert isinstance(first, kinds.get(name, Edited)) and made.choices["first_frame"] == name
    assert not any("@" in group for group in made.choices)


def test_the_editors_model_is_chosen_by_name():
    words = ["method=anyv2v", "first_frame=sdedit", "model@first_frame.model=random_image"]
    words += ["first_frame.method.steps=2", "first_frame.method.strength=0.5"]
    first = build(plain(config_of("edit", words))["method"], "method").first_frame
    assert isinstance(first.model(device="cpu"), Inflated2D) and first.method.strength == 0.5


@pytest.mark.parametrize("name", ["pnp", "sdedit", "fatezero", "null_text_p2p"])
@pytest.mark.parametrize("method", ["anyv2v", "nla", "codef"])
def test_an_editor_takes_the_steps_of_the_edit_or_its_own(method, name):
    def steps(*words):
        config = plain(config_of("edit", [f"method={method}", f"first_frame={name}", *words]))
        return config["method"]["first_frame"]["method"]["steps"]

    assert steps() == 50
    assert steps("method.steps=10") == 10
    assert steps("method.steps=10", "first_frame.method.steps=7") == 7


@pytest.mark.parametrize("name", ["features", "freemask/table2", "freemask/fig3"])
def test_published_rows_are_of_an_editor_with_steps_of_its_own(name):
    """They were made so, and have this identity."""
    made = composed("run", [f"experiment={name}"])
    variants = plain(made.cfg)["variants"]
    edited = [each for each in variants if each.startswith("anyv2v") and each != "anyv2v_truth"]
    for each in edited:
        method = plain(config_of("run", [f"experiment={name}", *variants[each]]))["method"]
        assert (method["steps"], method["first_frame"]["method"]["steps"]) == (10, 50)
    assert edited


# --- refusals and remarks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"start": 50}, "'start'"),
        ({"start": -1}, "'start'"),
        ({"temporal_share": 1.1}, "'temporal_share'"),
        ({"inversion_steps": 40}, "'inversion_steps'"),
        ({"inversion_prompt": "null"}, "inversion_prompt"),
        ({"solver": "unipc"}, "solver"),
        ({"still": True, "mask": Half()}, "still"),
        ({"guidance": -1}, "'guidance'"),
        ({"fps": 0}, "'fps'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        AnyV2V(**settings)


def test_steps_that_do_not_nest_are_refused_with_those_that_do(backbone):
    for steps in (50, 100, 200, 250, 500, 999):
        assert set(paths(backbone, 50, steps)[0]) <= set(paths(backbone, 50, steps)[1])
    for steps in (150, 300, 400, 600):
        with pytest.raises(UserError, match="50 or 100 or 200 or 250 or 500") as refused:
            run(AnyV2V(inversion_steps=steps), backbone)
        assert f"inversion_steps={steps}" in str(refused.value)


def test_a_model_that_takes_no_picture_is_refused():
    with pytest.raises(UserError, match="takes no picture"):
        run(AnyV2V(**SHORT), UNet3D.random(0, max_tokens=20))


def test_what_is_worth_a_word(backbone):
    method = AnyV2V(**BRIEF)
    one = run(method, backbone, source=clip(1))
    assert any("one picture" in each for each in one.warnings) and len(one.frames) == 1
    assert any("the clip's own" in each for each in run(method, backbone).warnings)
    assert not run(method, backbone, SAME).warnings


# --- the authors' cases -----------------------------------------------------------------------------------------


@torch.no_grad()
def compared(shared, name, *, steps=None, extra=()):
    case, ledger = Case.read(shared / "parity" / "golden" / f"{name}.json"), Ledger()
    anyv2v.compare(case, ledger, Wanted(steps, steps is None, extra, lambda *_: None))
    return ledger


def test_the_first_steps_of_the_authors_anyv2v(shared):
    ledger = compared(shared, "any_full", steps=1)
    assert ledger.passed, ledger.table()
    assert ledger.found["edit: queries and keys", FORCED].count == 32
    assert ledger.found["edit: what layers put out", FORCED].count == 17


@pytest.mark.parametrize(
    ("extra", "group"),
    [
        ("method.solver=euler", "inversion: latents"),
        ("method.temporal_share=0.6", "edit: steps that take over"),
        ("method.fps=24", "given: fps, exactly"),
        ("model.text_skip=0", "given: text"),
    ],
)
def test_a_mistake_is_seen(shared, extra, group):
    ledger = compared(shared, "any_full", steps=2, extra=(extra,))
    assert ledger.found[group, FORCED].failed


@pytest.mark.parity
@pytest.mark.parametrize("name", ["any_base", "any_full"])
def test_the_authors_anyv2v(shared, name):
    ledger = compared(shared, name)
    assert ledger.passed, ledger.table()
