"""Weights & Biases as a mirror of the rows: metrics, the table, preview videos and curves, online or offline."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from experiments.loggers.base import numbers, table
from experiments.loggers.mirror import Mirror, channel_of
from experiments.runs.rows import file_name
from freemask.errors import UserError

LEFT_OUT = ("columns", "versions", "files", "panels")
CURVES = {"lmmc": "layer", "tmmc": "time"}  # a curve of a calibration, and what it is drawn over
QUIET: dict[str, Any] = {"silent": True, "console": "off"}
PATIENCE: dict[str, Any] = {"init_timeout": 20, "finish_timeout": 300, "finish_timeout_raises": True}
MEANS = ("metrics/*", "seconds/*", "peak/*")  # their last values say nothing; the summary holds means


def _wandb() -> Any:
    """Seconds to import: where it is used only."""
    return import_module("wandb")


class Wandb(Mirror):
    """One W&B run for each variant, grouped under the run's name. Its id is made of the run's name and the variant's
    identity, so that a run that goes on goes on there too. `videos` is the most previews of a variant. `mode` null:
    online where there is a key and a network.

    Online, W&B tells at which step a run goes on (`run.step`); everything later is sent again. Offline it knows
    nothing of earlier starts, and `wandb sync` lets a later folder of a run replace an earlier one: each start that has
    something new to tell writes the whole run. A kill in the middle of W&B's own writing costs that start's last rows
    (offline: what its process had not put on the disk) until the command is started again."""

    name = "wandb"

    def __init__(
        self,
        project: str = "freemask",
        entity: str | None = None,
        videos: int = 8,
        mode: Literal["online", "offline"] | None = None,
    ) -> None:
        if videos < 0:
            raise UserError("logger.videos is too small", came=videos, expected="0 or more")
        self._project, self._entity, self.previews = project, entity, videos
        self._mode: str | None = mode
        self._runs: dict[str, Any] = {}

    def open(self, channel: str) -> int:
        self._runs[channel] = self._connect(channel)
        return self._runs[channel].step

    def send(self, channel: str, step: int, row: Mapping[str, Any], preview: Path | None) -> None:
        values: dict[str, Any] = {"task": row["task"], "done": int(row["status"] == "done"), **numbers(row)}
        if preview is not None:
            caption = f"{row['task']}: {row.get('target', '')}"
            values["video"] = _wandb().Video(str(preview), caption=caption, format="mp4")
        self._log(channel, step, values)

    def curves(self, points: Sequence[Mapping[str, float]], step: int) -> None:
        wandb = _wandb()
        plots: dict[str, Any] = {}
        for name, over in CURVES.items():
            columns = [over, name, f"{name}_low", f"{name}_high"]
            data = [[point[column] for column in columns] for point in points if name in point]
            title = f"{name.upper()} by {over}"
            plots[name] = wandb.plot.line(wandb.Table(columns=columns, data=data), over, name, title=title)
        self._log("", step, plots)

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for channel, run in self._runs.items():
            own = [row for row in rows if channel_of(row) == channel]
            columns, lines = table(own, LEFT_OUT)
            cells = [[line.get(column) for column in columns] for line in lines]
            shown = _wandb().Table(columns=columns, data=cells, allow_mixed_types=True)
            run.summary.update(summary(own) | {"rows": shown})
            run.finish()

    def close(self) -> None:
        """Leaves nothing behind that would speak up when the process ends. A run that can still be finished is."""
        if self._runs:
            self._teardown()
        super().close()

    def _log(self, channel: str, step: int, values: dict[str, Any]) -> None:
        run = self._runs[channel]
        run.log(values, step=max(step, run.step), commit=True)

    def _teardown(self) -> None:
        with suppress(Exception, SystemExit):
            _wandb().teardown()

    def _connect(self, channel: str) -> Any:
        wandb = _wandb()
        wandb.setup(settings=wandb.Settings(**QUIET))
        self._mode = self._mode or os.environ.get("WANDB_MODE")
        if self._mode is None:
            self._mode = (
                "online" if wandb.login(prompt=False, verify=False) else self._offline("there is no key")
            )
        try:
            return self._begin(channel)
        except (wandb.Error, OSError) as error:
            if self._mode != "online" or self._opened:
                raise
            self._teardown()  # it keeps the id of a run that failed to start
            self._mode = self._offline((str(error).splitlines() or [type(error).__name__])[0])
        return self._begin(channel)

    def _offline(self, why: str) -> str:
        with suppress(OSError):
            hint = f"`wandb sync {self._folder}/wandb/offline-run-*` sends it later"
            print(f"W&B: offline, since {why}; {hint}", file=sys.stderr)
        return "offline"

    def _begin(self, channel: str) -> Any:
        wandb = _wandb()
        run = wandb.init(
            project=self._project,
            entity=self._entity,
            dir=str(self._folder),
            mode=self._mode,
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**QUIET, **PATIENCE),
            **self._about(channel),
        )
        for each in MEANS:
            run.define_metric(each, summary="none")
        return run

    def _about(self, channel: str) -> dict[str, Any]:
        from experiments.config.identity import Identity

        parts, name = self._record["parts"], self._folder.name
        own = parts[channel] if channel else parts
        identity = Identity(own).hash if channel else str(self._record["identity"])
        return {
            "id": f"{file_name(name)[:40]}-{identity}",
            "name": f"{name}/{channel}" if channel else name,
            "group": name,
            "job_type": "calibrate" if "binarise" in own else "edit",
            "config": {**own, "identity": identity, "variant": channel or None},
        }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What W&B's own table shows of a variant: counts, and means over the edits that are done."""
    done = [numbers(row) for row in rows if row["status"] == "done"]
    found: dict[str, Any] = {"done": len(done), "failed": len(rows) - len(done)}
    for name in dict.fromkeys(name for row in done for name in row):
        values = [row[name] for row in done if name in row]
        found[f"mean/{name.removeprefix('metrics/')}"] = sum(values) / len(values)
    return found
