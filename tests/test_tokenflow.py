"""TokenFlow: its calls of the network, both bases and variants, odd clips, masks, refusals; and the authors' cases."""

from dataclasses import replace

import pytest
import torch

from freemask.attention.record import Keep
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from freemask.control.edges import Edges
from freemask.errors import UserError
from freemask.masks.plan import Keeps, MaskPlan
from freemask.methods.common import Stopwatch
from freemask.methods.pnp import Pnp
from freemask.methods.tokenflow import TokenFlow
from freemask.types import NO_TAPS, Clip, EditTask, Grid, Taps
from tests.official import compare as command
from tests.official.case import Case
from tests.official.ledger import FORCED
from tests.test_tokenflow_field import SITE, layer

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
CONVOLUTION = "up_blocks.1.resnets.1.conv2"


def clip(frames):
    rng = torch.Generator().manual_seed(0)
    return Clip("c", torch.rand(frames, 3, 12, 20, generator=rng))


def run(method, backbone, frames=5, seed=0, task=TASK):
    return method(backbone, clip(frames), task, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def backbone():
    return Inflated2D.random(0, dtype="float64", max_tokens=20, attention="frame", shared_norm=False)


# --- whole edits ----------------------------------------------------------------------------------------------


class Watched:
    """A backbone that notes every call: the time, what went in by stream, and what came out."""

    def __init__(self, backbone):
        self.backbone, self.calls = backbone, []

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def predict(self, x, t, given, *, taps=NO_TAPS):
        out = self.backbone.predict(x, t, given, taps=taps)
        self.calls.append((t, dict(zip(given, x, strict=True)), dict(zip(given, out, strict=True))))
        return out

    def edits(self):
        return [call for call in self.calls if "cond" in call[1]]


def test_calls_of_the_network_and_the_clip_beside_them(backbone):
    """At each step the key frames, then chunk by chunk; the clip is touched in the released variant alone."""
    for variant, touched in (("official", True), ("paper", False)):
        watched = Watched(backbone)
        edit = run(TokenFlow(steps=2, guidance=3.0, chunk=2, variant=variant), watched)
        counts = [len(seen["cond"]) for _, seen, _ in watched.edits()]
        assert counts == [3, 2, 2, 1] * 2 and edit.facts["key_frames"] == 3 and not edit.warnings
        given = {"source": backbone.embed(TASK.source).given}
        for count, (t, seen, out) in zip(counts, watched.edits(), strict=True):
            alone = backbone.predict(seen["source"][None], t, given)[0]
            same = float((alone - out["source"]).abs().max()) < 1e-9
            assert same or (touched and count != 3)
        assert (
            any(
                float((backbone.predict(seen["source"][None], t, given)[0] - out["source"]).abs().max())
                > 1e-6
                for t, seen, out in watched.edits()
            )
            == touched
        )


def test_a_picture_is_edited_as_its_base_does(backbone):
    """One frame copies from itself, at its own places; the edit says that nothing is copied between frames."""
    made = run(TokenFlow(steps=3, guidance=3.0), backbone, frames=1)
    plain = run(Pnp(steps=3, guidance=3.0, start="renoised"), backbone, frames=1)
    torch.testing.assert_close(made.frames, plain.frames, atol=1e-6, rtol=0)
    assert any("one key frame" in each for each in made.warnings)


def test_key_frames_are_drawn_from_the_seed(backbone):
    method = TokenFlow(steps=2, guidance=1, chunk=3)
    first, again, other = (run(method, backbone, seed=seed).frames for seed in (0, 0, 1))
    assert torch.equal(first, again) and float((first - other).abs().max()) > 1e-6


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "paper"},
        {"base": "sdedit", "strength": 1},
        {"chunk": 3},
        {"negative": "grass"},
        {"attention_share": 0},
    ],
    ids=str,
)
def test_every_setting_changes_the_edit(backbone, usual, change):
    made = run(TokenFlow(steps=2, guidance=3.0, **{"chunk": 2, **change}), backbone, frames=3).frames
    assert float((made - usual).abs().max()) > 1e-6


@pytest.fixture(scope="module")
def usual(backbone):
    return run(TokenFlow(steps=2, guidance=3.0, chunk=2), backbone, frames=3).frames


@pytest.mark.parametrize(
    ("variant", "strength", "steps", "count"),
    [
        ("official", 0.9, 50, 44),
        ("official", 1, 50, 49),
        ("official", 0.9, 10, 8),
        ("official", 0.2, 10, 1),
        ("paper", 0.9, 50, 45),
        ("paper", 1, 50, 50),
        ("paper", 0.01, 10, 1),
    ],
)
def test_where_sdedit_starts(variant, strength, steps, count):
    """The authors' slice, and the one that is meant."""
    times = list(range(steps))
    method = TokenFlow(steps=steps, base="sdedit", variant=variant, strength=strength)
    assert method.travelled(times) == times[:count]
    if variant == "official":
        assert times[:count] == times[::-1][int(1 - strength * steps) :][::-1]
    assert TokenFlow(steps=steps, strength=strength).travelled(times) == times


def test_both_bases_and_starts_by_variant():
    assert TokenFlow().settings() == Pnp(start="renoised")
    assert TokenFlow(variant="paper").settings() == Pnp(start="inverted")
    lent = TokenFlow(base="sdedit").settings()
    assert lent.convolution_share == lent.attention_share == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"base": "edges"}, {"variant": "Paper"}, {"chunk": 0}, {"chunk": 2.5}, {"strength": 0}, {"steps": 0},
        {"base": "sdedit", "steps": 10, "strength": 0.1}, {"inversion_steps": 3}, {"attention_share": 2},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises((UserError, TypeError)):
        TokenFlow(**settings)


class Blank:
    def check(self, clip):
        pass

    def __call__(self, clip, device="cpu"):
        return torch.zeros_like(clip.frames)


def test_edges_hold_an_edit_all_the_way(backbone):
    """With ControlNets as its base it is SDEdit's from the noisiest time on, and every stream sees each frame's own
    edges; without them it is refused."""
    held = Inflated2D.random(
        0, dtype="float64", max_tokens=20, attention="frame", shared_norm=False, control=1
    )
    held.control.how = held.control.how.showing((Edges(20, 40),))
    watched = Watched(held)
    method = TokenFlow(steps=2, guidance=3.0, chunk=2, base="controlnet", variant="paper", inversion_steps=2)
    made = run(method, watched, frames=3).frames
    assert [len(seen["cond"]) for _, seen, _ in watched.edits()] == [2, 2, 1] * 2
    late = replace(method, base="sdedit", strength=1)
    torch.testing.assert_close(run(late, held, frames=3).frames, made, atol=1e-9, rtol=0)
    held.control.how = held.control.how.showing((Blank(),))
    assert float((run(method, held, frames=3).frames - made).abs().max()) > 1e-6
    with pytest.raises(UserError, match="model.control"):
        run(method, backbone)


def test_a_network_that_sees_several_frames_is_refused():
    with pytest.raises(UserError, match="model=embedded_image"):
        run(TokenFlow(steps=1), UNet3D.random(0))


# --- masks ----------------------------------------------------------------------------------------------------


class Left:
    """May change the left of the picture; `live`: wants to see the edit."""

    def __init__(self, share=0.5, live=False):
        self.share, self.live = share, live

    def keeps(self, subject):
        return Keeps(
            target=[Keep("edit", lambda where: False, lambda where, qkv: qkv.q)] if self.live else ()
        )

    def plan(self, subject, source, target):
        def mask(wanted):
            made = torch.zeros(tuple(wanted.grid))
            made[..., : round(self.share * wanted.grid.width)] = 1
            return made

        return MaskPlan(mask, {"mask_used": True})


def masked(backbone, frames=3, share=0.5, **settings):
    return run(TokenFlow(steps=2, guidance=3.0, chunk=2, mask=Left(share), **settings), backbone, frames)


def test_a_mask_of_all_or_nothing(backbone):
    """Everything may change: as without a mask; nothing may: the clip, as the autoencoder has it."""
    plain = run(TokenFlow(steps=2, guidance=3.0, chunk=2), backbone, frames=3)
    torch.testing.assert_close(masked(backbone, share=1).frames, plain.frames, atol=1e-6, rtol=0)
    held = backbone.decode(backbone.encode(clip(3).frames))
    torch.testing.assert_close(masked(backbone, share=0).frames, held, atol=1e-6, rtol=0)
    assert plain.facts["mask_used"] is False


def test_pixels_outside_a_mask_are_the_clips_and_a_style_is_for_the_whole_frame(backbone):
    edit = masked(backbone, composite="pixels")
    assert edit.extras["mask"].shape == (3, 12, 20) and edit.facts["mask_acts_on"].endswith("1-2 of 2")
    assert torch.equal(edit.frames[..., 10:], clip(3).frames[..., 10:])
    assert not torch.equal(edit.frames[..., :10], clip(3).frames[..., :10])
    style = replace(TASK, kind="style")
    method = TokenFlow(steps=2, mask=Left())
    assert method.acting_mask(TASK) is method.mask and method.acting_mask(style) is not method.mask


def test_outside_a_mask_attention_and_convolutions_are_the_clips(backbone):
    """In the frames that are asked for, in each layer's own grid; after plug-and-play's windows too."""
    method, watch = TokenFlow(steps=2), Stopwatch(backbone.device)
    subject = method.settings().subject(backbone, clip(3), TASK, watch=watch)
    beside = method.settings().begin(backbone, subject, watch=watch)
    mask = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(0)).round()
    flow = method.flow(beside, torch.Generator(), MaskPlan(lambda wanted: mask))
    where, qkv = layer(2)
    where = replace(where, grid=Grid(2, 2, 3))
    taps = flow.held(Taps(attention=lambda where, qkv: qkv.v), [2, 0], 3)
    rows, maps = mask[[2, 0]], qkv.v.reshape(3, 2, 8, 2, 3)
    held = taps.attention(where, qkv)
    assert torch.equal(held, torch.where(rows.reshape(1, 2, 1, 6, 1) == 1, qkv.v, qkv.v[:1]))
    held = taps.features[CONVOLUTION](where, maps)
    assert torch.equal(held, torch.where(rows[:, None] == 1, maps, maps[:1]))
    other = replace(where, site=replace(SITE, role="cross"))
    assert torch.equal(taps.attention(other, qkv), qkv.v)


def test_a_mask_of_the_edits_own_attention_is_refused(backbone):
    with pytest.raises(UserError, match="mask=agreement"):
        run(TokenFlow(steps=1, mask=Left(live=True)), backbone)


# --- the authors' own -----------------------------------------------------------------------------------------


def golden(shared, name):
    return Case.read(shared / "parity" / "golden" / f"{name}.json")


def test_the_first_step_of_the_authors(shared):
    """Of TokenFlow with plug-and-play: texts, frames, inversion, start, matches, and what the network answers."""
    ledger = command.compare(golden(shared, "tf_pnp"), steps=1)
    assert ledger.passed, ledger.table()
    for group in ("network on key frames", "nearest tokens", "inside blocks", "latents"):
        assert (f"edit: {group}", FORCED) in ledger.found


@pytest.mark.parity
@pytest.mark.parametrize("name", ["tf_pnp", "tf_sdedit", "tf_controlnet_inversion"])
def test_the_authors_cases(shared, name):
    ledger = command.compare(golden(shared, name))
    assert ledger.passed, ledger.table()
    assert ("edit: latents", FORCED) in ledger.found or "controlnet" in name
