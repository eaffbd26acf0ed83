"""What can be known of edits before any model is loaded: words, annotations and mask files that do not fit."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

from experiments.config.build import build
from experiments.config.identity import beside_load, class_of
from experiments.jobs.edit import fit
from experiments.jobs.one_clip import reach
from experiments.jobs.truth import informed
from experiments.runs.plan import Variant
from freemask.control import images
from freemask.data.one import OneClip
from freemask.errors import UserError
from freemask.masks.several import local_part
from freemask.types import KINDS, Clip, DataSource, EditTask

LOOKS = 20  # tasks of a run that are looked at, spread over the list


class Small(NamedTuple):
    """Stands for a model that takes any size, so that clips are read as small as possible."""

    multiple: int = 1
    native: tuple[int, int] = (16, 16)


def refuse(
    config: Mapping[str, Any],
    task: EditTask,
    data: DataSource,
    frames: int | None = None,
    *,
    loaded: bool = False,
) -> None:
    """Of one edit, whatever its method can see, what its model is shown, and a file that cannot be read. `frames`: so
    many of a file. `loaded`: a model is there already, and not the one that is configured."""
    seen = cache(partial(glimpse, data, task, frames))
    method = informed(build(config["method"], "method"), data, task)
    check = getattr(method, "check", None)
    if check is not None:
        check(task, seen)
    check_model = getattr(method, "check_model", None)
    if check_model is not None and not loaded:
        check_model(config["model"])
    check_layers = getattr(_mask_in_use(method, task), "check_layers", None)
    if check_layers is not None and not loaded:
        check_layers(getattr(class_of(config["model"]), "lacking", ()))
    build(config["tuning"], "tuning").check(task, seen)
    shows = beside_load(config["model"], "shows")
    if not loaded and shows is not None and (shown := shows()):
        images.check(shown, seen())
    if isinstance(data, OneClip):
        seen()


def _mask_in_use(method: Any, task: EditTask) -> Any:
    """The mask that a method makes for this task, where it says for which kinds of edit it makes one."""
    fusion = getattr(method, "fusion", None)
    kinds = getattr(method if fusion is None else fusion, "masked_for", KINDS)
    if local_part(task, kinds) is None or fusion is not None and not fusion.uses_masks(task.kind):
        return None
    return getattr(method, "mask", None)


def refuse_hopeless(variants: Sequence[Variant], data: DataSource, tasks: Sequence[EditTask]) -> None:
    """Of a run, a variant that can do no task at all; where some can be done, the others become rows."""
    looked, clips = tasks[:: max(1, len(tasks) // LOOKS)], {task.clip for task in tasks}
    for variant in variants:
        method = build(variant.config["method"], "method")
        _refuse_one_folder(getattr(method, "mask", None), len(clips))
        wrong = [_wrong(variant, looked[0], data)]
        while wrong[-1] is not None and len(wrong) < len(looked):
            wrong.append(_wrong(variant, looked[len(wrong)], data))
        found = wrong[-1]
        if found is not None:
            of = "" if variant.name is None else f"variant '{variant.name}': "
            told = {"came": found.came, "expected": found.expected, "todo": found.todo}
            raise UserError(f"{of}{found.wrong}", **told) from found


def _refuse_one_folder(mask: Any, clips: int) -> None:
    if clips > 1 and getattr(mask, "of_one_clip", False):
        raise UserError(
            "one folder of masks serves one clip",
            came=f"{mask.folder}, for {clips} clips",
            expected="a folder that holds a folder for each clip, of its name",
        )


def glimpse(data: DataSource, task: EditTask, frames: int | None = None) -> Clip:
    """The clip with all its frames and annotations, in a small size."""
    small = copy(data)
    fit(small, Small())
    if isinstance(small, OneClip) and small.path.exists():
        small.frames = reach(replace(small.frames, count=frames))
    return small.clip(task)


def _wrong(variant: Variant, task: EditTask, data: DataSource) -> UserError | None:
    try:
        refuse(variant.config, task, data)
    except UserError as error:
        return error
    except Exception:
        return None  # a clip that cannot be read becomes a row
    return None
