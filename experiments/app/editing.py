"""An edit as `freemask edit` makes it, and what the page shows of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from evaluation.column import Column
from evaluation.tables.numbers import fact, number
from experiments.app.settings import Asking
from experiments.app.work import Reporter, Shelf
from experiments.jobs.explain import asked, explained, others
from experiments.jobs.outcome import Outcome
from freemask.errors import UserError
from freemask.types import Clip, Edit


@dataclass(frozen=True, eq=False)
class Edited:
    clip: Clip
    edit: Edit
    outcome: Outcome
    folder: Path
    files: Mapping[str, Path]
    seconds: float
    notes: Sequence[str]

    @property
    def title(self) -> str:
        return asked(self.outcome.row)

    def numbers(self) -> list[tuple[str, str, str, str]]:
        """Of each metric that applies: its name, its value, which way is better, and what it is."""
        found = []
        for name, value in self.outcome.row.get("metrics", {}).items():
            if value is not None:
                column = Column.of(name, self.outcome.columns.get(name) or {})
                found.append((name, number(value), column.arrow, column.description))
        return found

    def facts(self) -> dict[str, str]:
        row = self.outcome.row
        return {
            **explained(row),
            **{name: fact(value) for name, value in others(row.get("facts", {})).items()},
        }

    def stages(self) -> dict[str, float]:
        """Seconds of each."""
        return {name: each for name, each in self.outcome.seconds.items() if each >= 0.05}


def edited(words: Sequence[str], shelf: Shelf, reporter: Reporter) -> Edited:
    started = perf_counter()
    planned = Asking.of(words).planned()
    outcome, files = planned.make(reporter, load=lambda: shelf.model(planned.config))
    row = outcome.row
    if row.get("status") != "done" or outcome.clip is None or outcome.edit is None:
        todo = f"see the row in {planned.folder / 'rows'}, which holds the details"
        raise UserError(f"the edit failed: {row.get('message')}", todo=todo)
    notes = [*reporter.lines, *row.get("warnings", ()), *row.get("metric_warnings", ())]
    took, told = perf_counter() - started, list(dict.fromkeys(notes))
    return Edited(outcome.clip, outcome.edit, outcome, planned.folder, files, took, told)
