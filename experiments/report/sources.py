"""Which rows a page is about: of a run, of a run of variants, of a sweep's folder, or of several of these."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.runs.record import RECORD, Record
from experiments.runs.run import Run, edits
from freemask.errors import UserError

MOST = 80  # characters of a name
# Keys of a launch: what they say changes no number.
LAUNCH = ("name", "paths", "runner", "logger", "keep", "limit", "start", "retry", "only", "reference")


@dataclass(frozen=True)
class Source:
    """The rows of one variant, or of a run that has none; `label` is what they are called on the page."""

    run: Run
    variant: str | None
    label: str = ""

    @property
    def folder(self) -> Path:
        return self.run.stores[self.variant].folder


def sources_of(folders: Sequence[Path]) -> list[Source]:
    found: dict[Path, Source] = {}
    for folder in folders:
        mine = [Source(run, variant) for run in edits(folder) for variant in run.stores]
        if not mine:
            raise no_rows(folder)
        found |= {source.folder.resolve(): source for source in mine}
    sources = _labelled(list(found.values()))
    # A sweep's folders are named by hashes.
    return (
        sorted(sources, key=lambda source: source.label)
        if len(folders) == 1 and not of_one(sources)
        else sources
    )


def of_one(sources: Sequence[Source]) -> bool:
    """Whether all are of one run."""
    return len({source.run.folder.resolve() for source in sources}) == 1


def no_rows(folder: Path) -> UserError:
    if (folder / RECORD).exists() and Run.open(folder).holds_rows:
        return UserError(
            "these rows are no edits",
            came=folder,
            expected="the rows of `freemask run`",
            todo=f"a calibration's own page is {folder / 'index.html'}",
        )
    return UserError(
        f"{folder} holds no rows yet",
        came=folder,
        expected="the folder of a run, of a run of variants, or of a sweep",
        todo="wait for the run, or freemask run name=NAME",
    )


def _labelled(sources: list[Source]) -> list[Source]:
    """A variant's own name where one run is shown; otherwise what is different about the runs."""
    if of_one(sources):
        return [replace(source, label=source.variant or "") for source in sources]
    said = tell_apart([source.run.record for source in sources])
    names = [
        (each or source.run.folder.name) + (f"/{source.variant}" if source.variant else "")
        for source, each in zip(sources, said, strict=True)
    ]
    return [
        replace(source, label=name if names.count(name) == 1 else f"{name} ({source.folder.name})")
        for name, source in zip(names, sources, strict=True)
    ]


def tell_apart(records: Sequence[Record]) -> list[str]:
    """`mask=mmc fusion.temporal=false`, as on the command line: only what differs; an empty text where nothing does."""
    groups = dict.fromkeys(group for each in records for group in each.choices)
    groups = [group for group in groups if len({each.choices.get(group) for each in records}) > 1]
    found = []
    for record in records:
        words = [f"{group}={record.choices[group]}" for group in groups if record.choices.get(group)]
        for each in record.overrides:
            key = each.lstrip("+").partition("=")[0]
            known = key in groups or key.partition(".")[0] in LAUNCH
            if not known and not all(each in other.overrides for other in records):
                words.append(each)
        name = " ".join(words)
        found.append(name if len(name) <= MOST else name[: MOST - 1] + "…")
    return found


def different(sources: Sequence[Source]) -> list[str]:
    """Runs over different data or measured differently are shown together only with a word about it."""
    parts = [each for each in (Record.seen(source.folder).parts for source in sources) if each]
    differ = [key for key in ("data", "metric") if len({str(each.get(key)) for each in parts}) > 1]
    said = {"data": "different data", "metric": "different metrics"}
    return [
        f"These runs have {said[key]}: differences between them are not the variants' alone."
        for key in differ
    ]
