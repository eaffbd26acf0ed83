"""The work of `freemask evaluate manifest=...`: videos that somebody else's code made, measured and entered as rows.
Each method is a variant of one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.suite import Suite
from experiments.config.build import build
from experiments.config.fingerprint import Identity, digest
from experiments.config.identity import counted
from experiments.jobs.attempt import measured
from experiments.jobs.job import Done, Job, Lane, kept, maker
from experiments.jobs.manifest import Entry
from experiments.jobs.outcome import Outcome, keep_files
from experiments.jobs.truth import BROUGHT, Truth, matched
from experiments.runs.plan import Item, Plan, Variant
from experiments.runs.rows import Row, now
from freemask.backbones.identity import of_file, of_folder
from freemask.data.geometry import Geometry
from freemask.data.open import open_footage
from freemask.data.regions import read_region, united, with_regions
from freemask.errors import UserError
from freemask.types import Clip, DataSource, Edit, EditTask, Progress

SHOWN = 3
SIZE = ("short_side", "height", "width")


def plan_of(
    config: Mapping[str, Any], entries: Sequence[Entry], tasks: Sequence[EditTask], base: Path
) -> Plan:
    """An item is a task, with the videos that each method made of it."""
    settings = counted(config["data"])
    found: dict[str, tuple[EditTask, dict[str, Any], dict[str, str]]] = {}
    for entry, task in zip(entries, tasks, strict=True):
        own = {"edited": str(entry.edited), "said": entry.said, "own": entry.own is not None}
        _, videos, marks = found.setdefault(task.id, (task, {}, {}))
        videos[entry.method] = own
        marks[entry.method] = mark_of(entry, task, base, settings, config["metric"])
    items = [
        Item(task.id, {**task.stored(), "videos": videos}, marks) for task, videos, marks in found.values()
    ]
    kept = {"data": config["data"], "metric": config["metric"], "base": str(base)}
    variants = [
        Variant(name, (), {"method": name}, kept, Identity({"method": {"outside": name}}))
        for name in dict.fromkeys(entry.method for entry in entries)
    ]
    return Plan("outside", variants, items)


def mark_of(entry: Entry, task: EditTask, base: Path, data: Mapping[str, Any], metric: Any) -> str:
    """Of everything that the numbers come from: the edited frames, the source, the prompts, the suite."""
    source = data if entry.own is None else _content(place_of(base, task))
    return digest([_content(entry.edited), source, task.plain(), metric])


def place_of(base: Path, task: EditTask) -> Path:
    return base / Path(task.clip).expanduser()


def remarks(rows: Sequence[Row], data: Mapping[str, Any]) -> list[str]:
    """What was done to videos so that they could be measured, and to which."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for each in row.get("warnings") or ():
            found.setdefault(each, []).append(f"{row.get('variant')}/{row['task']}")
    said = []
    for text, where in sorted(found.items(), key=lambda each: -len(each[1])):
        more = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
        said.append(f"note: {text} ({len(where)}x: {', '.join(where[:SHOWN])}{more})")
    size = data.get("geometry", {"height": "its own"})
    if any(BROUGHT in text for text in found) and not any(size.get(key) for key in SIZE):
        said.append(
            "note: edits of a run are measured as large as the model made them; to compare these videos with them, "
            "give that size: data.geometry.height=... data.geometry.width=... and another name=..."
        )
    return said


class OutsideJob(Job):
    def load(self, lanes: Sequence[Lane], plan: Plan, device: str | None, progress: Progress) -> "Outsiders":
        config = lanes[0].variant.config
        suite = Suite(build(config["metric"], "metric"))
        own = [video["own"] for item in plan.items for video in item.data["videos"].values()]
        data = None if all(own) else build(config["data"], "data")
        return Outsiders(lanes, suite, data, Path(config["base"]), kept(plan.items, lanes[0].launch.keep))


JOB = OutsideJob()


@dataclass(frozen=True)
class Outsiders:
    """Paths of clips begin at `base`."""

    lanes: Sequence[Lane]
    suite: Suite
    data: DataSource | None
    base: Path
    keep: set[str]

    def do(self, place: int, item: Item, progress: Progress) -> Done:
        lane = self.lanes[place]
        video = item.data["videos"][lane.variant.name]
        task = EditTask.of({key: each for key, each in item.data.items() if key != "videos"})
        outcome = Outcome(lane.head(item), task=task)
        told = {"file": video["said"], "content": item.mark(lane.variant.name) or ""}
        outcome.tell(device="cpu", outside=told, evaluated_by=maker(), evaluated=now())
        with measured(outcome, "cpu"), outcome.timed("metrics"):
            outcome.work(partial(self._work, outcome, video))
        files = self._files(lane, outcome) if item.id in self.keep else {}
        outcome.tell(seconds={}, measuring=sum(outcome.seconds.values()))  # the edit's own time is not known
        return Done(outcome.row, files, outcome.columns)

    def _files(self, lane: Lane, outcome: Outcome) -> Mapping[str, Path]:
        """Pictures that cannot be kept lose no numbers."""
        try:
            return keep_files(lane.store, outcome)
        except UserError as error:
            said = f"its pictures could not be kept: {error.came}"
            outcome.row["warnings"] = [*outcome.row.get("warnings", ()), said]
            return {}

    def _work(self, outcome: Outcome, video: Mapping[str, Any]) -> None:
        truth = self._truth(outcome.task, video["own"])
        footage = open_footage(Path(video["edited"]))
        edited, truth, notes = matched(footage.frames, truth)
        outcome.warnings += notes
        found = self.suite(truth.case(outcome.task, edited))
        outcome.clip, outcome.oracle, outcome.edit = truth.clip, truth.oracle, Edit(edited)
        outcome.done(frames=list(edited.shape), **found.row())

    def _truth(self, task: EditTask, own: bool) -> Truth:
        if not own:
            assert self.data is not None
            return Truth.of(self.data, task)
        footage = open_footage(place_of(self.base, task))
        whole, plain = Clip(task.clip, footage.frames, fps=footage.fps), Geometry()
        clip = with_regions(whole, task, footage, plain)
        paths = [each.assets.get("region") for each in (task, *(task.each if task.edits else ()))]
        region, *each = (None if path is None else read_region(path, footage, plain) for path in paths)
        return Truth(clip, region=united(each) if region is None else region, regions=each)


def _content(path: Path) -> str:
    return of_folder(path, ["."]) if path.is_dir() else of_file(path)
