"""Metrics, seconds and memory as TensorBoard scalars: one step for each row, one line for each variant."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.loggers.base import Logger, is_point, numbers
from experiments.loggers.ledger import Ledger, key_of

CURVE = "point"


class TensorBoard(Logger):
    """Event files below RUN/tensorboard. A run that goes on adds its own rows alone; the curves of a calibration are
    drawn again when they have changed, under a new name."""

    def __init__(self) -> None:
        self._folder, self._ledger = Path(), None
        self._writers: dict[str, Any] = {}
        self._points: list[dict[str, float]] = []

    def start(self, folder: Path, record: Mapping[str, Any]) -> None:
        import torch.utils.tensorboard.writer  # noqa: F401 -- says at once where it is missing

        self._folder, self._ledger = folder / "tensorboard", Ledger(folder, "tensorboard")
        if not self._ledger.mine:
            raise RuntimeError("another process feeds it")

    def row(self, row: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        if is_point(row):
            self._points.append(dict(row["metrics"]))
            return
        assert self._ledger is not None
        channel, key = str(row.get("variant", "")), key_of(row)
        if self._ledger.has(channel, key):
            return
        step = self._ledger.next(channel)
        writer = self._writer(channel)
        for name, value in numbers(row).items():
            writer.add_scalar(name, value, step)
        writer.flush()
        self._ledger.add(channel, key)

    def end(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self.row(row, {})
        self._curves()
        self.abandon()

    def abandon(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        if self._ledger is not None:
            self._ledger.close()

    def _curves(self) -> None:
        """The k-th point is the k-th layer's and the k-th time's cost; x is the layer's place, and the time."""
        assert self._ledger is not None
        key = f"curves {self._points}"
        if not self._points or self._ledger.has("curves", key):
            return
        number = self._ledger.next("curves")
        writer = self._writer("curves" if number == 0 else f"curves-{number + 1}")
        for point in self._points:
            for name, value in point.items():
                place = point.get("time" if name.startswith("tmmc") else "layer")
                if name not in ("layer", "time") and place is not None:
                    writer.add_scalar(f"curves/{name}", value, int(place))
        writer.flush()
        self._ledger.add("curves", key)

    def _writer(self, channel: str) -> Any:
        from torch.utils.tensorboard.writer import SummaryWriter

        if channel not in self._writers:
            self._writers[channel] = SummaryWriter(str(self._folder / channel))
        return self._writers[channel]
