"""A study as it lies in the folder of a run: `studies/NAME/` with the page for raters, the key, and the answers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.study.design import Design
from freemask.errors import UserError, nearest

STUDIES, KEY, PAGE, ANSWERS, INDEX = "studies", "key.json", "page", "answers", "index.html"
TOKEN = "token"  # that is asked of raters who come to the server: their links hold when it is started again
FORMAT, READ = 2, (1, 2)  # 1: its page knew which items are checks
SOURCE = ""  # stands for a method: the clip itself


@dataclass(frozen=True)
class Study:
    """`public` is what the page holds. `meant`: by the ids of items, what they are. `methods`: by name, the variant and
    the identity of the configuration in the run's rows."""

    folder: Path
    id: str
    design: Design
    public: Mapping[str, Any]
    meant: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Mapping[str, str]]
    reference: str
    files: Sequence[str]
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def page(self) -> Path:
        return self.folder / PAGE

    @property
    def answers(self) -> Path:
        return self.folder / ANSWERS

    @classmethod
    def read(cls, folder: Path) -> "Study":
        path = folder / KEY
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["format"] not in READ:
                raise ValueError(f"its format is {found['format']}, not one of {', '.join(map(str, READ))}")
            design = Design.of(found["design"])
            named = ("id", "public", "meant", "methods", "reference", "files", "settings")
            return cls(folder, design=design, **{name: found[name] for name in named})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            raise UserError(
                "the key of this study cannot be read",
                came=f"{path}: {error}",
                expected="the file that `freemask study RUN` wrote: without it no answer can be read",
            ) from error

    def record(self) -> dict[str, Any]:
        named = ("id", "public", "meant", "methods", "reference", "files", "settings")
        return {
            "format": FORMAT,
            "design": self.design.record(),
            **{name: getattr(self, name) for name in named},
        }


def studies_of(run: Path) -> list[Path]:
    """The folders of studies in a run's folder; unfinished ones are none."""
    found = (each.parent for each in (run / STUDIES).glob(f"*/{KEY}"))
    return sorted(each for each in found if not each.name.startswith("."))


def find_study(place: Path, name: str | None) -> Study:
    """The study that a folder is, or the one in a run's folder; of several, the one called so."""
    if (place / KEY).is_file():
        return Study.read(place)
    known = {each.name: each for each in studies_of(place)}
    if name is None and len(known) == 1:
        return Study.read(*known.values())
    if name in known:
        return Study.read(known[name])
    if not known:
        todo = f"freemask study {place}"
        raise UserError(
            "there is no study of this run yet", came=place, expected="a run with a study", todo=todo
        )
    came, todo = ("no name" if name is None else f"name={name}"), f"name={next(iter(known))}"
    expected = nearest(name, known) if name else f"one of: {', '.join(known)}"
    raise UserError("which study of this run?", came=came, expected=expected, todo=todo)
