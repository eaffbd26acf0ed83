"""docs/papers.md tells of all that the three papers show, and every command on it composes."""

import re
import shlex
from pathlib import Path

import pytest

from evaluation.tables.papers import names
from experiments.cli.app import main
from experiments.cli.verbs import VERBS
from experiments.config import choices

PAGE = (Path(__file__).parent.parent / "docs/papers.md").read_text(encoding="utf-8")
PAPERS = ("freemask", "fatezero", "st-modulator")
COMMANDS = list(dict.fromkeys(re.findall(r"`(freemask \w+ [^`]+)`", PAGE)))
NAMED = ("table", "figure")  # verbs whose names are looked up instead
LACKING = re.findall(r"no `([^`]+)`", PAGE)


@pytest.fixture(autouse=True)
def composed_once(monkeypatch):
    """By us, with our messages; Hydra would do it once more, to show what it has."""
    monkeypatch.setattr("experiments.cli.hydra_app.hydra.main", lambda **_: lambda task: lambda: None)


def composes(command, capsys):
    """What `--cfg job` says of it, which runs nothing."""
    code = main([*shlex.split(command)[1:], *(["--cfg", "job"] if command.split()[1] != "list" else [])])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted({each.split()[1] for each in COMMANDS} - {*NAMED}))
def test_every_command_composes(verb, capsys):
    for command in (each for each in COMMANDS if each.split()[1] == verb):
        code, said = composes(command, capsys)
        assert code == 0, f"{command}\n{said}"


def test_a_command_that_does_not_would_be_found(capsys):
    assert composes("freemask edit fusion=masked_text", capsys)[0] == 2
    assert composes("freemask run method.steps=many data.clip=3", capsys)[0] == 2


def test_every_table_figure_and_experiment_of_the_papers_is_told_of():
    for kind in NAMED:
        for name in names(kind):
            assert any(each.split()[:3] == ["freemask", kind, name] for each in COMMANDS), name
        for each in COMMANDS:
            assert each.split()[1] != kind or each.split()[2] in names(kind), each
    experiments = {each.name for each in choices.group("experiment") if each.name.split("/")[0] in PAPERS}
    assert experiments <= set(re.findall(r"experiment=([\w/-]+)", PAGE))


def test_every_number_of_a_figure_or_table_has_its_line():
    """Those that are drawings, too: FreeMask's five figures, FateZero's ten, ST-Modulator's seventeen."""
    parts = re.split(r"^## ", PAGE, flags=re.M)[1:]
    for part, figures, tables in zip(parts, (5, 10, 17), (2, 1, 3), strict=True):
        lines = re.findall(r"^\| (Fig\.|Table) (\d+)", part, re.M)
        assert {int(each) for kind, each in lines if kind == "Fig."} == set(range(1, figures + 1))
        assert {int(each) for kind, each in lines if kind == "Table"} == set(range(1, tables + 1))


def test_what_is_said_to_be_lacking_is_lacking():
    """When it comes, its line is to be changed."""
    methods = {f"method={each.name}" for each in choices.group("method")}
    for each in LACKING:
        assert each.removeprefix("freemask ") not in {*methods, *VERBS}, each


def test_every_line_has_a_command_or_says_why_not():
    for line in re.findall(r"^\| (?!what|---).*$", PAGE, re.M):
        assert line.count(" | ") == 1 and len(line.split(" | ")[1]) > 5, line
