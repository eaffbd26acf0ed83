"""Tables as papers printed them: data files with their source, and which of our columns and rows belong there. Figures
are data files beside them, found and checked in the same way."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from freemask.errors import UserError, nearest

FOLDER = Path(__file__).parent / "published"
BEFORE = {"table": "", "figure": "fig"}  # the number in a file's name
COSTS = ("seconds", "peak_gpu_gb", "peak_rss_gb")
COST = "cost."
Value = float | int | bool | str | None
Part = TypeVar("Part")


@dataclass(frozen=True)
class PaperColumn:
    """`ours` is our column's name before its brackets, `networks` what may stand in them to be comparable; `scale`
    turns our numbers into the paper's. `cost` is a column of seconds or gigabytes instead, `ratio` two columns of the
    table whose means are divided. `study` marks what people said: no row has it, answers of people may. `setting`: of
    a table of words, what is looked at, and what of it means yes (`when`) or is called by other words (`words`);
    `also`: other settings, of which some values say it instead."""

    key: str
    title: str
    better: str | None = None
    ours: str | None = None
    networks: Sequence[str] = ()
    scale: float | int = 1
    cost: str | None = None
    study: bool = False
    ratio: Sequence[str] = ()
    about: str = ""
    setting: str | None = None
    when: Sequence[str] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, Mapping[str, bool | str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.better not in (None, "higher", "lower") or (self.cost is not None and self.cost not in COSTS):
            raise ValueError(f"column '{self.key}': better is higher or lower, cost is one of {COSTS}")

    @property
    def higher(self) -> bool:
        return self.better == "higher"

    @property
    def head(self) -> str:
        arrow = {"higher": " ↑", "lower": " ↓", None: ""}[self.better]
        return f"{self.title}{' †' if self.study else ''}{arrow}"

    @property
    def family(self) -> str | None:
        """What our columns for it are called, before their brackets."""
        return f"{COST}{self.cost}" if self.cost else self.ours


@dataclass(frozen=True)
class PaperLine:
    """`method`: what conf/method calls it; `choices`: which options of other groups are still the paper's (`mask: [mmc,
    mmc_by_layer]`). `settings`: of a table of words, the overrides to look into. `printed`: what the paper calls it,
    where it says "Ours"."""

    key: str
    title: str
    values: Sequence[Value]
    method: str = ""
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    settings: Sequence[str] = ()
    printed: str = ""

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether the options that a row was made with are this line's."""
        chosen = row["choices"]
        others = (chosen.get(group) in allowed for group, allowed in self.choices.items())
        return bool(self.method) and chosen.get("method") == self.method and all(others)


@dataclass(frozen=True)
class PaperTable:
    name: str
    title: str
    about: str
    source: Mapping[str, Any]
    columns: Sequence[PaperColumn]
    lines: Sequence[PaperLine]
    experiment: str | None = None
    reference: str | None = None
    kind: str = "numbers"

    @property
    def file_name(self) -> str:
        return self.name.replace("/", "-")

    def line_of(self, row: Mapping[str, Any]) -> PaperLine | None:
        """By the row's choices, of several lines the one that asks for most of them; only where that leaves several,
        by the name of its variant."""
        able = [line for line in self.lines if line.has(row)]
        most = max((len(line.choices) for line in able), default=0)
        able = [line for line in able if len(line.choices) == most]
        named = [line for line in able if line.key == name_of(row)]
        return next(iter(able if len(able) == 1 else named), None)

    def published(self, line: PaperLine) -> dict[str, Value]:
        return {column.key: value for column, value in zip(self.columns, line.values, strict=True)}


def name_of(row: Mapping[str, Any]) -> str:
    """What a row's line is called: its variant, or the method of a run without variants."""
    return str(row.get("variant") or row.get("method"))


@cache
def names(what: str = "table") -> tuple[str, ...]:
    """`freemask/2` for published/freemask-2.yaml; of figures, `freemask/4` for published/freemask-fig4.yaml."""
    found = (re.fullmatch(rf"(.+)-{BEFORE[what]}(\d+)", path.stem) for path in sorted(FOLDER.glob("*.yaml")))
    return tuple(f"{each[1]}/{each[2]}" for each in found if each)


def description(name: str, what: str = "table") -> str:
    first = _path(name, what).read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# description:").strip()


def content(name: str | None, what: str) -> dict[str, Any]:
    """What a table's or figure's file says; where none of that name is, which there are."""
    if name is None:
        listed = "".join(f"\n    {each}  {description(each, what)}" for each in names(what))
        todo = f"freemask {what} {names(what)[0]}"
        raise UserError(f"which {what}?", came="no name", expected=f"one of{listed}", todo=todo)
    if name not in names(what):
        near = nearest(name, names(what))
        raise UserError(f"there is no {what} '{name}'", came=name, expected=near, todo=f"freemask {what}")
    return yaml.safe_load(_path(name, what).read_text(encoding="utf-8"))


def read(name: str | None) -> PaperTable:
    return table_of(str(name), content(name, "table"))


def table_of(name: str, given: Mapping[str, Any]) -> PaperTable:
    rest = dict(given)
    columns = [made(PaperColumn, key, each) for key, each in rest.pop("columns").items()]
    lines = [made(PaperLine, key, each) for key, each in rest.pop("lines").items()]
    known = {column.key for column in columns}
    for column in columns:
        if len(column.ratio) not in (0, 2) or not known.issuperset(column.ratio):
            raise ValueError(f"{name}: '{column.key}' is no ratio of two columns: {column.ratio}")
    for line in lines:
        if len(line.values) != len(columns):
            raise ValueError(f"{name}: '{line.key}' has {len(line.values)} values for {len(columns)} columns")
    return whole(PaperTable, "table", {"name": name, **rest, "columns": columns, "lines": lines})


def whole(cls: type[Part], what: str, given: Mapping[str, Any]) -> Part:
    """A table or a figure. ValueError where the file is none: it ships with us, so that is no mistake of the user's."""
    source = given.get("source") or {}
    if not source.get("paper") or not source.get(what):
        raise ValueError(f"{given['name']}: no paper and {what} are named as its source")
    return made(cls, None, given)


def made(cls: type[Part], key: str | None, given: Mapping[str, Any]) -> Part:
    values = {**given} if key is None else {"key": key, **given}
    unknown = set(values) - {each.name for each in fields(cls)}  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"{cls.__name__} '{key}' knows no {', '.join(sorted(unknown))}")
    return cls(**values)


def _path(name: str, what: str) -> Path:
    paper, _, number = name.rpartition("/")
    return FOLDER / f"{paper}-{BEFORE[what]}{number}.yaml"
