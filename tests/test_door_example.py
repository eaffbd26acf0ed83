"""The example of docs/door.md: a method with a third stream and a bias runs, and both of them matter."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from freemask.backbones.unet3d import UNet3D
from freemask.types import Clip, EditTask

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "door.md"
TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red car": "blue car"}, "attribute")


def blocks():
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)


@pytest.fixture
def spotlight(tmp_path, monkeypatch):
    (tmp_path / "spotlight.py").write_text(blocks()[0], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield __import__("spotlight").Spotlight
    sys.modules.pop("spotlight")


def edited(method):
    rng, mask = torch.Generator().manual_seed(0), torch.zeros(2, 12, 20, dtype=torch.bool)
    mask[:, 3:9, 4:12] = True
    clip = Clip("c", torch.rand(2, 3, 12, 20, generator=rng), {"car": mask})
    return method(UNet3D.random(0, max_tokens=20), clip, TASK, rng).frames


def test_both_parts_of_the_example_matter(spotlight):
    base = spotlight(steps=2, guidance=3)
    plain, pulled, held = (edited(replace(base, **each)) for each in ({"pull": 0}, {}, {"hold": 3}))
    assert float((plain - pulled).abs().max()) > 1e-4 and float((held - pulled).abs().max()) > 1e-4


def test_the_documents_python_runs(spotlight, capsys):
    exec(compile(blocks()[1].replace("steps=4", "steps=1"), str(DOCUMENT), "exec"), {})
    assert "torch.Size([8, 3, 64, 64]) {'pull': 2.0}" in capsys.readouterr().out


def test_the_document_names_what_exists():
    for name in re.findall(r"`(freemask(?:\.\w+)+)`", DOCUMENT.read_text(encoding="utf-8")):
        assert (ROOT / (name.replace(".", "/") + ".py")).is_file(), name
