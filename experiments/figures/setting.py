"""What a figure is measured on: the model, the method and one edit of the experiment that it names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Generator

from experiments.config.build import build
from experiments.config.compose import composed, plain
from experiments.config.identity import method_of
from experiments.jobs import seeds
from experiments.jobs.edit import data_for, model_of
from freemask.errors import UserError, nearest
from freemask.types import Backbone, Clip, EditTask


@dataclass(frozen=True)
class Setting:
    backbone: Backbone
    method: Any
    clip: Clip
    task: EditTask
    seed: int
    about: str  # for the caption: the model, the number of steps, the edit

    @classmethod
    def of(cls, experiment: str, change: Sequence[str], tasks: Sequence[str]) -> "Setting":
        """`change` are overrides of the experiment; of its tasks the one asked for, or the first."""
        made = composed("run", [f"experiment={experiment}", *change])
        config = plain(made.cfg)
        method = build(config["method"], "method")
        method_of(
            config, made.choices.get("model")
        )  # a codebook that is not there is told before a model is loaded
        task = _asked(build(config["data"], "data").tasks(), tasks)
        backbone = model_of(config)
        data = data_for(backbone, config)
        clip = data.clip(task)
        if (check := getattr(method, "check", None)) is not None:
            check(task, lambda: clip)
        frames, _, height, width = clip.frames.shape
        steps = f", {config['method']['steps']} steps" if "steps" in config["method"] else ""
        about = f"{made.choices.get('model')}{steps}, {frames} frames of {width}x{height}, edit {task.id}"
        return cls(backbone, method, clip, task, config["seed"], about)

    def rng(self) -> Generator:
        """As a run draws for this task."""
        return seeds.generator(self.seed, self.task.id)


def _asked(tasks: Sequence[EditTask], asked: Sequence[str]) -> EditTask:
    known = {task.id: task for task in tasks}
    if len(asked) > 1:
        raise UserError(
            "this figure shows one edit", came=f"tasks=[{','.join(asked)}]", expected="one of them"
        )
    if asked and asked[0] not in known:
        came, todo = f"tasks=[{asked[0]}]", "change='data.clips=20' for more of them"
        raise UserError("there is no such edit", came=came, expected=nearest(asked[0], known), todo=todo)
    return known[asked[0]] if asked else tasks[0]
