"""Loggers that go row by row: every row once, under a step that it keeps for ever."""

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.loggers.base import Logger, is_point
from experiments.runs.store import RunStore


class Sent:
    """RUN/NAME/sent.txt: a line for each entry, written before it is sent: channel (a variant), key, whether with a
    preview. Its place in its channel is its step. A line with a channel alone: all above have arrived."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._lock = path, FileLock(f"{path}.lock", timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise RuntimeError("another process mirrors this run") from None
        self.entries: defaultdict[str, dict[str, bool]] = defaultdict(dict)
        self.arrived: Counter[str] = Counter()
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with suppress(ValueError):  # empty, or torn by a kill
                self._keep(*json.loads(line))

    def add(self, channel: str, key: str, preview: bool = False) -> int:
        self._write(channel, key, preview)
        return len(self.entries[channel]) - 1

    def settle(self, channel: str) -> None:
        self._write(channel)

    def close(self) -> None:
        self._lock.release()

    def _write(self, *entry: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(entry)}\n")
        self._keep(*entry)

    def _keep(self, channel: str, key: str | None = None, preview: bool = False) -> None:
        if key is None:
            self.arrived[channel] = len(self.entries[channel])
        else:
            self.entries[channel][key] = preview


class Mirror(Logger):
    """Where it is opened again, entries that did not arrive are read from the run's rows and sent under their old
    steps: neither a run that goes on nor a kill at any moment loses or doubles a row, once the command was started
    again to its end. Without RUN/NAME all is sent again. A second process at the same time sends nothing."""

    name = ""
    shown, previews = "video", 0  # which file of a row is its preview, and how many a channel gets

    def open(self, channel: str) -> int:
        """How many entries are there already."""
        raise NotImplementedError

    def send(self, channel: str, step: int, row: Mapping[str, Any], preview: Path | None) -> None:
        raise NotImplementedError

    def curves(self, points: Sequence[Mapping[str, float]], step: int) -> None:
        """Of a calibration: the k-th point is the k-th layer's and the k-th time's cost."""

    def start(self, folder: Path, record: Mapping[str, Any]) -> None:
        self._folder, self._record = folder, record
        self._sent = Sent(folder / self.name / "sent.txt")
        self._opened: list[str] = []
        self._points: list[dict[str, float]] = []

    def row(self, row: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        if is_point(row):
            self._points.append(dict(row["metrics"]))
            return
        channel, key, file = channel_of(row), _key(row), files.get(self.shown)
        if key in self._sent.entries[channel]:
            return
        self._open(channel)
        few = sum(self._sent.entries[channel].values()) < self.previews
        preview = file if few and file is not None and file.is_file() else None
        self.send(channel, self._sent.add(channel, key, preview is not None), row, preview)

    def end(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """What earlier starts wrote without this logger, or lost with it, is sent now."""
        for row in rows:
            self.row(row, {name: self._folder / each for name, each in row.get("files", {}).items()})
        for channel, entries in list(self._sent.entries.items()):
            if len(entries) > self._sent.arrived[channel]:
                self._open(channel)
        known, key = self._sent.entries[""], f"curves {zlib.crc32(json.dumps(self._points).encode())}"
        if self._points and ("" in self._opened or key not in known):
            self._open("")
            self.curves(self._points, self._sent.add("", f"{key} {len(known)}" if key in known else key))
        self.finish(rows)
        for channel in self._opened:
            self._sent.settle(channel)

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Returns when everything has arrived."""

    def close(self) -> None:
        if hasattr(self, "_sent"):
            self._sent.close()

    def _open(self, channel: str) -> None:
        if channel in self._opened:
            return
        there = self.open(channel)
        self._opened.append(channel)
        missing = list(enumerate(self._sent.entries[channel].items()))[there:]
        store = RunStore(self._folder / channel)
        rows = {_key(row): row for row in store.rows()} if missing else {}
        for step, (key, preview) in missing:
            if key in rows:
                video = store.folder / rows[key].get("files", {}).get("video", "none")
                self.send(channel, step, rows[key], video if preview and video.is_file() else None)


def channel_of(row: Mapping[str, Any]) -> str:
    return str(row.get("variant", ""))


def _key(row: Mapping[str, Any]) -> str:
    """An attempt at a task: a task that is done again is another entry."""
    return f"{row['task']} {row.get('finished', '')}"
