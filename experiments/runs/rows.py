"""Rows as they lie on disk: what a row says, how files are written whole, and which row of an item is the last one.

A run's folder has `rows/*.jsonl`, one file per writer, that only ever grow. Of several rows of one item the last one
finished counts; torn lines are passed over. Nothing here loads torch."""

import hashlib
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, Required, TypedDict, cast

from freemask.data.names import id_fault
from freemask.errors import UserError

ROWS, COLUMNS = "rows", "columns.json"
JSON = json.JSONDecoder(parse_constant=lambda _: None)  # what is no number is nothing
# Values that most rows of a run have in common: they lie in memory once.
ALIKE = ("versions", "choices", "commit", "device", "message", "run", "model", "evaluated_by")


class Row(TypedDict, total=False):
    """What one item came to. `task` and `status` are always there; the rest as far as the kind of work knows it."""

    task: Required[str]
    status: Required[str]  # done, failed; of a calibration also: no mask
    message: str  # why it failed
    where: str  # file:line of an error that is not the user's
    finished: str  # the moment the row was written: the last one counts

    clip: str
    kind: str
    source: str
    target: str
    words: dict[str, str]
    edits: list[dict[str, Any]]  # words, kind and region of each, where there are several in one clip
    level: str  # how fine they are, where the data says it
    guessed: dict[str, str]  # of kind and words, those that were read off the prompts, and whether surely

    method: str | None  # as the user chose it
    choices: dict[str, str | None]  # the option of every group
    variant: str
    run: str  # the identity of its variant
    writer: str  # the worker that wrote it
    model: str | None  # the identity of the loaded model
    steps: int | None
    guidance: float  # as it was used, asked for or the model's own
    seed: int | None
    mark: str  # of what besides the run's identity the numbers come from

    metrics: dict[str, float | None]
    metric_seconds: dict[str, float]
    metric_errors: dict[str, str]
    metric_warnings: list[str]
    facts: dict[str, Any]
    frames: list[int]
    warnings: list[str]
    seconds: dict[str, float]
    peak: dict[str, Any]
    peak_rss_gb: float | None
    peak_gpu_gb: float | None
    retried: dict[str, Any] | None
    files: dict[str, str]  # by kind, relative to the variant's folder
    panels: list[str]  # what a side-by-side video shows
    sought: list[str]  # what its masks show the place of: words of the source prompt, or all but some

    commit: str
    dirty: bool
    versions: dict[str, str]
    device: str
    dtype: str | None

    evaluation: dict[str, Any]  # of a row that was measured again: the suite's mark, the status
    edited_at: str | None
    evaluated: str
    evaluated_by: dict[str, Any]
    outside: dict[str, str]  # of other people's videos: the file and its content
    measuring: float  # its seconds, where those of the edit are not known

    word: str  # of a calibration, with what follows
    mask_share: float
    sites: list[str]
    strides: list[int]
    grids: list[list[int]]
    times: list[int | float]
    iou: list[list[float]]

    found: dict[str, Any]  # of `freemask bench`: the numbers


class Brief(NamedTuple):
    """What of an item's last row decides whether there is work left."""

    status: str
    finished: str
    mark: str


def brief(row: Row) -> Brief:
    return Brief(row["status"], str(row.get("finished", "")), str(row.get("mark", "")))


class RowIndex:
    """The last row of each item in brief, kept up to date at the price of what was written since the last look."""

    def __init__(self, folder: Path, brief: Callable[[Row], Brief] = brief) -> None:
        self.last: dict[str, Brief] = {}
        self._brief = brief
        self._folder = folder
        self._read: dict[str, int] = {}

    def refresh(self) -> None:
        for _ in self.news():
            pass

    def news(self) -> Iterator[Row]:
        """Every whole row that was not there at the last look."""
        for path in row_files(self._folder):
            with path.open("rb") as file:
                file.seek(self._read.get(path.name, 0))
                for line in file:
                    row = _row_of(line)
                    if row is None and not line.endswith(b"\n"):
                        break  # somebody is writing it, or was killed: the next row begins with a line break
                    self._read[path.name] = self._read.get(path.name, 0) + len(line)
                    if row is not None:
                        self._keep(row)
                        yield row

    def _keep(self, row: Row) -> None:
        now = self._brief(row)
        known = self.last.get(row["task"])
        if known is None or known.finished <= now.finished:
            self.last[row["task"]] = now


def read(folder: Path) -> Iterator[Row]:
    """Every row of a variant's folder, file after file."""
    alike: dict[str, Any] = {}
    for path in row_files(folder):
        with path.open("rb") as file:
            for line in file:
                row: Any = _row_of(line)
                if row is not None:
                    for key in ALIKE:
                        if key in row:
                            row[key] = alike.setdefault(f"{key} {row[key]}", row[key])
                    row.pop("columns", None)  # of rows made before columns had a file of their own
                    yield row


def latest(folder: Path) -> dict[str, Row]:
    """The last row of each item, in the order of their ids."""
    last: dict[str, Row] = {}
    for row in read(folder):
        known = last.get(row["task"])
        if known is None or str(known.get("finished", "")) <= str(row.get("finished", "")):
            last[row["task"]] = row
    return dict(sorted(last.items()))


def columns(folder: Path) -> dict[str, dict[str, Any]]:
    """What the columns of a variant's metrics mean: unit, direction, description, needs. Rows of earlier versions said
    it themselves, each of them all."""
    path = folder / COLUMNS
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else _columns_in_rows(folder)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _columns_in_rows(folder: Path) -> Any:
    for path in row_files(folder):
        with path.open("rb") as file:
            for row in filter(None, map(_row_of, file)):
                return cast(Any, row).get("columns")
    return None


def keep_columns(folder: Path, told: Mapping[str, Any]) -> None:
    """Columns that are not there yet are added."""
    known = columns(folder)
    if any(known.get(name) != each for name, each in told.items()):
        write_text(folder / COLUMNS, json.dumps({**known, **told}, indent=1, ensure_ascii=False))


def numbers(found: Any) -> dict[str, float]:
    """What of a row's metrics or seconds is a finite number, by name."""
    known = found if isinstance(found, dict) else {}
    return {name: each for name, each in known.items() if type(each) in (int, float) and isfinite(each)}


def row_files(folder: Path) -> list[Path]:
    return sorted((folder / ROWS).glob("*.jsonl"))


def _row_of(line: bytes) -> Row | None:
    """None for a line that is torn or is no row."""
    if not line.strip():
        return None
    try:
        row = JSON.decode(line.decode())
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and isinstance(row.get("task"), str) and isinstance(row.get("status"), str)
    return row if whole else None  # pyright: ignore[reportReturnType]


def file_name(text: str) -> str:
    """The text itself where it is a harmless file name, otherwise a tame one that is still unique."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", text) or _harmless(text):
        return text
    tame = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip(".-")[:80]
    return f"{tame or 'task'}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _harmless(text: str) -> bool:
    """An id in letters of any script, of which every file system makes the same."""
    if len(text) > 99 or unicodedata.normalize("NFC", text) != text:
        return False
    return text[:1].isalnum() and id_fault(text) is None and len(text.encode()) < 100


def write_text(path: Path, text: str) -> None:
    """All or nothing: a reader never sees half a file, and two writers never share one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        "the run cannot be written",
        came=f"{path}: {error.strerror or error}",
        expected="a folder that may be written to, with space left in it",
        todo="make room or choose paths.runs=FOLDER; the same command goes on: all earlier rows are whole",
    )
