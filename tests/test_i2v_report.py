"""The report on the embedded image-to-video model: it measures the right clips, and writes every number."""

import json

import pytest
import torch
from PIL import Image

from experiments.workshop import i2v_report as report
from experiments.workshop.measures import even_scenes
from freemask.backbones import checkpoint
from freemask.data.world.render import render_frames
from freemask.data.world.source import make_task
from freemask.data.world.spec import SPLITS

HELDOUT = SPLITS["heldout"].start


@pytest.fixture(scope="module")
def rows():
    weights, (scene,) = str(checkpoint.WEIGHTS_FOLDER), even_scenes(1, 50_000)
    task = make_task(HELDOUT + 52_000, "shape", number=0, frames=8, height=64, width=64)
    return {
        "animated": [report.animated(weights, scene, steps=2, guidance=2.0)],
        "inverted": [report.inverted(weights, scene, steps=2)],
        "edited": [report.edited(weights, task, steps=2, guidance=2.0)],
    }


def test_what_is_measured_is_of_the_answer(rows, tmp_path, monkeypatch):
    row = rows["edited"][0]
    task = make_task(HELDOUT + 52_000, "shape", number=0, frames=8, height=64, width=64)
    assert row["caption"] == task.answer.caption
    for name, scene in (("source", task.scene), ("truth", task.answer)):
        shown = torch.from_numpy(row[name])
        assert torch.equal(shown, (render_frames(scene) * 255).round().to(torch.uint8)), name
    rows["animated"][0]["psnr"] = [40.0, *[20.0] * 6, 10.0]
    rows["animated"][0]["last"]["verdicts"]["class"] = [True, False]
    monkeypatch.setattr(report, "_measured", lambda processes, settings: rows)
    told = dict.fromkeys(("animated", "inverted", "edited"), 1)
    told |= {
        "steps": 2,
        "sampling_steps": 2,
        "guidance": 2.0,
        "split": "heldout",
        "first": 50_000,
        "to": tmp_path,
    }
    report.report({"processes": 1}, **told)
    document = json.loads((tmp_path / "i2v.json").read_text())
    assert document["animated_first_psnr"] == 40 and document["animated_last_psnr"] == 10
    assert (
        document["animated_clip_psnr"] == pytest.approx(21.25) and document["animated_last_class_acc"] == 0.5
    )
    assert document["inversion_psnr"] == pytest.approx(rows["inverted"][0]["psnr"], abs=1e-3)
    assert document["edited_source_psnr"] == pytest.approx(row["source_psnr"], abs=1e-3)
    assert document["settings"]["guidance"] == 2.0
    for kind in ("animated", "edited"):
        with Image.open(tmp_path / f"i2v-{kind}.png") as picture:
            assert min(picture.size) > 60
