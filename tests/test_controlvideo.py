"""ControlVideo: its calls by key frames, who is made of whom, one noise, refusals, every setting; RIFE's network; and
the authors' cases."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.cli.app import main
from experiments.runs.store import RunStore
from freemask.attention.record import Keep
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.control.edges import Edges
from freemask.diffusion.flow import Flow
from freemask.diffusion.noise_paths import CLEAN, Ddim
from freemask.errors import UserError
from freemask.interpolation import rife
from freemask.interpolation.carried import Carried, turned
from freemask.interpolation.interleaved import interleaved, neighbours
from freemask.interpolation.sources import Auto, Average, Rife
from freemask.interpolation.sources import Flow as Along
from freemask.masks.plan import Keeps
from freemask.methods.controlvideo import ALONE, ControlVideo
from freemask.methods.controlvideo_step import Call, Smoother, Steps, calls_of, key_frames
from freemask.types import Clip, EditTask, Given, OpticalFlow
from tests.given import Half, seeded
from tests.official import compare as command
from tests.official.case import Case
from tests.official.ledger import FORCED

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
CLIP = Clip("c", torch.rand(5, 3, 12, 20, generator=seeded(0)))
MEAN = Average().mean


@pytest.fixture(scope="module")
def backbone():
    look = {"attention": "all", "least_channels": 0, "control_middle": True}
    return Inflated2D.random(0, max_tokens=20, control=1, control_edges=Edges(20, 40), **look)


def run(method, backbone, frames=5, seed=0):
    clip = Clip("c", CLIP.frames[:frames])
    return method(backbone, clip, TASK, seeded(seed))


# --- who is together, who is made of whom ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "window", "keys", "groups"),
    [
        (9, 3, [0, 2, 4, 6, 8], [[1], [3], [5], [7]]),
        (10, 3, [0, 2, 4, 6, 8, 9], [[1], [3], [5], [7]]),
        (15, 3, [0, 2, 4, 6, 8, 10, 12, 14], [[1], [3], [5], [7], [9], [11], [13]]),
        (16, 4, [0, 3, 6, 9, 12, 15], [[1, 2], [4, 5], [7, 8], [10, 11], [13, 14]]),
        (100, 10, [*range(0, 100, 9)], [[*range(left + 1, left + 9)] for left in range(0, 99, 9)]),
        (4, 8, [0, 3], [[1, 2]]),
    ],
)
def test_key_frames_and_those_between(frames, window, keys, groups):
    assert key_frames(frames, window) == keys
    for variant in ("official", "paper"):
        first, *others = calls_of(frames, window, variant)
        assert list(first.frames)[first.counts] == keys and first.taps.look is None
        assert [list(call.frames)[call.counts] for call in others] == groups
        for call, within in zip(others, groups, strict=True):
            ends = [within[0] - 1, within[-1] + 1]
            seen = [call.frames[0], call.frames[-1]]  # whom they look at
            assert call.taps.look is not None and call.taps.look(None) == ("first", "last")
            assert seen == (ends if variant == "paper" else [ends[0], within[-1]])
            assert sorted(call.frames) == sorted([*ends, *within])
    assert calls_of(frames, None, "official") == [Call(range(frames))]


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 15, 16])
def test_who_is_made_of_whom(backbone, frames):
    """Against the released loops, written out, with an interpolator that says which two it was given."""
    evens, odds = list(range(0, frames, 2)), list(range(1, frames, 2))
    by_odd = {place: (place - 1, place + 1) for place in odds if place + 1 < frames}
    nodes = [0, *odds] + [frames - 1] * (frames % 2)
    by_even = {even: (nodes[j], nodes[j + 1]) for j, even in enumerate(evens)} if frames > 1 else {0: (0, 0)}
    assert neighbours(frames, odd=True) == by_odd and neighbours(frames, odd=False) == by_even
    for i, expected in ((30, by_odd), (31, by_even)):
        for variant, wanted in (("official", expected), ("paper", by_odd if i % 2 else by_even)):
            smoother = Smoother(backbone, MEAN, frozenset(), variant, lambda like: like)
            assert smoother.made_of(frames, i) == wanted
    clip = torch.arange(frames).float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2) / frames
    made = interleaved(clip, by_even, Average(0.75).mean)
    for frame in range(frames):
        left, right = by_even.get(frame, (frame, frame))
        torch.testing.assert_close(made[frame], clip[left] * 0.75 + clip[right] * 0.25)


@pytest.mark.parametrize(
    ("steps", "smooth", "wanted"),
    [
        (50, None, {31, 30}), (10, None, {5, 6}), (8, None, {4, 5}), (6, None, {2, 3}), (2, None, {0}),
        (1, None, set()),        (50, (19, 20), {31, 30}), (4, (1, 4), {3, 0}), (4, (), set()),
    ],
)  # fmt: skip
def test_which_steps_are_smoothed(steps, smooth, wanted):
    """Nobody saying, two at the noise of the authors' (times 381 and 361 of 1000), never the last one."""
    assert ControlVideo(steps=steps, smooth=smooth).smoothed == wanted


@pytest.mark.parametrize(
    ("settings", "frames", "keys"),
    [
        ({}, 16, None), ({}, 17, 7), ({"long": True}, 9, 5), ({"window": 4}, 4, None), ({"window": 4}, 7, 3),
        ({"long": False, "window": 4}, 100, None), ({"long": True, "window": 3}, 3, 2),
    ],
)  # fmt: skip
def test_when_a_clip_is_long(settings, frames, keys):
    first, *others = ControlVideo(**settings).calls(frames)
    assert (len(first.frames), bool(others)) == ((frames, False) if keys is None else (keys, True))


# --- a step ---------------------------------------------------------------------------------------------------


class Answering:
    """Stands for a backbone whose network predicts what is shown to its ControlNet, and whose latents are frames."""

    def __init__(self, backbone, path):
        self.backbone, self.noise_path, self.seen = backbone, path, []

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def predict(self, x, t, given, *, taps):
        self.seen.append((x, given))
        return torch.stack([each.parts["control"] for each in given.values()])

    def decode(self, latents, frames=None):
        return latents

    def encode(self, frames):
        return frames

    def spread(self, frames):
        return torch.full_like(frames, 0.5)


@pytest.mark.parametrize("path", [Ddim(), Flow()], ids=["ddim", "flow matching"])
@pytest.mark.parametrize("last", [False, True])
def test_a_smoothed_step_keeps_the_noise_and_changes_the_clean_latent(backbone, path, last):
    """Down to the clean level too, which is not quite clean in Stable Diffusion."""
    x, shown = torch.rand(3, 3, 4, 4, generator=seeded(1)) * 0.2 + 0.4, torch.full((3, 3, 4, 4), 0.1)
    now, to = path.times(4)[1], CLEAN if last else path.times(4)[0]
    network, given = Answering(backbone, path), {"cond": Given({"control": shown})}
    smoother = Smoother(network, MEAN, frozenset({0}), "official", torch.ones_like)
    steps = Steps(network, given, 1, calls_of(3, None, "official"), [now, to], smoother)
    clean, noise = (make(x, shown, now=now, call=now) for make in (path.clean, path.noise))
    smooth = clean.clamp(0, 1)
    smooth[1] = (clean[0] + clean[2]) / 2
    torch.testing.assert_close(steps.step(x, 0), path.noised(smooth + 0.5, noise, to))
    plain = replace(steps, smoother=None).step(x, 0)
    torch.testing.assert_close(plain, path.step(x, shown, now=now, call=now, to=to))
    assert float((plain - steps.step(x, 0)).abs().max()) > 0.1


def test_every_call_gets_its_own_frames_and_answers_for_them(backbone):
    """Its latents, and what its ControlNet is shown of each frame under both prompts."""
    x = torch.arange(10.0).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    network = Answering(backbone, Ddim())
    given = {"uncond": Given({"control": x}), "cond": Given({"control": x + 1})}
    steps = Steps(network, given, 3.0, calls_of(10, 3, "official"), [1, CLEAN], None)
    assert torch.equal(steps.predict(x, 1), x + 3)
    assert [seen[0, :, 0, 0, 0].tolist() for seen, _ in network.seen[:2]] == [[0, 2, 4, 6, 8, 9], [0, 2, 1]]
    assert all(list(given) == ["uncond", "cond"] for _, given in network.seen)


# --- whole edits ----------------------------------------------------------------------------------------------


def test_one_noise_frame_is_drawn_for_all(backbone):
    rng, once = seeded(3), seeded(3)
    _, noise, _ = ControlVideo(steps=2).begin(backbone, CLIP, TASK, rng)
    assert noise.shape == (5, 4, 6, 10) and bool((noise == noise[:1]).all())
    assert torch.equal(noise[0], torch.randn(1, 4, 6, 10, generator=once)[0])
    assert torch.equal(rng.get_state(), once.get_state())


@pytest.fixture(scope="module")
def usual(backbone):
    return run(ControlVideo(steps=4, guidance=3.0), backbone)


@pytest.mark.parametrize(
    "change",
    [
        {"suffix": ", art"}, {"negative": "grass"}, {"smooth": ()}, {"smooth": (1, 2)}, {"guidance": 1},
        {"interpolation": Average(0.2)}, {"long": True, "window": 3}, {"variant": "paper"},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_the_edit(backbone, usual, change):
    made = run(ControlVideo(**{"steps": 4, "guidance": 3.0, **change}), backbone).frames
    assert float((made - usual.frames).abs().max()) > 1e-6


def test_what_an_edit_says(backbone, usual):
    told = {"network_calls": 4, "smoothed_steps": "2, 3 of 4", "interpolation": "average", "mask_used": False}
    assert usual.facts == told
    assert any("RIFE" in each for each in usual.warnings)
    mean = ControlVideo(steps=4, interpolation=Average(), long=True, window=3)
    edit = run(mean, backbone)
    assert (edit.facts["key_frames"], edit.facts["network_calls"], edit.warnings) == (3, 12, ())
    alone = run(ControlVideo(steps=2), backbone, frames=1)
    assert alone.warnings == (ALONE,) and "smoothed_steps" not in alone.facts


def test_images_of_the_clip_hold_the_edit_and_nothing_else_of_it(backbone):
    """Another clip with the same control images gives the same frames; other images do not."""
    method, images = (
        ControlVideo(steps=2, guidance=3.0, smooth=()),
        torch.rand(2, 3, 12, 20, generator=seeded(4)),
    )
    clips = [Clip("c", CLIP.frames[place : place + 2], conditions={"control": images}) for place in (0, 2)]
    first, second = (method(backbone, clip, TASK, seeded(0)).frames for clip in clips)
    assert torch.equal(first, second)
    assert not torch.equal(first, run(method, backbone, frames=2).frames)


def test_a_mask_of_all_or_nothing_and_of_a_half(backbone, usual):
    """Everything may change: as without a mask; nothing may: the clip, as the autoencoder has it; half, without
    smoothing: there its pixels, put back."""
    method = ControlVideo(steps=4, guidance=3.0, mask=Half(1))
    torch.testing.assert_close(run(method, backbone).frames, usual.frames, atol=1e-5, rtol=0)
    held = run(replace(method, mask=Half(0)), backbone)
    own = backbone.decode(backbone.encode(CLIP.frames))
    torch.testing.assert_close(held.frames, own, atol=1e-4, rtol=0)
    assert held.facts["mask_acts_on"] == "latents in steps 1-4 of 4"
    half = run(replace(method, mask=Half(), composite="pixels"), backbone)
    assert torch.equal(half.frames[..., 10:], CLIP.frames[..., 10:])
    assert not torch.equal(half.frames[..., :10], CLIP.frames[..., :10])
    style = replace(TASK, kind="style")
    assert torch.equal(method(backbone, CLIP, style, seeded(0)).frames, usual.frames)


def test_a_mask_of_the_edits_own_attention_is_refused(backbone):
    with pytest.raises(UserError, match="mask=agreement"):
        run(ControlVideo(steps=1, mask=Live()), backbone)


class Live(Half):
    """Wants to see the edit."""

    def keeps(self, subject):
        return Keeps(target=[Keep("edit", lambda where: False, lambda where, qkv: qkv.q)])


def test_a_row_through_the_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["run", "method=controlvideo", "model=random_image", "model.control=1", "method.steps=3"]
    small = ["metric=pixels", "paths.runs=out", "data.size=16", "data.frames=3", "data.clips=1", "limit=1"]
    small += ["name=a", "keep=none"]
    assert main([*words, *small, "interpolation=average", "method.suffix=' ,best quality'"]) == 0
    (row,) = RunStore(Path("out/a")).latest().values()
    assert row["status"] == "done" and row["choices"]["interpolation"] == "average"
    assert "best quality" not in row["target"] and row["facts"]["interpolation"] == "average"


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0}, {"guidance": -1}, {"smooth": (19, 20), "steps": 10}, {"smooth": (0,)}, {"window": 2},
        {"window": 3.5}, {"long": "yes"}, {"variant": "Paper"}, {"interpolation": None},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises((UserError, TypeError)):
        ControlVideo(**settings)


@pytest.mark.parametrize(
    ("settings", "frames", "hint"),
    [
        ({"long": True}, 8, "too short"),
        ({"long": True, "window": 3}, 2, "too short"),
        ({"interpolation": Rife()}, 3, "interpolation.weights"),
    ],
)
def test_clips_and_interpolators_are_refused_before_a_model_is_there(settings, frames, hint):
    clip = Clip("c", CLIP.frames[:1].expand(frames, -1, -1, -1))
    with pytest.raises(UserError, match=hint):
        ControlVideo(**settings).check(TASK, lambda: clip)
    ControlVideo(interpolation=Rife(), smooth=()).check(TASK, lambda: clip)


def test_models_without_a_controlnet_are_refused():
    """By what is configured, and by what they take."""
    with pytest.raises(UserError, match="model.control"):
        ControlVideo().check_model({"path": "sd15", "control": None})
    ControlVideo().check_model({"control": "embedded_edges"})
    bare = Inflated2D.random(0, max_tokens=20)
    for model, hint in ((bare, "model.control"), (UNet3D.random(0), "model=embedded_image")):
        with pytest.raises(UserError, match=hint):
            run(ControlVideo(steps=1), model)


# --- RIFE -----------------------------------------------------------------------------------------------------


def test_rifes_network_is_as_large_as_published():
    """3.04 million parameters, with the fourth block that taught the others; the names are those of the weights."""
    blocks = [rife.Block(), rife.Block(), rife.Block(), rife.Block(14)]
    assert sum(weight.numel() for block in blocks for weight in block.parameters()) == 3_038_015
    names = set(rife.Between().state_dict())
    assert len(names) == 3 * 40
    assert {"block0.conv0.0.0.weight", "block2.convblock3.1.1.weight", "block1.conv2.2.bias"} <= names


def test_rife_does_not_care_which_picture_is_first_and_takes_any_size():
    torch.manual_seed(0)
    network = rife.Between().eval()
    left, right = torch.rand(2, 3, 20, 36, generator=seeded(0)), torch.rand(2, 3, 20, 36, generator=seeded(1))
    both = rife.between(network, left, right, "cpu")
    torch.testing.assert_close(both, rife.between(network, right, left, "cpu"), atol=1e-5, rtol=0)
    assert both.shape == left.shape and both.min() >= 0 and both.max() <= 1
    torch.testing.assert_close(rife.between(network, left[1:], right[1:], "cpu"), both[1:])


class Shifting(nn.Module):
    """A block that finds what it was told to: nothing at coarse sides, then where a pixel of the middle comes from."""

    def __init__(self, flow, share):
        super().__init__()
        self.told = torch.tensor(flow).view(1, 4, 1, 1), share

    def forward(self, pictures, flow, scale):
        forth, share = self.told
        swap = torch.equal(flow[:, :2], flow[:, 2:]) and bool(
            pictures[:, :3].mean() > pictures[:, 3:6].mean()
        )
        forth, share = (rife.swapped(forth), -share) if swap else (forth, share)
        return flow * 0 + forth, flow[:, :1] * 0 + share


def test_rife_fetches_the_middle_from_both_pictures():
    """A square that moves by four pixels is half way, whichever picture counts."""
    pictures = torch.zeros(2, 1, 3, 16, 32)
    pictures[0, ..., 4:8, 8:12], pictures[1, ..., 4:8, 12:16] = 0.5, 1.0
    middle = torch.zeros(3, 16, 32)
    middle[..., 4:8, 10:14] = 1
    for share, level in ((20.0, 0.5), (-20.0, 1.0), (0.0, 0.75)):
        network = rife.Between()
        network.block0 = network.block1 = Shifting([0.0] * 4, 0.0)
        network.block2 = Shifting([-2.0, 0.0, 2.0, 0.0], share)
        made = rife.between(network, pictures[0], pictures[1], "cpu")[0]
        torch.testing.assert_close(made, middle * level, atol=1e-5, rtol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pkl"])
def test_weights_of_rife_come_from_a_file(tmp_path, suffix):
    """A pickled one is read where that is allowed; the fourth block and the names of parallel training are nothing."""
    from safetensors.torch import save_file

    path, weights = tmp_path / f"flownet{suffix}", rife.Between().state_dict()
    stored = {f"module.{name}": each for name, each in weights.items()}
    stored |= {f"module.block_tea.{name}": each for name, each in rife.Block(14).state_dict().items()}
    save_file(stored, path) if suffix == ".safetensors" else torch.save(stored, path)
    found = Auto(str(path), allow_pickle=True)
    assert (found.name, found.warnings) == ("rife", ())
    left = torch.rand(2, 3, 16, 16, generator=seeded(0))
    assert found.on(CLIP, "cpu")(left, {1: (0, 1)}).shape == (1, 3, 16, 16)
    assert torch.equal(
        rife.load(path, "cpu").state_dict()["block2.conv1.0.bias"], weights["block2.conv1.0.bias"]
    )
    if suffix == ".pkl":
        with pytest.raises(UserError, match="allow_pickle"):
            Rife(str(path)).check(lambda: CLIP)
    path.write_bytes(b"nothing")
    rife.load.cache_clear()
    with pytest.raises(UserError, match="cannot be read"):
        found.on(CLIP, "cpu")


# --- along the clip's own flow --------------------------------------------------------------------------------


def moving():
    """A square on noise that stands still, moving right by two pixels; where it is in each frame; its flow."""
    ground, where = torch.rand(3, 12, 20, generator=seeded(0)) / 2, torch.zeros(4, 12, 20, dtype=torch.bool)
    for frame in range(4):
        where[frame, 4:8, 3 + 2 * frame : 7 + 2 * frame] = True
    frames = torch.where(where[:, None], 1.0, ground)
    forth, seen = torch.zeros(3, 2, 12, 20), ~(where[1:] & ~where[:-1])
    forth[:, 0][where[:-1]] = 2
    return frames, where, OpticalFlow(forth, seen)


def test_frames_made_along_the_flow_are_those_that_were_there():
    """What one neighbour hides is taken from the other; at the ends, from the frame itself too."""
    frames, where, flow = moving()
    made = Carried.of(flow)(frames, {1: (0, 2), 2: (1, 3), 0: (0, 1), 3: (2, 3)})
    torch.testing.assert_close(made, frames[[1, 2, 0, 3]])
    spoilt = frames.clone()
    spoilt[1] = 0
    torch.testing.assert_close(Carried.of(flow)(spoilt, {1: (0, 2)})[0], frames[1])
    mean = Average().mean(frames, {1: (0, 2)})[0]
    assert float((mean - frames[1]).abs().max()) > 0.2


def test_what_neither_neighbour_shows_stays():
    frames, where, flow = moving()
    hidden = replace(flow, seen=torch.zeros_like(flow.seen))
    assert torch.equal(Carried.of(hidden)(frames, {1: (0, 2)})[0], frames[1])
    back, found = turned(flow.forth[0], flow.seen[0])
    assert torch.equal(back[0] == -2, where[1]) and torch.equal(found, ~(where[0] & ~where[1]))


def test_the_flow_is_the_clips_or_raft_is_asked_for(monkeypatch):
    frames, _, flow = moving()
    known, other = Clip("c", frames, flow=flow), Clip("c", frames)
    monkeypatch.setattr("freemask.optical.raft.usual", lambda: None)
    Along().check(lambda: known)
    assert Along().on(known, "cpu")(frames, {1: (0, 2)}).shape == (1, 3, 12, 20)
    with pytest.raises(UserError, match="RAFT"):
        Along().check(lambda: other)
    Along().check(lambda: Clip("c", frames[:1]))


# --- the authors' own -----------------------------------------------------------------------------------------


def test_the_authors_first_smoothed_step(shared):
    """Each from the stored latents; the other cases stand in tests/test_controlnets.py."""
    ledger = command.compare(Case.read(shared / "parity" / "golden" / "cv_smooth.json"), steps=5)
    assert ledger.passed, ledger.table()
    assert ("edit: latents (smoothed)", FORCED) in ledger.found and not ledger.remarks
