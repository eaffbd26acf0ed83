"""The example of docs/mask-strategy.md: one file and one YAML, and the new mask works from the command line."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

import freemask.masks.strategies as strategies
from experiments.cli.app import main
from experiments.config import choices, plugins
from tests import test_masks as contracts

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "mask-strategy.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The two files of the document, in places that stand in for the package's own folders."""
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "topk.py").write_text(blocks("python")[0], encoding="utf-8")
    shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "conf" / "mask" / "topk.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    known = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "conf"}
    for name in known:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path / "strategies")])
    monkeypatch.chdir(tmp_path)
    remembered = (plugins.places, choices.groups, choices.defaults)
    for each in remembered:
        each.cache_clear()
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "conf" or name.endswith(".topk")]:
        del sys.modules[name]
    sys.modules.update(known)
    for each in remembered:
        each.cache_clear()


def test_the_documents_strategy_runs_from_the_command_line(added, capsys):
    assert main(["list", "mask"]) == 0
    assert "topk" in capsys.readouterr().out
    run = ["run", "model=random", "metric=pixels", "method=freemask", "mask=topk", "data.clips=1", "limit=1"]
    small = ["data.size=16", "data.frames=2", "method.steps=2", "name=topk", "paths.runs=out"]
    assert main([*run, *small, "mask.share=0.3"]) == 0
    rows = [
        json.loads(line) for file in added.rglob("rows/*") for line in file.read_text().splitlines() if line
    ]
    assert [row["status"] for row in rows] == ["done"]
    assert rows[0]["facts"]["mask_layer"] == "stride [2]" and 0 < rows[0]["facts"]["mask_share"] < 0.5
    assert main([*run, *small, "mask.shar=0.3"]) == 2
    assert "mask.shar" in capsys.readouterr().err
    assert main([*run, *small, "mask.share=3"]) == 2
    assert "share of the frame" in capsys.readouterr().err


def test_the_documents_python_runs(added, capsys):
    exec(compile(blocks("python")[1], str(DOCUMENT), "exec"), {})
    said = capsys.readouterr().out
    assert "torch.Size([2, 3, 16, 16])" in said and "mask_layer" in said


def test_the_document_names_what_exists():
    for name in re.findall(r"`(freemask(?:\.\w+)+)`", DOCUMENT.read_text(encoding="utf-8")):
        assert (ROOT / (name.replace(".", "/") + ".py")).is_file(), name


def test_the_documents_strategy_keeps_what_all_strategies_promise(added):
    """The tests that the document names, on the example as it stands."""
    for frames, size, kind in ((1, (16, 16), "style"), (17, (16, 24), "shape")):
        contracts.test_masks_are_binary_of_the_right_grid_and_the_same_every_time(
            "topk", frames, size, kind, None
        )
    contracts.test_words_are_found_at_any_position_and_only_text_layers_are_kept("topk", None)
    contracts.test_an_unknown_word_is_refused_with_the_words_of_the_prompt("topk", None)
    contracts.test_no_heat_is_an_empty_mask("topk", 0.0, None)
