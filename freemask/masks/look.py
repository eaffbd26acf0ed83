"""What each of several mask strategies sees in a clip, without an edit: one inversion for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.attention.record import Recording
from freemask.diffusion.inversions import Inversions, Wish
from freemask.errors import UserError
from freemask.masks.ops import iou
from freemask.masks.plan import Keeps, MaskPlan, MaskStrategy, Subject, Use, Wanted
from freemask.masks.several import keeps_of, plan_of
from freemask.masks.strategies.agreement import Agreement
from freemask.masks.words import annotated
from freemask.types import Backbone, Clip, EditTask, Grid, Progress, Time, silent

JUDGE = "the judge"
SHOWN = 12  # times of which a pictured mask is the mean


@dataclass(frozen=True)
class Seen:
    """Of a strategy: its mask and the values behind it at the frames' size, each the mean over times; what it says of
    itself; how good it is. `partly`: an edit would join the mask with heat of its own, which is not there."""

    mask: Float[Tensor, "f h w"]
    heat: Float[Tensor, "f h w"] | None
    facts: Mapping[str, str | float | int | bool | None]
    partly: bool
    score: float | None = None


@dataclass(frozen=True)
class Look:
    """`lacking` has the reasons of the strategies that cannot work here. `measure` names the scores: IoU with the
    annotation `truth` where the clip has one, otherwise with what the clip's maps agree on (`mask=agreement`)."""

    seen: Mapping[str, Seen]
    lacking: Mapping[str, str]
    measure: str
    truth: Bool[Tensor, "f h w"] | None


def look(
    backbone: Backbone,
    subject: Subject,
    strategies: Mapping[str, MaskStrategy],
    *,
    inversions: str | None = None,
    progress: Progress = silent,
) -> Look:
    """`inversions` is a folder that keeps them, as that of the methods; None keeps none."""
    truth = _truth(subject.task, subject.clip)
    asked = {**strategies, JUDGE: Agreement()} if truth is None else strategies
    wished, lacking = _wished(subject, asked)
    with TemporaryDirectory() as passing:
        recorded = _recorded(backbone, subject, wished, Inversions(inversions or passing), progress)
    seen: dict[str, Seen] = {}
    for name, source in recorded.items():
        try:
            seen[name] = _seen(asked[name], subject, source, partly=bool(wished[name].target))
        except UserError as error:
            lacking[name] = _in_a_line(error)
    judge = seen[JUDGE].mask >= 0.5 if JUDGE in seen else truth
    scores = {} if judge is None else {name: iou(each.mask >= 0.5, judge) for name, each in seen.items()}
    scored = {name: replace(seen[name], score=scores.get(name)) for name in strategies if name in seen}
    lacking = {name: lacking[name] for name in strategies if name in lacking}
    return Look(scored, lacking, "agreement" if truth is None else "IoU", truth)


def _truth(task: EditTask, clip: Clip) -> Bool[Tensor, "f h w"] | None:
    try:
        return annotated(task, clip)
    except UserError:
        return None


def over_times(values: MaskPlan, use: Use, times: Sequence[Time], grid: Grid) -> Float[Tensor, "f h w"]:
    """The mean mask over times of an edit: how often a pixel is in it."""
    return torch.stack([values(Wanted(use, t, grid)).float().cpu() for t in moments(times)]).mean(0)


def moments(times: Sequence[Time]) -> list[Time]:
    places = torch.linspace(0, len(times) - 1, min(SHOWN, len(times)))
    return sorted({times[round(float(place))] for place in places})


def _wished(
    subject: Subject, strategies: Mapping[str, MaskStrategy]
) -> tuple[dict[str, Keeps], dict[str, str]]:
    """What each wants recorded, and why others cannot work. Where none but the judge can, the first one's error."""
    wished, lacking, errors = {}, {}, []
    for name, strategy in strategies.items():
        try:
            wished[name] = keeps_of(strategy, subject)
        except UserError as error:
            lacking[name] = _in_a_line(error)
            errors.append(error)
    if not wished.keys() - {JUDGE}:
        raise errors[0]
    return wished, lacking


def _recorded(
    backbone: Backbone,
    subject: Subject,
    wished: Mapping[str, Keeps],
    store: Inversions,
    progress: Progress,
) -> dict[str, Recording]:
    """The first inversion keeps the heat that any of them wants; the others find it in the store."""
    latents = backbone.encode(subject.clip.frames)
    heats = {keep.heat: keep for each in wished.values() for keep in each.source if keep.heat}
    together = [replace(keep, name=f"heat of {words}") for words, keep in heats.items()]

    def inverted(wish: Wish) -> Recording:
        return store.invert(
            backbone, latents, subject.given["source"], subject.times, wish=wish, progress=progress
        ).kept

    inverted(Wish(together))
    return {name: inverted(Wish(each.source)) for name, each in wished.items()}


def _seen(strategy: MaskStrategy, subject: Subject, source: Recording, *, partly: bool) -> Seen:
    frames, times = subject.clip.frames, subject.times
    grid = Grid(frames.shape[0], *frames.shape[-2:])
    plan = plan_of(strategy, subject, source, Recording())
    mask, heat = over_times(plan, "self", times, grid), None
    if plan.soft is not None:
        heat = over_times(MaskPlan(plan.soft), "self", times, grid)
    return Seen(mask, heat, plan.facts, partly)


def _in_a_line(error: UserError) -> str:
    return error.wrong if error.came is None else f"{error.wrong} ({error.came})"
