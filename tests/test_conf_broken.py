"""A YAML file that cannot be read is named, with the line and what is wrong there, whatever asks for it."""

import re
import sys

import pytest

from experiments.cli.app import main
from experiments.config import choices, plugins

CLEARED = (plugins.places, choices.groups, choices.defaults)
HEAD = "# description: x\n_target_: freemask.methods.ddim.Ddim\n"
BROKEN = {
    "bracket": (f"{HEAD}steps: [1, 2\nguidance: 3\n", "line 4: expected ',' or ']'", "began in line 3"),
    "quote": (f'{HEAD}steps: "1\n', "unexpected end of stream", "began in line 3"),
    "twice": (f"{HEAD}steps: 1\nsteps: 2\n", "line 4: ", "steps"),
    "list": ("# description: x\n- a\n", "line 2: no keys with values", "a `key: value`"),
    "bytes": ("# description: x\nsteps: '\udcff'\n", "zz.yaml: no text in UTF-8", "mend the file"),
}


@pytest.fixture
def brought(tmp_path, monkeypatch):
    """Writes conf/method/zz.yaml of an installed package, which has another name in every test."""
    own = "brought_" + re.sub(r"\W", "_", tmp_path.name)
    package, info = tmp_path / own, tmp_path / f"{own}-1.0.dist-info"
    for folder in (package / "conf" / "method", info):
        folder.mkdir(parents=True)
    for folder in (package, package / "conf"):
        (folder / "__init__.py").write_text("")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {own}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[freemask.conf]\n{own} = {own}.conf\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for each in CLEARED:
        each.cache_clear()
    yield lambda text: (package / "conf/method/zz.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    for name in [name for name in sys.modules if name.startswith(own)]:
        del sys.modules[name]
    for each in CLEARED:
        each.cache_clear()


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("words", [["edit", "method=zz"], ["list", "method", "zz"]], ids=" ".join)
def test_it_is_named_with_its_line(brought, name, words, capsys):
    text, *said = BROKEN[name]
    brought(text)
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert "zz.yaml" in shown and "went wrong" not in shown
    if not (name == "twice" and words[0] == "list"):
        assert said[1] in shown
    assert said[0] in shown, shown


def test_the_others_can_be_used_and_listed_beside_it(brought, capsys):
    brought(BROKEN["bytes"][0])
    assert main(["list", "method"]) == 0
    assert "zz " in capsys.readouterr().out
    assert main(["edit", "method=ddim", "--cfg", "job"]) == 0


@pytest.mark.parametrize("text", ["# description: x\n", "# description: x\nsteps: 1\n"])
def test_an_option_that_names_nothing_to_make(brought, text, capsys):
    brought(text)
    assert main(["edit", "method=zz", f"seed={len(text)}"]) == 2
    assert "method=zz does not say what is to be made" in capsys.readouterr().err


def test_a_reference_to_nothing_names_its_key(brought, capsys):
    brought(f"{HEAD}guidance: ${{nothing.there}}\n")
    assert main(["edit", "method=zz", "seed=3"]) == 2  # another command: the tests remember what was composed
    assert "method.guidance: Interpolation key 'nothing.there'" in capsys.readouterr().err
