"""The pages: what their commands name exists, every method is told of, and the reference has a page for each."""

import re
import runpy
from pathlib import Path

import pytest

from experiments.cli.verbs import VERBS
from experiments.config import choices

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What a reader is to put in, or makes himself on the page.
OWN = {"NAME", "dim", "..."}


def commands(text: str) -> list[str]:
    """Lines of blocks that call freemask, without their comments; a line that goes on is one with the next."""
    joined = re.sub(r"\\\n\s+", "", text)
    return [line.split("  #")[0].strip() for line in joined.splitlines() if re.match(r"\s{4}freemask ", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_the_commands_of_a_page_name_exists(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        assert line.split()[1] in {*VERBS, "help"}, line
        for group, names in re.findall(r"(?<![\w.=\[])([a-z_]+)=([\w/,]+)", line):
            if group in choices.groups():
                known = {each.name for each in choices.group(group)}
                assert set(names.split(",")) - OWN <= known | {"null"}, line


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_stand_in_blocks(page: Path) -> None:
    """Pages and README are plain Markdown: outside of blocks, lines run into each other."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert not re.findall(r"^freemask .*", prose, re.M)


def test_every_method_and_mask_is_told_of() -> None:
    told = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    masks = (ROOT / "docs/masks.md").read_text(encoding="utf-8")
    for group, text in (("method", told), ("mask", masks)):
        silent = [
            each.name for each in choices.group(group) if not re.search(rf"`[^`]*\b{each.name}\b", text)
        ]
        assert not silent, group


def test_the_reference_has_a_page_for_every_method_and_a_part_for_every_choice() -> None:
    pytest.importorskip("mkdocs")
    pages = runpy.run_path(str(ROOT / "docs/site.py"))["reference"]()
    for each in choices.group("method"):
        assert f"freemask edit method={each.name}" in pages[f"method/{each.name}"]
        assert f"(method/{each.name}.md)" in pages["method"]
    for group in set(pages) & set(choices.groups()) - {"method"}:
        parts = re.findall(rf"^## {group}=(\S+)$", pages[group], re.M)
        assert parts == [each.name for each in choices.group(group)]
    assert "| `method.chunk` | `4` |" in pages["method/tokenflow"]
    assert "`st-modulator/table1`" in pages["method/videograin"]
