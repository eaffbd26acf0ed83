"""Where a model sees a word of a clip: heat and masks, without an edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from evaluation.tables.numbers import fact
from experiments.config.build import build
from experiments.front.clips import ClipLike, Show, Words, clip_or_name, showing
from experiments.front.edits import ready
from experiments.front.result import pictured
from experiments.front.said import Said
from experiments.jobs import beforehand
from experiments.jobs.edit import model_of
from experiments.jobs.one_clip import Wish, made
from experiments.report.mask_sheet import about_masks, leave_masks, mask_sheet
from freemask.data.pairs import read_pairs
from freemask.errors import UserError
from freemask.masks.look import Look, Seen, look
from freemask.masks.plan import Subject
from freemask.masks.strategies.none import NoMask
from freemask.methods.invert_fuse import InvertFuse
from freemask.types import Backbone, Clip, EditTask
from freemask.words import holds


@dataclass(frozen=True, eq=False, repr=False)
class Masks:
    """`mask` is 1 where an edit may change pixels, `heat` what was compared with the threshold (None for masks that are
    made of no heat); both at the clip's size, and means over the times of an edit."""

    source: Clip
    task: EditTask
    look: Look
    about: Sequence[str]

    @property
    def mask(self) -> Float[Tensor, "f h w"]:
        return self._seen.mask

    @property
    def heat(self) -> Float[Tensor, "f h w"] | None:
        return self._seen.heat

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the strategy says of itself, how much it covers, and its score where there is one."""
        seen = self._seen
        score = {"agreement": "mask_agreement", "IoU": "mask_iou"}[self.look.measure]
        found = {} if seen.score is None else {score: seen.score}
        return {**seen.facts, "mask_share": round(float(seen.mask.mean()), 4), **found}

    @property
    def sheet(self) -> Image.Image:
        with TemporaryDirectory() as folder:
            mask_sheet(path := Path(folder) / "sheet.png", self.source, self.look, self.about)
            with Image.open(path) as sheet:
                return sheet.copy()

    def save(self, folder: str | Path) -> dict[str, Path]:
        """masks.npz (bytes, 255 inside) and the contact sheet, as the command leaves them."""
        return leave_masks(Path(folder).expanduser(), self.source, self.look, self.about)

    @property
    def _seen(self) -> Seen:
        (seen,) = self.look.seen.values()
        return seen

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
    wish = said.wish()
    with showing(progress) as (report, busy):
        if target is None:
            wish = _looking(wish, words, said)
        task, data = wish.task(*made(said.config))
        beforehand.refuse(said.config, task, data, wish.frames.exact)
        busy("loading the model")
        backbone = model_of(said.config) if said.backbone is None else said.backbone
        busy("reading the clip")
        footage = ready(data, wish, backbone).clip(task)
        times = backbone.noise_path.times(method.steps)
        strategies = {str(said.command.choices.get("mask")): method.mask}
        with build(said.config["tuning"], "tuning").on(backbone, footage, task, report):
            subject = Subject.of(backbone, footage, task, times, keep_object=method.keep_object)
            found = look(backbone, subject, strategies, inversions=method.inversions, progress=report)
    return Masks(footage, task, found, about_masks(said.config, said.command.choices, task))


def _looking(wish: Wish, words: Words | None, said: Said) -> Wish:
    """An edit that leaves the words as they are."""
    if wish.source is None and words is None and wish.words is None:
        return wish
    source = wish.source
    if source is None:
        source = replace(wish, words=None).task(*made(said.config))[0].source
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
    if not isinstance(words, str):
        return list(words)
    if not {":", ">"} & set(words):
        return [each.strip() for each in words.split(",")]
    pairs, faults = read_pairs(words)
    if faults:
        raise UserError(f"words: {'; '.join(faults)}", came=f"words={words}", expected="car, road or car:bus")
    return list(pairs)
