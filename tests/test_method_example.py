"""The example of docs/method.md, brought by an installed package: listed, composed, swept, run, held to contracts."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from experiments.cli.app import main
from experiments.config import choices, compose, plugins
from experiments.config.build import build
from freemask.backbones.unet3d import UNet3D
from freemask.types import Clip, EditTask

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "method.md"
SMALL = [
    "model=random",
    "metric=pixels",
    "data=world",
    "data.clips=1",
    "data.size=16",
    "data.frames=2",
    "limit=1",
]


def block(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)[0]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages, its entry points those of the document."""
    points = block("toml").splitlines()[1].replace('"', "")
    write(
        tmp_path / "coarse_edit-1.0.dist-info" / "METADATA",
        "Metadata-Version: 2.1\nName: coarse-edit\nVersion: 1.0\n",
    )
    write(tmp_path / "coarse_edit-1.0.dist-info" / "entry_points.txt", f"[freemask.conf]\n{points}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    remembered = (plugins.places, choices.groups, choices.defaults)
    for each in remembered:
        each.cache_clear()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("coarse_edit")]:
        del sys.modules[name]
    for each in remembered:
        each.cache_clear()


@pytest.fixture
def installed(site):
    package = site / "coarse_edit"
    for name in ("__init__.py", "conf/__init__.py"):
        write(package / name, "")
    write(package / "coarse.py", block("python"))
    write(package / "conf/method/coarse.yaml", block("yaml").replace("freemask.methods", "coarse_edit"))
    return site


def test_it_is_listed_and_composed_like_our_own(installed, capsys):
    assert main(["list", "method"]) == 0
    assert "coarse " in capsys.readouterr().out
    assert main(["run", "--help"]) == 0
    assert re.search(r"method=\n(    .*\n)*    coarse", capsys.readouterr().out)
    assert main(["run", "method=coarse", "--cfg", "job"]) == 0
    assert OmegaConf.create(capsys.readouterr().out).method._target_ == "coarse_edit.coarse.Coarse"
    assert main(["run", "method=coarsely"]) == 2
    assert "did you mean 'coarse'?" in capsys.readouterr().err


def test_completion_knows_it(installed, capsys, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "freemask run method=")
    monkeypatch.setattr(sys, "argv", ["freemask", "-sc", "query=bash"])
    assert main(["-sc", "query=bash"]) == 0
    assert "method=coarse" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["method=coarse"], ["-m", "method=coarse", "method.until=0,1"]], ids=" ".join
)
def test_it_runs_and_its_rows_carry_its_name(words, installed):
    assert main(["run", *words, "method.steps=2", *SMALL, "paths.runs=out", "name=new"]) == 0
    rows = [
        json.loads(line)
        for file in installed.rglob("rows/*")
        for line in file.read_text().splitlines()
        if line
    ]
    assert [(row["method"], row["status"]) for row in rows] == [("coarse", "done")] * (
        2 if "-m" in words else 1
    )
    assert {row["facts"]["held_until"] for row in rows} == ({0, 1} if "-m" in words else {0.6})


def test_it_keeps_what_its_yaml_promises(installed):
    backbone, rng = UNet3D.random(0, max_tokens=20), torch.Generator().manual_seed(0)
    clip, task = Clip("c", torch.rand(2, 3, 12, 20, generator=rng)), EditTask("t", "c", "a", "a", {}, "style")
    promise = choices.option("method", "coarse").facts["identity"].split()
    config = compose.config_of("edit", ["method=coarse", "method.steps=3", *promise])
    edit = build(compose.plain(config)["method"], "method")(backbone, clip, task, rng)
    torch.testing.assert_close(edit.frames, backbone.decode(backbone.encode(clip.frames)))


def test_a_name_that_is_taken_is_refused(installed, capsys):
    write(installed / "coarse_edit/conf/method/ddim.yaml", "steps: 1\n")
    assert main(["list"]) == 2
    said = capsys.readouterr().err
    assert "method=ddim" in said and "one from conf, one from the plug-in coarse_edit.conf" in said


@pytest.mark.parametrize("broken", [None, "import nothing_of_that_name", "1 / 0", "def"])
def test_a_broken_package_is_left_out_with_a_note(broken, site, capsys):
    if broken is not None:
        write(site / "coarse_edit/__init__.py", broken)
    assert main(["list", "method"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("note: the plug-in 'coarse' is left out, coarse_edit.conf: ")
    assert len(said.err.splitlines()) == 1 and "ddim" in said.out


def test_the_document_names_what_exists():
    for name in re.findall(r"`(freemask(?:\.\w+)+)`", DOCUMENT.read_text(encoding="utf-8")):
        assert (ROOT / (name.replace(".", "/") + ".py")).is_file(), name
