"""Calibration, item by item: invert a clip, record a word's heat everywhere, compare every mask with the truth."""

import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from experiments.jobs import memory
from experiments.runs import environment
from experiments.runs.progress import Reporter
from experiments.runs.store import RunStore
from freemask.attention.record import GIB, Recording, heat_of_words, recorder
from freemask.data.write import to_bytes
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert
from freemask.errors import UserError
from freemask.masks.ops import Binarise, iou, two_class_iou
from freemask.masks.plan import Subject
from freemask.masks.words import located, source_columns
from freemask.types import Backbone, Clip, DataSource, EditTask, Progress, Taps

NO_MASK = "no mask"
OVERLAPS = {"foreground": iou, "two_class": two_class_iou}
HEAT = "heat"


@dataclass(frozen=True)
class Item:
    """One word of one source prompt of one clip. `one` is the task with this word only, and an id of its own."""

    task: EditTask
    one: EditTask

    @property
    def word(self) -> str:
        return next(iter(self.one.words))


def items_of(tasks: Sequence[EditTask]) -> tuple[list[Item], dict[str, str]]:
    """Every different (clip, source prompt, word), and the tasks whose words are not clear, with the reason."""
    found: dict[tuple[str, str, str], Item] = {}
    unclear: dict[str, str] = {}
    for task in tasks:
        try:
            words = located(task)
        except UserError as error:
            unclear[task.id] = str(error).splitlines()[0]
            continue
        for word, target in words.items():
            one = replace(task, id=f"{task.id}:{word}", words={word: target})
            found.setdefault((task.clip, task.source, word.casefold()), Item(task, one))
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
    """How an item is measured."""

    steps: int
    phrase: str
    binarise: Binarise
    overlap: str
    budget: float

    def heat(self, backbone: Backbone, clip: Clip, item: Item, progress: Progress) -> "Heat":
        """The word's heat at every text layer and time of the inversion."""
        text, times = backbone.embed(item.task.source), backbone.noise_path.times(self.steps)
        subject = Subject(item.one, clip, text, text, times, backbone.sites, backbone.identity)
        columns = source_columns(subject, self.phrase, [item.word])
        recording = Recording(int(self.budget * GIB))
        taps = Taps(attention=recorder([heat_of_words(HEAT, columns)], recording))
        upwards = guided(backbone, text, stream="source", taps=taps)
        invert(backbone, backbone.encode(clip.frames), upwards, times, progress=progress)
        return Heat.of(recording.all(HEAT), times)

    def table(self, heat: "Heat", truth: Bool[Tensor, "f h w"], progress: Progress) -> list[list[float]]:
        """Overlap with the truth at the frames' resolution, layers x times."""
        height, width = truth.shape[1:]
        overlap, rows = OVERLAPS[self.overlap], []
        for done, site in enumerate(heat.sites):
            progress("masks", done, len(heat.sites))
            truth = truth.to(heat.maps[site][0].device)
            found = (overlap(self.binarise.mask(each, height, width), truth) for each in heat.maps[site])
            rows.append([round(value, 5) for value in found])
        return rows


@dataclass(frozen=True)
class Heat:
    """Maps of one word: by layer, a list over times."""

    times: Sequence[int]
    maps: Mapping[str, Sequence[Tensor]]

    @classmethod
    def of(cls, recorded: Mapping[tuple[str, int], Tensor], times: Sequence[int]) -> "Heat":
        sites = list(dict.fromkeys(site for site, _ in recorded))
        return cls(times, {site: [recorded[site, t] for t in times] for site in sites})

    @property
    def sites(self) -> list[str]:
        return list(self.maps)

    def grids(self) -> list[list[int]]:
        return [list(maps[0].shape[1:]) for maps in self.maps.values()]

    def save(self, path: Path, clip: Clip, truth: Bool[Tensor, "f h w"]) -> None:
        """What the picture of layers and times is made of: the middle frame."""
        f = len(truth) // 2
        arrays: dict[str, Any] = {
            f"maps{i}": torch.stack([each[f] for each in maps]).float().cpu().numpy()
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


@dataclass
class Worker:
    """Does one item after the other: heat, table, row."""

    backbone: Backbone
    data: DataSource
    measure: Measure
    store: RunStore
    items: Mapping[str, Item]
    keep: Collection[str]
    reporter: Reporter
    total: int
    writer: str = ""
    count: int = 0

    def __call__(self, one: EditTask) -> None:
        item = self.items[one.id]
        row = self._head(item)
        memory.reset_peaks()
        seconds: dict[str, float] = {}
        try:
            row |= self._work(item, seconds)
        except Exception as error:
            row |= _failure(error)
        row |= {
            "seconds": seconds,
            "peak_rss_gb": memory.peak_rss_gb(),
            "peak_gpu_gb": memory.peak_gpu_gb(),
            "finished": datetime.now(UTC).isoformat(timespec="microseconds"),
        }
        self.store.append(self.writer, row)
        self.count += 1
        said = row["message"].splitlines()[0] if row["message"] else f"{sum(seconds.values()):.1f} s"
        self.reporter.task_done(f"[{self.count}/{self.total}] {one.id} {row['status']} ({said})")

    def _work(self, item: Item, seconds: dict[str, float]) -> dict[str, Any]:
        began = perf_counter()
        clip = self.data.clip(item.task)
        truth = mask_of(clip, item.word)
        seconds["load"] = perf_counter() - began
        if truth is None:
            known = ", ".join(clip.masks) or "none"
            return {"status": NO_MASK, "message": f"the clip has no mask of '{item.word}' (it has: {known})"}
        heat = self.measure.heat(self.backbone, clip, item, self.reporter.stage)
        seconds["inversion"] = perf_counter() - began - seconds["load"]
        table = self.measure.table(heat, truth, self.reporter.stage)
        seconds["masks"] = perf_counter() - began - seconds["load"] - seconds["inversion"]
        if one_of_shown := item.one.id in self.keep:
            heat.save(self.store.file("maps", item.one.id, ".npz"), clip, truth)
        return {
            "status": "done",
            "frames": list(clip.frames.shape),
            "mask_share": round(float(truth.float().mean()), 5),
            "maps": one_of_shown,
            "metrics": {"best_iou": max(map(max, table))},
            "sites": heat.sites,
            "strides": [self.backbone.sites[site].stride for site in heat.sites],
            "grids": heat.grids(),
            "times": list(heat.times),
            "iou": table,
        }

    def _head(self, item: Item) -> dict[str, Any]:
        commit, dirty = environment.commit()
        return {
            "task": item.one.id,
            "clip": item.task.clip,
            "kind": item.task.kind,
            "source": item.task.source,
            "word": item.word,
            "model": self.backbone.identity,
            "steps": self.measure.steps,
            "status": "failed",
            "message": "",
            "metrics": {},
            "commit": commit,
            "dirty": dirty,
            "versions": environment.versions(),
            "device": environment.device_name(str(self.backbone.device)),
            "dtype": str(self.backbone.dtype).removeprefix("torch."),
        }


def _failure(error: Exception) -> dict[str, Any]:
    known = isinstance(error, UserError)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return {
        "status": "failed",
        "message": str(error) if known else f"{type(error).__name__}: {error}",
        "where": "" if known else f"{Path(where.filename).name}:{where.lineno}",
    }
