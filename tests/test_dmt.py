"""Motion transfer: every call of the network against a written-out twin on the library's own network, its layers, what
it says of one frame, of numbers that are not finite, and of half precision."""

import dataclasses

import pytest
import torch
from torch.nn.functional import interpolate

from freemask.backbones import tiny
from freemask.backbones.sites import attention_sites, feature_sites
from freemask.backbones.unet3d import UNet3D
from freemask.diffusion.inversions import Inversion
from freemask.diffusion.motion import Motion, otherwise
from freemask.errors import UserError
from freemask.methods.dmt import ALONE, Dmt
from freemask.types import NO_TAPS, Clip, EditTask, Given, Grid, Site, Where
from tests.given import Half

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
AUTHORS = ["up_blocks.1.resnets.1.conv2", "up_blocks.1.temp_convs.1", "up_blocks.1.upsamplers.0"]
STILL = {"steps": 2, "updates": 0, "guidance": 3.0, "inversion_steps": None}
FAST = {"steps": 3, "updates": 2, "rates": (0.02, 0.01), "guidance": 3.0, "inversion_steps": None}


class Watched:
    """A backbone that notes the latent of every call and the streams that saw it."""

    def __init__(self, backbone):
        self.backbone, self.calls = backbone, []

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def predict(self, x, t, given, *, taps=NO_TAPS):
        self.calls.append((t, tuple(given), x[0].detach().clone()))
        return self.backbone.predict(x, t, given, taps=taps)


@pytest.fixture(scope="module")
def backbone():
    return UNet3D.random(0, dtype="float64", max_tokens=20)


@pytest.fixture(scope="module")
def unet():
    return tiny.parts(0, torch.float64, "epsilon", 20).unet.eval().requires_grad_(False)


def clip(frames=3):
    rng = torch.Generator().manual_seed(0)
    return Clip("c", torch.rand(frames, 3, 12, 20, generator=rng))


def run(method, backbone, footage=None, seed=0):
    return method(backbone, footage or clip(), TASK, torch.Generator().manual_seed(seed))


# --- the twin -------------------------------------------------------------------------------------------------


class Twin:
    """The library's network with hooks, and loops after the method card. `calls` has the latent of each call."""

    def __init__(self, method, unet, backbone, names):
        self.method, self.unet, self.names, self.calls, self.seen = method, unet, names, [], {}
        self.official = method.variant == "official"
        self.rng = torch.Generator().manual_seed(0)
        texts = (method.prefix + TASK.source, method.negative, method.prefix + TASK.target)
        self.source, self.away, self.target = (backbone.embed(each).tokens[None] for each in texts)
        self.betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        self.table = torch.cumprod(1 - self.betas, 0).double()

    def draw(self, like):
        return torch.randn(like.shape, generator=self.rng, dtype=torch.float32).double()

    def network(self, x, t, text, note=True):
        if note:
            self.calls.append((t, x.detach().clone()))
        return self.unet(x.permute(1, 0, 2, 3)[None], t, text).sample[0].permute(1, 0, 2, 3)

    def means(self, x, t, text):
        found, hooks = {}, []
        for name in self.names:
            hooks.append(
                self.unet.get_submodule(name).register_forward_hook(
                    lambda module, args, out, name=name: found.update({name: out})
                )
            )
        self.network(x, t, text)
        for hook in hooks:
            hook.remove()
        return [torch.stack([frame.flatten(1).mean(1) for frame in found[name]]) for name in self.names]

    def loss(self, ours, theirs):
        total = 0
        for own, aim in zip(ours, theirs, strict=True):
            frames, pairs = len(own), []
            for anchor in range(frames):
                for other in range(frames):
                    if anchor == other:
                        pairs += [torch.ones((), dtype=torch.float64)] if self.official else []
                        continue
                    a, b = own[other] - own[anchor], aim[other] - aim[anchor]
                    pairs.append(1 - (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt()))
            total = total + sum(pairs) / len(pairs)
        return total

    def moved(self, x, t, latent, rate):
        """Adam, written out."""
        aim = [each.detach() for each in self.means(latent, t, self.source)]
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        for k in range(1, self.method.updates + 1):
            x = x.detach().requires_grad_(True)
            loss = self.loss(self.means(x, t, self.target), aim)
            self.losses.append(loss.item())
            (slope,) = torch.autograd.grad(loss, x)
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            x = x - rate * (first / (1 - 0.9**k)) / ((second / (1 - 0.999**k)).sqrt() + 1e-8)
        return x.detach()

    @torch.no_grad()
    def step(self, x, t, below):
        eps = self.network(x, t, self.target)
        away = self.network(x, t, self.away, note=False)
        eps = away + self.method.guidance * (eps - away)
        clean = (x - (1 - self.table[t]).sqrt() * eps) / self.table[t].sqrt()
        return self.table[below].sqrt() * clean + (1 - self.table[below]).sqrt() * eps

    def noisy(self, x, below, t):
        if not self.official:
            share = self.table[t] / self.table[below]
            return share.sqrt() * x + (1 - share).sqrt() * self.draw(x)
        for j in range(1000 // self.method.steps):
            beta = 1 - self.table[below + j] / self.table[below + j - 1]
            assert abs(float(beta - self.betas[below + j])) < 2**-22  # the table is in single precision
            x = (1 - beta).sqrt() * x + beta.sqrt() * self.draw(x)
        return x

    @torch.no_grad()
    def inverted(self, z, times):
        below, levels = self.table[0], {}
        for t in times:
            eps = self.network(z, t, self.source)
            z = (z - (1 - below).sqrt() * eps) / below.sqrt()
            z = self.table[t].sqrt() * z + (1 - self.table[t]).sqrt() * eps
            below, levels[t] = self.table[t], z
        return levels

    def low(self, x):
        height, width = x.shape[-2:]
        options = {"mode": "bilinear", "align_corners": True, "antialias": True}
        small = [interpolate(each[None], (height // 4, width // 4), **options) for each in x]
        return torch.cat([interpolate(each, (height, width), **options) for each in small])

    def begun(self, clean, levels, first):
        if self.method.start == "random":
            return self.draw(clean)
        if self.method.start == "inverted":
            return levels[first]
        last = max(levels)
        eps = (levels[last] - self.table[last].sqrt() * clean) / (1 - self.table[last]).sqrt()
        x = self.table[first].sqrt() * clean + (1 - self.table[first]).sqrt() * eps
        if self.method.start == "renoised":
            return x
        fresh = self.draw(x)
        return self.low(x) + (fresh - self.low(fresh))

    def run(self, mean, spread, down, up, rates):
        first = second = mean
        if self.official:
            first = mean + spread * self.draw(mean)
            second = mean + spread * self.draw(mean)
        levels, self.losses = self.inverted(first, up), []
        x = self.begun(second, levels, down[-1])
        for i, t in enumerate(reversed(down)):
            below = [0, *down][down.index(t)]
            if i < len(rates):
                x = self.moved(x, t, levels[t], rates[i])
            x = self.step(x, t, below)
            if self.method.restart and t != down[0]:
                x = self.step(self.noisy(x, below, t), t, below)
        return x


OTHERS = ["down_blocks.0.resnets.0", "up_blocks.2.temp_convs.?"]
OTHER_NAMES = ["down_blocks.0.resnets.0", *(f"up_blocks.2.temp_convs.{i}" for i in range(3))]


@pytest.mark.parametrize(
    ("settings", "rates", "names"),
    [
        ({}, (0.02, 0.01), AUTHORS),
        ({"variant": "official"}, (0.02, 0.01), AUTHORS),
        ({"start": "renoised", "inversion_steps": 9, "restart": False, "features": OTHERS, "negative": "a car",
          "updates": 1, "guided_share": 1, "prefix": "the "}, (0.02, 0.015, 0.01), OTHER_NAMES),
        ({"start": "inverted", "guided_share": 0.1, "updates": 1}, (0.02,), AUTHORS),
        ({"start": "random", "guided_share": 0, "restart": False}, (), []),
    ],
    ids=["usual", "official", "others", "one guided step", "none"],
)  # fmt: skip
def test_every_call_is_that_of_the_written_out_twin(backbone, unet, settings, rates, names):
    method, watched = Dmt(**{**FAST, **settings}), Watched(backbone)
    edit = run(method, watched)
    twin, path = Twin(method, unet, backbone, names), backbone.noise_path
    down, up = path.times(3), path.times(method.inversion_steps or 3)
    mean, spread = backbone.encode(clip().frames), backbone.spread(clip().frames)
    last = twin.run(mean, spread, down, up, rates)
    assert [t for t, _, _ in watched.calls] == [t for t, _ in twin.calls]
    for (_, _, ours), (_, theirs) in zip(watched.calls, twin.calls, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(edit.frames, backbone.decode(last), atol=1e-6, rtol=0)
    assert edit.facts["features"] == len(names)
    if names:
        found = [edit.facts["motion_loss_first"], edit.facts["motion_loss_last"]]
        assert found == pytest.approx([twin.losses[0], twin.losses[-1]], abs=1e-4)
        assert {streams for _, streams, _ in watched.calls} == {("source",), ("cond",), ("uncond", "cond")}


# --- its parts ------------------------------------------------------------------------------------------------


def test_each_frame_beside_itself_puts_a_floor_below_the_loss():
    rng = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 8, 5, generator=rng, dtype=torch.float64)
    assert float(otherwise(one, one)) == pytest.approx(0, abs=1e-12)
    assert float(otherwise(one, one, own_pairs=True)) == pytest.approx(
        1 / 8
    )  # the authors' own, of two equal inputs
    assert float(otherwise(one, -one)) == pytest.approx(2)
    apart = float(otherwise(one, other))
    assert float(otherwise(one, other, own_pairs=True)) == pytest.approx(apart * 7 / 8 + 1 / 8)
    same = one[:1].expand(8, 5).clone().requires_grad_(True)  # a clip that stands still
    (slope,) = torch.autograd.grad(otherwise(same, one * 0), same)
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize(
    ("steps", "share", "count"),
    [(50, 0.4, 20), (10, 0.4, 4), (8, 0.4, 4), (100, 0.29, 29), (7, 1, 7), (7, 0, 0)],
)
def test_a_share_of_the_steps_and_their_rates(steps, share, count):
    falling = Dmt(steps=steps, guided_share=share).falling
    assert len(falling) == count
    if count > 1:
        assert (falling[0], falling[-1]) == pytest.approx((0.007, 0.004))
        assert {round(a - b, 9) for a, b in zip(falling, falling[1:], strict=False)} == {
            round(0.003 / (count - 1), 9)
        }


class Other(Watched):
    """With layers and modules of its own."""

    def __init__(self, backbone, sites, features):
        super().__init__(backbone)
        self.sites, self.features = sites, features


def laid(backbone, up):
    """A network with these blocks on the way up."""
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

    down = tuple(each.replace("Up", "Down") for each in up[::-1])
    config = {**tiny.UNET, "block_out_channels": (8,) * len(up), "layers_per_block": 1}
    unet = UNet3DConditionModel(**config, down_block_types=down, up_block_types=up)
    return Other(backbone, attention_sites(unet), feature_sites(unet))


@pytest.mark.parametrize(
    ("up", "place"),
    [
        (("UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"), "up_blocks.1"),
        (("CrossAttnUpBlock3D", "UpBlock3D"), "up_blocks.0"),
        (("UpBlock3D", "UpBlock3D", "CrossAttnUpBlock3D"), "up_blocks.2"),  # which makes nothing larger
    ],
)
def test_the_authors_three_are_found_by_the_layout(backbone, up, place):
    network = laid(backbone, up)
    wanted = [f"{place}.resnets.1.conv2", f"{place}.temp_convs.1", f"{place}.upsamplers.0"]
    assert Dmt().named(network) == wanted[: 2 if place == "up_blocks.2" else 3]


def test_layers_that_are_not_there_are_refused(backbone):
    for names, said in ((["up_blocks.9.*"], "up_blocks.9"), ([], "no layer")):
        with pytest.raises(UserError, match=said):
            Dmt(features=names).named(backbone)
    with pytest.raises(UserError, match="authors"):
        Dmt().named(Other(backbone, {}, {}))
    assert Dmt(guided_share=0).named(Other(backbone, {}, {})) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 1000},
        {"updates": -1},
        {"coarse": 0},
        {"guidance": -1},
        {"guided_share": 1.1},
        {"rates": [0.1]},
        {"rates": [0.1, 0]},
        {"rates": [float("nan"), 0.1]},
        {"start": "noise"},
        {"variant": "released"},
        {"inversion_steps": 20},
    ],
    ids=str,
)
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError):
        Dmt(**wrong)


# --- what it says ---------------------------------------------------------------------------------------------


def test_one_frame_has_no_motion_and_says_so(backbone):
    watched = Watched(backbone)
    edit = run(Dmt(**FAST), watched, clip(1))
    assert ALONE in edit.warnings and "motion_loss_first" not in edit.facts
    assert {streams for _, streams, _ in watched.calls[3:]} == {("uncond", "cond")}


class Broken(Watched):
    """Answers with nonsense at one time."""

    def predict(self, x, t, given, *, taps=NO_TAPS):
        out = super().predict(x, t, given, taps=taps)
        return out * float("nan") if t == 334 and "uncond" in given else out


def test_numbers_that_are_not_finite_are_refused_with_their_step(backbone):
    with pytest.raises(UserError, match="step 2 of 3, in float64"):
        run(Dmt(**{**FAST, "guided_share": 0.3, "updates": 1, "restart": False}), Broken(backbone))
    footage = dataclasses.replace(clip(), frames=clip().frames * float("nan"))
    with pytest.raises(UserError, match="step 1 of 3"):
        run(Dmt(**{**FAST, "updates": 1}), backbone, footage)


class Halved(Watched):
    """A network in half precision whose one feature is its input."""

    dtype = torch.float16

    def predict(self, x, t, given, *, taps=NO_TAPS):
        grid = Grid(x.shape[1], *x.shape[3:])
        taps.features["a"](Where(Site("a", "features", 1), t, grid, tuple(given)), x.half())


@pytest.mark.parametrize(
    ("size", "side", "scales"), [(512, 64, [2.0**16]), (2**-10, 1, [2.0**k for k in range(16)])]
)
def test_gradients_that_half_precision_cannot_hold_are_made_larger_or_smaller(backbone, size, side, scales):
    rng = torch.Generator().manual_seed(0)
    x, aim = (
        (size * torch.randn(2, 3, 4, 1, 1, generator=rng).half().float()).expand(2, 3, 4, side, side).clone()
    )
    motion = Motion(
        Halved(backbone), Inversion([aim, aim], [1]), {"source": Given({}), "cond": Given({})}, ["a"]
    )
    moved = motion.followed(x, 1, rate=0.5, updates=1)
    exact = x.double().requires_grad_(True)
    means = (each.mean((-2, -1)) for each in (exact, aim.double()))
    (slope,) = torch.autograd.grad(otherwise(*means), exact)
    expected = x - (0.5 * slope / (slope.abs() + 1e-8)).float()  # of Adam's first update
    torch.testing.assert_close(moved, expected, atol=2.0**-11, rtol=0)  # half precision has 11 bits
    assert motion.scale in scales


def test_checkpointing_changes_no_number_and_keeps_less(backbone):
    found = []
    for checkpointing in (False, True):
        method, kept = (
            Dmt(steps=1, updates=1, guidance=1, inversion_steps=None, checkpointing=checkpointing),
            [],
        )
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each, kept=kept: kept.append(each.numel()) or each, lambda each: each
        ):
            found.append((run(method, backbone).frames, sum(kept)))
    assert torch.equal(found[0][0], found[1][0]) and found[1][1] < 0.9 * found[0][1]


def test_the_call_ends_with_the_last_feature(backbone):
    """Later blocks are the largest: neither run nor kept for the way back, and the network is free again."""
    later, ran = backbone.network.up_blocks[2], []
    hook = later.register_forward_pre_hook(lambda *_: ran.append(1))
    given = {"source": backbone.embed(TASK.source).given}
    x = torch.zeros(2, 4, 6, 10, dtype=torch.float64)
    motion = Motion(backbone, Inversion([x, x], [1]), given, AUTHORS)
    means = motion.means(x, 1, "source")
    assert [each.shape for each in means] == [(2, 16)] * 3 and not ran
    backbone.predict(x[None], 1, given)
    hook.remove()
    assert ran


# --- masks ----------------------------------------------------------------------------------------------------


def test_a_mask_of_all_or_nothing_and_of_half(backbone):
    """Everything may change: as without a mask; nothing may: the clip, as the autoencoder has it; half: both."""
    plain = run(Dmt(**STILL), backbone)
    masked = {share: run(Dmt(mask=Half(share), **STILL), backbone) for share in (0, 0.5, 1)}
    held = backbone.decode(backbone.encode(clip().frames))
    torch.testing.assert_close(masked[1].frames, plain.frames, atol=1e-6, rtol=0)
    torch.testing.assert_close(masked[0].frames, held, atol=1e-6, rtol=0)
    assert float((masked[0.5].frames - plain.frames).abs().max()) > 1e-3
    assert float((masked[0.5].frames - held).abs().max()) > 1e-3
    assert plain.facts["mask_used"] is False and masked[0.5].facts["mask_acts_on"].startswith("latents")
    whole = dataclasses.replace(TASK, kind="style")  # a style is for the whole frame
    rng = torch.Generator().manual_seed(0)
    assert torch.equal(Dmt(mask=Half(0), **STILL)(backbone, clip(), whole, rng).frames, plain.frames)


def test_pixels_outside_the_mask_can_be_the_clips_own(backbone):
    made = run(Dmt(mask=Half(0.5), composite="pixels", **STILL), backbone).frames
    assert torch.equal(made[..., 10:], clip().frames[..., 10:])
    assert not torch.equal(made[..., :10], clip().frames[..., :10])
