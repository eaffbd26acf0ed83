"""Ground-A-Video: against a written-out twin with gated layers, boxes and noise against loops, masks, refusals."""

from dataclasses import replace
from math import ceil, floor
from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate, silu

from experiments.config.compose import config_of, plain
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.control.edges import Edges
from freemask.errors import UserError
from freemask.masks.strategies.none import NoMask
from freemask.masks.strategies.segmentation import Segmentation
from freemask.methods.ground_a_video import UNREAD, WHOLE, GroundAVideo
from freemask.methods.ground_a_video_field import box_of, inside, moves, opened, smoothed
from freemask.methods.ground_a_video_told import BOXES
from freemask.optical.sources import Exact
from freemask.types import Clip, EditTask, LocalEdit, OpticalFlow
from tests.given import Half, seeded
from tests.test_gated import gated, network
from tests.test_pix2video import Ended

ONE = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
EDITS = (LocalEdit({"red car": "blue car"}, "attribute"), LocalEdit({"grass": "red grass"}, "attribute"))
TWO = EditTask(
    "t", "c", "a red car on grass", "a blue car on red grass",
    {"red car": "blue car", "grass": "red grass"}, "attribute", edits=EDITS,
)  # fmt: skip


def clip(frames=3):
    """A car that moves to the right, and grass below, which is hidden in the last frame."""
    masks = {name: torch.zeros(frames, 12, 20, dtype=torch.bool) for name in ("car", "grass")}
    forth = torch.zeros(frames - 1, 2, 12, 20)
    for frame in range(frames):
        masks["car"][frame, 1:6, 1 + 3 * frame : 9 + 3 * frame] = True
        if frame < frames - 1:
            masks["grass"][frame, 8:11, 2:17] = True
            forth[frame, 0, :, : 8 + 3 * frame] = 3.0
            forth[frame, 1, 9:] = -0.7
    made = torch.rand(frames, 3, 12, 20, generator=seeded(0))
    return Clip("c", made, masks, flow=OpticalFlow(forth))


def run(method, backbone, source=None, task=ONE, seed=0):
    return method(backbone, source or clip(), task, seeded(seed))


@pytest.fixture(scope="module")
def backbone():
    """As GLIGEN's: gated layers, and five channels beside the latents."""
    return gated(5, "all", True)


@pytest.fixture(scope="module")
def plainer():
    """As the models that ship: neither."""
    edges = {"control": 1, "control_edges": Edges(20, 40), "control_attention": "all"}
    look = {"attention": "all", "least_channels": 0, "dtype": "float64", "max_tokens": 20}
    return Inflated2D.random(0, **look, **edges)


# --- the twin -------------------------------------------------------------------------------------------------


def attended(attn, hidden, seen):
    q, k, v = attn.to_q(hidden), attn.to_k(seen), attn.to_v(seen)
    heads = []
    for part in torch.arange(attn.inner_dim).chunk(attn.heads):
        logits = q[..., part] @ k[..., part].transpose(1, 2) / len(part) ** 0.5
        heads.append(logits.softmax(-1) @ v[..., part])
    return attn.to_out[0](torch.cat(heads, dim=-1))


class Across:
    """All tokens of all frames of a stream, for every frame; of a lone picture that is itself."""

    def __init__(self, twin):
        self.twin = twin

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None):
        seen = [part.flatten(0, 1).expand(len(part), -1, -1) for part in hidden.split(self.twin.frames)]
        return attended(attn, hidden, torch.cat(seen))


class Reads:
    """Text attention; without the prompt, frames read the texts of all, side by side."""

    def __init__(self, twin):
        self.twin = twin

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None):
        text = self.twin.text
        if not self.twin.modulated:
            return attended(attn, hidden, text)
        frames = self.twin.frames
        away = torch.cat(list(text[:frames]))[None].expand(frames, -1, -1)
        return torch.cat(
            [attended(attn, hidden[:frames], away), attended(attn, hidden[frames:], text[frames:])]
        )


class Twin:
    """The library's networks and loops after the method card; boxes are found pixel by pixel."""

    def __init__(self, method, backbone, source, task, rng):
        self.method, self.backbone, self.source, self.task, self.rng = method, backbone, source, task, rng
        self.official, self.frames, self.modulated, self.text = method.variant == "official", 1, False, None
        self.unet: Any = network(5)
        plain_net = tiny.parts(0, torch.float64, "epsilon", 20, image=True).unet
        self.net = tiny.control_nets(plain_net, 0, 1)[0].eval().requires_grad_(False)
        self.unet.requires_grad_(False)
        for name, module in [*self.unet.named_modules(), *self.net.named_modules()]:
            if name.endswith(("attn1", "fuser.attn")):
                module.set_processor(Across(self))
        for name, module in self.unet.named_modules():
            if name.endswith("attn2"):
                module.set_processor(Reads(self))
        self.unet.position_net.forward = lambda things: things  # they are made here
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        self.table = torch.cumprod(1 - betas, 0).double()
        self.images = Edges(20, 40).of(source.frames).double()
        self.clean = backbone.encode(source.frames)
        if self.official:
            self.clean = self.clean + self.drawn() * backbone.spread(source.frames)
        self.boxes = [self.boxes_of(source.masks[name]) for name in ("car", "grass")[: 1 + bool(task.edits)]]
        self.free = self.free_cells()

    def drawn(self):
        return torch.randn(len(self.source.frames), 4, 6, 10, generator=self.rng).double()

    def boxes_of(self, mask):
        """x0 y0 x1 y1 in pixels, or none."""
        found = []
        for frame in mask:
            there = [(i, j) for i in range(12) for j in range(20) if frame[i, j]]
            rows, columns = [i for i, _ in there], [j for _, j in there]
            found.append((min(columns), min(rows), max(columns) + 1, max(rows) + 1) if there else None)
        return found

    def free_cells(self):
        found, end = torch.zeros(len(self.clean), 1, 6, 10).double(), floor if self.official else ceil
        for boxes in self.boxes:
            for frame, box in enumerate(boxes):
                if box is not None:
                    x0, y0, x1, y1 = (each / 2 for each in box)
                    found[frame, :, floor(y0) : end(y1), floor(x0) : end(x1)] = 1
        return found

    def things(self, phrases, frame):
        """Tokens of thirty things, by the layers of the network itself; `phrases` None: of nothing."""
        net, rows = self.unet.position_net, []
        waves = [100 ** (k / 8) for k in range(8)]
        for place in range(30):
            box = self.boxes[place][frame] if phrases is not None and place < len(phrases) else None
            if box is None:
                row = torch.cat([net.null_positive_feature, net.null_position_feature])
            else:
                text = self.backbone.embed(phrases[place])
                corners = [box[0] / 20, box[1] / 12, box[2] / 20, box[3] / 12]
                where = [
                    getattr(torch.tensor(wave * at, dtype=torch.float64), of)()
                    for wave in waves for of in ("sin", "cos") for at in corners
                ]  # fmt: skip
                row = torch.cat([text.tokens[text.length - 1], torch.stack(where)])
            rows.append(row)
        x = torch.stack(rows)
        first, second, third = (net.linears[place] for place in (0, 2, 4))
        return third(silu(second(silu(first(x)))))

    def beside(self, frame):
        """What stands outside the boxes, and where that is."""
        kept = 1 - self.free[frame : frame + 1]
        return torch.cat([self.clean[frame : frame + 1] * kept, kept], dim=1)

    def called(self, x, t, text, things, frames, images=None):
        """`frames` are those of x; of several streams, one after the other."""
        self.frames, self.text = len(frames), text
        more = {}
        if images is not None:
            down, middle = self.net(x, t, text, images, return_dict=False)
            more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        seen = torch.cat(
            [x, torch.cat([self.beside(frame) for frame in frames] * (len(x) // len(frames)))], 1
        )
        told = {"gligen": {"things": things}}
        return self.unet(seen, t, text, cross_attention_kwargs=told, **more).sample

    def moved(self, x, eps, now, to):
        return to.sqrt() * (x - (1 - now).sqrt() * eps) / now.sqrt() + (1 - to).sqrt() * eps

    def inverted(self, frame, times, phrases):
        """The way up under an empty prompt, and the null texts of the way down under the source's."""
        empty, own = (self.backbone.embed(each).tokens[None] for each in ("", self.task.source))
        things = self.things(phrases, frame)[None]
        way, now = [self.clean[frame : frame + 1]], self.table[0]
        for t in times:
            eps = self.called(way[-1], t, empty, things, [frame])
            way.append(self.moved(way[-1], eps, now, self.table[t]))
            now = self.table[t]
        texts, text, x = [], empty, way[-1]
        if not self.method.has_null_texts:
            return way[-1], []
        for i, t in enumerate(reversed(times)):
            now, below = self.table[t], self.table[times[-2 - i] if i + 1 < len(times) else 0]
            cond = self.called(x, t, own, things, [frame]).detach()
            asked = text.detach().requires_grad_(True)
            with torch.enable_grad():
                away = self.called(x, t, asked, things, [frame])
                there = self.moved(x, away + self.method.guidance * (cond - away), now, below)
                (slope,) = torch.autograd.grad((there - way[-2 - i]).square().mean(), asked)
            text = asked.detach() - 1e-2 * (1 - i / 100) * slope / (slope.abs() + 1e-4)  # one step of Adam
            away = self.called(x, t, text, things, [frame])
            x = self.moved(x, away + self.method.guidance * (cond - away), now, below)
            texts.append(text[0])
        return way[-1], texts

    def start(self, noise):
        lengths = self.source.flow.forth.square().sum(1).sqrt()
        for frame in range(1, len(noise)):
            share = lengths[frame - 1] / lengths[frame - 1].max()
            small = interpolate(share[None, None], (6, 10), mode="bilinear")[0, 0]
            for i in range(6):
                for j in range(10):
                    if small[i, j] <= self.method.threshold:
                        noise[frame, :, i, j] = noise[frame - 1, :, i, j]
        return noise

    @torch.no_grad()
    def run(self, source_phrases, target_phrases):
        method, total = self.method, len(self.clean)
        falling = list(reversed(self.backbone.noise_path.times(method.steps)))
        up = list(reversed(falling)) if not self.official else [0, 333, 666][: method.up]
        made = [self.inverted(frame, up, source_phrases) for frame in range(total)]
        x = self.start(torch.cat([noise for noise, _ in made]))
        cond = self.backbone.embed(self.task.target).tokens.expand(total, -1, -1)
        every = self.backbone.embed(method.negative).tokens.expand(total, -1, -1)
        null = torch.stack([self.things(None, frame) for frame in range(total)])
        things = torch.stack([self.things(target_phrases, frame) for frame in range(total)])
        for i, t in enumerate(falling):
            now, below = self.table[t], self.table[falling[i + 1] if i + 1 < len(falling) else 0]
            put = now.sqrt() * self.clean + (1 - now).sqrt() * self.drawn()
            x = self.free * x + (1 - self.free) * put
            has = i < len(made[0][1])
            away = torch.stack([texts[i] for _, texts in made]) if has else every
            self.modulated = has
            both = torch.cat([away, cond]), torch.cat([null, things])
            images = torch.cat([self.images] * 2)
            one, two = self.called(torch.cat([x, x]), t, *both, range(total), images).chunk(2)
            self.modulated = False
            x = self.moved(x, one + method.guidance * (two - one), now, below)
        return x


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (ONE, {}),
        (TWO, {}),
        (TWO, {"variant": "paper"}),
        (ONE, {"null_texts": True, "negative": "grass"}),
    ],
    ids=["one", "two", "two, paper", "null texts, official"],
)
def test_an_edit_is_its_twin(backbone, task, settings):
    """Of the official null texts there are three for four steps."""
    method = GroundAVideo(steps=4, guidance=3.0, flow=Exact(), inversion_steps=None, **settings)
    method = replace(method, inversion_steps=3) if method.official else method
    ended = Ended(backbone)
    edit = run(method, ended, task=task)
    twin = Twin(method, backbone, clip(), task, seeded(0))
    phrases = (["red car", "grass"], ["blue car", "red grass"])
    made = twin.run(*(each[: 1 + bool(task.edits)] for each in phrases))
    torch.testing.assert_close(ended.latents, made, atol=1e-5, rtol=0)
    assert edit.facts["boxes"] == 1 + bool(task.edits) and edit.facts["read_by_gated_layers"]
    assert UNREAD not in edit.warnings


# --- boxes, noise, gates --------------------------------------------------------------------------------------


def test_boxes_of_masks_and_the_cells_that_they_touch():
    mask = torch.zeros(2, 8, 16, dtype=torch.bool)
    mask[0, 1:4, 3:11] = True
    mask[0, 2, 12] = True
    made = box_of(mask)
    assert made.tolist() == [[3 / 16, 1 / 8, 13 / 16, 4 / 8, 1], [0] * 5]
    whole, released = (inside(made[:, None], 4, 8, whole=each) for each in (True, False))
    wanted = torch.zeros(2, 4, 8)
    wanted[0, 0:2, 1:7] = 1
    assert torch.equal(whole, wanted)
    wanted[0, :, 6] = 0  # the box ends in it
    assert torch.equal(released, wanted)
    both = torch.stack([made, torch.tensor([[0, 0, 1, 1, 1.0], [0, 0, 0.5, 0.5, 1]])], dim=1)
    assert inside(both, 4, 8).sum((1, 2)).tolist() == [32, 8]


def test_what_stands_still_keeps_the_noise_of_the_first_frame():
    """For as long as it does; a clip in which nothing moves has one noise."""
    forth = torch.zeros(2, 2, 2, 3)
    forth[0, 0, :, 2], forth[1, 1, :, 1:] = 5.0, -4.0
    forth[1, 0, :, 0] = 0.7  # less than a fifth of the fastest
    moving = moves(OpticalFlow(forth), 2, 3, 0.2)
    assert moving[:, 0].tolist() == [[False, False, True], [False, True, True]]
    noise = torch.arange(3.0)[:, None, None, None].expand(3, 1, 2, 3)
    assert smoothed(noise, moving)[:, 0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 2, 2]]
    still = moves(OpticalFlow(torch.zeros(2, 2, 2, 3)), 2, 3, 0.2)
    assert not still.any() and float(smoothed(noise, still).max()) == 0


@pytest.mark.parametrize(
    ("gates", "wanted"),
    [
        ((1, 0, 0), [1] * 10), ((0.3, 0, 0.7), [1] * 3 + [0] * 7),
        ((0.2, 0.4, 0.4), [1, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0, 0]), ((0, 1, 0), [k / 10 for k in range(9, -1, -1)]),
    ],
)  # fmt: skip
def test_gates_close(gates, wanted):
    assert [opened(gates, i, 10) for i in range(10)] == pytest.approx(wanted)


# --- settings -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def usual(backbone):
    return run(GroundAVideo(steps=3, guidance=3.0, inversion_steps=3), backbone).frames


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "paper", "null_texts": False}, {"null_texts": True}, {"hold": "masks"}, {"hold": "nothing"},
        {"gates": (0.4, 0, 0.6)}, {"threshold": None}, {"threshold": 0.9}, {"suffix": " the"}, {"negative": "grass"},
        {"inversion_steps": 5}, {"mask": Segmentation(grow=0.1)}, {"guidance": 1},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_the_edit(backbone, usual, change):
    settings = {"steps": 3, "guidance": 3.0, "inversion_steps": 3, **change}
    made = run(GroundAVideo(**settings), backbone).frames
    assert float((made - usual).abs().max()) > 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "Paper"}, {"hold": "box"}, {"gates": (1, 0)}, {"gates": (0.5, 0, 0)}, {"gates": (2, -1, 0)},
        {"threshold": -0.1}, {"steps": 0}, {"guidance": -1}, {"inner": -1}, {"inversion_steps": 2.5}, {"flow": None},
        {"mask": NoMask()}, {"variant": "paper", "steps": 101},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises((UserError, TypeError)):
        GroundAVideo(**settings)


def test_how_many_steps_go_up():
    assert (GroundAVideo().up, GroundAVideo(variant="paper").up, GroundAVideo(inversion_steps=7).up) == (
        20,
        50,
        7,
    )
    assert GroundAVideo(variant="paper").has_null_texts and not GroundAVideo().has_null_texts


def test_models_clips_and_flow_that_do_not_fit_are_refused(plainer):
    method = GroundAVideo(steps=1, flow=Exact())
    with pytest.raises(UserError, match="no ControlNet"):
        method.check_model({"control": None})
    method.check_model({"control": "embedded_depth"})
    with pytest.raises(UserError, match="no ControlNet"):
        run(method, Inflated2D.random(0, max_tokens=20))
    with pytest.raises(UserError, match="model=embedded_image"):
        run(method, UNet3D.random(0))
    with pytest.raises(UserError, match="nobody knows how this clip moves") as refused:
        method.check(ONE, lambda: replace(clip(), flow=None))
    assert "method.threshold=null" in refused.value.todo
    for fine in (replace(method, threshold=None), replace(method, mask=Half())):
        one = clip(1) if fine.threshold is not None else clip()
        fine.check(ONE, lambda one=one: replace(one, flow=None))
    with pytest.raises(UserError, match="does not fit"):
        run(method, plainer, replace(clip(), flow=clip(2).flow))
    with pytest.raises(UserError, match="annotated clip"):
        method.check(ONE, lambda: replace(clip(), masks={}))


def test_a_model_without_gated_layers_says_so(plainer):
    edit = run(GroundAVideo(steps=2, guidance=3.0, inversion_steps=2), plainer, task=TWO)
    assert (
        UNREAD in edit.warnings and edit.facts["read_by_gated_layers"] is False and edit.facts["boxes"] == 2
    )
    assert BOXES not in plainer.takes


def test_latents_outside_boxes_and_masks_are_the_clips(plainer):
    """Before every step, the last one too: what that makes of them is near; pixels are put back if wanted."""
    method = GroundAVideo(steps=2, guidance=3.0, inversion_steps=2, composite="pixels", variant="paper")
    method = replace(method, null_texts=False)
    boxed = run(method, plainer)
    outside = inside(box_of(clip().masks["car"])[:, None], 12, 20) == 0
    assert torch.equal(boxed.frames.movedim(1, -1)[outside], clip().frames.movedim(1, -1)[outside])
    assert not torch.equal(boxed.frames, clip().frames)
    half = run(replace(method, mask=Half(), hold="masks"), plainer)
    assert torch.equal(half.frames[..., 10:], clip().frames[..., 10:])
    assert half.facts["mask_acts_on"] == "latents in steps 1-2 of 2"
    free = run(replace(method, hold="nothing"), plainer)
    assert free.facts["mask_used"] is False and any("put nothing back" in each for each in free.warnings)


def test_an_edit_of_the_whole_frame_has_no_box(plainer, backbone):
    style = EditTask("t", "c", "a red car on grass", "a red car on grass, the blue", {}, "style")
    for model in (plainer, backbone):
        edit = run(GroundAVideo(steps=2, guidance=3.0, inversion_steps=2), model, task=style)
        assert WHOLE in edit.warnings and edit.facts["boxes"] == 0 and not edit.extras


def test_null_texts_are_kept_for_the_next_edit(plainer, tmp_path):
    method = GroundAVideo(steps=2, guidance=3.0, variant="paper", inversions=str(tmp_path))
    first, again = (run(method, plainer) for _ in range(2))
    assert torch.equal(first.frames, again.frames) and "null text" not in again.seconds
    assert first.facts["inversion_passes"] == 3 * (2 + 6) and again.facts["inversion_passes"] == 0


def test_the_yaml_makes_the_constructors_defaults():
    config = plain(config_of("edit", ["method=ground_a_video"]))
    made, usual = config["method"], GroundAVideo()
    assert tuple(made["gates"]) == usual.gates
    names = "steps guidance hold threshold null_texts inner suffix negative variant inversion_steps"
    for name in names.split():
        assert made[name] == getattr(usual, name)
    model = config["model"]
    assert (model["control"], model["attention"], model["least_channels"]) == ("embedded_depth", "all", 0)
    assert model["gated"] == "embedded_boxes"
