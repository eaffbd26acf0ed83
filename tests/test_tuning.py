"""Tuning on one clip: what is learnt, kept, found again and refused, and that the model is as before afterwards."""

from contextlib import contextmanager
from dataclasses import fields, replace
from threading import Event, Thread
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.tuning import Tuned
from freemask.backbones.unet3d import UNet3D
from freemask.backbones.wan import Wan
from freemask.errors import UserError
from freemask.tuning import lock, recipe
from freemask.tuning.recipe import NoTuning, Recipe
from freemask.tuning.steps import Draws, Learner
from freemask.types import Clip, EditTask, silent

QUERIES = ("*.attn1.to_q.weight", "*.attn2.to_q.weight")
ALONG = (*QUERIES, "*.attn_temporal.*")
CONVOLUTIONS = ("*.to_q.weight", "*.attn_temporal.*", "*.conv_temporal.*")
BASE = Recipe(steps=2, rate=1e-3, weights=ALONG, temporal="attention", kept=None)
LORA = replace(BASE, weights=QUERIES, temporal="none", rank=2)
FATEZERO = replace(BASE, weights=CONVOLUTIONS, temporal="attention_and_convolutions", convolution_rank=4)
TASK = EditTask("t", "c", "a red car", "a blue car", {"red car": "blue car"}, "attribute")


def clip_of(seed=0, frames=3):
    rng = torch.Generator().manual_seed(seed)
    return Clip("c", torch.rand(frames, 3, 16, 16, generator=rng))


CLIP = clip_of()


def model(seed=0, **options):
    return Inflated2D.random(seed, max_tokens=20, **options)


def answer(backbone):
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(1, 3, 4, 8, 8, generator=rng)
    return backbone.predict(x, 300, {"cond": backbone.embed("a blue car").given})


class Learnt(NamedTuple):
    answer: torch.Tensor
    facts: dict
    identity: str


def learn(backbone, made, clip=CLIP, task=TASK, progress=silent):
    with made.on(backbone, clip, task, progress) as learnt:
        return Learnt(answer(backbone), learnt.facts, backbone.identity)


def same(one, other):
    return torch.equal(one.answer, other.answer) and one.identity == other.identity


def state_of(backbone):
    """All by which it could differ afterwards."""
    modules = dict(backbone.network.named_modules())
    hooks = {name: (len(each._forward_hooks), len(each._forward_pre_hooks)) for name, each in modules.items()}
    flags = {name: getattr(each, "gradient_checkpointing", None) for name, each in modules.items()}
    learning = [(name, each.requires_grad, each.grad) for name, each in backbone.network.named_parameters()]
    return hooks, flags, learning, dict(backbone.sites), backbone.identity


@contextmanager
def as_before(backbone):
    values = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    state = state_of(backbone)
    yield
    now = backbone.network.state_dict()
    assert list(now) == list(values) and all(torch.equal(now[name], values[name]) for name in values)
    assert state_of(backbone) == state and backbone.identity == backbone.origin


# What is learnt.


@pytest.mark.parametrize("made", [BASE, LORA, FATEZERO], ids=["attention", "lora", "convolutions"])
def test_the_model_is_another_one_while_it_is_tuned_and_as_before_afterwards(made):
    backbone, errors = model(), []
    plain = answer(backbone)
    with as_before(backbone), made.on(backbone, CLIP, TASK, lambda *told: errors.append(told)) as learnt:
        facts = learnt.facts
        assert facts["tuning_steps"] == 2 and facts["tuning_kept"] is False and facts["tuning_seconds"] > 0
        assert not torch.equal(answer(backbone), plain) and not answer(backbone).requires_grad
        assert all(weight.grad is None for weight in backbone.network.parameters())
        names = [name for name, _ in backbone.network.named_parameters() if "temporal" in name]
        assert bool(names) == (made.temporal != "none") and backbone.identity != backbone.origin
        if made is FATEZERO:
            ups = [backbone.network.get_parameter(name) for name in names if "conv_temporal.up" in name]
            assert ups and all(bool(each.any()) for each in ups)  # they were zero
    assert errors == [("tuning", done, 2) for done in range(3)]
    assert torch.equal(answer(backbone), plain)


@pytest.mark.parametrize("made", [BASE, FATEZERO], ids=["attention", "convolutions"])
def test_layers_that_learnt_nothing_change_nothing_unless_as_released(made):
    backbone = model()
    plain, options = answer(backbone), {"seed": 1, "rank": 4}
    for bias in (False, True):
        more = backbone.fresh(made.temporal, bias=bias, **options)
        with backbone.tuned(list(made.weights), more=more):
            assert torch.equal(answer(backbone), plain) is not bias


def test_as_released_nothing_on_the_way_down_learns():
    backbone, official = model(), replace(BASE, variant="official")
    before = {name: each.clone() for name, each in backbone.network.named_parameters()}
    before |= backbone.fresh("attention", seed=official.seed, bias=True, rank=1)
    with official.on(backbone, CLIP, TASK):
        now = dict(backbone.network.named_parameters())
        changed = {name for name, value in before.items() if not torch.equal(now[name], value)}
    assert set(now) == set(before)
    assert {name.split(".")[0] for name in changed} == {"mid_block", "up_blocks"}
    assert all("attn1.to_q" in name or "attn2.to_q" in name or "attn_temporal" in name for name in changed)


@pytest.mark.parametrize("most", [0.001, 100.0])
def test_a_step_is_that_of_adam_with_decay_on_a_gradient_cut_to_its_length(most):
    """Written out for all weights; the stored cases of others never cut."""
    backbone, rate, decay = model(), 0.02, 0.3
    mean, spread = backbone.encode(CLIP.frames), backbone.spread(CLIP.frames)
    draws, said = Draws(backbone, mean, spread, 5), backbone.embed(TASK.source).given
    with backbone.tuned(["*.attn1.to_q.weight"]) as tuning:
        learner = Learner(backbone, tuning.weights, said, rate, decay, most)
        expected = {name: value.double() for name, value in tuning.state().items()}
        first, second = ({name: 0 * value for name, value in expected.items()} for _ in range(2))
        for step in (1, 2):
            draw = draws.at(step)
            noisy = backbone.noise_path.noised(draw.latents, draw.noise, draw.t)
            error = (backbone.predict(noisy[None], draw.t, {"x": said})[0] - draw.noise).square().mean()
            raw = torch.autograd.grad(error, list(tuning.weights.values()))
            length = float(torch.stack([each.double().square().sum() for each in raw]).sum().sqrt())
            for name, each in zip(expected, raw, strict=True):
                cut = each.double() * min(1, most / length)
                first[name] = 0.9 * first[name] + 0.1 * cut
                second[name] = 0.999 * second[name] + 0.001 * cut**2
                size = (second[name] / (1 - 0.999**step)).sqrt() + 1e-8
                expected[name] *= 1 - rate * decay
                expected[name] -= rate * first[name] / (1 - 0.9**step) / size
            made = learner.step(draw)
            assert made.error == pytest.approx(float(error.detach())) and made.length == pytest.approx(
                length, rel=1e-4
            )
            assert (length > most) == (most < 1)
        for name, weight in tuning.weights.items():
            torch.testing.assert_close(weight.detach().double(), expected[name], atol=2e-5, rtol=0)


def test_every_step_has_random_numbers_of_its_own():
    backbone = model()
    mean, spread = backbone.encode(CLIP.frames), backbone.spread(CLIP.frames)
    draws = Draws(backbone, mean, spread, 5)
    one, again, other = draws.at(0), draws.at(0), Draws(backbone, mean, spread, 6).at(0)
    assert torch.equal(one.latents, again.latents) and one.t == again.t
    for each in (draws.at(1), other):
        assert not torch.equal(one.latents, each.latents) and not torch.equal(one.noise, each.noise)
    many = [draws.at(step) for step in range(60)]
    assert 0.3 < sum(each.t for each in many) / 60 / backbone.noise_path.train_times < 0.7
    gaps = torch.stack([(each.latents - mean) / spread for each in many])
    assert abs(float(gaps.mean())) < 0.05 and float(gaps.std()) == pytest.approx(1, abs=0.05)


# Less memory.


NETWORKS = {
    "attention": (model, BASE.weights, "attention", 0),
    "convolutions": (model, FATEZERO.weights, "attention_and_convolutions", 0),
    "lora": (model, QUERIES, "none", 2),
    "video": (lambda: UNet3D.random(0, max_tokens=20), QUERIES[:1], "none", 0),
    "transformer": (lambda: Wan.random(0), QUERIES[:1], "none", 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpointing_runs_blocks_again_and_changes_no_number(name):
    make, patterns, kind, rank = NETWORKS[name]
    backbone, found = make(), []
    latents = backbone.encode(torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)))[None]
    more, said = backbone.fresh(kind, seed=1, bias=True, rank=4), backbone.embed(TASK.source).given
    blocks = [each for each in backbone.network.modules() if type(each).__name__.endswith("TransformerBlock")]
    with as_before(backbone):
        for checkpointing in (False, True):
            with backbone.tuned(patterns, rank=rank, more=more, checkpointing=checkpointing) as tuning:
                kept, runs = [], []
                hooks = [
                    each.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1)) for each in blocks
                ]
                with torch.autograd.graph.saved_tensors_hooks(
                    lambda each, kept=kept: kept.append(each.numel()) or each, lambda each: each
                ):
                    error = backbone.predict(latents, 300, {"source": said}).square().mean()
                error.backward()
                gradients = {key: weight.grad.clone() for key, weight in tuning.weights.items()}
                found.append((error.detach(), gradients, sum(kept), len(runs)))
                for hook in hooks:
                    hook.remove()
    (plain, ours, whole, once), (again, theirs, little, twice) = found
    assert torch.equal(plain, again) and all(torch.equal(ours[key], theirs[key]) for key in ours)
    rerun = 16 if name == "video" else once  # diffusers runs its blocks along time once
    assert little < 0.85 * whole and twice == once + rerun


# What is kept.


class Killed(BaseException):
    """Nothing is saved any more, as when the process ends."""


def stopped(done, by):
    def progress(stage, at, total):
        if at == done:
            raise by

    return progress


@pytest.mark.parametrize(("made", "dtype"), [(BASE, "float32"), (LORA, "float16")])
def test_a_tuning_that_was_killed_goes_on_to_the_same_weights(made, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "SAVE_EVERY", -1)
    backbone, made = model(dtype=dtype), replace(made, steps=3)
    unbroken = learn(backbone, replace(made, kept=str(tmp_path / "a")))
    begun, told = replace(made, kept=str(tmp_path / "b")), []
    with as_before(backbone), pytest.raises(Killed):
        learn(backbone, begun, progress=stopped(2, Killed))
    assert len(list(tmp_path.glob("b/*/*-half.safetensors"))) == 1
    ended = learn(backbone, begun, progress=lambda _, done, total: told.append(done))
    assert told == [1, 2, 3] and same(ended, unbroken)  # the second step was not saved yet
    for name in ("steps", "error_first", "error_last"):
        assert ended.facts[f"tuning_{name}"] == unbroken.facts[f"tuning_{name}"]
    assert not list(tmp_path.glob("*/*/*-half.safetensors")) and not list(tmp_path.glob("*/*/.*"))
    found = learn(backbone, begun)
    assert same(found, unbroken) and found.facts == {**ended.facts, "tuning_kept": True}


def test_stopped_by_hand_it_loses_no_step(tmp_path):
    backbone, made, told = model(), replace(LORA, steps=3, kept=str(tmp_path)), []
    with as_before(backbone), pytest.raises(KeyboardInterrupt):
        learn(backbone, made, progress=stopped(2, KeyboardInterrupt))
    ended = learn(backbone, made, progress=lambda _, done, total: told.append(done))
    assert told == [2, 3] and same(ended, learn(backbone, replace(made, kept=None)))


def test_tuned_weights_are_found_by_all_that_ask_for_the_same_and_by_no_other(tmp_path):
    made = replace(LORA, steps=1, kept=str(tmp_path))
    backbone, told = model(), []
    first = learn(backbone, made)
    edits = (TASK, replace(TASK, id="u", target="a dog", words={"red car": "dog"}, kind="shape"))
    for each in (made, replace(made, checkpointing=True, kept_gb=9)):
        for task in edits:
            found = learn(backbone, each, task=task, progress=lambda *said: told.append(said))
            assert found.facts["tuning_kept"] is True and same(found, first) and not told
    others = [
        learn(backbone, made, clip=clip_of(1)),
        learn(backbone, made, task=replace(TASK, source="a red bus")),
        learn(backbone, replace(made, seed=34)),
        learn(model(1), made),
        learn(model(dtype="float16"), made),
    ]
    assert [each.facts["tuning_kept"] for each in others] == [False] * len(others)
    assert len({each.identity for each in (first, *others)}) == len(others) + 1


def test_all_settings_count_but_those_of_storing_and_saving():
    apart = {"path", "allow_pickle", "checkpointing", "kept", "kept_gb"}
    assert set(BASE.counted()) == {each.name for each in fields(Recipe)} - apart
    assert (
        BASE.counted() != replace(BASE, rate=2e-3).counted() == replace(BASE, rate=2e-3, kept="x").counted()
    )


def test_layers_that_are_put_in_tell_a_model_from_another():
    """Before a step, and where they are no part of what learns."""
    backbone, names = model(), []
    for kind, bias, seed in (
        ("none", False, 0),
        ("attention", False, 0),
        ("attention", True, 0),
        ("attention", True, 1),
    ):
        more = backbone.fresh(kind, seed=seed, bias=bias, rank=4)
        with backbone.tuned(QUERIES, more=more):
            names.append(backbone.identity)
    assert len(set(names)) == 4


def test_an_identity_is_that_of_what_was_learnt_last_whenever_it_was_asked_for_before():
    """It names what is stored of the tuned model, such as inversions."""
    backbone = model()
    with backbone.tuned(QUERIES) as tuning:
        names, begun = [backbone.identity], tuning.state()
        for settled in (False, True):
            with torch.no_grad():
                for weight in tuning.weights.values():
                    weight.add_(1)
            if settled:
                tuning.settle()
            names.append(backbone.identity)
        assert len(set(names)) == 3 and backbone.identity == names[-1]
        tuning.load(begun)
        assert backbone.identity == names[0]


def test_two_at_once_tune_once(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WAIT", 0.01)
    made, waiting, found = replace(LORA, steps=1, kept=str(tmp_path)), Event(), {}
    working = Event()

    def first(stage, done, total):
        working.set()
        assert waiting.wait(20)

    def second(stage, done, total):
        found.setdefault("told", []).append(stage)
        waiting.set()

    def work(name, backbone, progress):
        found[name] = learn(backbone, made, progress=progress)

    threads = [Thread(target=work, args=("first", model(), first))]
    threads.append(Thread(target=work, args=("second", Inflated2D.random(seed=0, max_tokens=20), second)))
    threads[0].start()
    assert working.wait(20)
    threads[1].start()
    for thread in threads:
        thread.join(30)
    assert same(found["first"], found["second"])
    assert [found[name].facts["tuning_kept"] for name in ("first", "second")] == [False, True]
    assert len(found["told"]) == 1 and "waiting" in found["told"][0]


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "SAVE_EVERY", -1)
    backbone = model()
    expected = learn(backbone, BASE)

    def full(tensors, path, facts):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("freemask.kept.save_file", full)
    with pytest.warns(UserWarning, match="could not be stored"):
        made = learn(backbone, replace(BASE, kept=str(tmp_path)))
    assert same(made, expected) and not list(tmp_path.glob("*/*safetensors*"))


@pytest.mark.parametrize("path", [False, True], ids=["kept", "path"])
def test_a_damaged_file_is_made_again_or_named(path, tmp_path):
    backbone, made = model(), replace(LORA, steps=1, kept=str(tmp_path))
    expected = learn(backbone, made)
    file = next(tmp_path.glob("*/*.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    if path:
        with pytest.raises(UserError, match="could not be read"):
            learn(backbone, replace(made, path=str(file)))
    else:
        with pytest.warns(UserWarning, match="made again"):
            again = learn(backbone, made)
        assert same(again, expected) and again.facts["tuning_kept"] is False


@pytest.mark.parametrize(
    "make", [lambda: UNet3D.random(0, max_tokens=20), lambda: Wan.random(0)], ids=["unet", "dit"]
)
def test_additions_are_for_every_model(make):
    backbone = make()
    clip = Clip("c", torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    with (
        as_before(backbone),
        replace(LORA, weights=["*.attn1.to_q.weight"]).on(backbone, clip, TASK) as learnt,
    ):
        assert learnt.facts["tuning_steps"] == 2 and backbone.identity != backbone.origin
    with as_before(backbone), pytest.raises(UserError, match="image model"):
        learn(backbone, BASE, clip=clip)


# What cannot be.


def test_numbers_that_are_not_finite_are_named_with_their_step(tmp_path):
    backbone, made = model(), replace(BASE, steps=4, rate=1e30, kept=str(tmp_path))
    with as_before(backbone), pytest.raises(UserError, match="Step 2 .* not finite") as refused:
        learn(backbone, made)
    assert "tuning.rate" in str(refused.value)
    assert not list(tmp_path.glob("*/*.safetensors"))


def test_half_precision_whose_gradients_always_overflow_ends():
    backbone = model(dtype="float16")
    draws = Draws(backbone, backbone.encode(CLIP.frames), backbone.spread(CLIP.frames), 5)
    with backbone.tuned(QUERIES) as tuning:
        learner = Learner(backbone, tuning.weights, backbone.embed("a").given, 1e-3, 0.0, 1.0)
        learner.scaler.load_state_dict({**learner.scaler.state_dict(), "scale": 8.0})
        start = tuning.state()
        for weight in tuning.weights.values():
            weight.register_hook(lambda gradient: gradient * float("inf"))
        for _ in range(3):  # each time the scale gets smaller, and the step is left out
            learner.step(draws.at(0))
        assert all(torch.equal(each, start[name]) for name, each in tuning.state().items())
        later = replace(learner, errors=[])
        later.go_on(learner.tensors())
        assert later.scaler.get_scale() == learner.scaler.get_scale() == 1
        with pytest.raises(UserError, match="not finite") as refused:
            learner.step(draws.at(0))
    assert "float32" in str(refused.value)


def test_an_error_at_any_place_gives_the_model_back():
    backbone = model()
    with as_before(backbone), pytest.raises(ZeroDivisionError), BASE.on(backbone, CLIP, TASK):
        raise ZeroDivisionError
    for options in ({"weights": ["*.to_qq.weight"]}, {"weights": ["*.norm1.weight"], "rank": 2}):
        with as_before(backbone), pytest.raises(UserError):
            learn(backbone, replace(BASE, **options))
    with as_before(backbone):
        more = backbone.fresh("attention", seed=0, bias=True, rank=1)
        with backbone.tuned(ALONG, more=more):
            names = list(backbone.network.state_dict())
            with pytest.raises(RuntimeError, match="tuned already"), backbone.tuned(QUERIES, more=more):
                pass
            assert list(backbone.network.state_dict()) == names


@pytest.mark.parametrize(("rank", "dtype", "step"), [(2, "float32", "_add"), (0, "float16", "_finer")])
def test_memory_that_runs_out_on_the_way_in_leaves_nothing_behind(rank, dtype, step, monkeypatch):
    backbone, whole, calls = model(dtype=dtype), getattr(Tuned, step), []

    def short(*given):
        calls.append(given)
        if len(calls) > 2:
            raise MemoryError
        return whole(*given)

    monkeypatch.setattr(Tuned, step, short)
    with as_before(backbone), pytest.raises(MemoryError), backbone.tuned(QUERIES, rank=rank):
        pass
    backbone.predict(torch.zeros(1, 2, 4, 8, 8), 300, {"cond": backbone.embed("a car").given})
    assert not [each for each in backbone.network.modules() if "weight" in vars(each)]  # no copy stands in


def test_a_clip_of_one_frame_has_nothing_to_learn_along_frames():
    picture = clip_of(frames=1)
    for made in (BASE, FATEZERO):
        with pytest.raises(UserError, match="one frame"):
            made.check(TASK, lambda: picture)
        with pytest.raises(UserError, match="one frame"):
            learn(model(), made, clip=picture)
    for made in (NoTuning(), LORA):
        made.check(TASK, lambda: picture)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"rank": -1},
        {"rate": 0},
        {"decay": -1},
        {"most": 0.0},
        {"variant": "both"},
        {"temporal": "all"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        replace(BASE, **wrong)


# Weights from a file.


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of tuned weights, each with what it was when it was made: ours, with and without additions, and the whole
    network under the released names, which says nothing of what it was tuned from."""
    folder, backbone, found = tmp_path_factory.mktemp("tuned"), model(), {}
    layers = replace(LORA, temporal="attention", weights=("*.to_q.weight",))
    for name, made in (("whole", BASE), ("lora", LORA), ("lora on layers", layers)):
        learnt = learn(backbone, replace(made, kept=str(folder / name)))
        found[name] = next((folder / name).glob("*/*.safetensors")), learnt
    (folder / "released" / "unet").mkdir(parents=True)
    whole = {**backbone.network.state_dict(), **load_file(found["whole"][0])}
    file = folder / "released" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name.replace("_temporal.", "_temp."): each for name, each in whole.items()}, file)
    found["released"] = folder / "released", found["whole"][1]
    return found


@pytest.mark.parametrize("name", ["whole", "lora", "lora on layers", "released"])
def test_weights_from_a_file_are_those_that_were_learnt(files, name):
    path, learnt = files[name]
    backbone, made = model(), replace(BASE, path=str(path))
    with as_before(backbone):
        found = learn(backbone, made)
    assert torch.equal(found.answer, learnt.answer) and found.facts["tuning_kept"] is True
    assert ("tuning_steps" in found.facts) == (name != "released")
    other = model(1)
    with as_before(other), pytest.raises(UserError, match="tuned from another model"):
        learn(other, made)


def test_the_name_of_the_clip_in_a_path(files, tmp_path):
    (tmp_path / "c.safetensors").write_bytes(files["lora"][0].read_bytes())
    made = replace(BASE, path=str(tmp_path / "{clip}.safetensors"))
    assert torch.equal(learn(model(), made).answer, files["lora"][1].answer)
    with pytest.raises(UserError, match="no temporal weights"):
        learn(model(), made, task=replace(TASK, clip="d"))


def test_weights_that_learnt_little_are_taken_and_those_that_learnt_nothing_refused(tmp_path):
    backbone, name = model(), "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    whole = {key: value.clone() for key, value in backbone.network.state_dict().items()}
    made, little = replace(BASE, path=str(tmp_path / "file.safetensors")), whole[name] * (1 + 1e-5)
    save_file(whole, made.path)
    with pytest.raises(UserError, match="those that the model has"):
        learn(backbone, made)
    save_file({**whole, name: little}, made.path)
    with as_before(backbone), made.on(backbone, CLIP, TASK):
        assert torch.equal(backbone.network.get_parameter(name), little)


def test_layers_of_another_width_are_refused_before_any_is_put_in(files, tmp_path):
    backbone, weights = model(), load_file(files["whole"][0])
    layers = {name: each for name, each in weights.items() if "temporal" in name}
    last = list(layers)[-1]
    layers[last] = torch.zeros(7)
    save_file(layers, tmp_path / "layers.safetensors")
    with as_before(backbone), pytest.raises(UserError, match="do not belong"):
        learn(backbone, replace(BASE, path=str(tmp_path / "layers.safetensors")))
