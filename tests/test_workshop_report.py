"""The report on the embedded models: what is counted of what they draw, and the page with its pictures."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from experiments.workshop import measures, report
from experiments.workshop.page import write_page
from freemask.backbones.checkpoint import WEIGHTS_FOLDER
from freemask.errors import UserError

SETTINGS = {"first": 50_000, "steps": 2, "sampling_steps": 2, "guidance": 2.0, "threshold": 0.3}


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    weights, (scene,) = str(WEIGHTS_FOLDER), measures.even_scenes(1, 50_000)
    draw = partial(measures.generated, steps=2, guidance=2.0)
    turn = partial(measures.inverted, weights, scene=scene, steps=2, threshold=0.3)
    return {
        "real": [measures.real(weights, scene)],
        "pictures": [draw(weights, "t2i", scene)],
        "generated": [draw(weights, "t2v", scene)],
        "inverted": [turn("t2v")],
        "untrained": [turn("untrained")],
        "dit_generated": [draw(weights, "dit", scene)],
        "dit_inverted": [turn("dit")],
    }


def test_the_image_network_draws_one_picture_and_the_video_network_a_clip(rows):
    picture, clip = (rows[kind][0]["frames"] for kind in ("pictures", "generated"))
    assert picture.shape == (1, *clip.shape[1:])
    assert len(clip) == 8
    assert not np.array_equal(picture[0], clip[0])


def test_numbers_of_pictures_and_clips_stay_apart_and_every_bar_is_judged(rows, tmp_path):
    for row, right in ((rows["pictures"][0], True), (rows["generated"][0], False)):
        row["verdicts"] = dict.fromkeys(("class", "color", "background"), [right])
    counts = dict.fromkeys(report.MEASURED, 1)
    document = report._document(rows, {**SETTINGS, **counts})
    assert (document["picture_class_acc"], document["class_acc"]) == (1, 0)
    assert document["bars"]["picture_class_acc"]["met"]
    assert not document["bars"]["class_acc"]["met"]
    assert set(document["bars"]) == set(report.BARS)
    turned = rows["dit_inverted"][0]
    assert turned["ious"].shape == (8, 2) and document["dit_mask_iou"] == pytest.approx(
        turned["ious"].max(), abs=1e-4
    )
    assert list(document["dit"]["mask_iou_by_layer"])[5] == "blocks.5.attn2"
    table = report._beside(document)
    assert table.head == ["pictures, t2i", "clips, t2v", "clips, dit", "real clips"]
    without = {kind: each for kind, each in rows.items() if not kind.startswith("dit")}
    assert not any("dit" in name for name in report._document(without, {**SETTINGS, **counts}))
    assert len({start for start, _ in document["seeds"].values()}) == len(report.MEASURED)
    write_page(tmp_path, document, rows)
    page = (tmp_path / "embedded.html").read_text()
    for name in ("generated", "pictures", "inverted", "maps", "dit-generated", "dit-inverted", "dit-maps"):
        assert f"embedded-{name}.png" in page
        with Image.open(tmp_path / f"embedded-{name}.png") as picture:
            assert min(picture.size) > 60


@pytest.mark.parametrize(("count", "first"), [(0, 5), (-1, 5), (1, -1)])
def test_scenes_that_are_none_are_refused(count, first):
    with pytest.raises(UserError, match="Nothing can be measured"):
        measures.even_scenes(count, first)
