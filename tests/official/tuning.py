"""Tuning on a clip against a stored case: its errors, gradients and weights step by step, from the stored latents,
noise and times; and the tuned weights as the authors' code leaves them on a disk."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

from experiments.cli.quoting import quoted
from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.tuning.recipe import Recipe
from freemask.tuning.steps import Draw, Learner
from freemask.types import Clip, EditTask, Given
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import FORCED, Ledger, relative
from tests.official.tuned import loaded, stored_weights

Weights = dict[str, Tensor]


@dataclass
class Lesson:
    """A network that is being tuned, beside what is stored of it."""

    case: Case
    ledger: Ledger
    backbone: Any
    start: Weights  # of all that could learn, before
    end: Weights  # and after
    gradients: Weights = field(default_factory=dict)  # of the last step, before they were cut
    unsure: Weights = field(default_factory=dict)  # where Adam made a whole step of little more than rounding

    def judge(self, group: str, where: str, ours: Tensor, theirs: Tensor, limit: str) -> None:
        number = self.case.number(limit, LIMITS[limit])
        self.ledger.note(f"tuning: {group}", FORCED, where, relative(ours, theirs), number)

    def exactly(self, group: str, where: str, same: bool) -> None:
        self.ledger.note(f"tuning: {group}", FORCED, where, 0.0 if same else 1.0, 0.0)

    @property
    def names(self) -> list[str]:
        """Of what could learn, as we call it, in the order of the case."""
        return [ours(name) for name in self.case.about["tuned_names"]]

    def now(self, name: str) -> Tensor:
        return self.backbone.network.get_parameter(name).detach()


# Where a manifest says nothing, what others of its kind say.
LIMITS = {
    "teacher_forced": 1e-4,
    "layers_and_unet_out": 1e-5,
    "tune_loss": 1e-5,
    "tune_grad_norms": 1e-4,
    "tune_gradients": 1e-3,  # of the card; later ones come from weights of which Adam made some out of rounding
    "tuned_weights": 2e-4,
    "change_of_tuned_weights": 1e-3,
}
SURE = 1e-6  # a hundred times what Adam adds to a gradient's size before it divides


def compare(case: Case, ledger: Ledger, tuned: Any, look: str, wanted: Wanted) -> None:
    """`tuned`: the model with the stored weights; `look`: whom its frames look at."""
    recipe = recipe_of(case)
    stored = {
        stage: {ours(name): each for name, each in found.items()}
        for stage, found in stored_weights(case).items()
    }
    with loaded(case, look, temporal=False) as backbone:
        known = {name: each.clone() for name, each in backbone.network.state_dict().items()}
        more = stored["init"]
        fresh = backbone.fresh("attention", seed=recipe.seed, bias=recipe.variant == "official", rank=1)
        lesson = Lesson(case, ledger, backbone, {**known, **more}, stored["tuned"])
        lesson.exactly("layers that are put in", "names and shapes", _shapes(fresh) == _shapes(more))
        encoded(lesson)
        with backbone.tuned(recipe.learning, more=more) as tuning:
            names(lesson, set(tuning.weights))
            learner = learner_of(backbone, tuning.weights, recipe, case)
            count = recipe.steps if wanted.steps is None else max(1, min(wanted.steps, recipe.steps))
            for i in range(count):
                wanted.progress("tuning, step by step", i, count)
                step(lesson, learner, i)
            if count == recipe.steps:
                ended(lesson)
        now = backbone.network.state_dict()
        same = list(now) == list(known) and all(torch.equal(now[name], known[name]) for name in known)
        lesson.exactly("the network's own weights", "given back", same)
        released(lesson, tuned)


def recipe_of(case: Case) -> Recipe:
    """As a user would give it."""
    said = case.about["training"]
    lines = [
        "tuning=tune_a_video",
        f"tuning.steps={said['max_train_steps']}",
        f"tuning.rate={said['learning_rate']}",
        f"tuning.most={said['max_grad_norm']}",
        f"tuning.seed={said['seed']}",
        f"tuning.variant={'official' if said['gradient_checkpointing'] else 'paper'}",
        "tuning.kept=null",
    ]
    decay = re.search(r"weight decay ([0-9.e-]+)", said["optimizer"])
    lines += [f"tuning.decay={decay[1]}"] if decay else []
    print("freemask tune " + " ".join(lines))
    return _built(lines)


def _built(lines: list[str]) -> Recipe:
    return build(plain(config_of("edit", lines))["tuning"], "tuning")


def _shapes(found: Weights) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in found.items()}


def ours(name: str) -> str:
    return name.replace(".attn_temp.", ".attn_temporal.").replace(".norm_temp.", ".norm_temporal.")


def encoded(lesson: Lesson) -> None:
    """The frames of tuning; those of the edit may be others."""
    case, backbone = lesson.case, lesson.backbone
    pixels = case["tune/pixels_u8" if "tune/pixels_u8" in case else "pixels_u8"]
    frames = rearrange(pixels.float() / 255, "f h w c -> f c h w")
    scale = backbone.codec.scale
    lesson.judge("frames", "mean", backbone.encode(frames), case["vae/mean"] * scale, "teacher_forced")
    lesson.judge("frames", "spread", backbone.spread(frames), case["vae/std"] * scale, "teacher_forced")
    if "vae/sample" in case:
        sample = case.latents("tune/latents")[-1]
        lesson.judge("frames", "sample", sample, case["vae/sample"] * scale, "teacher_forced")


def names(lesson: Lesson, learning: set[str]) -> None:
    """What learns is what has a gradient, or was changed: a gradient of zero still lets weights decay."""
    lengths = lesson.case["tune/grad_norms"]
    theirs = {name for name, of_one in zip(lesson.names, lengths.T, strict=True) if bool(of_one.any())}
    theirs |= {name for name, end in lesson.end.items() if not torch.equal(end, lesson.start[name])}
    lesson.exactly("names of what learns", f"{len(learning)} of {len(lesson.names)}", learning == theirs)


def learner_of(backbone: Any, learning: Weights, recipe: Recipe, case: Case) -> Learner:
    given: Given = backbone.embed(case.about["source_prompt"]).given
    return Learner(backbone, learning, given, recipe.rate, recipe.decay, recipe.most)


def step(lesson: Lesson, learner: Learner, i: int) -> None:
    case = lesson.case
    latents, noise = (case.latents(f"tune/{name}")[i] for name in ("latents", "noise"))
    draw = Draw(latents, noise, int(case["tune/timesteps"][i]))
    if f"tune/unet_out/{i:02d}" in case:
        noisy = lesson.backbone.noise_path.noised(latents, noise, draw.t)
        out = lesson.backbone.predict(noisy[None], draw.t, {"source": learner.given})
        theirs = case.latents(f"tune/unet_out/{i:02d}")
        lesson.judge("network output", f"step {i}", out, theirs.reshape(out.shape), "layers_and_unet_out")
    with gradients(lesson, learner):
        made = learner.step(draw)
    lesson.judge("errors", f"step {i}", torch.tensor(made.error), case["tune/loss"][i], "tune_loss")
    whole = torch.tensor(made.length)
    theirs = case["tune/grad_norm_total"][i]
    lesson.judge("lengths of gradients", f"step {i}, all", whole, theirs, "tune_grad_norms")
    lengths(lesson, i)
    for name, weight in learner.weights.items():
        assert weight.grad is not None
        size, before = weight.grad.abs(), lesson.unsure.get(name, torch.zeros((), dtype=torch.bool))
        lesson.unsure[name] = before | ((size > 0) & (size < SURE))
    for name in case.names(f"tune/grad/{i:02d}/"):
        found = lesson.gradients[ours(name.split("/")[-1])]
        lesson.judge("gradients", f"step {i} {name}", found, case[name], "tune_gradients")
    for name in case.names(f"tune/params/{i:02d}/"):
        changed(lesson, "weights on the way", ours(name.split("/")[-1]), case[name], f"step {i} ")


def lengths(lesson: Lesson, i: int) -> None:
    """Of all gradients and weights, in the order of the case; what does not learn has none at all."""
    case, none = lesson.case, torch.zeros(())
    theirs = case["tune/grad_norms"][i]
    ours = torch.stack([lesson.gradients.get(name, none).norm() for name in lesson.names])
    lesson.judge("lengths of gradients", f"step {i}", ours, theirs, "tune_grad_norms")
    lesson.exactly("gradients that are there", f"step {i}", torch.equal(ours > 0, theirs > 0))
    if "tune/param_norms" in case:
        ours = torch.stack([lesson.now(name).norm() for name in lesson.names])
        lesson.judge("lengths of weights", f"step {i}", ours, case["tune/param_norms"][i], "tuned_weights")


@contextmanager
def gradients(lesson: Lesson, learner: Learner) -> Iterator[None]:
    """Notes them when they are whole: later they are cut."""
    lesson.gradients.clear()

    def noted(name: str) -> Any:
        return lambda weight: lesson.gradients.update({name: weight.grad.detach().clone()})

    hooks = [each.register_post_accumulate_grad_hook(noted(name)) for name, each in learner.weights.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def changed(lesson: Lesson, group: str, name: str, theirs: Tensor, when: str = "") -> tuple[Tensor, Tensor]:
    """A weight hardly differs from what it was: its change is compared, too, where the step was no matter of
    rounding. Answers both changes, whole."""
    start, now = lesson.start[name], lesson.now(name)
    lesson.judge(group, f"{when}{name}", now, theirs, "tuned_weights")
    ours, theirs = now - start, theirs - start
    sure = ~lesson.unsure.get(name, torch.zeros((), dtype=torch.bool))
    where = f"{when}{name}"
    lesson.judge(f"{group}: change", where, ours * sure, theirs * sure, "change_of_tuned_weights")
    return ours, theirs


def ended(lesson: Lesson) -> None:
    both = [changed(lesson, "tuned weights", name, theirs) for name, theirs in lesson.end.items()]
    ours, theirs = (torch.cat([each.flatten().double() for each in side]) for side in zip(*both, strict=True))
    lesson.judge("tuned weights: change", "of all", ours, theirs, "change_of_tuned_weights")
    left_out = sum(int(each.sum()) for each in lesson.unsure.values())
    lesson.ledger.remark(
        f"tuning: {left_out} of {len(ours)} changes count in the sum of all alone, since Adam's first step makes "
        f"them whole whatever the gradient's size, and theirs was below {SURE:g}"
    )


def released(lesson: Lesson, tuned: Any) -> None:
    """The whole network as the authors' code saves it, named as weights to tune with: the same as temporal layers
    that the model is loaded with."""
    case = lesson.case
    latents, t = case.latents("tune/latents")[-1:], int(case["tune/timesteps"][-1])
    about, given = case.about["source_prompt"], lesson.backbone.embed(case.about["source_prompt"]).given
    with TemporaryDirectory() as folder:
        (Path(folder) / "unet").mkdir()
        model = load_file(next((case.model / "unet").glob("*.safetensors")))
        stored = stored_weights(case)
        torch.save(
            {**model, **stored["init"], **stored["tuned"]},
            Path(folder) / "unet" / "diffusion_pytorch_model.bin",
        )
        lines = ["tuning=tune_a_video", quoted("tuning.path", folder), "tuning.allow_pickle=true"]
        clip = Clip("clip", rearrange(case["pixels_u8"].float() / 255, "f h w c -> f c h w"))
        task = EditTask("task", "clip", about, about, {}, "style")
        with _built(lines).on(lesson.backbone, clip, task):
            ours = lesson.backbone.predict(latents, t, {"source": given})
    theirs = tuned.predict(latents, t, {"source": given})
    lesson.exactly("tuning.path", "equals model.temporal", torch.equal(ours, theirs))
