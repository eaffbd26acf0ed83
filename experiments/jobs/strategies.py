"""The mask strategies that `freemask edit masks=...` lays side by side, each as the command would make it."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config import choices
from experiments.config.build import build
from experiments.config.compose import composed, plain
from experiments.jobs.beyond import shipped, unknown
from experiments.jobs.edit import fit, model_of
from experiments.jobs.one_clip import read
from experiments.runs.progress import Reporter
from freemask.data.one import OneClip
from freemask.masks.look import Look, look
from freemask.masks.plan import MaskStrategy, Subject
from freemask.types import Clip, DataSource, EditTask


def strategies_of(asked: str | Sequence[str], overrides: Sequence[str]) -> dict[str, MaskStrategy]:
    """`all`, a name or several. What was typed of mask.* holds for every strategy that has such a key."""
    names = [asked] if isinstance(asked, str) else list(asked)
    if names == ["all"]:
        names = [each.name for each in choices.group("mask")]
    for name in names:
        choices.option("mask", name)
    return {name: _made(name, overrides) for name in names}


def looked(
    config: Mapping[str, Any],
    strategies: Mapping[str, MaskStrategy],
    task: EditTask,
    data: DataSource,
    frames: int | None,
    reporter: Reporter,
) -> tuple[Clip, Look, list[str]]:
    """The clip as the model takes it, what the strategies see, and what was remarked meanwhile."""
    method = config["method"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        reporter.busy("loading the model")
        backbone = model_of(config)
        if isinstance(data, OneClip):
            data = read(data, frames, backbone)
        fit(data, backbone)
        beyond = unknown(backbone, shipped(config["model"]), task, data)
        clip, times = data.clip(task), backbone.noise_path.times(method["steps"])
        with build(config["tuning"], "tuning").on(backbone, clip, task, reporter.stage):
            subject = Subject.of(backbone, clip, task, times, keep_object=method.get("keep_object"))
            kept = method.get("inversions")
            found = look(backbone, subject, strategies, inversions=kept, progress=reporter.stage)
    notes = dict.fromkeys(str(each.message) for each in caught if each.category is UserWarning)
    return clip, found, [f"note: {note}" for note in [*beyond, *notes]]


def _made(name: str, overrides: Sequence[str]) -> MaskStrategy:
    known = choices.content("mask", name)
    kept = [f"mask={name}"]
    for each in overrides:
        key, *_ = each.lstrip("+").partition("=")
        if key not in ("mask", "masks") and (not key.startswith("mask.") or _has(known, key.split(".")[1:])):
            kept.append(each)
    return build(plain(composed("edit", kept).cfg)["mask"], "mask")


def _has(node: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return True
