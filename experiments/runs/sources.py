"""Which rows a page is about: of a run, of a run of variants, of a sweep's folder, or of several of these."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.runs.record import RECORD, Record
from experiments.runs.run import Run, edits
from freemask.errors import UserError

# Keys of a launch: what they say changes no number.
LAUNCH = (
    "name",
    "paths",
    "runner",
    "logger",
    "speed",
    "keep",
    "limit",
    "start",
    "retry",
    "only",
    "reference",
)


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
    known: set[Path] = set()
    groups: dict[str, list[Source]] = {}
    for folder in folders:
        mine = [Source(run, variant) for run in edits(folder) for variant in run.stores]
        if not mine:
            raise no_rows(folder)
        groups[str(folder)] = [each for each in mine if each.folder.resolve() not in known]
        known |= {each.folder.resolve() for each in mine}
    if len(groups) == 1:
        return _in_order(*groups.values())
    if all(len(each) == 1 for each in groups.values()):
        return _labelled([each for group in groups.values() for each in group])
    return _apart([each for name, group in groups.items() for each in _within(Path(name), group)])


def _in_order(group: list[Source]) -> list[Source]:
    """Of one folder: the variants of a run in their own order, a sweep's runs in that of their names."""
    every = _labelled(group)
    return every if of_one(every) else sorted(every, key=lambda each: each.label)


def _within(folder: Path, group: list[Source]) -> list[Source]:
    """Beside other folders: what is different within this one, after its name."""
    if len(group) == 1 and group[0].variant is None:
        return [replace(group[0], label=folder.resolve().name)]
    return [replace(each, label=f"{folder.resolve().name}/{each.label}") for each in _in_order(group)]


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
        todo="wait for the run, or freemask run name=NAME (keep=all keeps all its videos)",
    )


def _labelled(sources: list[Source]) -> list[Source]:
    """A variant's own name where one run is shown; otherwise the run's name before it."""
    if of_one(sources):
        return [replace(source, label=source.variant or "") for source in sources]
    said = tell_apart([source.run.record for source in sources])
    return _apart(
        [replace(each, label=_called(each, differs)) for each, differs in zip(sources, said, strict=True)]
    )


def _called(source: Source, differs: str) -> str:
    """What differs names a run that nobody gave a name: its folder ends in a hash."""
    name, hashed = source.run.folder.resolve().name, str(source.run.record.told.get("identity") or "")[:8]
    if source.variant is not None:
        return f"{name}/{source.variant}"
    return differs or name if hashed and name.endswith(f"-{hashed}") else name


def _apart(sources: list[Source]) -> list[Source]:
    """No two are called alike: the folder's name is added, or where that is the same, all of its path."""
    for more in (lambda folder: folder.name, str):
        names = [each.label for each in sources]
        sources = [
            each
            if names.count(each.label) == 1
            else replace(each, label=f"{each.label} ({more(each.folder)})")
            for each in sources
        ]
    return sources


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
        found.append(" ".join(words))
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
