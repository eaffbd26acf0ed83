"""The work of `freemask calibrate`: invert a clip, record a word's heat everywhere, compare masks with the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from experiments.config.build import build
from experiments.jobs.attempt import Attempt, measured
from experiments.jobs.edit import data_for, made_on, model_of
from experiments.jobs.job import Done, Job, Lane
from experiments.runs.plan import Item, Plan
from freemask.attention.record import GIB, Recording, heads_apart, heat_of_words, parted, recorder
from freemask.data.write import to_bytes
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert
from freemask.errors import UserError
from freemask.masks.ceiling import ceiling
from freemask.masks.clock import Clock
from freemask.masks.ops import Binarise, iou, two_class_iou
from freemask.masks.plan import Subject
from freemask.masks.words import as_heat, located, source_columns
from freemask.types import Backbone, Clip, DataSource, EditTask, Progress, Taps, Time

NO_MASK = "no mask"
OVERLAPS = {"foreground": iou, "two_class": two_class_iou}
HEAT = "heat"


@dataclass(frozen=True)
class Word:
    """One word of one source prompt of one clip. `one` is the task with this word only, and an id of its own."""

    task: EditTask
    one: EditTask

    @property
    def word(self) -> str:
        return next(iter(self.one.words))

    def item(self, maps: bool) -> Item:
        """`maps`: whether its maps are kept for a picture."""
        return Item(self.one.id, {**self.one.stored(), "all": self.task.stored(), "maps": maps})

    @classmethod
    def of(cls, item: Item) -> "Word":
        data = {key: each for key, each in item.data.items() if key not in ("all", "maps")}
        return cls(EditTask.of(item.data["all"]), EditTask.of(data))


def words_of(tasks: Sequence[EditTask]) -> tuple[list[Word], dict[str, str]]:
    """Every different (clip, source prompt, word), and the tasks whose words are not clear, with the reason."""
    found: dict[tuple[str, str, str], Word] = {}
    unclear: dict[str, str] = {}
    for task in tasks:
        try:
            words = located(task)
        except UserError as error:
            unclear[task.id] = str(error).splitlines()[0]
            continue
        for word, target in words.items():
            one = replace(task, id=f"{task.id}:{word}", words={word: target})
            found.setdefault((task.clip, task.source, word.casefold()), Word(task, one))
    return list(found.values()), unclear


def mask_of(clip: Clip, word: str) -> Bool[Tensor, "f h w"] | None:
    """The true mask: under the phrase, or its last words, or the only mask there is. None where it shows nothing."""
    known = {name.casefold(): mask for name, mask in clip.masks.items()}
    words = word.casefold().split()
    for start in range(len(words)):
        name = " ".join(words[start:])
        if name in known:
            return known[name] if bool(known[name].any()) else None
    only = next(iter(known.values())) if len(known) == 1 else None
    return only if only is not None and bool(only.any()) else None


@dataclass(frozen=True)
class Measure:
    """How a word is measured; `budget` is the GiB that its heat may take, `kind` the heat's (`masks.words.HEATS`)."""

    steps: int
    phrase: str
    binarise: Binarise
    overlap: str
    budget: float
    kind: str = "word"
    heads: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Measure":
        own = {key: config[key] for key in ("steps", "phrase", "overlap", "budget")}
        return cls(
            **own, kind=config["heat"], heads=config["heads"], binarise=build(config["binarise"], "binarise")
        )

    def parts(self) -> dict[str, Any]:
        """Everything that changes a row. Floor and intervals do not: they come in when rows are put together."""
        return {
            "steps": self.steps,
            "phrase": self.phrase,
            "heat": self.kind,
            "heads": self.heads,
            "overlap": self.overlap,
            "binarise": self.binarise.settings(),
        }

    def heat(self, backbone: Backbone, clip: Clip, word: Word, progress: Progress) -> "Heat":
        """The word's heat at every text layer, or head of one, and time of the inversion."""
        times = backbone.noise_path.times(self.steps)
        subject = Subject.of(backbone, clip, word.one, times)
        columns = source_columns(subject, self.phrase, [word.word])
        words = as_heat(subject.source, columns, self.kind)
        recording = Recording(int(self.budget * GIB))
        tap = recorder([heat_of_words(HEAT, words)], recording)
        taps = Taps(attention=heads_apart(HEAT, words, recording) if self.heads else tap)
        upwards = guided(backbone, subject.given["source"], stream="source", taps=taps)
        invert(backbone, backbone.encode(clip.frames), upwards, times, progress=progress)
        return Heat.of(recording.all(HEAT), times, subject.clock)

    def table(self, heat: "Heat", truth: Bool[Tensor, "f h w"], progress: Progress) -> list[list[float]]:
        """Overlap with the truth at the frames' resolution, layers x times."""
        frames, height, width = truth.shape
        overlap, rows = OVERLAPS[self.overlap], []
        for done, site in enumerate(heat.sites):
            progress("masks", done, len(heat.sites))
            truth = truth.to(heat.maps[site][0].device)
            masks = (self.binarise.mask(each, height, width) for each in heat.maps[site])
            rows.append([round(overlap(heat.clock.lift(mask, frames), truth), 5) for mask in masks])
        return rows

    def ceilings(self, heat: "Heat", truth: Bool[Tensor, "f h w"]) -> list[float]:
        """The highest overlap that each layer's grid allows."""
        shapes = [tuple(maps[0].shape) for maps in heat.maps.values()]
        two_class = self.overlap == "two_class"
        known = {shape: ceiling(truth, shape, heat.clock, two_class=two_class) for shape in set(shapes)}
        return [round(known[shape], 5) for shape in shapes]


@dataclass(frozen=True)
class Heat:
    """Maps of one word: by layer, a list over times."""

    times: Sequence[Time]
    maps: Mapping[str, Sequence[Tensor]]
    clock: Clock

    @classmethod
    def of(cls, recorded: Mapping[tuple[str, Time], Tensor], times: Sequence[Time], clock: Clock) -> "Heat":
        sites = list(dict.fromkeys(site for site, _ in recorded))
        return cls(times, {site: [recorded[site, t] for t in times] for site in sites}, clock)

    @property
    def sites(self) -> list[str]:
        return list(self.maps)

    def grids(self) -> list[list[int]]:
        return [list(maps[0].shape[1:]) for maps in self.maps.values()]

    def save(self, path: Path, clip: Clip, truth: Bool[Tensor, "f h w"]) -> None:
        """What the picture of layers and times is made of: the middle frame."""
        f = len(truth) // 2
        arrays: dict[str, Any] = {
            f"maps{i}": torch.stack([self.clock.lift(each, len(truth))[f] for each in maps])
            .float()
            .cpu()
            .numpy()
            for i, maps in enumerate(self.maps.values())
        }
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                frame=to_bytes(clip.frames[f : f + 1])[0],
                truth=truth[f].cpu().numpy(),
                sites=np.array(self.sites),
                times=np.array(self.times),
                **arrays,
            )


class CalibrateJob(Job):
    def load(
        self, lanes: Sequence[Lane], plan: Plan, device: str | None, progress: Progress
    ) -> "Calibrating":
        progress("loading the model", 0, 1)
        config = lanes[0].variant.config
        backbone = model_of(config, device)
        return Calibrating(lanes, backbone, data_for(backbone, config), Measure.of(config))


JOB = CalibrateJob()


@dataclass(frozen=True)
class Calibrating:
    lanes: Sequence[Lane]
    backbone: Backbone
    data: DataSource
    measure: Measure

    def do(self, place: int, item: Item, progress: Progress) -> Done:
        lane, word = self.lanes[place], Word.of(item)
        attempt = Attempt(lane.head(item))
        attempt.tell(word=word.word, **made_on(self.backbone))
        path = lane.store.file("maps", item.id, ".npz") if item.data["maps"] else None
        with measured(attempt, self.backbone.device):
            attempt.work(lambda: self._work(word, attempt, path, progress))
        return Done(attempt.row, {"maps": path} if path and attempt.row["status"] == "done" else {})

    def _work(self, word: Word, attempt: Attempt, path: Path | None, progress: Progress) -> None:
        with attempt.timed("load"):
            clip = self.data.clip(word.task)
            truth = mask_of(clip, word.word)
        if truth is None:
            known = ", ".join(clip.masks) or "none"
            said = f"the clip has no mask of '{word.word}' (it has: {known})"
            attempt.tell(status=NO_MASK, message=said)
            return
        with attempt.timed("inversion"):
            heat = self.measure.heat(self.backbone, clip, word, progress)
        with attempt.timed("masks"):
            table = self.measure.table(heat, truth, progress)
        if path is not None:
            heat.save(path, clip, truth)
        attempt.done(
            frames=list(clip.frames.shape),
            mask_share=round(float(truth.float().mean()), 5),
            metrics={"best_iou": max(map(max, table))},
            sites=heat.sites,
            strides=[self.backbone.sites[parted(site)[0]].stride for site in heat.sites],
            grids=heat.grids(),
            times=list(heat.times),
            iou=table,
            ceilings=self.measure.ceilings(heat, truth),
        )
