"""The report on the gated layers that ship: its measure tells right from wrong, and it writes what was measured."""

import json

import pytest
import torch
from PIL import Image

from experiments.workshop import boxes_report as report
from freemask.backbones import checkpoint
from freemask.data.world.render import render_frames
from freemask.data.world.spec import SPLITS
from tests.test_control_report import Here

FIRST = 53_000


def test_things_are_placed_where_they_are_to_be():
    scene = next(each for each in report.even_scenes(8, FIRST) if len(each.things) == 1)
    own = render_frames(scene, (0,))
    assert report.placed(own, scene) > 0.9
    assert report.placed(own.roll(20, -1), scene) < 0.4
    assert report.placed(own * 0 + own[..., :1, :1], scene) == 0  # ground alone


def test_the_report_writes_what_was_measured(tmp_path, monkeypatch, capsys):
    weights = str(checkpoint.WEIGHTS_FOLDER)
    monkeypatch.setattr(report, "get_context", lambda way: Here)
    told = {"models": weights, "pictures": 1, "steps": 2, "guidance": 2.0, "first": FIRST, "to": tmp_path}
    report.report({"processes": 1}, **told)
    document = json.loads((tmp_path / "boxes.json").read_text())
    assert document["n"] == 1 and document["seeds"][0] == SPLITS["heldout"].start + FIRST
    (scene,) = report.even_scenes(1, FIRST)
    row = report.drawn(weights, scene, steps=2, guidance=2.0)
    for way in (report.WITH, report.ALONE, report.CAPTION, report.TRUE):
        assert document[way] == {key: pytest.approx(value) for key, value in row[way].items()}
    drawn = row["shown"][2:]
    assert not any(torch.equal(a, b) for a, b in zip(drawn, drawn[1:] + drawn[:1], strict=True))
    assert "Pictures with boxes" in capsys.readouterr().out
    with Image.open(tmp_path / "boxes.png") as picture:
        assert picture.size == (3 * 5 * 64 * 2, 64 * 2)
