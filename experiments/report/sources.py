"""Which rows a report is about: of a run, of a run of variants, of a sweep's folder, or of several of these."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.report.names import tell_apart
from experiments.runs.record import RECORD, Record
from experiments.runs.rows import ROWS
from experiments.runs.run import Run, below
from freemask.errors import UserError, nearest

EDITS = ("edit", "outside")  # kinds of work whose rows are edits


@dataclass(frozen=True)
class Source:
    """A folder with rows. `variant` is its name within a run of several, whose record is `whole`; `label` what it is
    called on the page."""

    folder: Path
    run: Path
    record: Record
    whole: Record
    variant: str | None = None
    label: str = ""


@dataclass(frozen=True)
class Sources:
    each: Sequence[Source]
    reference: str | None

    def only(self, names: Sequence[str] | None) -> "Sources":
        known = {source.label for source in self.each}
        for name in names or ():
            if name not in known:
                raise UserError(
                    f"there is no variant '{name}'", came=f"variants={name}", expected=nearest(name, known)
                )
        return self if names is None else Sources([s for s in self.each if s.label in names], self.reference)


def sources_of(folders: Sequence[Path]) -> Sources:
    found: dict[Path, Source] = {}
    reference = None
    for folder in folders:
        runs = [Run.open(each) for each in below(folder, (RECORD, ROWS))] or [Run.open(folder)]
        mine = [source for run in runs for source in _of_run(run, alone=len(runs) == 1)]
        if not mine:
            raise UserError(
                f"{folder} holds no rows yet",
                came=folder,
                expected="the folder of a run, of a run of variants, or of a sweep",
                todo="freemask run name=NAME, and freemask report NAME",
            )
        reference = reference or (runs[0].record.reference if len(runs) == 1 else None)
        found |= {source.folder.resolve(): source for source in mine}
    labelled = _labelled(list(found.values()))
    if len(folders) == 1 and len(runs_of(labelled)) > 1:
        labelled.sort(key=lambda source: source.label)  # a sweep's folders are named by hashes
    return Sources(labelled, reference if len(folders) == 1 else None)


def runs_of(sources: Iterable[Source]) -> list[Path]:
    return list(dict.fromkeys(source.run for source in sources))


def _of_run(run: Run, *, alone: bool) -> Iterator[Source]:
    if run.record.job not in EDITS:
        if alone:
            raise UserError(
                "these rows are no edits",
                came=run.folder,
                expected="the rows of `freemask run`",
                todo=f"a calibration's own page is {run.folder / 'index.html'}",
            )
        return
    for name, store in run.stores.items():
        record = run.record if name is None else Record.seen(store.folder)
        yield Source(store.folder, run.folder, record, run.record, name)


def _labelled(sources: list[Source]) -> list[Source]:
    """A variant's own name where one run is shown; otherwise what is different about the runs."""
    if len({source.run.resolve() for source in sources}) == 1:
        return [replace(source, label=source.variant or "") for source in sources]
    said = tell_apart([source.whole for source in sources])
    names = [
        (each or source.run.name) + (f"/{source.variant}" if source.variant else "")
        for source, each in zip(sources, said, strict=True)
    ]
    return [
        replace(source, label=name if names.count(name) == 1 else f"{name} ({source.folder.name})")
        for name, source in zip(names, sources, strict=True)
    ]
