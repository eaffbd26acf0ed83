"""Where a model sees a word of a clip: heat and masks, without an edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from evaluation.case import Case
from evaluation.metrics.mask_iou import MaskIou
from evaluation.tables.numbers import fact
from experiments.config.build import build
from experiments.front.clips import ClipLike, Show, Words, clip_or_name, showing
from experiments.front.edits import ready
from experiments.front.result import pictured
from experiments.front.said import Said
from experiments.jobs import beforehand
from experiments.jobs.edit import model_of
from experiments.jobs.one_clip import Wish, words_of
from experiments.jobs.pictures import contact_sheet, veiled
from freemask.data.task_check import holds
from freemask.errors import UserError
from freemask.fusion.settings import Fusion
from freemask.masks.plan import MaskPlan, Subject, Wanted
from freemask.masks.strategies.none import NoMask
from freemask.methods.invert_fuse import InvertFuse
from freemask.types import Backbone, Clip, EditTask, Grid, Time

# The least that makes a method of this family choose masks.
MASKED = Fusion(temporal="off", cross="off", self="off", latent="masked")
SHOWN = 12  # times of which the mask is the mean


@dataclass(frozen=True, eq=False, repr=False)
class Masks:
    """`mask` is 1 where an edit may change pixels, `heat` what was compared with the threshold (None for masks that are
    made of no heat); both at the clip's size, and means over the times of an edit."""

    source: Clip
    task: EditTask
    mask: Float[Tensor, "f h w"]
    heat: Float[Tensor, "f h w"] | None
    facts: Mapping[str, Any]

    @property
    def sheet(self) -> Image.Image:
        frames = self.source.frames
        shown = {"source": frames, "mask": veiled(frames, self.mask)}
        if self.heat is not None:
            grey = self.heat / self.heat.amax().clamp_min(1e-12)
            shown = {"source": frames, "heat": grey[:, None].expand(-1, 3, -1, -1), "mask": shown["mask"]}
        said = {"source": self.task.source, "heat": f"of {', '.join(self.task.words)}"}
        with TemporaryDirectory() as folder:
            contact_sheet(
                path := Path(folder) / "sheet.png", shown, {**said, "mask": "clear inside the mask"}
            )
            with Image.open(path) as sheet:
                return sheet.copy()

    def save(self, folder: str | Path) -> dict[str, Path]:
        """masks.npz (bytes, 255 inside) and the contact sheet."""
        folder = Path(folder).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        files = {"masks": folder / "masks.npz", "sheet": folder / "masks.png"}
        arrays: dict[str, Any] = {"mask": _bytes(self.mask)}
        if self.heat is not None:
            arrays["heat"] = _bytes(self.heat / self.heat.amax().clamp_min(1))
        np.savez_compressed(files["masks"], **arrays)
        self.sheet.save(files["sheet"])
        return files

    def __repr__(self) -> str:
        lines = [f"{', '.join(self.task.words)} in: {self.task.source}"]
        return "\n".join([*lines, *(f"  {name:<24} {fact(value)}" for name, value in self.facts.items())])

    def _repr_html_(self) -> str:
        return pictured(self.sheet, repr(self))


def masks(
    clip: ClipLike | None = None,
    source: str | None = None,
    words: Words | None = None,
    *overrides: str,
    target: str | None = None,
    model: str | Backbone | None = None,
    progress: Show = "bar",
    **settings: Any,
) -> Masks:
    """Where a model sees words of the source prompt, by the mask strategy of the configuration; nothing is edited.

    With a `target` it is the mask of that edit.

    >>> found = freemask.masks("my.mp4", "a red car on a road", "car", mask="agreement")
    """
    own = {"clip": clip_or_name(clip), "source": source, "target": target}
    said = Said.of(overrides, settings, model, own if target is None else {**own, "words": words})
    method = build(said.config["method"], "method")
    if not isinstance(method, InvertFuse):
        came, expected = said.command.choices.get("method"), "method=freemask, or another that takes mask="
        raise UserError("this method makes no masks", came=f"method={came}", expected=expected)
    if isinstance(method.mask, NoMask):
        raise UserError("mask=none makes no masks", todo="leave mask= out, or see freemask list mask")
    method = replace(method, fusion=MASKED)
    wish = said.wish()
    with showing(progress) as (report, busy):
        if target is None:
            wish = _looking(wish, words, said)
        task, data = wish.task(lambda: build(said.config["data"], "data"))
        beforehand.refuse(said.config, task, data, wish.frames.count)
        busy("loading the model")
        backbone = model_of(said.config) if said.backbone is None else said.backbone
        busy("reading the clip")
        footage = ready(data, wish, backbone).clip(task)
        with method.begin(backbone, footage, task, progress=report) as editing:
            assert editing.masks is not None
            return _seen(editing.subject, editing.masks)


def _looking(wish: Wish, words: Words | None, said: Said) -> Wish:
    """An edit that leaves the words as they are."""
    if wish.source is None and words is None and wish.words is None:
        return wish
    source = wish.source
    if source is None:
        source = replace(wish, words=None).task(lambda: build(said.config["data"], "data"))[0].source
    given = words if words is not None else wish.words
    if not given:
        todo = 'freemask.masks(clip, "a red car", "car")'
        raise UserError("which word is looked for?", came="no words", expected="one or more", todo=todo)
    phrases = _phrases(given)
    for each in phrases:
        if not holds(source, each):
            raise UserError(f"'{each}' is not in the prompt", came=source, expected="words of the prompt")
    same = dict(zip(phrases, phrases, strict=True))
    return replace(wish, source=source, target=source, words=same, kind="shape")


def _phrases(words: Words) -> Sequence[str]:
    if isinstance(words, str):
        return (
            list(words_of(words)) if {":", ">"} & set(words) else [each.strip() for each in words.split(",")]
        )
    return list(words)


def _seen(subject: Subject, plan: MaskPlan) -> Masks:
    """Means over some of the times, as the mask in an edit's pictures."""
    frames = subject.clip.frames
    grid = Grid(len(frames), *frames.shape[-2:])
    wanted = [Wanted("self", t, grid) for t in _some(subject.times)]
    mask = torch.stack([plan(each).float().cpu() for each in wanted]).mean(0)
    heat = None
    if plan.soft is not None:
        values = [subject.clock.lift(plan.soft(each).float().cpu(), grid.frames) for each in wanted]
        heat = torch.stack(values).mean(0)
    case = Case(frames, frames, subject.task, masks=subject.clip.masks, mask=mask)
    facts = {**plan.facts, "mask_share": round(float(mask.mean()), 4), **MaskIou()(case)}
    return Masks(subject.clip, subject.task, mask, heat, facts)


def _some(times: Sequence[Time]) -> list[Time]:
    places = torch.linspace(0, len(times) - 1, min(SHOWN, len(times)))
    return sorted({times[round(float(place))] for place in places})


def _bytes(values: Float[Tensor, "f h w"]) -> np.ndarray:
    return values.mul(255).round().byte().numpy()
