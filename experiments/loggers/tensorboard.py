"""Metrics and seconds as TensorBoard scalars, one step per task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.loggers.base import Logger, flat


class TensorBoard(Logger):
    def __init__(self) -> None:
        self._writer: Any = None
        self._step = 0

    def start(self, folder: Path, record: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def row(self, row: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        for name, value in flat(row).items():
            if name.startswith(("metrics/", "seconds/")) and isinstance(value, int | float):
                self._writer.add_scalar(name, value, self._step)
        self._step += 1

    def end(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._writer.close()
