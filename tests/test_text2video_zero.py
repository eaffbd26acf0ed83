"""Text2Video-Zero: both modes against written-out twins, motion against a loop and the library's, masks, refusals."""

from dataclasses import replace
from math import floor

import pytest
import torch

from experiments.config.compose import config_of, plain
from freemask.attention.math import attend
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.control.edges import Edges
from freemask.errors import UserError
from freemask.methods.masked import of_target
from freemask.methods.text2video_zero import ALONE, UNSEEN, Text2VideoZero
from freemask.methods.text2video_zero_field import grown, moved, smoothed
from freemask.types import Clip, EditTask, Taps
from tests.given import Half, seeded
from tests.test_pix2video import Ended

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
LOOK = {"attention": "frame", "shared_norm": False, "max_tokens": 20, "dtype": "float64"}
TEXT = {"mode": "text", "guidance": 3.0}
EARLY = {"moved_at": 0.5, "begun_at": 0.8}  # of five steps: the third time, and the last


def clip(frames=4):
    return Clip("c", torch.rand(frames, 3, 12, 20, generator=seeded(0)))


def run(method, backbone, frames=4, task=TASK, seed=0):
    return method(backbone, clip(frames), task, seeded(seed))


@pytest.fixture(scope="module")
def backbone():
    return Inflated2D.random(0, **LOOK)


@pytest.fixture(scope="module")
def controlled():
    edges = {"control": 1, "control_edges": Edges(20, 40), "control_attention": ("first",)}
    return Inflated2D.random(0, **LOOK, **edges)


# --- motion ---------------------------------------------------------------------------------------------------


def by_loop(x, frame, motion, multiple):
    """Cell by cell: the mirrored place, then the nearest cell."""
    height, width = x.shape[-2:]
    out = torch.empty_like(x)
    for i in range(height):
        for j in range(width):
            at = []
            for place, cells, each in ((i, height, motion[1]), (j, width, motion[0])):
                found = place + frame * each / 512 * cells - 0.5 / multiple
                while not -0.5 <= found <= cells - 0.5:
                    found = -1 - found if found < -0.5 else 2 * cells - 1 - found
                at.append(min(cells - 1, max(0, floor(found + 0.5))))
            out[..., i, j] = x[..., at[0], at[1]]
    return out


@pytest.mark.parametrize("motion", [(12, 12), (200, -90), (0, 31), (-700, 900)], ids=str)
@pytest.mark.parametrize("size", [(7, 10), (1, 4), (16, 16)], ids=str)
def test_motion_is_that_of_a_loop(size, motion):
    x, frames = torch.rand(1, 2, *size, generator=seeded(0)), range(4)
    made = moved(x, frames, motion, 4)
    assert torch.equal(made, torch.cat([by_loop(x, frame, motion, 4) for frame in frames]))
    assert torch.equal(made[0], x[0])


@pytest.mark.filterwarnings("ignore")
def test_motion_is_that_of_the_library_at_the_authors_size():
    where = "diffusers.pipelines.deprecated.text_to_video_synthesis.pipeline_text_to_video_zero"
    library = pytest.importorskip(where)
    x, frames = torch.rand(1, 4, 64, 64, generator=seeded(1)), [1, 2, 5, 7]
    theirs = library.create_motion_field_and_warp_latents(12, 12, frames, x.repeat(4, 1, 1, 1))
    assert torch.equal(moved(x, frames, (12, 12), 8), theirs)


def test_one_lit_cell_moves_up_and_left():
    x = torch.zeros(1, 1, 64, 64)
    x[..., 30, 40] = 1
    made = moved(x, [1, 4], (12, 12), 8)
    assert made[0].nonzero()[0, 1:].tolist() == [29, 39] and made[1].nonzero()[0, 1:].tolist() == [24, 34]


def test_a_background_is_smoothed_outside_both_objects():
    x, moving = torch.full((2, 1, 1, 4), 10.0), torch.zeros(2, 1, 1, 4)
    objects = torch.tensor([[[1.0, 0, 0, 0]], [[0, 1.0, 0, 0]]])
    there = torch.tensor([[[1.0, 0, 0, 0]], [[0, 0, 1.0, 0]]])
    made = smoothed(x, moving, objects, there, 0.6)
    torch.testing.assert_close(made[:, 0, 0], torch.tensor([[10.0, 4, 4, 4], [4, 10, 10, 4]]))
    dot = torch.zeros(1, 64, 64)
    dot[0, 30, 30] = 1
    assert int(grown(dot).sum()) == 25 and int(grown(dot[:, :32, :16]).sum()) == 0


# --- twins ----------------------------------------------------------------------------------------------------


class First:
    """Self-attention on the first frame of each stacked clip, softmax written out."""

    def __init__(self, twin):
        self.twin = twin

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None):
        frames = self.twin.frames
        seen = torch.cat([hidden[i - i % frames][None] for i in range(len(hidden))])
        q, k, v = attn.to_q(hidden), attn.to_k(seen), attn.to_v(seen)
        heads = []
        for part in torch.arange(attn.inner_dim).chunk(attn.heads):
            logits = q[..., part] @ k[..., part].transpose(1, 2) / len(part) ** 0.5
            heads.append(logits.softmax(-1) @ v[..., part])
        return attn.to_out[0](torch.cat(heads, dim=-1))


class Twin:
    """The library's networks and loops after the method card. Stacked are negative and target, each all frames."""

    def __init__(self, method, backbone, images=None):
        self.method, self.images, self.frames = method, images, 0
        self.texts = [backbone.embed(prompt).tokens for prompt in (method.negative, TASK.target)]
        self.times = backbone.noise_path.times(method.steps)
        made = tiny.parts(0, torch.float64, "epsilon", 20, image=True).unet.eval()
        self.unet, self.net = made, None
        if images is not None:
            self.net = tiny.control_nets(made, 0, 1)[0].eval()
        for network in (self.unet, self.net):
            for name, module in network.named_modules() if network is not None else ():
                if name.endswith("attn1"):
                    module.set_processor(First(self))
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        self.table = torch.cumprod(1 - betas, 0).double()

    def stepped(self, x, t):
        self.frames, both = len(x), torch.cat([x, x])
        text = torch.cat([each.expand(len(x), -1, -1) for each in self.texts])
        more = {}
        if self.net is not None:
            down, middle = self.net(both, t, text, torch.cat([self.images] * 2), return_dict=False)
            more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        away, to = self.unet(both, t, text, **more).sample.chunk(2)
        eps = away + self.method.guidance * (to - away)
        place = self.times.index(t)
        now, below = self.table[t], self.table[self.times[place - 1] if place else 0]
        return below.sqrt() * (x - (1 - now).sqrt() * eps) / now.sqrt() + (1 - below).sqrt() * eps

    def down(self, x, times):
        for t in reversed(times):
            x = self.stepped(x, t)
        return x

    @torch.no_grad()
    def begun(self, noise, fresh):
        """`fresh` has a noise for each frame that is made of the first one."""
        steps, method = self.method.steps, self.method
        low, high = floor(method.moved_at * steps), floor(method.begun_at * steps)
        first = self.down(noise, self.times[high + 1 :])
        x = self.down(first, self.times[low + 1 : high + 1])
        official = method.variant == "official"
        made = [first]
        for place, eps in enumerate(fresh):
            moving = by_loop(x, place if official else place + 1, method.motion, 2)
            a = torch.tensor(1.0, dtype=torch.float64)
            at = range(self.times[low], self.times[high])
            for level in at if official else [level + 1 for level in at]:
                a = a * self.table[level] / self.table[level - 1]
            made.append(a.sqrt() * moving + (1 - a).sqrt() * eps[None])
        return torch.cat(made), self.times[: high + 1]


@pytest.mark.parametrize(
    "settings",
    [
        {**EARLY, "motion": (60, 90)},
        {**EARLY, "motion": (60, 90), "variant": "official"},
        {**EARLY, "motion": (60, 90), "variant": "official", "chunk": 3},
        {"moved_at": 0.5, "begun_at": 0.5, "negative": "grass"},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("frames", [2, 4])
def test_text_mode_is_its_twin(backbone, settings, frames):
    method, rng = Text2VideoZero(steps=5, **{**TEXT, **settings}), seeded(0)
    ended, official = Ended(backbone), method.variant == "official"
    edit = run(method, ended, frames)
    noise = torch.randn(1, 4, 6, 10, generator=rng).double()
    count = frames if official else frames - 1
    drawn = torch.randn(min(count, method.chunk - 1) if official else count, 4, 6, 10, generator=rng)
    fresh = [drawn[place % (method.chunk - 1) if official else place] for place in range(count)]
    if floor(method.moved_at * 5) == floor(method.begun_at * 5):
        fresh = [torch.zeros(4, 6, 10)] * count
    twin = Twin(method, backbone)
    x, times = twin.begun(noise, fresh)
    made = twin.down(x, times).detach()
    torch.testing.assert_close(ended.latents, made[official:], atol=1e-5, rtol=0)
    assert edit.facts["network_calls"] == 4 - floor(method.moved_at * 5) + len(times)
    assert UNSEEN in edit.warnings and ALONE not in edit.warnings


def test_a_smoothed_background_is_its_twin(backbone):
    """Masks of the left half: what lies outside it, and outside it moved, becomes the first frame's."""
    method, rng = Text2VideoZero(steps=5, **TEXT, **EARLY, motion=(60, 90), mask=Half(0.3)), seeded(0)
    ended = Ended(backbone)
    edit = run(method, ended, 3)
    noise = torch.randn(1, 4, 6, 10, generator=rng).double()
    fresh = torch.randn(2, 4, 6, 10, generator=rng)
    twin = Twin(method, backbone)
    x, times = twin.begun(noise, list(fresh))
    left = torch.zeros(1, 1, 6, 10, dtype=torch.float64)
    left[..., : 3 + 1] = 1  # a cell larger
    for place in range(3):
        there = by_loop(left, place, method.motion, 2)
        behind = (1 - left) * (1 - there)
        mixed = 0.4 * x[place : place + 1] + 0.6 * by_loop(x[:1], place, method.motion, 2)
        x[place : place + 1] = behind * mixed + (1 - behind) * x[place : place + 1]
    made = twin.down(x, times).detach()
    torch.testing.assert_close(ended.latents, made, atol=1e-5, rtol=0)
    assert edit.facts["mask_acts_on"].startswith("the background") and set(edit.extras) == {"objects"}
    plain_edit = run(replace(method, smoothing=0), backbone, 3)
    assert plain_edit.facts["mask_used"] is False
    assert torch.equal(
        plain_edit.frames, run(replace(method, mask=Text2VideoZero().mask), backbone, 3).frames
    )


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_control_mode_is_its_twin(controlled, frames):
    """In the ControlNet too frames look at the first one."""
    method, ended = Text2VideoZero(steps=3, guidance=3.0, negative="grass"), Ended(controlled)
    edit = run(method, ended, frames)
    noise = torch.randn(1, 4, 6, 10, generator=seeded(0)).double()
    twin = Twin(method, controlled, Edges(20, 40).of(clip(frames).frames).double())
    with torch.no_grad():
        made = twin.down(noise.expand(frames, -1, -1, -1), twin.times)
    torch.testing.assert_close(ended.latents, made, atol=1e-5, rtol=0)
    assert (ALONE in edit.warnings) == (frames == 1) and edit.facts["network_calls"] == 3


def test_taps_hear_nothing_of_the_controlnets(controlled):
    """Whose frames look at the first one in any case; who looks at whom tells models apart."""
    heard, texts = set(), {"cond": controlled.embed(TASK.target).given.plus(control=torch.rand(2, 3, 12, 20))}

    def tap(where, qkv):
        heard.add(where.site.name)
        return attend(qkv)

    controlled.predict(torch.randn(1, 2, 4, 6, 10), 500, texts, taps=Taps(attention=tap))
    assert heard == set(controlled.sites)
    options = {**LOOK, "control": 1, "control_edges": Edges(20, 40)}
    assert Inflated2D.random(0, **options).identity != controlled.identity


# --- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"motion": (90, 0)}, {"moved_at": 0.2}, {"begun_at": 0.6}, {"variant": "official"}, {"look": ()},
        {"look": ("first", -1)}, {"suffix": " the"}, {"negative": "grass"}, {"guidance": 1},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_a_clip_of_text(backbone, usual, change):
    made = run(Text2VideoZero(**{"steps": 5, **TEXT, **EARLY, "motion": (60, 90), **change}), backbone, 3)
    assert float((made.frames - usual).abs().max()) > 1e-6


@pytest.fixture(scope="module")
def usual(backbone):
    return run(Text2VideoZero(steps=5, **TEXT, **EARLY, motion=(60, 90)), backbone, 3).frames


def test_one_frame_of_text_and_its_seed(backbone):
    """Nothing of the clip is seen; another seed makes another clip."""
    method = Text2VideoZero(steps=3, **TEXT)
    for variant in ("paper", "official"):
        assert ALONE in run(replace(method, variant=variant), backbone, 1).warnings
    first, other = clip(2), Clip("d", torch.zeros(2, 3, 12, 20))
    made = [method(backbone, each, TASK, seeded(0)).frames for each in (first, other)]
    assert torch.equal(*made)
    assert not torch.equal(made[0], run(method, backbone, 2, seed=1).frames)


@pytest.mark.parametrize(
    ("steps", "places"), [(50, (44, 47)), (10, (8, 9)), (20, (17, 18)), (1, (0, 0)), (100, (88, 94))]
)
def test_where_the_first_frame_is_moved(steps, places):
    """The authors' places of 50; times 881 and 941."""
    assert Text2VideoZero(steps=steps).places == places


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "pose"}, {"motion": (1,)}, {"moved_at": 0.9, "begun_at": 0.5}, {"begun_at": 1}, {"chunk": 1},
        {"smoothing": 2}, {"variant": "Paper"}, {"look": ("frist",)}, {"steps": 0}, {"guidance": -1},
        {"moved_at": -0.1},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises((UserError, TypeError)):
        Text2VideoZero(**settings)


def test_models_that_do_not_fit_a_mode_are_refused(backbone, controlled):
    """By what is configured, and by what they take."""
    control, text = Text2VideoZero(steps=1), Text2VideoZero(steps=1, mode="text")
    for method, model, said in (
        (control, {"control": None}, "no ControlNet"),
        (text, {"control": "embedded_edges"}, "prompt alone"),
        (text, {"control": None, "channels": "depth"}, "prompt alone"),
    ):
        with pytest.raises(UserError, match=said):
            method.check_model(model)
    control.check_model({"control": "embedded_edges"})
    text.check_model({"control": None})
    for method, model, said in (
        (control, backbone, "no ControlNet"),
        (text, controlled, "prompt alone"),
        (text, UNet3D.random(0), "model=embedded_image"),
    ):
        with pytest.raises(UserError, match=said):
            run(method, model, 2)


class Annotated(Half):
    def check(self, task, clip):
        if "thing" not in clip.masks:
            raise UserError("no annotation")
        assert task.source == task.target == TASK.target and dict(task.words) == {"blue": "blue"}


def test_masks_of_text_mode_are_of_what_is_made(backbone):
    """Annotations of the clip are none of it; the released code cannot smooth; a mask must be known beforehand."""
    known = replace(clip(2), masks={"thing": torch.ones(2, 12, 20, dtype=torch.bool)})
    text = Text2VideoZero(steps=2, mode="text", mask=Annotated())
    with pytest.raises(UserError, match="no annotation"):
        text.check(TASK, lambda: known)
    official = replace(text, variant="official")
    for refuse in (lambda: official.check(TASK, lambda: known), lambda: run(official, backbone, 2)):
        with pytest.raises(UserError, match="cannot smooth"):
            refuse()
    removed = of_target(replace(TASK, words={"red": "", "car": "car"}))
    assert dict(removed.words) == {"car": "car"}


# --- masks with a ControlNet ----------------------------------------------------------------------------------


def test_a_mask_of_all_or_nothing_and_of_a_half(controlled):
    method = Text2VideoZero(steps=3, guidance=3.0, mask=Half(1))
    plain_edit = run(Text2VideoZero(steps=3, guidance=3.0), controlled)
    torch.testing.assert_close(run(method, controlled).frames, plain_edit.frames, atol=1e-5, rtol=0)
    held = run(replace(method, mask=Half(0)), controlled)
    own = controlled.decode(controlled.encode(clip().frames))
    torch.testing.assert_close(held.frames, own, atol=1e-4, rtol=0)
    half = run(replace(method, mask=Half(), composite="pixels"), controlled)
    assert torch.equal(half.frames[..., 10:], clip().frames[..., 10:])
    assert not torch.equal(half.frames[..., :10], clip().frames[..., :10])
    assert half.facts["mask_acts_on"] == "latents in steps 1-3 of 3"


def test_the_yaml_makes_the_constructors_defaults():
    config = plain(config_of("edit", ["method=text2video_zero"]))
    made, usual = config["method"], Text2VideoZero()
    lists = {name: tuple(made[name]) for name in ("motion", "look")}
    assert lists == {"motion": usual.motion, "look": usual.look}
    for name in (
        "steps",
        "guidance",
        "mode",
        "suffix",
        "negative",
        "moved_at",
        "begun_at",
        "chunk",
        "smoothing",
    ):
        assert made[name] == getattr(usual, name)
    assert (made["variant"], config["model"]["control_attention"]) == (usual.variant, ["first"])
