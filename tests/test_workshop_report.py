"""The report on the embedded models: what is counted of what they draw, and the page with its pictures."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from experiments.workshop import measures, report
from experiments.workshop.page import write_page
from freemask.backbones.checkpoint import WEIGHTS_FOLDER

SETTINGS = {"first": 50_000, "steps": 2, "sampling_steps": 2, "guidance": 2.0, "threshold": 0.3}


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    weights, (scene,) = str(WEIGHTS_FOLDER), measures.even_scenes(1, 50_000)
    draw = partial(measures.generated, steps=2, guidance=2.0)
    turn = partial(measures.inverted, weights, scene, 2, 0.3)
    return {
        "real": [measures.real(weights, scene)],
        "pictures": [draw(weights, "t2i", scene)],
        "generated": [draw(weights, "t2v", scene)],
        "inverted": [turn()],
        "untrained": [turn(untrained=True)],
    }


def test_the_image_network_draws_one_picture_and_the_video_network_a_clip(rows):
    picture, clip = (rows[kind][0]["frames"] for kind in ("pictures", "generated"))
    assert picture.shape == (1, *clip.shape[1:])
    assert len(clip) == 8
    assert not np.array_equal(picture[0], clip[0])


def test_numbers_of_pictures_and_clips_stay_apart_and_every_bar_is_judged(rows, tmp_path):
    for row, right in ((rows["pictures"][0], True), (rows["generated"][0], False)):
        row["verdicts"] = dict.fromkeys(("class", "color", "background"), [right])
    mean = rows["inverted"][0]["ious"]
    counts = dict.fromkeys(report.MEASURED, 1)
    document = report._document(rows, mean, {**SETTINGS, **counts})
    assert (document["picture_class_acc"], document["class_acc"]) == (1, 0)
    assert document["bars"]["picture_class_acc"]["met"]
    assert not document["bars"]["class_acc"]["met"]
    assert set(document["bars"]) == set(report.BARS)
    assert len({start for start, _ in document["seeds"].values()}) == len(report.MEASURED)
    write_page(tmp_path, document, rows, mean)
    page = (tmp_path / "embedded.html").read_text()
    for name in ("generated", "pictures", "inverted", "maps"):
        assert f"embedded-{name}.png" in page
        with Image.open(tmp_path / f"embedded-{name}.png") as picture:
            assert min(picture.size) > 60
