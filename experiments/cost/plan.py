"""Which cells `freemask bench what=fusion` measures, in which order, and how each is measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from torch import Tensor

from experiments.cost.memory import peak_of
from experiments.cost.work import Edits, timed

WARM = 2  # steps of the edit that is run before one of its size is measured


@dataclass(frozen=True)
class Cell:
    """One measurement: `what` is kept (sizes, and the difference from recompute), time or memory."""

    what: str
    mode: str
    frames: int
    steps: int
    number: int = 0

    @property
    def name(self) -> str:
        more = f" #{self.number + 1}" if self.what == "time" else ""
        return f"{self.what} {self.mode} {self.frames} frames {self.steps} steps{more}"


@dataclass(frozen=True)
class Grid:
    """The table's modes at one size, and the modes whose peak memory is measured over frames x steps."""

    modes: Sequence[str]
    at_frames: int
    at_steps: int
    repeats: int
    grid_modes: Sequence[str]
    frames: Sequence[int]
    steps: Sequence[int]

    def cells(self) -> Iterator[Cell]:
        """Memory first, where nothing depends on the order; then sizes, recompute before what is compared with it;
        then times, the modes in turn."""
        at, modes = (self.at_frames, self.at_steps), list(dict.fromkeys(self.modes))
        sizes = set(product(self.frames, self.grid_modes, self.steps)) | {
            (at[0], mode, at[1]) for mode in modes
        }
        for frames, mode, steps in sorted(sizes):
            yield Cell("memory", mode, frames, steps)
        for mode in sorted(modes, key=lambda each: each != "recompute"):
            yield Cell("kept", mode, *at)
        for number in range(self.repeats):
            for mode in modes if number % 2 == 0 else modes[::-1]:
                yield Cell("time", mode, *at, number)


@dataclass
class Measure:
    """Measures cells, all in one process. Before the first of a mode and size, a short edit makes what libraries keep
    from then on."""

    edits: Edits
    warm: set[tuple[str, int]] = field(default_factory=set)
    reference: Tensor | None = None

    def __call__(self, cell: Cell) -> dict[str, Any]:
        return {"kept": self._kept, "time": self._time, "memory": self._memory}[cell.what](cell)

    def _kept(self, cell: Cell) -> dict[str, Any]:
        if cell.mode != "recompute" and self.reference is None:
            self.reference, _ = self.edits.kept("recompute", cell.frames, cell.steps)
        frames, sizes = self.edits.kept(cell.mode, cell.frames, cell.steps)
        if cell.mode == "recompute":
            self.reference = frames
        self.warm.add((cell.mode, cell.frames))
        assert self.reference is not None
        return {"mb": sizes, "difference": float((frames - self.reference).abs().max())}

    def _time(self, cell: Cell) -> dict[str, Any]:
        """With the peak of the whole process, as the allocator happens to leave it."""
        self._ready(cell)
        work, device = self.edits.work(cell.mode, cell.frames, cell.steps), self.edits.backbone.device
        found: dict[str, float] = {}
        peak = peak_of(lambda: found.update(timed(work, device)), device, keep_caches=True)
        return found | peak.record()

    def _memory(self, cell: Cell) -> dict[str, Any]:
        self._ready(cell)
        return peak_of(
            self.edits.work(cell.mode, cell.frames, cell.steps), self.edits.backbone.device
        ).record()

    def _ready(self, cell: Cell) -> None:
        if (cell.mode, cell.frames) not in self.warm:
            self.edits.work(cell.mode, cell.frames, min(WARM, cell.steps))()
            self.warm.add((cell.mode, cell.frames))
