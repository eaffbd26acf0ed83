"""Binarising heat, resizing masks and comparing them: by hand, and against the authors' stored numbers."""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from freemask.errors import UserError
from freemask.masks.ceiling import ceiling
from freemask.masks.clock import Clock
from freemask.masks.ops import Binarise, iou, otsu, resize, two_class_iou


def _heat(*frames: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.tensor(frames, dtype=torch.float32)


def test_official_masks_are_pooled_resized_then_divided_by_each_frames_maximum():
    heat = _heat(
        [[0, 0, 0, 0], [0, 8, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2]], [[0, 0, 0, 1]] + [[0, 0, 0, 0]] * 3
    )
    mask = Binarise("official").mask(heat, 8, 8)
    first = torch.zeros(8, 8)
    first[:6, :6] = 1  # the 3 x 3 pool around (1, 1), twice as large; 2 / 8 stays below 0.3
    second = torch.zeros(8, 8)
    second[:4, 4:] = 1
    assert torch.equal(mask, torch.stack([first, second]))


def test_the_threshold_itself_is_outside():
    heat = _heat([[1.0, 0.5], [0.25, 0.0]])
    mask = Binarise("official", pool=0, threshold=0.5).mask(heat, 2, 2)
    assert mask.tolist() == [[[1, 0], [0, 0]]]


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [
        ("frame_max", [[[0.5, 1.0]], [[0.5, 1.0]]]),
        ("frame_minmax", [[[0.0, 1.0]], [[0.0, 1.0]]]),
        ("clip_max", [[[0.25, 0.5]], [[0.5, 1.0]]]),
        ("clip_minmax", [[[0.0, 1 / 3]], [[1 / 3, 1.0]]]),
    ],
)
def test_normalisation_per_frame_and_per_clip(normalise, expected):
    heat = _heat([[1, 2]], [[2, 4]])
    found = Binarise(normalise=normalise).soft(heat, 1, 2)
    assert torch.allclose(found, torch.tensor(expected))


@pytest.mark.parametrize("preset", ["paper", "official"])
@pytest.mark.parametrize("normalise", ["frame_max", "frame_minmax", "clip_max", "clip_minmax"])
def test_no_heat_gives_an_empty_mask(preset, normalise):
    binarise = Binarise(preset, normalise=normalise)
    for value in (0.0, float("nan")):
        heat = torch.full((2, 4, 4), value)
        assert binarise.mask(heat, 8, 8).sum() == 0
        assert binarise.soft(heat, 8, 8).sum() == 0


def test_the_order_matters_under_a_bilinear_resize():
    heat = _heat([[1.0, 0.0]])
    first = Binarise(normalise="frame_max", resize="bilinear", order="resize_first").mask(heat, 1, 8)
    later = Binarise(normalise="frame_max", resize="bilinear", order="threshold_first").mask(heat, 1, 8)
    assert first.tolist() == [[[1, 1, 1, 1, 1, 0, 0, 0]]]  # above 0.3
    assert later.tolist() == [[[1, 1, 1, 1, 0, 0, 0, 0]]]  # above the middle of a mask that was made before


def test_otsu_parts_the_values_of_each_clip():
    values = torch.cat([torch.rand(40) * 0.3, 0.5 + torch.rand(9) * 0.5]).view(1, 7, 7)

    def apart(at):
        low, high = values[values <= at], values[values > at]
        return len(low) * len(high) * float(high.mean() - low.mean()) ** 2

    best = max(sorted(values.flatten().tolist())[:-1], key=apart)
    assert otsu(values) == pytest.approx(best) and 0.2 < best < 0.5
    mask = Binarise(threshold="otsu", normalise="frame_max").mask(values / 4, 7, 7)
    assert torch.equal(mask, (values > best).float())
    for flat in (torch.zeros(1, 1, 1), torch.full((2, 3, 3), 0.5), torch.full((2, 3, 3), float("nan"))):
        assert Binarise(threshold="otsu").mask(flat, 4, 4).sum() == 0


def test_settings_spell_everything_out_and_make_the_same_again():
    binarise = Binarise("official", threshold=0.4)
    assert binarise.settings() == {
        "preset": "official",
        "normalise": "frame_max",
        "pool": 3,
        "threshold": 0.4,
        "resize": "nearest",
        "order": "resize_first",
    }
    assert Binarise(**binarise.settings()) == binarise  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "papr"},
        {"normalise": "max"},
        {"pool": 2},
        {"pool": -1},
        {"threshold": 1.0},
        {"threshold": -0.1},
        {"threshold": "best"},
        {"resize": "cubic"},
        {"order": "later"},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong)).removesuffix("ise")[:4]):
        Binarise(**wrong)


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)), to=st.tuples(st.integers(1, 20), st.integers(1, 20))
)
def test_nearest_resize_takes_the_pixel_at_or_before(size, to):
    mask = torch.rand(2, *size) > 0.5
    rows = [i * size[0] // to[0] for i in range(to[0])]
    columns = [i * size[1] // to[1] for i in range(to[1])]
    expected = mask[:, rows][:, :, columns]
    found = resize(mask, to[0], to[1])
    assert found.dtype == torch.bool
    assert torch.equal(found, expected)
    assert torch.equal(resize(mask.float(), to[0], to[1]), expected.float())


def test_iou_by_hand():
    mask, truth = torch.tensor([1, 1, 0, 0, 0]), torch.tensor([0, 1, 1, 0, 0])
    assert iou(mask, truth) == 1 / 3
    assert two_class_iou(mask, truth) == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_iou_of_empty_and_full_masks():
    ones, zeros = torch.ones(2, 3, 3), torch.zeros(2, 3, 3)
    assert iou(zeros, zeros) == 1 and iou(zeros, ones) == 0 and iou(ones, ones) == 1
    assert two_class_iou(zeros, zeros) == 1  # there is no foreground: the background alone counts
    assert two_class_iou(ones, zeros) == 0


def test_masks_of_different_size_are_never_compared():
    for measure in (iou, two_class_iou):
        with pytest.raises(ValueError, match="different"):
            measure(torch.ones(2, 3, 3), torch.ones(2, 3, 4))


def test_two_class_iou_of_the_authors_maps(shared: Path):
    golden = shared / "parity" / "golden"
    expected = json.loads((golden / "fm_miou_of_calmask_maps.json").read_text())["miou"]
    maps = load_file(golden / "fm_calmask.safetensors")
    pictures = sorted((shared / "parity" / "masks" / "bear").glob("*.png"))
    truth = torch.stack([torch.from_numpy(np.array(Image.open(path).convert("L"))) > 10 for path in pictures])
    binarise = Binarise("official", pool=0, threshold=0.5)
    assert len(expected) == 100
    for name, value in expected.items():
        wide = maps[f"camap/{name}"].float()
        heat = torch.stack(wide.split(wide.shape[0], dim=1))
        side, stride = heat.shape[1], 512 // heat.shape[1]
        small = truth[:, stride // 2 :: stride, stride // 2 :: stride]
        found = two_class_iou(binarise.mask(heat, side, side), small)
        assert found == pytest.approx(value, abs=1e-12), name


def test_two_class_iou_of_the_authors_example(shared: Path):
    expected = json.loads((shared / "parity" / "golden" / "fm_cal_miou.json").read_text())
    truth, mask = (
        torch.from_numpy(np.array(Image.open(shared / "parity" / expected[key]).convert("L"))) > 10
        for key in ("ground_truth", "prediction")
    )
    shorter = min(truth.numel(), mask.numel())  # the authors compare pixel k with pixel k
    found = two_class_iou(mask.flatten()[:shorter], truth.flatten()[:shorter])
    assert found == pytest.approx(expected["miou"], abs=1e-12)
    aligned = resize(mask[None], truth.shape[0], truth.shape[1])
    reference = expected["aligned_reference"]
    assert two_class_iou(aligned, truth[None]) == pytest.approx(reference["miou"], abs=1e-12)
    assert iou(aligned, truth[None]) == pytest.approx(reference["iou_per_class"][1], abs=1e-12)


@pytest.mark.parametrize(
    ("clock", "grid", "size"),
    [
        (Clock(2), (2, 2, 2), (4, 4)),
        (Clock(4), (2, 2, 2), (4, 6)),  # cells of two frames
        (Clock(5, 4), (2, 2, 2), (5, 3)),  # the first frame, and the next four; cells of unequal size
        (Clock(3), (3, 1, 3), (2, 7)),
    ],
)
def test_no_choice_of_cells_is_better_than_the_ceiling(clock, grid, size):
    rng = torch.Generator().manual_seed(sum(grid))
    truth = torch.rand(clock.frames, *size, generator=rng) < 0.3
    cells = math.prod(grid)
    masks = [
        clock.lift(resize(torch.tensor(bits).reshape(grid), *size), clock.frames)
        for bits in itertools.product([0.0, 1.0], repeat=cells)
    ]
    assert ceiling(truth, grid, clock) == pytest.approx(max(iou(mask, truth) for mask in masks), abs=1e-12)
    best = max(two_class_iou(mask, truth) for mask in masks)
    assert ceiling(truth, grid, clock, two_class=True) == pytest.approx(best, abs=1e-12)
    everything = torch.ones_like(truth)
    assert ceiling(everything, grid, clock) == ceiling(everything, grid, clock, two_class=True) == 1
