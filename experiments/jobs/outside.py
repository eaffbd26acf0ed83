"""Videos that somebody else's code made, measured and entered as rows: each method is a variant of one run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.suite import Suite
from experiments.config.build import build
from experiments.config.identity import FREE, Identity
from experiments.jobs.bench import Outcome, keep_files
from experiments.jobs.head import head, maker
from experiments.jobs.manifest import Entry, read_manifest, with_tasks
from experiments.jobs.stored import complete, writer
from experiments.jobs.truth import Truth, matched
from experiments.report.results import Results, finish
from experiments.runs import environment
from experiments.runs.progress import reporting
from experiments.runs.rows import RECORD, write_text
from experiments.runs.store import RunStore
from freemask.backbones.identity import of_file, of_folder
from freemask.data.geometry import Geometry
from freemask.data.open import open_footage
from freemask.data.regions import read_region
from freemask.data.tasks import slug
from freemask.errors import UserError
from freemask.types import Clip, DataSource, Edit, EditTask

OUTSIDE = "outside"  # in a run's record: these are edits of other code


def measure_manifest(
    config: Mapping[str, Any], manifest: str, *, name: str | None, method: str | None
) -> int:
    entries = read_manifest(manifest, method)
    suite = Suite(build(config["metric"], "metric"))
    data = build(config["data"], "data") if any(each.own is None for each in entries) else None
    tasks = with_tasks(manifest, entries, {task.id: task for task in data.tasks()} if data else {})
    folder = _folder(config, name or f"outside-{slug(Path(manifest).stem)}")
    stores = _stores(folder, [each.method for each in entries])
    base = Path(manifest).expanduser().resolve().parent
    outsiders = Outsiders(suite, data, _settings(config["data"]), base, config["keep"] == "all")
    latest = {method: store.latest() for method, store in stores.items()}
    ready = 0
    with reporting(len(entries), "videos") as reporter:
        for count, (entry, task) in enumerate(zip(entries, tasks, strict=True), 1):
            mark = outsiders.mark(entry, task)
            if not config["redo"] and outsiders.has(latest[entry.method].get(task.id), mark):
                ready += 1
                continue
            row = outsiders.measure(entry, task, mark, stores[entry.method])
            said = row["message"].splitlines()[0] if row["message"] else "measured"
            reporter.task_done(f"[{count}/{len(entries)}] {entry.method}: {task.id} {row['status']} ({said})")
    if ready:
        print(f"{ready} have every number of this suite already (redo=true measures them again)")
    unique = list({task.id: task for task in tasks}.values())
    every: dict[str | None, RunStore] = {name: store for name, store in stores.items()}
    results = Results(folder, every, next(iter(stores)))
    return finish(results, unique, results.rows(unique))


@dataclass
class Outsiders:
    """`settings` are those of the data that decide about numbers; paths of clips begin at `base`."""

    suite: Suite
    data: DataSource | None
    settings: Mapping[str, Any]
    base: Path
    keep: bool

    def __post_init__(self) -> None:
        self.writer = writer()

    def mark(self, entry: Entry, task: EditTask) -> str:
        """Of everything that the numbers come from: the edited frames, the source, the prompts."""
        source = self.settings if entry.own is None else _content(self._place(task))
        said = json.dumps([_content(entry.edited), source, asdict(task)], sort_keys=True, default=str)
        return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def has(self, row: Mapping[str, Any] | None, mark: str) -> bool:
        """Whether this very video has been measured by all of the suite."""
        if row is None or row["status"] != "done" or (row.get("outside") or {}).get("content") != mark:
            return False
        return complete(row, self.suite)

    def measure(self, entry: Entry, task: EditTask, mark: str, store: RunStore) -> dict[str, Any]:
        """A row, also of what cannot be read or measured."""
        outcome = Outcome(task, self._head(entry, task, mark))
        try:
            self._work(outcome, entry)
        except Exception as error:
            outcome.fail(error)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        outcome.row |= {"warnings": outcome.warnings, "seconds": {}, "evaluated": now, "finished": now}
        row = outcome.row | {"files": self._files(store, outcome)}
        store.append(self.writer, row)
        return row

    def _files(self, store: RunStore, outcome: Outcome) -> dict[str, str]:
        """Pictures that cannot be kept lose no numbers."""
        try:
            files = keep_files(store, outcome) if self.keep else {}
        except OSError as error:
            outcome.row["warnings"] = [*outcome.warnings, f"its pictures could not be kept: {error}"]
            return {}
        return {name: path.relative_to(store.folder).as_posix() for name, path in files.items()}

    def _work(self, outcome: Outcome, entry: Entry) -> None:
        truth = self._truth(outcome.task, entry)
        footage = open_footage(entry.edited)
        edited, truth, notes = matched(footage.frames, truth)
        outcome.warnings += notes
        measured = self.suite(truth.case(outcome.task, edited))
        outcome.clip, outcome.oracle, outcome.edit = truth.clip, truth.oracle, Edit(edited)
        outcome.row |= {"status": "done", "frames": list(edited.shape), **measured.row()}

    def _truth(self, task: EditTask, entry: Entry) -> Truth:
        if entry.own is None:
            assert self.data is not None
            return Truth.of(self.data, task)
        footage = open_footage(self._place(task))
        clip = Clip(task.clip, footage.frames, fps=footage.fps)
        asset = task.assets.get("region")
        return Truth(clip, region=None if asset is None else read_region(asset, footage, Geometry()))

    def _place(self, task: EditTask) -> Path:
        return self.base / Path(task.clip).expanduser()

    def _head(self, entry: Entry, task: EditTask, mark: str) -> dict[str, Any]:
        about = {"method": entry.method, "variant": entry.method, "run": _identity(entry.method).hash}
        device = environment.device_name("cpu")
        return {
            **head(task, {**about, "steps": None, "model": None}, seed=None, device=device, dtype=None),
            "outside": {"file": entry.said, "content": mark},
            "evaluated_by": maker(),
        }


def _settings(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in FREE}


def _identity(method: str) -> Identity:
    return Identity({"method": {OUTSIDE: method}})


def _folder(config: Mapping[str, Any], name: str) -> Path:
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise UserError("the name is no folder below paths.runs", came=f"name={name}", expected="name=WORD")
    return Path(config["paths"]["runs"]).expanduser() / name


def _stores(folder: Path, methods: Sequence[str]) -> dict[str, RunStore]:
    """A folder for each method in the run's own, which holds nothing but edits of other code."""
    record = folder / RECORD
    known: Any
    try:
        known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {OUTSIDE: True}
    except (OSError, ValueError):
        known = {}
    if not isinstance(known, dict) or not known.get(OUTSIDE):
        raise UserError(
            f"{folder} holds another run",
            came=f"name={folder.name}",
            expected="a new name, or that of videos measured before",
        )
    names = [*known.get("variants", {}), *methods]
    unique = list(dict.fromkeys(names))
    opened = {each: RunStore.open(folder / each, _identity(each)) for each in dict.fromkeys(methods)}
    whole = {OUTSIDE: True, "variants": {each: [] for each in unique}, "reference": unique[0]}
    try:
        write_text(record, json.dumps(whole, indent=2, ensure_ascii=False))
    except OSError as error:
        raise UserError(
            "cannot write the run", came=f"{folder}: {error.strerror}", todo="paths.runs=FOLDER"
        ) from error
    return opened


def _content(path: Path) -> str:
    return of_folder(path, ["."]) if path.is_dir() else of_file(path)
