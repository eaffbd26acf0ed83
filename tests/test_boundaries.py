"""Who may import whom, read from every file's imports."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from experiments.cli.verbs import VERBS

ROOT = Path(__file__).parent.parent
# folder -> what its files must not import
FORBIDDEN = {
    "freemask": (
        "hydra",
        "omegaconf",
        "lightning",
        "pytorch_lightning",
        "wandb",
        "pandas",
        "experiments",
        "evaluation",
    ),
    "freemask/masks": ("diffusers",),
    "freemask/fusion": ("diffusers",),
    "freemask/diffusion": ("diffusers",),
    "freemask/methods": ("diffusers", "freemask.backbones"),
    "evaluation": ("diffusers", "hydra", "omegaconf", "lightning", "wandb", "experiments"),
}
ALLOWED_IN_EVALUATION = (
    "freemask.types",
    "freemask.errors",
    "freemask.settings",
    "freemask.statistics",
    "freemask.optical",
    "freemask.words",
)


# Rooms of experiments by floor: a room imports from those below, and beside it as long as there is no circle.
FLOORS = (
    ("config",),
    ("runs", "loggers", "web"),
    ("jobs",),
    ("engines",),
    ("report", "study", "tables", "figures", "cost", "doctor", "workshop"),
    ("app",),
    ("commands",),
    ("front",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# The command line finds commands by their names. It knows the configuration and where runs are,
# and a command what a verb is.
CLI = ("experiments.cli", "experiments.config", "experiments.runs.environment", "experiments.runs.run")

# The library hands out the front door of experiments by name, when it is asked for it: what composes configurations as
# the command does has Hydra above it. One line for type checkers names it, which never runs; nothing else may.
FRONT = {"freemask/__init__.py": "experiments.front"}
# As the command line does, the front door and the page write texts in Hydra's grammar.
QUOTING = [(room, "experiments.cli.quoting") for room in ("front", "app")]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


FILES = sorted(path for top in ("freemask", "evaluation") for path in (ROOT / top).rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*FILES, *sorted((ROOT / "experiments").rglob("*.py"))]
}


def known(path: Path) -> set[str]:
    """Our own modules that a file imports, wherever in it."""
    return {name for name in imports(path) if name in MODULES}


ARROWS = {name: known(path) - {name} for name, path in MODULES.items() if name != "freemask"}


def room(name: str) -> str:
    return name.split(".")[1] if name.startswith("experiments.") else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path):
    place = path.relative_to(ROOT).as_posix()
    for folder, forbidden in FORBIDDEN.items():
        if place.startswith(folder + "/"):
            found = [name for name in imports(path) if not within(name, FRONT.get(place, "nothing"))]
            assert not [(place, name) for name in found for each in forbidden if within(name, each)]
    if place.startswith("evaluation/"):
        strange = [name for name in imports(path) if within(name, "freemask") and name != "freemask"]
        assert all(any(within(name, each) for each in ALLOWED_IN_EVALUATION) for name in strange), strange


def test_no_module_imports_itself_by_a_detour():
    TopologicalSorter(ARROWS).prepare()


def test_rooms_import_from_the_floors_below():
    rooms: dict[str, set[str]] = {}
    for name, others in ARROWS.items():
        for other in others:
            here, there = room(name), room(other)
            if not here or not there or here == there:
                continue
            if here == "cli":
                assert any(within(other, each) for each in CLI), (name, other)
            elif there == "cli":
                assert (here, other) in [("commands", "experiments.cli.verb"), *QUOTING], (name, other)
            else:
                assert FLOOR[here] >= FLOOR[there], (name, other)
                rooms.setdefault(here, set()).add(there)
    TopologicalSorter(rooms).prepare()


def test_no_verb_imports_another():
    """Nor does anything else, but for the front door, which stands above them."""
    verbs = {f"experiments.commands.{name}" for name in VERBS}
    found = {(name, other) for name, others in ARROWS.items() for other in others & verbs}
    assert not {pair for pair in found if room(pair[0]) != "front"}


def test_the_rule_can_fail(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("from hydra.utils import get_object\nimport pandas as pd\n")
    found = list(imports(file))
    assert any(within(name, "hydra") for name in found) and any(within(name, "pandas") for name in found)


def test_no_file_switches_shape_checks_off():
    for path in [*FILES, *(ROOT / "experiments").rglob("*.py")]:
        assert "from __future__ import annotations" not in path.read_text(encoding="utf-8"), path
