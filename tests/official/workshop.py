"""Builds what a case needs from the configuration that a user would type, and the session of one edit."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.attention.record import Recording
from freemask.diffusion.inversions import Inversion
from freemask.masks.plan import Keeps, MaskPlan, Subject
from freemask.methods.editing import Editing
from freemask.methods.invert_fuse import InvertFuse
from freemask.types import NO_TAPS, Clip, EditTask, Given, Progress, Stream, Taps, Time, silent
from tests.official.case import Case, Edit
from tests.official.overrides import edit_overrides, model_overrides


class Watched:
    """A backbone that remembers the streams of its last prediction."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone
        self.last: dict[Stream, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def predict(self, x: Tensor, t: Time, given: Mapping[Stream, Given], *, taps: Taps = NO_TAPS) -> Tensor:
        out = self._backbone.predict(x, t, given, taps=taps)
        self.last = dict(zip(given, out, strict=True))
        return out


def load(case: Case) -> Watched:
    config = plain(config_of("edit", model_overrides(case)))
    return Watched(build(config["model"], "model"))


@dataclass(frozen=True)
class Job:
    """One edit of a case, with its method built from its overrides."""

    case: Case
    edit: Edit
    lines: Sequence[str]
    method: InvertFuse
    backbone: Watched

    @classmethod
    def of(cls, case: Case, edit: Edit, backbone: Watched, extra: Sequence[str] = ()) -> "Job":
        """`extra` overrides count where the edit has what they are about."""
        lines = edit_overrides(case, edit)
        lines += [
            line
            for line in extra
            if {f"{line.split('.')[0]}={name}" for name in ("official", "fatezero")} & set(lines)
        ]
        config = plain(config_of("edit", lines))
        return cls(case, edit, lines, build(config["method"], "method"), backbone)

    @property
    def task(self) -> EditTask:
        edit = self.edit
        return EditTask(edit.name, self.case.path.stem, edit.source, edit.target, edit.words, edit.kind)

    def time_of(self, i: int) -> int:
        """At which time denoising step i calls the network."""
        return self.backbone.noise_path.times(self.case.steps)[self.case.steps - 1 - i]

    def clip(self, latents: Tensor) -> Clip:
        """Nothing looks at its frames: the latents stand in for it."""
        frames = torch.zeros(latents.shape[0], 3, 8 * latents.shape[-2], 8 * latents.shape[-1])
        return Clip(self.case.path.stem, frames)

    def subject(self, latents: Tensor) -> Subject:
        times = self.backbone.noise_path.times(self.method.steps)
        return Subject.of(
            self.backbone, self.clip(latents), self.task, times, keep_object=self.method.keep_object
        )

    def keeps(self, subject: Subject) -> Keeps:
        used = self.method.fusion.uses_masks(self.task.kind)
        return self.method.mask.keeps(subject) if used else Keeps()

    def begin(
        self, latents: Sequence[Tensor], source: Recording | None = None, progress: Progress = silent
    ) -> Editing:
        """From the clean latents on; or on a whole known inversion, and what was recorded on it."""
        known = Inversion([latents[0]], ())
        if source is not None:
            times = self.backbone.noise_path.times(self.method.steps)
            known = Inversion(latents, times, kept=source)
        return self.method.begin(
            self.backbone, self.clip(latents[0]), self.task, known=known, progress=progress
        )


def masked_by(editing: Editing, plan: MaskPlan) -> Editing:
    return dataclasses.replace(editing, masks=plan)
