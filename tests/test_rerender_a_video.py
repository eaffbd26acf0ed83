"""Rerender-A-Video: key frames against a written-out twin, flow over several frames against loops, frames between,
masks, refusals."""

from dataclasses import replace
from math import ceil, exp

import pytest
import torch
from torch.nn.functional import grid_sample, interpolate

from experiments.config.compose import config_of, plain
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.control.edges import Edges
from freemask.data.world.source import World
from freemask.errors import UserError
from freemask.interpolation.far import Far
from freemask.methods.following import OPEN
from freemask.methods.rerender_a_video import ALONE, RerenderAVideo
from freemask.methods.rerender_a_video_field import between, blurred, coloured, faithful, flat, hidden
from freemask.optical.sources import Exact
from freemask.types import Clip, EditTask, OpticalFlow
from tests.given import Half, seeded

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
MOVES = [(2.0, 0.0), (-1.3, 1.0), (0.0, -1.0), (2.2, 1.4)]  # of all pixels, from each frame to the next


def moving(frames):
    """What moves as a whole, and of which a corner is hidden in every next frame."""
    forth = torch.tensor(MOVES[: frames - 1]).reshape(-1, 2, 1, 1).expand(-1, 2, 12, 20).contiguous()
    seen = torch.ones(frames - 1, 12, 20, dtype=torch.bool)
    seen[:, 7:, 12:] = False
    return OpticalFlow(forth, seen)


def clip(frames=3):
    return Clip("c", torch.rand(frames, 3, 12, 20, generator=seeded(0)), flow=moving(frames))


def run(method, backbone, source=None, seed=0):
    return method(backbone, source or clip(), TASK, seeded(seed))


@pytest.fixture(scope="module")
def backbone():
    edges = {"control": 1, "control_edges": Edges(20, 40)}
    return Inflated2D.random(0, attention="frame", shared_norm=False, max_tokens=20, dtype="float64", **edges)


# --- the twin -------------------------------------------------------------------------------------------------


class Looks:
    """Self-attention, softmax written out: of the decoder, on what other frames had there at the same step."""

    def __init__(self, twin, name):
        self.twin, self.name = twin, name

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None):
        here = (self.name, self.twin.i)
        self.twin.left[here] = hidden
        decoder = self.name.startswith("up_blocks") and self.twin.others
        seen = torch.cat([each[here] for each in self.twin.others], dim=1) if decoder else hidden
        q, k, v = attn.to_q(hidden), attn.to_k(seen), attn.to_v(seen)
        heads = []
        for part in torch.arange(attn.inner_dim).chunk(attn.heads):
            logits = q[..., part] @ k[..., part].transpose(1, 2) / len(part) ** 0.5
            heads.append(logits.softmax(-1) @ v[..., part])
        return attn.to_out[0](torch.cat(heads, dim=-1))


def walked(flow, frame, other):
    """Where each pixel of a frame is in another, and whether it is seen all the way; or stands still, as what is seen
    in its place does."""
    (there, seen), (back, _) = (steps(flow, *pair) for pair in ((frame, other), (other, frame)))
    still = [(each[0].abs() < 0.5) & (each[1].abs() < 0.5) for each in (there, back)]
    return there, seen | (still[0] & still[1])


def steps(flow, frame, other):
    """Pixel by pixel and frame by frame, no further than to where it is hidden. Backwards, by asking which pixel came
    here."""
    height, width = flow.forth.shape[-2:]
    there, seen = torch.zeros(2, height, width), torch.ones(height, width, dtype=torch.bool)
    for i in range(height):
        for j in range(width):
            x, y = float(j), float(i)
            for at in range(frame, other) if other > frame else range(frame - 1, other - 1, -1):
                row, column = round(y), round(x)
                if not (0 <= row < height and 0 <= column < width):
                    seen[i, j] = False
                if not seen[i, j]:
                    break
                from_where = (row, column) if other > frame else came_from(flow, at, row, column)
                if from_where is None:
                    seen[i, j] = False
                    break
                dx, dy = flow.forth[at, :, from_where[0], from_where[1]].tolist()
                x, y = (x + dx, y + dy) if other > frame else (x - dx, y - dy)
                seen[i, j] &= other < frame or flow.seen[at, row, column]
            seen[i, j] &= 0 <= round(y) < height and 0 <= round(x) < width
            there[:, i, j] = torch.tensor([x - j, y - i])
    return there, seen


def came_from(flow, at, row, column):
    for i in range(flow.forth.shape[2]):
        for j in range(flow.forth.shape[3]):
            dx, dy = flow.forth[at, :, i, j].tolist()
            if flow.seen[at, i, j] and (round(i + dy), round(j + dx)) == (row, column):
                return i, j
    return None


def grown(seen, by=1):
    """What is hidden, grown and blurred, pixel by pixel."""
    height, width = seen.shape
    wide, out = torch.zeros(height, width), torch.zeros(height, width)
    for i in range(height):
        for j in range(width):
            wide[i, j] = float((~seen[max(0, i - by) : i + by + 1, max(0, j - by) : j + by + 1]).any())
    sigma = 2 * (2 * by + 1)
    weights = {(a, b): exp(-(a * a + b * b) / 2 / sigma**2) for a in (-1, 0, 1) for b in (-1, 0, 1)}
    for i in range(height):
        for j in range(width):
            for (a, b), weight in weights.items():
                row, column = min(max(i + a, 0), height - 1), min(max(j + b, 0), width - 1)
                out[i, j] += weight * wide[row, column] / sum(weights.values())
    return (out + (~seen).float()).clamp(max=1)


def fetched(x, flow, mode):
    height, width = x.shape[-2:]
    y, x_ = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    at = torch.stack([2 * (x_ + flow[0]) / (width - 1) - 1, 2 * (y + flow[1]) / (height - 1) - 1], dim=-1)
    return grid_sample(x.double(), at[None], mode, "border", align_corners=True).to(x)


class Twin:
    """The library's networks and their loop after the method card, frame by frame, pass by pass."""

    def __init__(self, method, backbone, source, rng):
        self.method, self.backbone, self.source, self.rng = method, backbone, source, rng
        self.images = Edges(20, 40).of(source.frames).double()
        self.texts = torch.cat([backbone.embed(each).tokens[None] for each in (method.negative, TASK.target)])
        self.times = backbone.noise_path.times(method.steps)[::-1]
        self.unet = tiny.parts(0, torch.float64, "epsilon", 20, image=True).unet.eval()
        self.net = tiny.control_nets(self.unet, 0, 1)[0].eval()
        for name, module in self.unet.named_modules():
            if name.endswith("attn1"):
                module.set_processor(Looks(self, name))
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        self.table = torch.cumprod(1 - betas, 0).double()
        self.i, self.left, self.others = 0, {}, []
        self.official, steps = method.variant == "official", method.steps
        self.fusing = [i for i in range(steps) if 0.5 * steps < i < 0.8 * steps]
        self.noise = self.drawn(1)
        self.again = {i: self.drawn(1) for i in self.fusing}
        self.own = backbone.encode(source.frames)
        if method.strength is not None and self.official:
            self.own = self.own + self.drawn(len(self.own)) * backbone.spread(source.frames)

    def drawn(self, count):
        return torch.randn(count, 4, 6, 10, generator=self.rng).double()

    def encoded(self, picture):
        mean = self.backbone.encode(picture)
        return mean + self.drawn(1) * self.backbone.spread(picture) if self.official else mean

    def down(self, frame, first, before, target=None):
        steps, method = self.method.steps, self.method
        begin = 0 if method.strength is None else int(steps * (1 - method.strength))
        self.left, self.others = {}, [each["left"] for each in (first, before) if each]
        a = self.table[self.times[begin]]
        x = self.noise
        if method.strength is not None:
            x = a.sqrt() * self.own[frame : frame + 1] + (1 - a).sqrt() * self.noise
        direction, cleans = (1 - a).sqrt() * self.noise, {}
        for i in range(begin, steps):
            self.i, t = i, self.times[i]
            now = self.table[t]
            below = self.table[self.times[i + 1] if i + 1 < steps else 0]
            if target is not None and i in self.fusing:
                x = self.fused(x, direction, i, *target)
            both, image = torch.cat([x, x]), torch.cat([self.images[frame : frame + 1]] * 2)
            down, middle = self.net(both, t, self.texts, image, return_dict=False)
            more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            away, to = self.unet(both, t, self.texts, **more).sample.chunk(2)
            eps = away + method.guidance * (to - away)
            clean = cleans[i] = (x - (1 - now).sqrt() * eps) / now.sqrt()
            if first:
                clean = self.changed(clean, first, frame, i)
            direction = (1 - below).sqrt() * eps
            x = below.sqrt() * clean + direction
        picture = self.backbone.decode(x)
        return {"frame": frame, "left": self.left, "clean": cleans, "picture": picture, "x": x}

    def changed(self, clean, first, frame, i):
        like, steps = first["clean"][i], self.method.steps
        if not self.official and i >= 0.8 * steps:
            rows, others = clean[0].flatten(1), like[0].flatten(1)
            of_rows, of_others = ((each.var(1) + 1e-5).sqrt()[:, None] for each in (rows, others))
            rows = (rows - rows.mean(1, keepdim=True)) / of_rows * of_others + others.mean(1, keepdim=True)
            clean = rows.reshape(clean.shape)
        if i <= self.method.shape * steps:
            flow, seen = walked(self.source.flow, frame, first["frame"])
            covered = grown(seen).reshape(6, 2, 10, 2).amax((1, 3))[None, None].double()
            small = (flow / 2).reshape(2, 6, 2, 10, 2).mean((2, 4))
            clean = covered * clean + (1 - covered) * fetched(like, small, "nearest")
        return clean

    def target(self, frame, first, before, rough):
        ways = [walked(self.source.flow, frame, other["frame"]) for other in (before, first)]
        picture = rough["picture"]
        for other, (flow, seen) in zip((before, first), ways, strict=True):
            hides = grown(seen)
            picture = (1 - hides) * fetched(other["picture"], flow, "bilinear") + hides * picture
        x = self.encoded(picture)
        again = self.encoded(self.backbone.decode(x))
        wrong = (self.backbone.decode(2 * x - again) - picture).abs().mean(1, keepdim=True) > 0.125
        few = interpolate(wrong.float(), scale_factor=0.5, mode="bilinear")[0, 0] > 0
        x = x.clone()
        for i in range(6):
            for j in range(10):
                if not few[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].any():
                    x[..., i, j] += (x - again)[..., i, j]
        mask = 1 - grown(ways[0][1] | ways[1][1]).reshape(6, 2, 10, 2).amax((1, 3)).double()
        return (x * mask if self.official else x), mask

    def fused(self, x, direction, i, latent, mask):
        a = self.table[self.times[i]]
        there = a.sqrt() * latent + (1 - a).sqrt() * self.again[i]
        if not self.official:
            return mask * there + (1 - mask) * x
        weight, rescale = 0.5 * mask, torch.empty_like(mask)
        for row in range(6):
            for column in range(10):
                around = [
                    [mask[min(max(row + r, 0), 5), min(max(column + c, 0), 9)] for c in (-1, 0, 1)]
                    for r in (-1, 0, 1)
                ]
                across = abs(sum(line[2] - line[0] for line in around))
                down = abs(sum(around[2]) - sum(around[0]))
                w = weight[row, column]
                rescale[row, column] = max(1 - w, 0.9 * (1 - w**2).sqrt()) if across + down == 0 else 1 - w
        return weight * there + (1 - weight) * (x - direction) + rescale * direction

    @torch.no_grad()
    def run(self, keys):
        made = [self.down(keys[0], None, None)]
        for frame in keys[1:]:
            rough = self.down(frame, made[0], made[-1])
            target = self.target(frame, made[0], made[-1], rough)
            made.append(self.down(frame, made[0], made[-1], target))
        return made


@pytest.mark.parametrize(
    ("frames", "settings"),
    [
        (3, {}),
        (3, {"variant": "paper"}),
        (3, {"strength": 0.6, "negative": "grass"}),
        (3, {"strength": 0.6, "variant": "paper", "shape": 0.5}),
        (1, {}),
    ],
    ids=str,
)
def test_key_frames_are_those_of_the_twin(backbone, frames, settings):
    method = RerenderAVideo(steps=5, guidance=3.0, flow=Exact(), **settings)
    edit = run(method, backbone, clip(frames))
    twin = Twin(method, backbone, clip(frames), seeded(0))
    made = twin.run(list(range(frames)))
    wanted = torch.cat([each["picture"] for each in made])
    torch.testing.assert_close(edit.frames, wanted, atol=1e-5, rtol=0)
    assert edit.facts["key_frames"] == frames and (ALONE in edit.warnings) == (frames == 1)
    begun = 0 if method.strength is None else 2
    assert edit.facts["network_calls"] == (2 * frames - 1) * (5 - begun)


# --- flow over several frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [(0, 3), (3, 0), (1, 2), (2, 1), (2, 2), (4, 1)], ids=str)
def test_flow_over_several_frames_is_a_walk(pair):
    flow = moving(5)
    made, seen = Far.of(flow).way(*pair)
    there, known = walked(flow, *pair)
    assert torch.equal(seen, known)
    torch.testing.assert_close(made, there)


def test_what_stood_still_and_was_hidden_for_a_while_is_seen_again():
    """Something passes over it. What passes is not taken for it, nor is what it stands behind at the end."""
    forth, seen = torch.zeros(2, 2, 1, 6), torch.ones(2, 1, 6, dtype=torch.bool)
    forth[0, 0, 0, 1], forth[1, 0, 0, 3] = 2.0, 2.0  # at 1, then at 3, then at 5
    seen[0, 0, 3], seen[1, 0, 5] = False, False
    far = Far.of(OpticalFlow(forth, seen))
    there, known = far.way(0, 2)
    assert there[0, 0].tolist() == [0, 4, 0, 0, 0, 0] and known[0].tolist() == [True] * 5 + [False]
    back, known = far.way(2, 0)
    assert back[0, 0].tolist() == [0, 0, 0, 0, 0, -4] and known[0].tolist() == [True, False, *[True] * 4]


def test_frames_carried_over_several_are_those_of_the_world():
    """Wherever the chain says that a pixel is seen, another frame shows the same there, soft edges apart."""
    data = World(clips=2, kinds=["attribute"])
    for task in data.tasks():
        source = data.clip(task)
        assert source.flow is not None
        far = Far.of(source.flow)
        for frame, other in ((6, 1), (1, 6)):
            flow, seen = far.way(frame, other)
            apart = (
                fetched(source.frames[other : other + 1], flow, "bilinear")[0] - source.frames[frame]
            ).abs()
            still = (source.frames[other] - source.frames[frame]).abs()
            assert float(apart.mean(0)[seen].mean()) < 0.5 * float(still.mean(0)[seen].mean())


def test_a_frame_between_two_others():
    """By distance; where one of them shows nothing, the other one alone; where neither does, both."""
    a, b, still = torch.zeros(3, 1, 4), torch.ones(3, 1, 4), torch.zeros(2, 1, 4)
    shows_a, shows_b = torch.tensor([[True, True, False, False]]), torch.tensor([[True, False, True, False]])
    made = between((a, (still, shows_a)), (b, (still, shows_b)), 0.75)
    torch.testing.assert_close(made[0, 0], torch.tensor([0.25, 0, 1, 0.25]))


@pytest.mark.parametrize(
    ("frames", "interval", "keys"),
    [
        (8, None, list(range(8))), (20, None, list(range(20))), (21, None, [0, 10, 20]),
        (25, None, [0, 10, 20, 24]), (8, 3, [0, 3, 6, 7]), (5, 10, [0, 4]), (1, 3, [0]), (2, 1, [0, 1]),
    ],
)  # fmt: skip
def test_which_frames_are_key_frames(frames, interval, keys):
    assert RerenderAVideo(interval=interval).key_frames(frames) == keys


def test_frames_between_are_carried(backbone):
    method = RerenderAVideo(steps=2, guidance=3.0, interval=2)
    source = clip(4)
    edit = run(method, backbone, source)
    flow = source.flow
    there, back = walked(flow, 1, 2), walked(flow, 1, 0)
    sides = ((edit.frames[0], back), (edit.frames[2], there))
    torch.testing.assert_close(edit.frames[1], between(*sides, 0.5), atol=1e-6, rtol=0)
    assert edit.facts["key_frames"] == 3 and any("not made by EBSynth" in each for each in edit.warnings)
    assert not any("EBSynth" in each for each in run(replace(method, interval=1), backbone, source).warnings)


def test_flow_that_does_not_say_what_is_hidden(backbone):
    source = replace(clip(2), flow=replace(moving(2), seen=None))
    assert OPEN in run(RerenderAVideo(steps=1), backbone, source).warnings


# --- parts ----------------------------------------------------------------------------------------------------


def test_what_is_hidden_is_grown_with_the_picture():
    """Four pixels in the authors' size, one in small ones; by the library's blur but at the border."""
    functional = pytest.importorskip("torchvision.transforms.functional")
    seen = torch.ones(512, 512, dtype=torch.bool)
    seen[200:220, 300] = False
    made = hidden(seen)[0, 0]
    wide = torch.zeros(1, 1, 512, 512)
    wide[..., 196:224, 296:305] = 1
    assert torch.equal(made > 0, blurred(wide, 4)[0, 0] > 0) and float(made[210, 300]) == 1
    theirs = functional.gaussian_blur(wide, [9, 9], [18.0, 18.0])
    torch.testing.assert_close(blurred(wide, 4), theirs, atol=1e-5, rtol=0)
    small = hidden(seen[::8, ::8])[0, 0]
    assert int((small > 0).sum()) < 60


def test_colours_and_flat_places():
    x, like = (
        torch.randn(1, 4, 6, 10, generator=seeded(0)),
        3 + 2 * torch.randn(1, 4, 6, 10, generator=seeded(1)),
    )
    made = coloured(x, like)
    torch.testing.assert_close(made.mean((2, 3)), like.mean((2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(made.std((2, 3)), like.std((2, 3)), atol=1e-3, rtol=0)
    mask = torch.zeros(1, 1, 5, 6)
    mask[..., 3:] = 1
    assert flat(mask)[0, 0, 0].tolist() == [1, 1, 0, 0, 1, 1]


def enlarged(latents):
    """An autoencoder whose cells are two pixels wide."""
    return interpolate(latents[:, :3], scale_factor=2, mode="nearest").clamp(0, 1)


def test_what_the_autoencoder_loses_is_added_but_where_that_goes_wrong():
    x = 0.4 + 0.2 * torch.rand(1, 4, 6, 10, generator=seeded(0))
    again = 0.9 * x
    picture = enlarged(2 * x - again)
    picture[..., 4, 9] = 1 - picture[..., 4, 9].round()  # in the cell 2, 4
    made = faithful(enlarged, x, again, picture)
    wanted = 2 * x - again
    wanted[..., 1:4, 3:6] = x[..., 1:4, 3:6]
    torch.testing.assert_close(made, wanted)
    torch.testing.assert_close(faithful(enlarged, x, again, enlarged(x)), 2 * x - again)


# --- settings -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def usual(backbone):
    return run(RerenderAVideo(steps=5, guidance=3.0), backbone).frames


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "paper"}, {"strength": 0.8}, {"shape": 0}, {"pixels": ()}, {"weight": 1}, {"colours": 0.5},
        {"interval": 2}, {"layers": ["up_blocks.3.*"]}, {"suffix": " the"}, {"negative": "grass"},
        {"guidance": 1}, {"pixels": (0.2, 0.5)},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_the_edit(backbone, usual, change):
    made = run(RerenderAVideo(**{"steps": 5, "guidance": 3.0, **change}), backbone).frames
    assert float((made - usual).abs().max()) > 1e-6


@pytest.mark.parametrize(
    ("steps", "variant", "shape", "pixel", "colour"),
    [
        (20, "official", [0, 1, 2], [11, 12, 13, 14, 15], []),
        (20, "paper", [0, 1, 2], [11, 12, 13, 14, 15], [16, 17, 18, 19]),
        (10, "paper", [0, 1], [6, 7], [8, 9]),
        (1, "paper", [0], [], []),
    ],
)
def test_the_authors_steps(steps, variant, shape, pixel, colour):
    rules = RerenderAVideo(steps=steps, variant=variant).rules()
    assert (list(rules.shape), list(rules.pixel), list(rules.colour)) == (shape, pixel, colour)
    wanted = [i for i in range(steps) if i >= ceil(0.8 * steps)] if variant == "paper" else []
    assert colour == wanted
    assert RerenderAVideo(strength=0.75).rules().begin == 5 and RerenderAVideo(strength=1).rules().begin == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "Paper"}, {"interval": 0}, {"interval": 2.5}, {"strength": 0}, {"strength": 1.1},
        {"shape": 2}, {"weight": -1}, {"colours": 1.5}, {"pixels": (0.8, 0.5)}, {"pixels": (0.5,)},
        {"steps": 0}, {"guidance": -1}, {"flow": None},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises((UserError, TypeError)):
        RerenderAVideo(**settings)


def test_models_clips_and_flow_that_do_not_fit_are_refused(backbone):
    method = RerenderAVideo(steps=1, flow=Exact())
    with pytest.raises(UserError, match="no ControlNet"):
        method.check_model({"control": None})
    method.check_model({"control": "embedded_edges"})
    with pytest.raises(UserError, match="no ControlNet"):
        run(method, Inflated2D.random(0, max_tokens=20))
    with pytest.raises(UserError, match="model=embedded_image"):
        run(method, UNet3D.random(0))
    with pytest.raises(UserError, match="nobody knows how this clip moves"):
        method.check(TASK, lambda: replace(clip(), flow=None))
    method.check(TASK, lambda: replace(clip(1), flow=None))
    for refuse in (
        lambda source: method.check(TASK, lambda: source),
        lambda source: run(method, backbone, source),
    ):
        with pytest.raises(UserError, match="does not fit"):
            refuse(replace(clip(), flow=moving(2)))
    with pytest.raises(UserError, match="names no layer"):
        run(replace(method, layers=["up_block.1"]), backbone)


def test_a_mask_of_all_or_nothing_and_of_a_half(backbone):
    """Of frames between, pixels are held."""
    method = RerenderAVideo(steps=5, guidance=3.0, interval=2, mask=Half(1))
    plain_edit = run(replace(method, mask=RerenderAVideo().mask), backbone)
    torch.testing.assert_close(run(method, backbone).frames, plain_edit.frames, atol=1e-5, rtol=0)
    held = run(replace(method, mask=Half(0)), backbone)
    own = backbone.decode(backbone.encode(clip().frames))
    torch.testing.assert_close(held.frames[::2], own[::2], atol=1e-4, rtol=0)
    assert torch.equal(held.frames[1], clip().frames[1])
    half = run(replace(method, mask=Half(), composite="pixels"), backbone)
    assert torch.equal(half.frames[..., 10:], clip().frames[..., 10:])
    assert not torch.equal(half.frames[..., :10], clip().frames[..., :10])
    assert half.facts["mask_acts_on"] == "latents in steps 1-5 of 5"


def test_the_yaml_makes_the_constructors_defaults():
    config = plain(config_of("edit", ["method=rerender_a_video"]))
    made, usual = config["method"], RerenderAVideo()
    assert tuple(made["pixels"]) == usual.pixels
    names = "steps guidance interval strength shape weight colours layers suffix negative variant"
    for name in names.split():
        assert made[name] == getattr(usual, name)
    assert config["model"]["control"] == "embedded_edges"
