"""DAVIS layout: object numbers become named masks, and every disagreement of its files is an error."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from freemask.data import Davis, FrameRange, Geometry
from freemask.errors import UserError
from freemask.types import DataSource

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
HIGH, WIDE = 24, 40


def ids(*columns: int) -> np.ndarray:
    """Object k covers the columns from 10 k on, `columns[k]` of them."""
    values = np.zeros((HIGH, WIDE), np.uint8)
    for index, count in enumerate(columns):
        values[:, 10 * index : 10 * index + count] = index + 1
    return values


def palette(values: np.ndarray, colours: list[int] | None = None) -> Image.Image:
    image = Image.fromarray(values)
    image.putpalette(colours or PALETTE)
    return image


def davis(root: Path, clips: Mapping[str, list[Image.Image]], frames: int = 4) -> Path:
    for clip, drawings in clips.items():
        for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
            folder = root / kind / "480p" / clip
            folder.mkdir(parents=True)
            pictures = drawings if kind == "Annotations" else [Image.new("RGB", (WIDE, HIGH))] * frames
            for index, picture in enumerate(pictures):
                picture.save(folder / f"{index:05d}.{ending}")
    return root


def tasks(root: Path, text: str) -> Path:
    path = root / "tasks.yaml"
    path.write_text(text)
    return path


BEAR = """\
bear:
  source: a bear on grass
  targets:
    - {id: shape, kind: shape, target: a lion on grass, words: {bear: lion}}
    - {id: back, kind: background, target: a bear on snow, words: {grass: snow}}
    - {id: style, kind: style, target: pixel art of a bear on grass, words: {bear: bear}}
"""
TWO = """\
DAVIS/two:
  source: a car and a dog
  objects: {1: car, 2: dog}
  targets:
    - {id: car, kind: shape, target: a bus and a dog, words: {car: bus}}
    - {id: both, kind: shape, target: a bus and a cat, words: {car: bus, dog: cat}}
    - {id: back, kind: background, target: a car and a dog on snow, words: {dog: dog}}
    - {id: other, kind: attribute, target: a car or a dog, words: {and: or}}
"""


def test_one_object(tmp_path: Path) -> None:
    root = davis(tmp_path, {"bear": [palette(ids(3 + index)) for index in range(4)]})
    source = Davis(root, tasks(root, BEAR), frames=FrameRange(start=1, stride=2, count=2))
    assert isinstance(source, DataSource)
    shape, back, style = source.tasks()
    clip = source.clip(shape)
    assert clip.frames.shape == (2, 3, HIGH, WIDE) and sorted(clip.masks) == ["bear", "object1"]
    assert clip.masks["bear"][:, 0].sum(-1).tolist() == [4, 6]  # those of frames 1 and 3
    region = source.region(shape)
    assert region is not None and region[:, 0].sum(-1).tolist() == [4, 6]
    outside = source.region(back)
    assert outside is not None and bool((outside == ~region).all())
    assert source.region(style) is None and source.oracle(shape) is None
    assert sorted(source.clip(back).masks) == ["object1"]  # grass is not the object


def test_masks_of_2016_hold_zero_and_255(tmp_path: Path) -> None:
    grey = Image.fromarray(ids(5) * 255)
    colour = grey.convert("RGB")
    source = Davis(davis(tmp_path, {"bear": [grey, colour, grey, colour]}), tasks(tmp_path, BEAR))
    region = source.region(source.tasks()[0])
    assert region is not None and region[:, 0].sum(-1).tolist() == [5] * 4


def test_several_named_objects(tmp_path: Path) -> None:
    root = davis(tmp_path, {"two": [palette(ids(4, 6))] * 4})
    source = Davis(root, tasks(root, TWO), geometry=Geometry(short_side=12))
    car, both, back, other = source.tasks()
    clip = source.clip(car)
    assert sorted(clip.masks) == ["car", "dog"] and clip.masks["dog"].shape == (4, 12, 20)
    widths = []
    for task in (car, both, back):
        region = source.region(task)
        assert region is not None
        widths.append(int(region[0, 0].sum()))
    assert widths == [2, 5, 15]
    assert source.region(other) is None


def test_unnamed_objects_are_not_guessed(tmp_path: Path) -> None:
    root = davis(tmp_path, {"two": [palette(ids(4, 6))] * 4})
    source = Davis(root, tasks(root, TWO.replace("  objects: {1: car, 2: dog}\n", "")))
    assert sorted(source.clip(source.tasks()[0]).masks) == ["object1", "object2"]
    with pytest.raises(UserError, match="objects: {1: car"):
        source.region(source.tasks()[0])


def test_one_name_for_two_objects_joins_them(tmp_path: Path) -> None:
    root = davis(tmp_path, {"two": [palette(ids(4, 6))] * 4})
    listed = tasks(root, TWO.replace("{1: car, 2: dog}", "{1: car, 2: car}"))
    clip = Davis(root, listed).clip(Davis(root, listed).tasks()[0])
    assert list(clip.masks) == ["car"] and int(clip.masks["car"][0, 0].sum()) == 10


def test_a_name_for_an_object_that_is_not_there(tmp_path: Path) -> None:
    root = davis(tmp_path, {"two": [palette(ids(4))] * 4})
    source = Davis(root, tasks(root, TWO))
    with pytest.raises(UserError, match="2: dog"):
        source.clip(source.tasks()[0])


def test_choosing_clips(tmp_path: Path) -> None:
    late = [palette(ids(4)), palette(ids(4)), palette(ids(4)), palette(ids(4, 2))]
    root = davis(tmp_path, {"bear": [palette(ids(4))] * 4, "two": late})
    listed = tasks(root, BEAR + TWO.replace("id: back", "id: back2"))
    assert len(Davis(root, listed).tasks()) == 7
    assert (
        len(Davis(root, listed, clips=["two"]).tasks()) == len(Davis(root, listed, clips="two").tasks()) == 4
    )
    assert len(Davis(root, listed, single_instance=True).tasks()) == 3  # the second object comes late
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("bear\n")
    assert len(Davis(root, listed, clips="2017/val").tasks()) == 3
    (root / "ImageSets/480p").mkdir()
    line = "/JPEGImages/480p/two/{0:05d}.jpg /Annotations/480p/two/{0:05d}.png\n"
    (root / "ImageSets/480p/val.txt").write_text("".join(map(line.format, range(4))))
    assert len(Davis(root, listed, clips="480p/val").tasks()) == 4
    (root / "ImageSets/2017/val.txt").write_text("bear\nwolf\n")
    with pytest.raises(UserError, match="wolf"):
        Davis(root, listed, clips="2017/val")
    with pytest.raises(UserError, match="did you mean '480p'"):
        Davis(root, listed, resolution="480")
    with pytest.raises(UserError, match="no clip 'boar'.*\n.*did you mean 'bear'"):
        Davis(root, tasks(root, BEAR.replace("bear:\n", "boar:\n", 1)))


SHUFFLED = [128, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("drawings", "message"),
    [
        ([palette(ids(4))] * 3, "do not match"),
        ([palette(ids(4))] * 5, "do not match"),
        ([palette(ids(4))] * 3 + [palette(ids(4)[:20])], "differ in size"),
        ([palette(ids(4)[:20])] * 4, "differ in size"),
        ([palette(ids(4), SHUFFLED)] * 4, "palette"),
        ([palette(ids(4, 4), [0, 0, 0, 9, 9, 9, 9, 9, 9])] * 4, "palette"),
        ([Image.fromarray(np.arange(HIGH * WIDE).reshape(HIGH, WIDE).astype(np.uint8))] * 4, "clean mask"),
        ([palette(ids(4)).convert("RGB")] * 4, "full colour"),
        ([palette(ids(0))] * 4, "no object at all"),
    ],
)
def test_annotations_that_do_not_fit(tmp_path: Path, drawings: list[Image.Image], message: str) -> None:
    source = Davis(davis(tmp_path, {"bear": drawings}), tasks(tmp_path, BEAR))
    with pytest.raises(UserError, match=message):
        source.clip(source.tasks()[0])


def test_missing_annotations_and_layout(tmp_path: Path) -> None:
    root = davis(tmp_path / "data", {"bear": [palette(ids(4))] * 4})
    drawings = root / "Annotations/480p/bear"
    drawings.rename(root / "elsewhere")
    source = Davis(root, tasks(root, BEAR))
    with pytest.raises(UserError, match=r"missing for 00000\.jpg"):
        source.clip(source.tasks()[0])
    with pytest.raises(UserError, match="not in DAVIS layout"):
        Davis(tmp_path, tasks(tmp_path, BEAR))


def test_real_clips(shared: Path) -> None:
    root = shared / "clips"
    for geometry in (Geometry(short_side=64), Geometry(height=48, width=80, crop="center")):
        source = Davis(root / "DAVIS", root / "prompts.yaml", clips=["DAVIS/*"], geometry=geometry)
        assert len(source.tasks()) == 4
        for task in source.tasks()[::2]:
            clip = source.clip(task)
            word = next(iter(task.words))
            assert clip.masks[word].shape == (8, *clip.frames.shape[-2:])
            assert 0.05 < float(clip.masks[word].float().mean()) < 0.6
