"""What a study is made of: items with opaque ids, and beside them, for us alone, what each of them is."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.study.design import LETTERS, Design
from experiments.study.folder import SOURCE
from experiments.study.gather import Material
from freemask.errors import UserError

TOLD = {
    "rating": "A short check that texts are read: whatever this video shows, please choose {} for every question here.",
    "ranking": "A short check that texts are read: whatever these videos show, please put them in the order of their "
    "letters for every question here: A first, then B, and so on.",
    "paired": "A short check that texts are read: whatever these videos show, please choose A for every question here.",
}


@dataclass
class Drawn:
    """`shown`: items as raters get them, with names of files still to be written. `meant`: by id, what they are.
    `names`: the opaque name of each (task, method)."""

    material: Material
    design: Design
    rng: random.Random
    shown: list[dict[str, Any]] = field(default_factory=list)
    meant: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)

    def id(self) -> str:
        return f"{self.rng.getrandbits(48):012x}"

    def add(
        self, task: str, methods: Sequence[str], check: str = "", say: str = "", wanted: Any = None
    ) -> None:
        """`methods` in the order that they are stored in, which says nothing."""
        row, id = self.material.row(task), self.id()
        entries = [{"id": self.id(), "file": self._file(task, each)} for each in methods]
        self.shown.append(
            {
                **{"id": id, "group": self.groups.setdefault(task, len(self.groups)), "always": bool(check)},
                **{"text": row.get("target", ""), "before": row.get("source", ""), "say": say},
                **{"source": self._file(task, SOURCE) if self.design.source else None, "entries": entries},
            }
        )
        named = {each["id"]: method for each, method in zip(entries, methods, strict=True)}
        self.meant[id] = {"task": task, "clip": str(row.get("clip")), "entries": named}
        self.meant[id] |= {"check": check, "wanted": wanted}

    def _file(self, task: str, method: str) -> str:
        if (task, method) not in self.names:
            self.names[task, method] = self.id()
        return self.names[task, method]


def draw(material: Material, tasks: Sequence[str], design: Design, rng: random.Random) -> Drawn:
    methods = [each.name for each in material.methods]
    if design.kind != "rating" and not 2 <= len(methods) <= len(LETTERS):
        came, todo = f"{len(methods)} methods", "name the runs of several, or design=freemask for one"
        raise UserError("these are too few or too many to compare", came=came, expected="2 to 26", todo=todo)
    drawn = Drawn(material, design, rng)
    sets = _sets(material, tasks, design, rng)
    for task, shown in rng.sample(sets, len(sets)):
        drawn.add(task, shown)
    for _ in range(design.told):
        task, shown = rng.choice(sets)
        value = None if design.scale is None else rng.choice(design.values[1:-1] or design.values)
        drawn.add(task, shown, "told", TOLD[design.kind].format(value), value)
    for _ in range(design.unchanged):
        _unchanged(drawn, tasks)
    rng.shuffle(drawn.shown)
    return drawn


def _sets(
    material: Material, tasks: Sequence[str], design: Design, rng: random.Random
) -> list[tuple[str, list[str]]]:
    """What is shown together, every method as often in every place."""
    methods = [each.name for each in material.methods]
    if design.kind == "rating":
        return [(task, [method]) for task in tasks for method in methods]
    found = []
    for shown in [methods] if design.kind == "ranking" else _pairs(methods, material.reference, design):
        rows = latin(shown, len(tasks), rng)
        found += list(zip(rng.sample(list(tasks), len(tasks)), rows, strict=True))
    return found


def _pairs(methods: Sequence[str], reference: str, design: Design) -> list[list[str]]:
    if design.pairs == "reference":
        return [[reference, each] for each in methods if each != reference]
    return [[one, other] for k, one in enumerate(methods) for other in methods[k + 1 :]]


def latin(names: Sequence[str], count: int, rng: random.Random) -> list[list[str]]:
    """So many orders of the names, in which each stands as often in every place as in any other, or once more."""
    found: list[list[str]] = []
    while len(found) < count:
        base = rng.sample(list(names), len(names))
        turned = rng.sample(range(len(names)), len(names))
        found += [base[shift:] + base[:shift] for shift in turned]
    return found[:count]


def _unchanged(drawn: Drawn, tasks: Sequence[str]) -> None:
    """The clip itself as if it were an edit, of a task that wants it changed: no good answer to the first question."""
    material, rng = drawn.material, drawn.rng
    able = [task for task in tasks if material.row(task).get("source") != material.row(task).get("target")]
    if not able:
        came, todo = "prompts that ask for no change", "design.unchanged=0"
        raise UserError("no clip can stand as an edit that did nothing", came=came, todo=todo)
    methods = [each.name for each in material.methods]
    shown = {
        "rating": [SOURCE],
        "ranking": [SOURCE, *rng.sample(methods, len(methods) - 1)],
        "paired": [SOURCE, material.reference],
    }[drawn.design.kind]
    drawn.add(rng.choice(able), rng.sample(shown, len(shown)), "unchanged")
