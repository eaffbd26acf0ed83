"""What a study is made of: items with opaque ids, and beside them, for us alone, what each of them is."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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
    """`shown`: items as raters get them, with names of files still to be written. `stacks`: ids of which a rater sees
    one each. `meant`: by id, what they are. `names`: the opaque names of each (task, method), one for every place where
    it is judged: whose edit comes more often is the reference. The original beside edits has one name."""

    material: Material
    design: Design
    rng: random.Random
    shown: list[dict[str, Any]] = field(default_factory=list)
    stacks: list[list[str]] = field(default_factory=list)
    meant: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)

    def id(self) -> str:
        return f"{self.rng.getrandbits(48):012x}"

    def add(
        self, task: str, methods: Sequence[str], check: str = "", say: str = "", wanted: Any = None
    ) -> str:
        """`methods` in the order that they are stored in, which says nothing. Gives the item's id."""
        row, id = self.material.row(task), self.id()
        entries = [{"id": self.id(), "file": self._file(task, each)} for each in methods]
        self.shown.append(
            {
                **{"id": id, "group": self.groups.setdefault(task, len(self.groups))},
                **{"text": row.get("target", ""), "before": row.get("source", ""), "say": say},
                **{"source": self._original(task) if self.design.source else None, "entries": entries},
            }
        )
        named = {each["id"]: method for each, method in zip(entries, methods, strict=True)}
        self.meant[id] = {"task": task, "clip": str(row.get("clip")), "entries": named}
        self.meant[id] |= {"check": check, "wanted": wanted}
        return id

    def _file(self, task: str, method: str) -> str:
        name = self.id()
        self.names.setdefault((task, method), []).append(name)
        return name

    def _original(self, task: str) -> str:
        if task not in self.originals:
            self.originals[task] = self._file(task, SOURCE)
        return self.originals[task]


def draw(material: Material, tasks: Sequence[str], design: Design, rng: random.Random) -> Drawn:
    methods = [each.name for each in material.methods]
    if design.kind != "rating" and not 2 <= len(methods) <= len(LETTERS):
        came, todo = f"{len(methods)} methods", "name the runs of several, or design=freemask for one"
        raise UserError("these are too few or too many to compare", came=came, expected="2 to 26", todo=todo)
    drawn = Drawn(material, design, rng)
    sets = _sets(material, tasks, design, rng)
    drawn.stacks = _stacks([drawn.add(*each) for each in rng.sample(sets, len(sets))], design.each)
    # Stacks of checks are as high as the others: nothing but what an item says tells them apart.
    heights = [len(each) for each in drawn.stacks]
    for _ in range(design.told):
        drawn.stacks.append([_told(drawn, sets) for _ in range(rng.choice(heights))])
    for _ in range(design.unchanged):
        drawn.stacks.append([_unchanged(drawn, tasks) for _ in range(rng.choice(heights))])
    for each in (drawn.shown, drawn.stacks, *drawn.stacks):
        rng.shuffle(each)
    return drawn


def _stacks(ids: Sequence[str], count: int | None) -> list[list[str]]:
    """So many, of which no two differ by more than one item; at most one for each item."""
    many = min(count or len(ids), len(ids))
    ends = [len(ids) * k // many for k in range(many + 1)]
    return [list(ids[start:end]) for start, end in pairwise(ends)]


def _told(drawn: Drawn, sets: Sequence[tuple[str, list[str]]]) -> str:
    design, rng = drawn.design, drawn.rng
    task, shown = rng.choice(sets)
    value = None if design.scale is None else rng.choice(design.values[1:-1] or design.values)
    return drawn.add(task, shown, "told", TOLD[design.kind].format(value), value)


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


def _unchanged(drawn: Drawn, tasks: Sequence[str]) -> str:
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
    return drawn.add(rng.choice(able), rng.sample(shown, len(shown)), "unchanged")
