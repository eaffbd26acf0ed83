"""Which rows a report is about: of a run, of a run of variants, of a sweep's folder, or of several of these."""

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from experiments.report.names import tell_apart
from experiments.report.values import read_rows
from experiments.runs.rows import RECORD, ROWS, row_files
from freemask.errors import UserError, nearest

LOOKED = 50  # rows that are looked at to learn what a folder holds
DEEP = 2  # a sweep's folder, runs of variants in it


@dataclass
class Source:
    """A folder with rows. `variant` is its name within a run of several."""

    folder: Path
    run: Path
    variant: str | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True)
class Sources:
    each: Sequence[Source]
    reference: str | None

    def only(self, names: Sequence[str] | None) -> "Sources":
        known = {source.label for source in self.each}
        for name in names or ():
            if name not in known:
                raise UserError(
                    f"there is no variant '{name}'", came=f"variants={name}", expected=nearest(name, known)
                )
        return self if names is None else Sources([s for s in self.each if s.label in names], self.reference)


def find_run(asked: str, runs: str) -> Path:
    """A folder as it is named, or below paths.runs."""
    given, below = Path(asked).expanduser(), Path(runs).expanduser() / asked
    for folder in (given, below):
        if folder.is_dir():
            return folder
    if given.is_file():
        raise UserError("a run is a folder", came=given, expected="the folder that `freemask run` left")
    known = (
        sorted(each.name for each in below.parent.iterdir() if each.is_dir()) if below.parent.is_dir() else []
    )
    raise UserError(
        f"there is no run '{asked}'",
        came=asked,
        expected=nearest(Path(asked).name, known) if known else f"a folder, or a run below {runs}",
        todo="freemask run name=NAME makes one",
    )


def sources_of(folders: Sequence[Path]) -> Sources:
    found: list[Source] = []
    reference = None
    for folder in folders:
        mine, preferred = _within(folder)
        if not mine:
            raise UserError(
                f"{folder} holds no rows yet",
                came=folder,
                expected="the folder of a run, of a run of variants, or of a sweep",
                todo="freemask run name=NAME, and freemask report NAME",
            )
        reference = reference or preferred
        found += mine
    unique = list({source.folder.resolve(): source for source in found}.values())
    for source, label in zip(unique, labels(unique), strict=True):
        source.label = label
    if len(folders) == 1 and len(runs_of(unique)) > 1:
        unique.sort(key=lambda source: source.label)  # a sweep's folders are named by hashes
    return Sources(unique, reference if len(folders) == 1 else None)


def labels(sources: Sequence[Source]) -> list[str]:
    """A variant's own name where one run is shown; otherwise what is different about the runs."""
    runs = {source.run.resolve() for source in sources}
    if len(runs) == 1:
        return [source.variant or "" for source in sources]
    said = tell_apart([source.parts for source in sources])
    names = [
        source.variant and f"{source.run.name}/{source.variant}" or each or source.folder.name
        for source, each in zip(sources, said, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name} ({source.folder.name})"
        for name, source in zip(names, sources, strict=True)
    ]


def panels_of(folder: Path) -> list[str] | None:
    """What the side-by-side videos of an older run show: the masks that are kept with its frames, and the answer
    where it was measured. Newer rows say it themselves."""
    for row in islice(read_rows(folder), LOOKED):
        kept = (row.get("files") or {}).get("frames")
        if row.get("panels"):
            return None
        if isinstance(kept, str):
            try:
                with zipfile.ZipFile(folder / kept) as stored:
                    names = [name.removesuffix(".npy") for name in stored.namelist()]
            except (OSError, zipfile.BadZipFile):
                continue
            answer = any(
                key.startswith("oracle") and row["metrics"][key] is not None for key in row["metrics"]
            )
            masks = [name for name in names if name != "frames"]
            return ["source", *masks, "edited", *(["true answer"] if answer else [])]
    return None


def _within(folder: Path, deep: int = DEEP) -> tuple[list[Source], str | None]:
    record = _record(folder)
    listed = record.get("variants")
    if isinstance(listed, Mapping):
        below = [(name, folder / name) for name in listed if _has_rows(folder / name)]
        found = [Source(each, folder, name, _parts(each)) for name, each in below]
        return found, str(record.get("reference")) if record.get("reference") else None
    if _has_rows(folder):
        if not _holds_edits(folder):
            if deep < DEEP:
                return [], None
            raise UserError(
                "these rows are no edits",
                came=folder,
                expected="the rows of `freemask run`",
                todo=f"a calibration's own page is {folder / 'index.html'}",
            )
        return [Source(folder, folder, None, record.get("parts") or {})], None
    inside = sorted(each for each in folder.iterdir() if each.is_dir()) if deep else []
    runs = [_within(each, deep - 1) for each in inside if not each.name.startswith(".")]
    return [source for some, _ in runs for source in some], None


def _has_rows(folder: Path) -> bool:
    return bool(row_files(folder / ROWS))


def _holds_edits(folder: Path) -> bool:
    """A calibration has rows too, and a page of its own that must not be lost."""
    looked = list(islice(read_rows(folder), LOOKED))
    return not looked or any(isinstance(row.get("metrics"), Mapping) for row in looked)


def _record(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _parts(folder: Path) -> Mapping[str, Any]:
    parts = _record(folder).get("parts")
    return parts if isinstance(parts, Mapping) else {}


def runs_of(sources: Iterable[Source]) -> list[Path]:
    return list(dict.fromkeys(source.run for source in sources))
