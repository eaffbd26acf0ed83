"""Weights & Biases as a mirror of the rows: metrics, the table, preview videos and curves, online or offline."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.loggers.base import Logger, flat, is_point, numbers
from experiments.loggers.ledger import Ledger, key_of
from experiments.loggers.wandb_file import steps
from experiments.loggers.wandb_run import Session
from experiments.runs.rows import file_name
from experiments.runs.store import RunStore
from freemask.errors import UserError

LEFT_OUT = ("columns", "versions", "files", "panels")
CURVES = {"lmmc": "layer", "tmmc": "time"}  # a curve of a calibration, and what it is drawn over
MODES = ("online", "offline")


class Wandb(Logger):
    """One W&B run for each variant, grouped under the run's name. Its id is made of the run's name and the variant's
    identity, so that the run that goes on goes on there too; what was sent is noted in RUN/loggers/wandb.jsonl, so that
    nothing is sent twice. `videos` is the most previews of a variant. `mode` null: online where there is a key."""

    def __init__(
        self,
        project: str = "freemask",
        entity: str | None = None,
        videos: int = 8,
        mode: str | None = None,
    ) -> None:
        if mode is not None and mode not in MODES:
            raise UserError(f"logger.mode cannot be '{mode}'", came=mode, expected=", ".join(MODES))
        if videos < 0:
            raise UserError("logger.videos is too small", came=videos, expected="0 or more")
        self._session = Session(project, entity, mode, say=_notice)
        self._videos = videos
        self._folder, self._record = Path(), {}
        self._ledger: Ledger | None = None
        self._points: list[dict[str, float]] = []

    def start(self, folder: Path, record: Mapping[str, Any]) -> None:
        self._folder, self._record = folder, dict(record)
        self._ledger = Ledger(folder, "wandb")
        if not self._ledger.mine:
            raise RuntimeError("another process mirrors this run")

    def row(self, row: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        if is_point(row):
            self._points.append(dict(row["metrics"]))
            return
        channel, key = str(row.get("variant", "")), key_of(row)
        video = files.get("video")
        assert self._ledger is not None
        wanted = self._ledger.count(channel, "video ") < self._videos
        preview = video if video is not None and video.is_file() and wanted else None
        if self._send(channel, key, _values(row, preview)) and preview is not None:
            self._ledger.add(channel, f"video {key}")

    def end(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """What earlier starts wrote without a mirror, or lost with it, is sent now; then the tables."""
        assert self._ledger is not None
        for channel in self._ledger.unsure():
            self._run(channel)
        for row in rows:
            if not self._ledger.has(str(row.get("variant", "")), key_of(row)):
                self.row(row, self._files(row))
        for channel in dict.fromkeys(str(row.get("variant", "")) for row in rows):
            self._table(channel, [row for row in rows if str(row.get("variant", "")) == channel])
        self._curves()
        for channel in self._session.finish():
            self._ledger.settle(channel)
        self._ledger.close()

    def abandon(self) -> None:
        self._session.abandon()
        if self._ledger is not None:
            self._ledger.close()

    def _files(self, row: Mapping[str, Any]) -> dict[str, Path]:
        return {name: self._folder / each for name, each in row.get("files", {}).items()}

    def _send(self, channel: str, key: str, values: Mapping[str, Any]) -> bool:
        """Under the entry's own step; W&B itself passes over a step that it has."""
        assert self._ledger is not None
        if self._ledger.has(channel, key):
            return False
        run, step = self._run(channel), self._ledger.next(channel)
        if step >= run.step:
            run.log(dict(values), step=step)
        self._ledger.add(channel, key)
        return True

    def _table(self, channel: str, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        key = f"table {_digest([key_of(row) for row in rows])}"
        assert self._ledger is not None
        if self._ledger.has(channel, key):
            return
        cells = [flat({name: row[name] for name in row if name not in LEFT_OUT}) for row in rows]
        columns = list(dict.fromkeys(name for row in cells for name in row))
        lines = [[row.get(column) for column in columns] for row in cells]
        table = wandb.Table(columns=list[Any](columns), data=list[Any](lines), allow_mixed_types=True)
        self._run(channel).summary.update(summary(rows))
        self._send(channel, key, {"rows": table})

    def _curves(self) -> None:
        import wandb

        key = f"curves {_digest(self._points)}"
        assert self._ledger is not None
        if not self._points or self._ledger.has("", key):
            return
        plots: dict[str, Any] = {}
        for name, over in CURVES.items():
            columns = [over, name, f"{name}_low", f"{name}_high"]
            data = [[point[column] for column in columns] for point in self._points if name in point]
            table = wandb.Table(columns=list[Any](columns), data=list[Any](data))
            plots[name] = wandb.plot.line(table, over, name, title=f"{name.upper()} by {over}")
        self._send("", key, plots)

    def _run(self, channel: str) -> Any:
        new = channel not in self._session
        run = self._session.run(channel, folder=self._folder, **self._about(channel))
        if new:
            self._make_up(channel, run)
        return run

    def _make_up(self, channel: str, run: Any) -> None:
        """What W&B lost when its process was killed: rows go under the steps that they had, tables are made anew."""
        assert self._ledger is not None
        lost = self._ledger.unsure().get(channel, {})
        if not lost:
            return
        there = set(range(run.step)) if run.step else steps(self._folder, run.id)
        store = RunStore(self._folder / channel if channel else self._folder)
        rows = {key_of(row): row for row in store.rows()}
        previews = {key.removeprefix("video ") for key in lost if key.startswith("video ")}
        for key, step in sorted(lost.items(), key=lambda each: each[1]):
            if step in there or key.startswith("video "):
                continue
            if key not in rows:
                self._ledger.forget(channel, key)
                continue
            video = store.folder / rows[key].get("files", {}).get("video", "none")
            run.log(_values(rows[key], video if key in previews and video.is_file() else None), step=step)

    def _about(self, channel: str) -> dict[str, Any]:
        parts = self._record["parts"]
        own = parts[channel] if channel else parts
        identity = _identity(own) if channel else str(self._record["identity"])
        name = self._folder.name
        return {
            "id": f"{file_name(name)[:40]}-{identity}",
            "name": f"{name}/{channel}" if channel else name,
            "group": name,
            "job_type": "calibrate" if "binarise" in own else "edit",
            "config": {**own, "identity": identity, "variant": channel or None},
        }


def _values(row: Mapping[str, Any], video: Path | None) -> dict[str, Any]:
    import wandb

    values: dict[str, Any] = {"task": row["task"], "done": int(row["status"] == "done"), **numbers(row)}
    if video is not None:
        caption = f"{row['task']}: {row.get('target', '')}"
        values["video"] = wandb.Video(str(video), caption=caption, format="mp4")
    return values


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What W&B's own table shows of a variant: counts, and means over the edits that are done."""
    done = [numbers(row) for row in rows if row["status"] == "done"]
    found: dict[str, Any] = {"done": len(done), "failed": len(rows) - len(done)}
    for name in dict.fromkeys(name for row in done for name in row):
        values = [row[name] for row in done if name in row]
        found[f"mean/{name.removeprefix('metrics/')}"] = sum(values) / len(values)
    return found


def _identity(parts: Mapping[str, Any]) -> str:
    """As the variant's own record and rows name it."""
    from experiments.config.identity import Identity

    return Identity(parts).hash


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _notice(line: str) -> None:
    with suppress(OSError):
        print(f"W&B: {line}", file=sys.stderr)
