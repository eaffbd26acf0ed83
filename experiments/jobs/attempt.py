"""One try at an item: its row, what each stage took in time and memory, and what went wrong."""

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch

from experiments.jobs import thrift
from experiments.runs.rows import Row
from freemask import memory
from freemask.errors import UserError

# For the makers of libraries, not for readers of a row.
CHORES = (DeprecationWarning, FutureWarning, PendingDeprecationWarning, ResourceWarning)
SPENT = "out of memory"  # the stage that the seconds of a first try go to


@dataclass
class Attempt:
    """Stages never overlap, so that the sum of their seconds is the item's time."""

    row: Row
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    meter: memory.Meter | None = None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = perf_counter()
        try:
            with memory.stage(stage):
                yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - started

    def tell(self, **facts: Any) -> None:
        """Enters facts into the row."""
        self.columns |= facts.pop("columns", {})
        self.row = cast(Row, {**self.row, **facts})

    def done(self, **facts: Any) -> None:
        self.tell(status="done", **facts)

    def work(self, do: Callable[[], None], todo: str = "") -> bool:
        """False where memory ran out; then `todo` says what would save more. Any other error is the row's. The error
        dies here, and with it the tensors that it holds."""
        try:
            do()
        except Exception as error:
            lacking = thrift.ran_out(error)
            self.fail(error, todo if lacking else "")
            return not lacking
        return True

    def fail(self, error: Exception, todo: str = "") -> None:
        known = isinstance(error, UserError)
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = str(error) if known else f"{type(error).__name__}: {error}"
        self.row["status"] = "failed"
        self.row["message"] = f"{message}\n  do next:  {todo}" if todo else message
        self.row["where"] = "" if known else f"{Path(where.filename).name}:{where.lineno}"

    def begin_again(self) -> None:
        """After a first try that ran out of memory."""
        self.row["message"] = self.row["where"] = ""
        self.seconds = {SPENT: sum(self.seconds.values())}
        self.warnings.clear()
        if self.meter is not None:
            self.meter.stages.clear()
        thrift.free()


@contextmanager
def measured(attempt: Attempt, device: torch.device | str) -> Iterator[None]:
    """Everything that a row says of how it came to be."""
    with memory.Meter(torch.device(device)) as meter, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attempt.meter = meter
        yield
    texts = [str(each.message) for each in caught if not issubclass(each.category, CHORES)]
    attempt.tell(
        warnings=list(dict.fromkeys([*attempt.warnings, *texts])),
        seconds=attempt.seconds,
        peak=meter.record(),
        peak_rss_gb=meter.whole.rss_gb,
        peak_gpu_gb=meter.whole.gpu_gb,
    )
