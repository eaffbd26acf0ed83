"""Mask Matching Cost worked out by hand, its intervals, and the codebook file."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freemask.backbones.checkpoint import EMBEDDED
from freemask.backbones.i2vgen import I2VGen
from freemask.backbones.identity import of_folder
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import COMPONENTS
from freemask.backbones.wan import Wan
from freemask.errors import UserError
from freemask.masks.bookshelf import find
from freemask.masks.bookshelf import given as given_book
from freemask.masks.codebook import SHIPPED, VERSION, Codebook
from freemask.masks.mmc import Estimate, best, cost, estimates, lmmc, match, tmmc
from freemask.masks.ops import Binarise
from freemask.statistics import mean

# Two clips, two layers, three times. 1 / d by hand: [[2, 4, 1], [5, 2, 4]] and [[4, 4, 2], [1, 8, 100]].
TABLE = torch.tensor(
    [[[0.5, 0.25, 1.0], [0.2, 0.5, 0.25]], [[0.25, 0.25, 0.5], [1.0, 0.125, 0.0]]], dtype=torch.float64
)


def test_costs_by_hand():
    found = match(TABLE)
    assert found.cost.tolist() == [[3, 4, 1.5], [3, 5, 52]]  # the mean of 1 / d, not 1 / the mean of d
    assert [each.mean for each in found.lmmc] == pytest.approx([17 / 6, 20])
    assert [each.mean for each in found.tmmc] == pytest.approx([3, 4.5, 26.75])
    assert (found.best_layer, found.best_time) == (0, 0)
    assert found.iou.flatten().tolist() == pytest.approx([0.375, 0.25, 0.75, 0.6, 0.3125, 0.125])


def test_the_axes_of_the_two_costs():
    costs = cost(TABLE)
    assert lmmc(costs).flatten().tolist() == pytest.approx([7 / 3, 11 / 3, 10 / 3, 109 / 3])
    assert tmmc(costs).tolist() == [[3.5, 3, 2.5], [2.5, 6, 51]]


def test_a_mask_that_misses_costs_one_over_the_floor():
    d = torch.tensor([0.0, 0.005, 0.01, 0.02, 1.0])
    assert cost(d).tolist() == pytest.approx([100, 100, 100, 50, 1])
    assert cost(d, 0.1).tolist() == pytest.approx([10, 10, 10, 10, 1])
    assert match(TABLE, floor=0.5).lmmc[1].mean == pytest.approx((1.5 + 2 + 2) / 3)


@pytest.mark.parametrize("floor", [0, -0.1, 1.5])
def test_an_impossible_floor_is_refused(floor):
    with pytest.raises(UserError, match="floor"):
        cost(TABLE, floor)


def test_overlaps_outside_0_to_1_are_no_overlaps():
    for wrong in (1.1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="between"):
            cost(torch.tensor([wrong]))


def test_of_equal_costs_the_first_is_best():
    assert best([3, 1, 2, 1]) == 1


def test_intervals_are_over_clips():
    """The items of a clip stay together; of one clip there is none, and each column has its own."""
    values = torch.rand(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone = estimates(values, [str(k) for k in range(30)])
    twice = estimates(values.repeat(2, 1), [str(k) for k in range(30)] * 2)
    for column, (one, other) in enumerate(zip(alone, twice, strict=True)):
        found = mean(values[:, column].tolist(), range(30))
        assert one == Estimate(found.value, found.low, found.high) == pytest.approx(other)
    assert estimates(torch.tensor([[0.0], [1.0]]), ["a", "a"]) == [Estimate(0.5, 0.5, 0.5)]


def test_the_floor_tells_how_much_it_decides():
    """The first layer misses once and is good otherwise: which is best depends on what a miss costs."""
    d = torch.tensor([[0.9, 0.3]] * 19 + [[0.0, 0.3]], dtype=torch.float64)[..., None]
    found = match(d, floor=0.001)
    assert [each.floor for each in found.floors] == [0.001, 0.1] and found.best_layer == 1
    assert [each.best_layer for each in found.floors] == [1, 0]
    assert [each.share for each in found.floors] == [1 / 40, 1 / 40]
    assert [each.floor for each in match(d, floor=0.1).floors] == [0.1, 0.01]
    told = [
        {"floor": each.floor, "share": each.share, "best_site": "ab"[each.best_layer], "best_time": 1}
        for each in found.floors
    ]
    assert "floor 0.001: b at 1" in _book(floors=told).warning and not _book(floors=told[:1] * 2).warning


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(5)))
def test_the_order_of_clips_does_not_matter(order):
    d = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    one, other = match(d), match(d[list(order)])
    assert (one.best_layer, one.best_time) == (other.best_layer, other.best_time)
    assert torch.allclose(one.cost, other.cost)


def _book(**changes) -> Codebook:
    book = Codebook(
        backbone="0123",
        model="tiny",
        data={"split": "train"},
        words=["car"],
        phrase="last",
        binarise=Binarise().settings(),
        overlap="foreground",
        floor=0.01,
        n=2,
        of=3,
        clips=2,
        sites=["first", "second"],
        strides=[1, 2],
        grids=[[8, 8], [4, 4]],
        times=[1, 101, 201],
        iou=[[0.5, 0.25, 1.0], [0.2, 0.5, 0.25]],
        cost=[[2, 4, 1], [5, 2, 4]],
        lmmc=[Estimate(2.5, 2, 3), Estimate(3.5, 3, 4)],
        tmmc=[Estimate(3.5, 3, 4), Estimate(3, 2, 4), Estimate(2.5, 2, 3)],
        best_site="first",
        best_time=201,
        made={"steps": 3},
    )
    return replace(book, **changes)


def test_a_codebook_comes_back_as_it_was_written(tmp_path):
    book = _book()
    book.write(tmp_path / "new" / "book.json")
    assert Codebook.read(tmp_path / "new" / "book.json") == book
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["book.json"]
    assert json.loads((tmp_path / "new" / "book.json").read_text())["lmmc"][0] == {
        "mean": 2.5,
        "low": 2,
        "high": 3,
    }
    assert "floors" not in book.text()  # as older codebooks, whose digest is known
    assert not {"heat", "ceilings"} & json.loads(book.text()).keys()
    for more in (
        {"floors": [{"floor": 0.1, "share": 0.5, "best_site": "first", "best_time": 201}]},
        {"heat": "share"},
        {"ceilings": [{"iou": 0.8, "cost": 1.3}] * 2},
    ):
        told = _book(**more)
        told.write(tmp_path / "told.json")
        assert Codebook.read(tmp_path / "told.json") == told != book
    assert book.digest == _book().digest != _book(floor=0.02).digest


def test_the_nearest_time():
    book = _book()
    assert book.nearest_time([1, 151, 211, 900]) == 211
    assert book.nearest_time([181, 221]) == 181


def test_the_best_single_map_may_be_at_another_time():
    assert _book().best_map() == ("first", 201)
    other = _book(cost=[[2.0, 0.5, 1.0], [5.0, 2.0, 4.0]])
    assert other.best_map() == ("first", 101) and other.overlap_at("first", 101) == 0.25


def test_a_codebook_is_found_in_the_first_folder_that_has_one(tmp_path):
    _book(n=5, of=5).write(tmp_path / "late" / "a.json")
    _book(n=2).write(tmp_path / "early" / "few.json")
    _book(n=3).write(tmp_path / "early" / "many.json")
    _book(backbone="other").write(tmp_path / "early" / "other.json")
    folders = [tmp_path / "missing", tmp_path / "early", tmp_path / "late"]
    assert find("0123", folders).book.n == 3
    assert find("other", folders[1:]).book.backbone == "other"


def test_a_codebook_of_the_base_serves_where_nobody_made_one_of_the_whole(tmp_path):
    _book(backbone="base", n=9, of=9).write(tmp_path / "base.json")
    found = find("whole", [tmp_path], base="base")
    assert found.book.backbone == "base" and given_book(found.path, "whole", "base") == found
    _book(backbone="whole").write(tmp_path / "whole.json")
    assert find("whole", [tmp_path], base="base").book.backbone == "whole"
    with pytest.raises(UserError, match="(?s)identity other or another.*calibrate"):
        find("other", [tmp_path], base="another")
    with pytest.raises(UserError, match="identity other or another"):
        given_book(found.path, "other", "another")
    with pytest.raises(UserError, match="identity whole\n"):
        given_book(found.path, "whole")


def test_a_calibration_that_nobody_installed_is_offered_and_not_taken(tmp_path):
    _book(n=2).write(tmp_path / "toy" / "codebook.json")
    _book(n=7, of=9).write(tmp_path / "sweep" / "large" / "codebook.json")
    _book(backbone="other").write(tmp_path / "other" / "codebook.json")
    with pytest.raises(UserError) as error:
        find("0123", [tmp_path / "codebooks"], runs=tmp_path)
    todo = error.value.todo
    assert todo.index(f"mask.codebook={tmp_path}/sweep/large/codebook.json (n = 7 of 9") < todo.index("toy")
    assert "other" not in todo and "install=true" in todo


def test_a_shipped_codebook_is_known_as_such_wherever_it_lies(tmp_path):
    shipped = Codebook.read(SHIPPED / "embedded.json")
    shipped.write(tmp_path / "copy.json")
    assert find(shipped.backbone, [tmp_path]).source == "shipped"
    replace(shipped, n=shipped.n + 1).write(tmp_path / "mine.json")
    assert find(shipped.backbone, [tmp_path]).source == "own"
    assert find(shipped.backbone).about == f"shipped, n = {shipped.n} of {shipped.of}, world train"


def test_what_to_do_without_a_codebook(tmp_path):
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(UserError) as error:
        find("0123", [tmp_path], model="zeroscope")
    for part in ("freemask calibrate model=zeroscope", "mask=agreement", "mask=average", "torn.json", "0123"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"version": None},
        {"version": "1"},
        {"times": [1, 2]},
        {"lmmc": [{"mean": 1}]},
        {"lmmc": 3},
        {"iou": [[0.1, 0.2], [0.1, 0.2]]},
        {"best_site": "third"},
        {"best_time": 5},
        {"strides": [1]},
        {"sites": 4},
        {"floors": [{"floor": 1}]},
        {"heat": "mass"},
        {"ceilings": [{"iou": 1}]},
        {"surprise": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_damaged_codebooks_are_refused(tmp_path, change):
    path = tmp_path / "book.json"
    path.write_text(json.dumps(json.loads(_book().text()) | change))
    with pytest.raises(UserError, match="cannot be read"):
        Codebook.read(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_files_that_are_no_codebook_are_refused(tmp_path, content):
    path = tmp_path / "book.json"
    path.write_text(content)
    with pytest.raises(UserError, match="cannot be read"):
        Codebook.read(path)


def test_a_codebook_of_the_future_is_refused(tmp_path):
    path = tmp_path / "book.json"
    path.write_text(json.dumps({"version": VERSION + 1, "all": "new"}))
    with pytest.raises(UserError, match="newer"):
        Codebook.read(path)


@pytest.mark.parametrize(
    ("name", "identify", "times"),
    [
        ("embedded", partial(of_folder, EMBEDDED, COMPONENTS), 50),
        ("embedded_image", partial(Inflated2D.identify, least_channels=64), 50),
        ("embedded_dit", partial(Wan.identify, "embedded_dit", max_tokens=32), 25),
        ("embedded_i2v", partial(I2VGen.identify, "embedded_i2v", text_skip=0), 25),
    ],
)
def test_the_shipped_codebooks_belong_to_the_shipped_weights(name, identify, times):
    """Times of the transformer are fractions."""
    found = find(identify())
    book = found.book
    assert found.source == "shipped" and book == Codebook.read(SHIPPED / f"{name}.json")
    assert book.model == name and book.data["split"] == "train"
    assert (book.n, book.overlap, len(book.times)) == (book.of, "foreground", times) and book.n >= 40
    assert (
        book.binarise == Binarise("paper").settings()
    )  # otherwise the presets have moved on: calibrate again
    assert min(each.mean for each in book.lmmc) == book.lmmc[book.sites.index(book.best_site)].mean
    assert min(each.mean for each in book.tmmc) == book.tmmc[book.times.index(book.best_time)].mean
