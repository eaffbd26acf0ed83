"""A picture is a clip of one frame: what `freemask edit` makes of it, leaves of it and measures on it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from evaluation.case import Case
from evaluation.metrics.frame_accuracy import FrameAccuracy
from evaluation.suite import Suite
from experiments.cli.app import main
from experiments.report.edit_folder import picture_sheet
from experiments.runs.store import RunStore
from freemask.data import FrameRange, Geometry, open_clip
from freemask.data.images import read_image
from freemask.data.one import OneClip
from freemask.data.write import write_video
from freemask.errors import UserError
from freemask.types import EditTask

PROMPTS = {"source": "a red car on grass", "target": "a blue car on grass"}
EDIT = ["edit", *(f"{key}={prompt}" for key, prompt in PROMPTS.items()), "model=random_image"]
PLAIN = "method=sdedit"  # where nothing depends on the method
EDIT += [
    "metric=pixels",
    "mask=average",
    "fusion.temporal=off",
    "method.steps=1",
    "size=16",
    "paths.runs=out",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def paint(height=32, width=48) -> np.ndarray:
    """Large blobs of colour, brighter to the right, so that no turn or flip goes unnoticed."""
    coarse = np.random.default_rng(0).integers(40, 250, (4, 5, 3), dtype=np.uint8)
    blobs = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return blobs // 2 + np.linspace(0, 120, width).astype(np.uint8)[None, :, None]


def photo(name: str, pixels: np.ndarray | None = None, **more) -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Image.fromarray(paint() if pixels is None else pixels).save(name, **more)
    return name


def edit(clip: str, *more: str, out: str = "done") -> dict:
    assert main([*EDIT, f"clip={clip}", f"out={out}", *more]) == 0
    (row,) = RunStore(Path(out)).latest().values()
    return row


def pixels(path: str) -> np.ndarray:
    return np.array(Image.open(path))


@pytest.mark.parametrize("model", ["random_image", "random"])
def test_a_picture_leaves_a_picture(model, capsys):
    """Of an image model run over frames, and of a text-to-video model, which takes one frame as well."""
    row = edit(photo("photo.png"), f"model={model}")
    assert row["frames"] == [1, 3, 16, 24]
    assert row["files"] == {
        "edited": "edited.png", "sheet": "contact-sheet.png", "frames": "frames", "masks": "masks.npz"
    }  # fmt: skip
    assert {path.name for path in Path("done").iterdir()} == {*row["files"].values(), "rows", "columns.json"}
    found = pixels("done/edited.png")
    assert found.shape == (16, 24, 3) and found.dtype == np.uint8
    assert [path.name for path in Path("done/frames").iterdir()] == ["00000.png"]
    assert (found == pixels("done/frames/00000.png")).all()
    said = capsys.readouterr().out
    assert "done/edited.png" in said and "mp4" not in said


def test_one_frame_of_a_clip_is_a_picture_and_two_are_a_video():
    frames = torch.from_numpy(paint()).permute(2, 0, 1)[None].expand(3, -1, -1, -1) / 255
    write_video("clip.mp4", frames, 8)
    assert edit("clip.mp4", "frames=1", PLAIN)["files"]["edited"] == "edited.png"
    files = edit("clip.mp4", "frames=2", PLAIN, out="two")["files"]
    assert (files["edited"], files["video"]) == ("edited.mp4", "side-by-side.mp4")
    assert len(open_clip("two/edited.mp4").frames) == len(open_clip("two/frames").frames) == 2
    assert not Path("two/edited.png").exists()


def test_a_phone_photo_is_edited_upright():
    """Stored turned, with the note how to show it: the same edit as of the upright picture."""
    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned clockwise
    edit(photo("turned/photo.png", np.rot90(paint()).copy(), exif=exif), PLAIN, out="a")
    edit(photo("upright/photo.png"), PLAIN, out="b")
    assert pixels("a/edited.png").shape == (16, 24, 3)
    assert (pixels("a/edited.png") == pixels("b/edited.png")).all()


def test_the_first_picture_of_a_cameras_file_is_the_photo():
    """Many phones write a JPEG with a second picture behind it (MPO)."""
    first, second = (Image.fromarray(each) for each in (paint(), paint(16, 24)))
    first.save("photo.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    first.save("plain.jpg", quality=95)
    assert torch.equal(read_image(Path("photo.jpg")), read_image(Path("plain.jpg")))
    first.save("moving.png", save_all=True, append_images=[first.transpose(Image.Transpose.ROTATE_180)])
    with pytest.raises(UserError, match="animation"):
        read_image(Path("moving.png"))


def test_transparent_parts_become_black():
    alpha = np.full((32, 48, 1), 255, np.uint8)
    alpha[:, :16] = 0
    edit(photo("clear/photo.png", np.concatenate([paint(), alpha], axis=2)), PLAIN, out="a")
    edit(photo("black/photo.png", paint() * (alpha > 0)), PLAIN, out="b")
    edit(photo("whole/photo.png"), PLAIN, out="c")
    found, black, whole = (pixels(f"{out}/edited.png") for out in "abc")
    assert found.shape == (16, 24, 3)
    assert (found == black).all() and (found != whole).any()


@pytest.mark.parametrize("frames", [2, 8])
def test_more_frames_than_one_are_refused_of_a_picture(frames, capsys):
    assert main([*EDIT, f"clip={photo('photo.png')}", "out=done", f"frames={frames}"]) == 2
    said = capsys.readouterr().err
    assert "a picture is a clip of one frame" in said and f"{frames} frames asked" in said
    assert not Path("done").exists()
    asked = FrameRange(count=frames)
    for refused in (
        lambda: OneClip("photo.png", PROMPTS, frames=asked),
        lambda: open_clip("photo.png", frames=asked),
    ):
        with pytest.raises(UserError, match="one frame"):
            refused()
    assert len(open_clip("photo.png", frames=FrameRange(count=1)).frames) == 1


@pytest.mark.parametrize(
    ("more", "says"),
    [("frames=0", "1 or more"), ("start=1", "too short"), ("frames=1 start=2", "at least 3")],
)
def test_frames_that_are_not_there_are_one_plain_error(more, says, capsys):
    assert main([*EDIT, f"clip={photo('photo.png')}", "out=done", *more.split()]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("came:") == 1 and not Path("done").exists()


def test_the_sheet_shows_all_beside_each_other_and_every_word(monkeypatch):
    drawn, text = [], ImageDraw.ImageDraw.text

    def write(self, at, words, **more):
        drawn.append(words)
        text(self, at, words, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", write)
    source, edited = torch.full((1, 3, 64, 48), 0.2), torch.full((1, 3, 64, 48), 0.8)
    long = "a red car, driving (fast) " * 8
    picture_sheet(
        Path("sheet.png"), {"source": source, "edited": edited}, {"source": long, "edited": "short"}
    )
    sheet = pixels("sheet.png")
    middle = sheet[150]  # through both pictures, each four times as large
    assert (middle == 51).all(-1).sum() == (middle == 204).all(-1).sum() == 4 * 48
    lines = drawn[2:]  # after the two names
    assert " ".join(lines).split() == f"source: {long} edited: short".split() and len(lines) > 4
    assert (sheet[-22:] < 128).any() and (sheet[0, 0] == 255).all()


def test_numbers_of_stored_frames_are_those_of_the_row():
    """Measured again from the folder, as an evaluation does later; what needs a second frame is null."""
    metrics = ["metric=fatezero", "~metric.lpips"] + [
        f"metric.{name}.backbone=embedded" for name in ("clip_text", "clip_frame", "frame_accuracy")
    ]
    row = edit(photo("photo.png"), *metrics)
    assert row["metrics"]["clip_frame[embedded]"] is None and not row["metric_errors"]
    stored = open_clip("done/frames").frames
    source = open_clip("photo.png", Geometry(short_side=16)).frames
    task = EditTask("photo", "photo", **PROMPTS, words={}, kind="attribute")
    again = Suite(FrameAccuracy("embedded"))(Case(source, stored, task)).metrics
    assert again == {"frame_accuracy[embedded]": row["metrics"]["frame_accuracy[embedded]"]}


def test_a_place_that_cannot_hold_an_edit_is_refused_before_the_work(capsys, monkeypatch):
    monkeypatch.setattr("experiments.report.one_edit.make_editor", None)  # would be the work
    Path("notes.txt").write_text("mine")
    for place in ("notes.txt", "blue.mp4", "notes.txt/below"):
        assert main([*EDIT, f"clip={photo('photo.png')}", f"out={place}", PLAIN]) == 2
        assert "folder" in capsys.readouterr().err
    Path("first").mkdir()
    Path("first/run.json").write_text("{}")
    assert main([*EDIT, f"clip={photo('photo.png')}", "out=first", PLAIN]) == 2
    assert "there lies a run" in capsys.readouterr().err
    assert Path("notes.txt").read_text() == "mine" and not Path("blue.mp4").exists()


def test_an_edit_takes_away_the_files_of_another_and_says_so(capsys):
    clip = torch.from_numpy(paint()).permute(2, 0, 1)[None].expand(2, -1, -1, -1) / 255
    write_video("clip.mp4", clip, 8)
    first = [*EDIT, "clip=clip.mp4", "out=same", PLAIN]
    said = []
    for frames in (2, 1, 1):
        assert main([*first, f"frames={frames}"]) == 0
        said.append("replaces the files of another edit" in "".join(capsys.readouterr()))
    assert said == [False, True, False]  # the same once more is no other
    assert not Path("same/edited.mp4").exists() and Path("same/edited.png").exists()
    assert len(list(Path("same/frames").iterdir())) == 1
