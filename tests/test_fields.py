"""Fields fitted to a clip: losses and their gradients against slow versions, what a fit reaches, keeps and
refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from freemask.data.world import World
from freemask.errors import UserError
from freemask.fields import fit as fit_module
from freemask.fields import networks
from freemask.fields.atlas_fit import AtlasRecipe, AtlasWork
from freemask.fields.canonical import Canonical, read
from freemask.fields.canonical_fit import CanonicalRecipe, CanonicalWork, Window
from freemask.fields.fit import Learner, fitted
from freemask.fields.footage import Footage
from freemask.fields.networks import annealed, below
from freemask.fields.recipe import frame_of
from freemask.fields.scattered import triangulated
from freemask.kept import Kept
from freemask.types import OpticalFlow, silent
from tests.written_fields import Atlas, Deformed, atlas_losses, canonical_losses

NOWHERE = Kept(None, 1, "fit")
ATLAS = AtlasRecipe(
    iterations=4, points=12, rate=1e-2, pretrain=1, marked_until=9, far=3, far_until=2, width=5, depths=[2, 2, 2, 3],
    bands=[1, 2],
).for_clip(4, 6)  # fmt: skip
CANONICAL = CanonicalRecipe(
    iterations=10, points=99, rate=1e-2, deformation_rate=3e-3, depths=[3, 3], widths=[4, 5], bands=2,
    anneal=[0.1, 0.9], reference="first", reference_share=0.2,
).for_clip(4, 6)  # fmt: skip


def footage(dtype=torch.float64):
    """3 frames of 6 x 4 that move to the right by a pixel and a half; something is hidden, something marked."""
    rng = torch.Generator().manual_seed(0)
    frames = torch.rand(3, 3, 4, 6, generator=rng)
    forth = torch.zeros(2, 2, 4, 6)
    forth[:, 0], forth[:, 1, 1] = 1.5, -0.5
    seen = torch.rand(2, 4, 6, generator=rng) > 0.2
    marked = (torch.rand(3, 4, 6, generator=rng) > 0.5).float()
    made = Footage.of(frames, OpticalFlow(forth, seen), marked)
    return replace(made, frames=made.frames.to(dtype), flow=made.flow.to(dtype), marked=marked.to(dtype))


def begun(work):
    """Weights in double precision, all of a size that shows."""
    return {name: each.double() * 1.7 + 0.03 for name, each in work.begin().items()}


def plain(tensors):
    return {name: each.detach().numpy() for name, each in tensors.items()}


def known(made):
    return made.frames.numpy(), made.flow.numpy(), made.trusted.numpy(), made.marked.numpy()


def double_places(monkeypatch):
    """Coordinates are single precision by themselves."""
    for name in ("places", "ahead"):
        own = getattr(Footage, name)
        monkeypatch.setattr(Footage, name, lambda self, points, own=own: own(self, points).double())
    grid = Canonical.grid
    monkeypatch.setattr(Canonical, "grid", lambda self, **more: grid(self, **more).double())


def apart(one, other):
    return max(
        abs(float(one[name]) - float(other[name])) / max(1e-3, abs(float(other[name]))) for name in other
    )


@pytest.mark.parametrize("step", [0, 3], ids=["at first", "later"])
def test_losses_of_atlases_are_those_written_out(step, monkeypatch):
    double_places(monkeypatch)
    made = footage()
    work = AtlasWork(ATLAS, made, detached=False)
    weights, points = begun(work), torch.arange(0, 72, 5)
    found = work.parts(weights, points, step)
    written = atlas_losses(
        Atlas(plain(weights), made.size, ATLAS.depths, ATLAS.bands),
        made.places(points).int().numpy(),
        known(made),
        far=3 if step < 2 else 0,
    )
    assert found.keys() == written.keys() and apart(found, written) < 1e-5
    assert all(float(each) > 0 for each in found.values())


def test_losses_of_a_canonical_picture_are_those_written_out(monkeypatch):
    double_places(monkeypatch)
    made = footage()
    work = CanonicalWork(CANONICAL, made)
    weights = begun(work)
    for frame, step in ((0, 1), (1, 4), (2, 9)):  # the last frame has no flow
        found = work.parts(weights, Window(frame, slice(0, 4), slice(0, 6)), step)
        shares = annealed(2, step, 1, 8)
        fields = Deformed(plain(weights), made.size, CANONICAL.depths, CANONICAL.bands)
        written = canonical_losses(fields, frame, known(made), shares, 0 if step < 2 else None)
        assert found.keys() == written.keys() and apart(found, written) < 1e-5
        assert ("flow" in found) == (frame < 2) and ("reference" in found) == (step == 1)


def total(work, weights, step):
    if isinstance(work, AtlasWork):
        return torch.stack(list(work.parts(weights, torch.arange(0, 72, 5), step).values())).sum()
    return torch.stack(list(work.parts(weights, Window(1, slice(0, 4), slice(0, 6)), step).values())).sum()


@pytest.mark.parametrize("kind", ["atlas", "canonical"])
def test_gradients_are_those_of_small_differences_and_a_step_is_adams(kind, monkeypatch):
    double_places(monkeypatch)
    work = (
        AtlasWork(ATLAS, footage(), detached=False)
        if kind == "atlas"
        else CanonicalWork(CANONICAL, footage())
    )
    weights = {name: each.requires_grad_() for name, each in begun(work).items()}
    grown = torch.autograd.grad(total(work, weights, 1), list(weights.values()), allow_unused=True)
    rng = torch.Generator().manual_seed(1)
    for (name, value), gradient in zip(weights.items(), grown, strict=True):
        if gradient is None:
            continue
        along = torch.rand(value.shape, generator=rng, dtype=torch.float64) - 0.5
        ends = [total(work, {**weights, name: value.detach() + side * 1e-6 * along}, 1) for side in (1, -1)]
        slope = float((ends[0] - ends[1]).detach()) / 2e-6
        assert float((gradient * along).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-4), name


def test_a_step_of_the_fit_is_adams():
    """Of the first two steps, by hand: the mean of the gradient over the root of the mean of its square. The picture
    learns faster than the deformation."""
    work = CanonicalWork(CANONICAL, footage(torch.float32))
    by_hand, moments = {name: each.clone() for name, each in work.begin().items()}, {}
    for step in range(2):
        grad = {name: each.requires_grad_() for name, each in by_hand.items()}
        grown = torch.autograd.grad(work.loss(grad, step), list(grad.values()), allow_unused=True)
        for name, g in zip(by_hand, grown, strict=True):
            g = torch.zeros_like(by_hand[name]) if g is None else g
            m, v = moments.get(name, (0 * g, 0 * g))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            moments[name] = m, v
            root = (v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
            rate = 0.01 if name.startswith("picture") else 0.003
            by_hand[name] = (by_hand[name] - rate * m / (1 - 0.9 ** (step + 1)) / root).detach()
    learner = Learner(work, work.begin())
    for _ in range(2):
        learner.step()
    for name, value in by_hand.items():
        assert torch.allclose(learner.weights[name], value, rtol=1e-4, atol=1e-6), name


def test_a_gradient_that_is_detached_reaches_pictures_and_not_mappings():
    """As in the released code: by the way past the first layers of the pictures' network."""
    grown = {}
    for detached in (True, False):
        work = AtlasWork(ATLAS, footage(torch.float32), detached=detached)
        weights = {name: each.requires_grad_() for name, each in work.begin().items()}
        names = ["foreground.0.weight", "picture.2.weight"]
        loss = work.parts(weights, torch.arange(9), 5)["colour"]
        grown[detached] = torch.autograd.grad(loss, [weights[name] for name in names])
    assert not torch.allclose(grown[True][0], grown[False][0]) and torch.equal(
        grown[True][1], grown[False][1]
    )


# What a fit reaches.


def moving(frames=6, side=16):
    """A patchwork that moves by a pixel and a half a frame; a square on it goes the other way."""
    rng = torch.Generator().manual_seed(3)
    wide = torch.nn.functional.interpolate(
        torch.rand(1, 3, 5, 9, generator=rng), (side, 2 * side), mode="bicubic"
    )
    x, y = torch.arange(side).float(), torch.arange(side)
    shown, marked = [], []
    flow = torch.zeros(frames - 1, 2, side, side)
    for at in range(frames):
        place = x + 1.5 * at
        low, share = place.floor().long(), place - place.floor()
        frame = (wide[0, :, :, low] * (1 - share) + wide[0, :, :, low + 1] * share).clamp(0, 1)
        square = ((x >= 3 + at) & (x < 8 + at))[None] & ((y >= 5) & (y < 11))[:, None]
        frame[:, square] = torch.tensor([0.9, 0.1, 0.2])[:, None]
        shown.append(frame)
        marked.append(square)
        if at < frames - 1:
            flow[at, 0] = torch.where(square, 1.0, -1.5)
    covered = torch.stack(marked)
    seen = torch.ones(frames - 1, side, side, dtype=torch.bool)
    return Footage.of(torch.stack(shown), OpticalFlow(flow, seen), covered.float())


def decibels(made, true):
    return -10 * math.log10(float((made - true).square().mean()))


def without_motion(frames, kinds):
    """The most that any mapping reaches that is the same in all frames: its pictures mix `kinds` colours in each
    pixel."""
    around = frames - frames.mean(0)
    by_pixel = around.permute(2, 3, 0, 1).double()  # h w f 3
    lost = torch.linalg.svdvals(by_pixel)[..., kinds - 1 :].square().sum()
    return -10 * math.log10(float(lost) / frames.numel())


def frames_of(work, weights):
    return [work.atlases.frame(weights, at) for at in range(work.footage.size[0])]


def test_atlases_show_what_no_still_picture_can():
    made = moving()
    recipe = AtlasRecipe(iterations=250, points=128, width=32, pretrain=5, marked_until=100, far=3).for_clip(
        16, 16
    )
    work = AtlasWork(recipe, made)
    weights = fitted(work, NOWHERE, "cpu", silent).weights
    shown = torch.stack([each.shown.T.reshape(3, 16, 16) for each in frames_of(work, weights)])
    assert decibels(shown, made.frames) > without_motion(made.frames, 2) + 2
    opacity = torch.stack([each.opacity.reshape(16, 16) for each in frames_of(work, weights)])
    assert made.marked is not None
    assert float(((opacity > 0.5) == (made.marked > 0.5)).float().mean()) > 0.95


def test_a_canonical_picture_shows_what_no_still_picture_can():
    made = replace(moving(3), marked=None)
    quick = {"iterations": 150, "rate": 5e-3, "deformation_rate": 5e-3, "anneal": None}
    recipe = CanonicalRecipe(**quick, widths=[32, 48], bands=7).for_clip(16, 16)
    work = CanonicalWork(recipe, made)
    weights = fitted(work, NOWHERE, "cpu", silent).weights
    fields = work.fields
    shown = torch.stack([fields.shown(weights, at) for at in range(3)])
    assert decibels(shown, made.frames) > without_motion(made.frames, 1) + 2
    still = fields.picture(weights)
    lifted = torch.stack([read(still, fields.where(weights, at)) for at in range(3)])
    assert (
        decibels(lifted, made.frames) > without_motion(made.frames, 1) + 2
    )  # the picture says what the field does


def test_no_layer_of_the_deformation_dies_in_the_first_steps():
    """Of a clip whose last hidden layer was dead after so many, at four times this rate: nothing ever moved."""
    data = World(clips=1, seed=2, kinds=["style"])
    clip = data.clip(data.tasks()[0])
    work = CanonicalWork(CanonicalRecipe().for_clip(64, 64), Footage.of(clip.frames, clip.flow))
    learner = Learner(work, work.begin())
    for _ in range(150):
        learner.step()
    weights, network = below(learner.weights, "deformation"), work.fields.networks["deformation"]
    at = work.fields.coordinates(work.fields.grid())[::16]
    seen = work.fields.encoding(at, work.shares(150))
    x = torch.cat([torch.cat([code.expand(len(at), -1), seen], 1) for code in learner.weights["codes"]])
    made = x
    for layer in range(network.layers - 1):
        made = torch.cat([made, x], 1) if layer in network.skips else made
        made = (made @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]).relu()
        assert float((made > 0).any(0).float().mean()) > 0.2, layer


# What is kept.


class Killed(BaseException):
    """As Ctrl-C and the page's Stop: no Exception."""


def killing(at, told=None):
    def progress(stage, done, total):
        if told is not None:
            told.append((stage, done, total))
        if done == at:
            raise Killed

    return progress


WORKS = {
    "atlas": AtlasWork(ATLAS, footage(torch.float32)),
    "canonical": CanonicalWork(CANONICAL, footage(torch.float32)),
}


@pytest.mark.parametrize("kind", WORKS)
def test_a_fit_that_was_killed_goes_on_to_the_same_bits(kind, tmp_path):
    work, told = WORKS[kind], []
    whole = fitted(work, NOWHERE, "cpu", silent)
    store = Kept(tmp_path, 1, "fit")
    with pytest.raises(Killed):
        fitted(work, store, "cpu", killing(5))
    assert len(list(tmp_path.glob("??/*-half.safetensors"))) == 1
    again = fitted(work, store, "cpu", lambda *each: told.append(each))
    assert told[0] == ("fit", 5, work.steps) and told[-1] == ("fit", work.steps, work.steps)
    assert not again.kept and again.error == whole.error
    assert all(torch.equal(again.weights[name], each) for name, each in whole.weights.items())
    found = fitted(work, store, "cpu", killing(-1))
    assert found.kept and found.seconds == pytest.approx(again.seconds, abs=0.1)
    assert all(torch.equal(found.weights[name], each) for name, each in whole.weights.items())
    assert not list(tmp_path.glob("??/*-half.safetensors"))
    other = replace(work, recipe=replace(work.recipe, seed=1))
    assert other.name != work.name and not fitted(other, store, "cpu", silent).kept


def test_a_fit_tells_where_it_was_made_and_has_the_same_name_everywhere(tmp_path, monkeypatch):
    """Begun on one device, gone on with on another, kept for a third."""
    work, store = WORKS["canonical"], Kept(tmp_path, 1, "fit")
    monkeypatch.setattr(fit_module, "device_of", lambda weights: "slow")
    with pytest.raises(Killed):
        fitted(work, store, "cpu", killing(5))
    monkeypatch.setattr(fit_module, "device_of", lambda weights: "fast")
    assert fitted(work, store, "cpu", silent).facts()["fit_device"] == "slow, fast"
    monkeypatch.undo()
    found = fitted(work, store, "cpu", silent)
    assert found.kept and found.device == "slow, fast"
    assert fitted(work, NOWHERE, "cpu", silent).device == "cpu"
    (path,) = tmp_path.glob("??/*.safetensors")
    weights, about = load_file(path), {**store.facts(path.stem)}
    del about["device"]  # as older ones are
    store.save(path.stem, weights, about)
    older = fitted(work, store, "cpu", silent)
    assert older.kept and "fit_device" not in older.facts()


def test_a_fit_that_was_killed_within_a_step_is_not_kept_in_pieces(tmp_path, monkeypatch):
    """What the weights had learnt and what is said of them would not belong together."""
    work, store, step = WORKS["canonical"], Kept(tmp_path, 1, "fit"), torch.optim.Adam.step
    whole = fitted(work, NOWHERE, "cpu", silent)

    def killed(self, *more):
        made = step(self, *more)
        if all(each["step"] == 2 for each in self.state.values()):
            raise Killed
        return made

    monkeypatch.setattr(torch.optim.Adam, "step", killed)
    with pytest.raises(Killed):
        fitted(work, store, "cpu", silent)
    monkeypatch.setattr(torch.optim.Adam, "step", step)
    again = fitted(work, store, "cpu", silent)
    assert all(torch.equal(again.weights[name], each) for name, each in whole.weights.items())


def test_a_fit_that_goes_while_it_is_looked_up_is_made_again(tmp_path, monkeypatch):
    work, store = WORKS["canonical"], Kept(tmp_path, 1, "fit")
    fitted(work, store, "cpu", silent)
    load = Kept.load

    def taken(self, key):
        found = load(self, key)
        self.drop(key)
        return found

    monkeypatch.setattr(Kept, "load", taken)
    assert not fitted(work, store, "cpu", silent).kept


def test_what_changes_a_fit_changes_its_name_and_where_it_is_kept_does_not():
    work = WORKS["atlas"]
    made = work.footage
    others = [replace(work, detached=False), replace(work, recipe=replace(work.recipe, points=11))]
    others += [replace(work, footage=replace(made, marked=1 - made.marked))]
    others += [replace(work, footage=replace(made, flow=made.flow + 1))]
    assert len({each.name for each in (work, *others)}) == 5
    assert replace(work, recipe=replace(work.recipe, kept="elsewhere", kept_gb=9)).name == work.name


# What is refused.


@pytest.mark.parametrize("kind", WORKS)
def test_numbers_that_are_not_finite_end_a_fit_with_their_step(kind):
    made = footage(torch.float32)
    made.frames[1, 0, 2, 2] = math.nan
    with pytest.raises(UserError, match=r"Step \d+ of the fit") as refused:
        fitted(replace(WORKS[kind], footage=made), NOWHERE, "cpu", silent)
    assert "method.fit.rate" in str(refused.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AtlasRecipe(iterations=0), "iterations is too small"),
        (lambda: AtlasRecipe(rate=0), "rate is too small"),
        (lambda: CanonicalRecipe(deformation_rate=0), "deformation_rate is too small"),
        (lambda: AtlasRecipe(depths=[2, 2, 2]), "depths is 4 numbers"),
        (lambda: AtlasRecipe(depths=[2, 2, 1, 2]), "depths is too small"),
        (lambda: AtlasRecipe(kept_gb=0), "budget"),
        (lambda: CanonicalRecipe(anneal=[0.8, 0.4]), "anneal"),
        (lambda: CanonicalRecipe(reference="midle"), "no frame"),
        (lambda: CanonicalRecipe(reference_share=2), "share"),
        (lambda: CanonicalRecipe(flow=-1), "flow is too small"),
        (lambda: frame_of("key", 8, 8), "0 to 7"),
    ],
)
def test_bad_numbers_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


@pytest.mark.parametrize("kind", WORKS)
def test_the_forecast_of_a_fit_is_what_its_steps_reckon(kind):
    """Without what is left out: no way back to coordinates, and points without a flow."""
    work = WORKS[kind]
    work = replace(
        work, recipe=replace(work.recipe, iterations=1, **({"pretrain": 0} if kind == "atlas" else {}))
    )
    weights = {name: each.requires_grad_() for name, each in work.begin().items()}
    with FlopCounterMode(display=False) as counted:
        work.loss(weights, 0).backward()
    told = 2 * work.recipe.multiplications(*work.footage.size)
    assert 0.6 * told < counted.get_total_flops() < 1.1 * told


def test_frames_by_name_and_number():
    assert [frame_of("key", each, 8) for each in ("first", "middle", "last", -1, 3)] == [0, 4, 7, 7, 3]


def test_large_frames_get_the_released_numbers_and_small_ones_smaller():
    small, large = (AtlasRecipe(points=7).for_clip(*size) for size in ((128, 128), (432, 768)))
    assert (large.iterations, large.depths, large.points) == (400_000, (6, 4, 8, 8), 7)
    assert small.iterations < 10_000 and small.points == 7
    networks_ = AtlasWork(large, footage()).atlases.networks
    released = sum(before * after + after for each in networks_.values() for before, after in each.sides())
    assert released == 1_217_152
    work = CanonicalWork(CanonicalRecipe().for_clip(432, 768), footage())
    assert {work.rate(0) * work.share(name) for name in work.begin()} == {1e-3}
    fields = work.fields.networks
    sizes = [sum(a * b + b for a, b in each.sides()) for each in fields.values()]
    assert [round(size / 1000) for size in sizes] == [94, 545]


# Parts.

CORNERS = [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_bands_are_switched_on_one_after_the_other():
    assert annealed(2, 10, 10, 20) == [0, 0] and annealed(2, 30, 10, 20) == [1, 1]
    assert annealed(2, 15, 10, 20) == pytest.approx([0.5, 0]) and annealed(2, 25, 10, 20) == pytest.approx(
        [1, 0.5]
    )


def test_flow_that_leads_out_or_to_what_is_hidden_is_not_trusted():
    made = footage()
    assert not made.trusted[-1].any() and not made.trusted[:, :, 5].any() and not made.trusted[:, 0, 4:].any()
    free = Footage.of(made.frames.float(), OpticalFlow(made.flow[:-1].float()))
    assert (free.trusted & ~made.trusted).any() and (free.trusted | ~made.trusted).all()


def test_scattered_values_are_linear_in_between_and_nothing_outside():
    rng = np.random.default_rng(0)
    places = torch.from_numpy(np.concatenate([CORNERS, rng.random((9, 2))])).float()
    tilt = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])
    found = triangulated(places, places @ tilt + 1)
    at = torch.tensor([[0.3, 0.6], [0.9, 0.1], [1.5, 0.5]])
    assert torch.allclose(found(at)[:2], (at @ tilt + 1)[:2], atol=1e-5) and not found(at)[2].any()
    for few in (places[:2], torch.tensor([[0.0, 0], [1, 1], [2, 2]])):
        assert not triangulated(few, torch.ones(len(few), 1))(at).any()


def test_a_window_lies_in_its_frame_and_has_its_shape():
    work = CanonicalWork(CanonicalRecipe(points=6).for_clip(4, 6), footage())
    found = [work.window(step) for step in range(200)]
    assert {each.frame for each in found} == {0, 1, 2}
    assert all(
        (each.rows.stop - each.rows.start, each.columns.stop - each.columns.start) == (2, 3) for each in found
    )
    assert {(each.rows.start, each.columns.start) for each in found} == {
        (y, x) for y in range(3) for x in range(4)
    }


def test_a_network_sees_its_input_again_where_it_is_told():
    plan = networks.Mlp(2, 1, 3, 4, skips=(2,))
    assert plan.sides() == [(2, 4), (4, 4), (6, 1)] and plan.multiplications() == 8 + 16 + 6
    weights = {name: torch.zeros_like(each) for name, each in plan.fresh(torch.Generator()).items()}
    weights["2.weight"][0, 4:] = torch.tensor([1.0, 10.0])
    assert plan(weights, torch.tensor([[2.0, 3.0]])).item() == 32
