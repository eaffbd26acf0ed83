"""A metric by its name, called on frames: `evaluation.metric("lpips")(source, edited)`."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from typing import Any

from torch import Tensor

from evaluation.case import Case
from evaluation.metric import Column, Metric, MetricWarning
from freemask.errors import UserError, nearest
from freemask.settings import parameters
from freemask.types import Clip, EditTask

ROOM = "evaluation.metrics"
CASE = ("oracle", "region", "regions", "mask", "masks", "flow")  # what a case may know besides
TASK = ("words", "kind", "edits")


def metric(name: str, **settings: Any) -> "Named":
    """A metric of `evaluation/metrics` by its file's name, with the settings of its YAML in conf/metric.

    >>> evaluation.metric("lpips", backbone="vgg")(source, edited)
    >>> evaluation.metric("clip_text")(source, edited, target="a blue car")
    """
    known = sorted(each.name[:-3] for each in files(ROOM).iterdir() if each.name.endswith(".py"))
    known.remove("__init__")
    if name not in known:
        raise UserError(f"there is no metric '{name}'", came=repr(name), expected=nearest(str(name), known))
    maker = _maker(name)
    takes = [each for each in parameters(maker) if each not in ("found", "columns")]
    for key in settings:
        if key not in takes:
            came = f"{key}={settings[key]!r}"
            raise UserError(f"'{name}' has no setting '{key}'", came=came, expected=nearest(key, takes))
    return Named(name, maker(**settings))


@dataclass(frozen=True)
class Named:
    """One metric, ready to be called."""

    name: str
    metric: Metric

    @property
    def columns(self) -> Sequence[Column]:
        """What each number is: its unit, whether higher is better, what it needs."""
        return self.metric.columns

    def __call__(
        self,
        source: Tensor | Clip,
        edited: Tensor | Clip,
        *,
        target: str = "",
        prompt: str = "",
        **known: Any,
    ) -> float:
        """Its number (of several columns the first, see `all`). Frames are `f 3 h w` in 0..1, `target` and `prompt`
        what the edit and the source show. `known` is what a metric may need besides: `words` and `kind` of the edit, or
        `edits` (a list of `LocalEdit`), and `oracle`, `region`, `regions` (of the edits), `mask`, `masks`, `flow` as in
        `evaluation.case.Case`. A metric that does not apply to what it was given is an error."""
        found = self.all(source, edited, target=target, prompt=prompt, **known)
        return next(iter(found.values()))

    def all(
        self,
        source: Tensor | Clip,
        edited: Tensor | Clip,
        *,
        target: str = "",
        prompt: str = "",
        **known: Any,
    ) -> dict[str, float]:
        """Every column that applies, by its name."""
        case = _case(source, edited, (prompt, target), known)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = self.metric(case)
        for each in caught:
            if found or each.category is not MetricWarning:
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        if not found:
            notes = [str(each.message) for each in caught if each.category is MetricWarning]
            needs = next((each.needs for each in self.columns if each.needs), None)
            todo = f"give it by name, of {', '.join((*TASK, *CASE))}" if needs else "give target= and prompt="
            raise UserError(
                f"'{self.name}' does not apply", came="; ".join(notes) or None, expected=needs, todo=todo
            )
        return found


def _case(
    source: Tensor | Clip, edited: Tensor | Clip, prompts: tuple[str, str], known: Mapping[str, Any]
) -> Case:
    for key in known:
        if key not in (*CASE, *TASK):
            raise UserError(f"no metric knows '{key}'", came=key, expected=nearest(key, (*CASE, *TASK)))
    told = {key: each for key, each in known.items() if key in CASE}
    if isinstance(source, Clip):
        told.setdefault("masks", source.masks)
    before, after = _frames("source", source), _frames("edited", edited)
    words, kind, edits = (known.get(key) for key in TASK)
    task = EditTask("edit", "clip", *prompts, words or {}, kind or "attribute", edits=tuple(edits or ()))
    return Case(before, after, task, **told)


def _frames(name: str, clip: Any) -> Tensor:
    frames = clip.frames if isinstance(clip, Clip) else clip
    if not isinstance(frames, Tensor):
        wrong, came = f"the {name} frames cannot be measured", f"a {type(frames).__name__}"
        todo = "freemask.load_clip(path) reads a video, torch.from_numpy(array) takes an array"
        raise UserError(wrong, came=came, expected="a Clip, or a tensor `f 3 h w` in 0..1", todo=todo)
    return frames


def _maker(name: str) -> Any:
    """The class in the file that says what a metric says."""
    module = import_module(f"{ROOM}.{name}")
    own = [
        each for _, each in inspect.getmembers(module, inspect.isclass) if each.__module__ == module.__name__
    ]
    return next(each for each in own if callable(each) and each.__name__.lower() == name.replace("_", ""))
