"""Metrics, seconds and memory as TensorBoard scalars: one step for each row, one line for each variant."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

from experiments.loggers.base import numbers
from experiments.loggers.mirror import Mirror


class TensorBoard(Mirror):
    """Event files below RUN/tensorboard. What a killed start wrote is hidden and written again."""

    name = "tensorboard"

    def __init__(self) -> None:
        self._writers: dict[str, Any] = {}

    def open(self, channel: str) -> int:
        there = self._sent.arrived[channel]
        self._writers[channel] = self._writer(channel, there)
        return there

    def send(self, channel: str, step: int, row: Mapping[str, Any], video: Path | None) -> None:
        for name, value in numbers(row).items():
            self._writers[channel].add_scalar(name, value, step)
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
