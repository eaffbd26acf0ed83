"""A run as it lies on disk: found by name, with its variants' folders, its plans and its rows. No torch."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.runs.record import RECORD, Record
from experiments.runs.rows import ROWS, Row, columns, latest, row_files
from experiments.runs.store import RunStore
from freemask.errors import UserError, nearest

PLANS = "plans"
EDITS = ("edit", "outside")  # kinds of work whose rows are edits
DEEP = 4  # folders below a place in which runs are looked for: those of a sweep lie in a folder of their own


@dataclass(frozen=True)
class Run:
    """`stores` by variant; a run of one configuration has one store without a name."""

    folder: Path
    record: Record
    stores: Mapping[str | None, RunStore]

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """A record that is there and cannot be read is an error; a folder without rows is a run that has none."""
        record = Record.read(folder) if (folder / RECORD).exists() else Record()
        if record.variants is None:
            return cls(folder, record, {None: RunStore(folder)} if (folder / ROWS).is_dir() else {})
        named = {name: folder / name for name in record.variants if Path(name).name == name}
        return cls(
            folder, record, {name: RunStore(each) for name, each in named.items() if (each / ROWS).is_dir()}
        )

    @property
    def holds_rows(self) -> bool:
        return any(row_files(store.folder) for store in self.stores.values())

    def rows(self) -> Iterator[Row]:
        """The last row of each item, variant after variant; files as seen from the run's folder."""
        for name, store in self.stores.items():
            for row in latest(store.folder).values():
                yield seen_from_run(row, name)

    def columns(self) -> dict[str, dict[str, Any]]:
        return {name: each for store in self.stores.values() for name, each in columns(store.folder).items()}

    def plans(self) -> Iterator[dict[str, Any]]:
        """The plans as they were written, the oldest first."""
        written = (self.folder / PLANS).glob("*.json")
        for path in sorted(written, key=lambda path: path.stat().st_mtime_ns):
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(found, dict) and isinstance(found.get("items"), list):
                yield found


def seen_from_run(row: Row, variant: str | None) -> Row:
    prefix = "" if variant is None else f"{variant}/"
    return {**row, "files": {key: prefix + each for key, each in row.get("files", {}).items()}}


def below(place: Path, known_by: Collection[str] = (RECORD,)) -> Iterator[Path]:
    """The runs at and below a folder; what lies in a run is not searched. A single edit has rows and no record."""
    for here, folders, files in os.walk(place):
        folders.sort()
        if any(each in files or each in folders for each in known_by):
            folders.clear()
            yield Path(here)
        elif len(Path(here).relative_to(place).parts) >= DEEP:
            folders.clear()


def edits(place: Path) -> list[Run]:
    """The runs at and below a folder whose rows are edits; a single edit's folder too."""
    found = [Run.open(each) for each in below(place, (RECORD, ROWS))]
    return [each for each in found if each.record.job in EDITS]


def _known(place: Path) -> list[str]:
    """Names of the folders there that are runs, or hold some: inversions and tuned weights may lie beside them."""
    return sorted(each.name for each in place.iterdir() if each.is_dir() and any(below(each, (RECORD, ROWS))))


def find(asked: str, runs: str | Path) -> Path:
    """The folder of a run, or of a sweep: as a path, or by its name below paths.runs."""
    given, named = Path(asked).expanduser(), Path(runs).expanduser() / asked
    for folder in (named, given):
        if folder.is_dir():
            return folder
    if given.is_file():
        raise UserError("a run is a folder", came=given, expected="the folder that `freemask run` left")
    near = named.parent
    known = _known(near) if near.is_dir() else []
    expected = nearest(Path(asked).name, known) if known else f"a folder, or a run below {runs}"
    todo = (
        "freemask run name=NAME makes one, with keep=all one with all its videos; freemask status shows all"
    )
    raise UserError(f"there is no run '{asked}'", came=asked, expected=expected, todo=todo)
