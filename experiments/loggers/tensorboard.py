"""Metrics, seconds and memory as TensorBoard scalars, and some contact sheets: one step for each row, one line for each
variant."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from PIL import Image

from experiments.loggers.base import numbers
from experiments.loggers.mirror import Mirror
from freemask.errors import UserError


class TensorBoard(Mirror):
    """Event files below RUN/tensorboard. What a killed start wrote is hidden and written again. `sheets`: of so many
    rows of a variant."""

    name, shown = "tensorboard", "sheet"

    def __init__(self, sheets: int = 8) -> None:
        if sheets < 0:
            raise UserError("logger.sheets is too small", came=sheets, expected="0 or more")
        self.previews = sheets
        self._writers: dict[str, Any] = {}

    def open(self, channel: str) -> int:
        there = self._sent.arrived[channel]
        self._writers[channel] = self._writer(channel, there)
        return there

    def send(self, channel: str, step: int, row: Mapping[str, Any], preview: Path | None) -> None:
        for name, value in numbers(row).items():
            self._writers[channel].add_scalar(name, value, step)
        if preview is not None:
            with Image.open(preview) as sheet:
                pixels = np.asarray(sheet.convert("RGB"))
            self._writers[channel].add_image(f"sheets/{row['task']}", pixels, step, dataformats="HWC")
        self._writers[channel].flush()

    def curves(self, points: Sequence[Mapping[str, float]], step: int) -> None:
        """x is the layer's place, and the time. Earlier curves are gone."""
        rmtree(self._folder / self.name / "curves", ignore_errors=True)
        with self._writer("curves") as writer:
            for point in points:
                for name, value in point.items():
                    place = point.get("time" if name.startswith("tmmc") else "layer")
                    if name not in ("layer", "time") and place is not None:
                        writer.add_scalar(f"curves/{name}", value, int(place))

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        super().close()

    def _writer(self, channel: str, purge: int | None = None) -> Any:
        from torch.utils.tensorboard.writer import SummaryWriter

        return SummaryWriter(str(self._folder / self.name / channel), purge_step=purge)
