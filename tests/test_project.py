"""Promises of the project's files: no registry and no machine in them, and the commands that README names exist."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from experiments.cli.verbs import VERBS

ROOT = Path(__file__).parent.parent
REGISTRY = re.compile(r"https?://[^\s\"']*(pypi|pythonhosted|artifact|devpi|nexus|index-url|simple/)", re.I)
MACHINE = re.compile(r"(?<![\w.])/(work|root|home/\w+)/")


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def texts() -> list[tuple[Path, str]]:
    found = []
    for path in tracked():
        if (
            path.suffix in {".py", ".yaml", ".toml", ".txt", ".md", ".json", ""}
            and path.stat().st_size < 2_000_000
        ):
            found.append((path, path.read_text(encoding="utf-8", errors="replace")))
    return found


def test_no_registry_and_no_machine_in_any_file():
    here = Path(__file__)
    bad = [
        (path, found[0])
        for path, text in texts()
        if path != here
        for rule in (REGISTRY, MACHINE)
        if (found := rule.search(text))
    ]
    assert not bad


def test_requirements_are_exact():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert len(lines) > 50
    for line in lines:
        assert re.match(r"^[A-Za-z0-9._-]+(\[[a-z,-]+\])?==[^ ]+( ; .+)?$", line), line


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    pinned = {
        line.split("==")[0].split("[")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
    }
    names = {re.split(r"[<>=\[]", each)[0].lower().replace("_", "-") for each in wanted}
    assert names <= pinned


def test_readme_names_commands_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"demo", "test"} <= set(re.findall(r"make (\w+)", readme)) <= targets
    assert set(re.findall(r"^ *freemask (\w+)", readme, re.M)) <= {*VERBS, "help"}


def test_ci_calls_the_readmes_test_command():
    script = ROOT / ".ci" / "run"
    assert "make test" in script.read_text() and script.stat().st_mode & 0o111


def test_no_large_file_but_weights_pictures_and_reports():
    for path in tracked():
        place = path.relative_to(ROOT).as_posix()
        if not place.startswith(("freemask/weights/", "docs/", "reports/")):
            assert path.stat().st_size < 200_000, place


def test_every_module_says_what_it_is_for():
    for top in ("freemask", "experiments", "evaluation", "conf"):
        for path in (ROOT / top).rglob("*.py"):
            assert path.read_text(encoding="utf-8").startswith('"""'), path
