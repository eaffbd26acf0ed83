"""TGVE-2023 and FiVE-Bench: archives made after their published layout become tasks, and faults are named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from freemask.data import Five, FrameRange, Geometry, Tgve
from freemask.data.audit import Audit
from freemask.data.audit_files import audit_files
from freemask.data.changed import edited_words
from freemask.data.write import write_video
from freemask.errors import UserError
from freemask.types import DataSource

HEADER = "Video name,Our GT caption,Style Change Caption,Object Change Caption,Background Change Caption,"
HEADER += "Multiple Changes Caption,Source\n"
SHEET = f"""{HEADER}DAVIS Videos:,,,,,,
kite-run,A boy runs with a kite in a park.,"A boy runs with a kite in a park, as a fresco.",\
A boy runs with a balloon in a park.,A boy runs with a kite on a frozen lake.,\
"A girl runs with a balloon on a frozen lake, as a fresco.",somewhere
,,,,,,
Youtube Videos:,,,,,,
old-tram,A tram drives through a street.,A tram drives through a street in anime style.,\
A fire engine drives through a street.,A tram drives through a jungle.,\
"A fire engine drives through a jungle, in anime style.",
,,,,,,
Videvo Videos:,,,,,,
calm-sea,Waves on the sea.,"Waves on the sea, cubist.",Dolphins on the sea.,Waves on the sand.,\
"Dolphins on the sand, cubist.",
"""


def frames(folder: Path, count: int = 4, size: tuple[int, int] = (32, 32), ending: str = "jpg") -> None:
    folder.mkdir(parents=True)
    for index in range(1, count + 1):
        Image.new("RGB", size, (30 * index, 90, 60)).save(folder / f"{index:05d}.{ending}")


@pytest.fixture
def tgve(tmp_path: Path) -> Path:
    (tmp_path / "LOVEU-TGVE-2023_Dataset.csv").write_text("\ufeff" + SHEET)
    frames(tmp_path / "DAVIS_480p/480p_frames/kite-run")
    frames(tmp_path / "videvo_480p/480p_frames/calm-sea")
    write_video(tmp_path / "youtube_480p/480p_videos/old-tram.mp4", torch.rand(4, 3, 32, 32), 8)
    return tmp_path


def test_tgve(tgve: Path) -> None:
    source = Tgve(tgve, frames=FrameRange(count=2), geometry=Geometry(short_side=16))
    assert isinstance(source, DataSource)
    tasks = {task.id: task for task in source.tasks()}
    names = ("kite-run", "old-tram", "calm-sea")
    assert list(tasks) == [
        f"{name}-{edit}" for name in names for edit in ("style", "object", "background", "multiple")
    ]
    assert [tasks[f"kite-run-{edit}"].kind for edit in ("style", "object", "background", "multiple")] == [
        "style",
        "shape",
        "background",
        "style",
    ]
    assert tasks["kite-run-object"].words == {"kite": "balloon"}
    assert tasks["kite-run-background"].words == {"park": "frozen lake"}
    assert tasks["old-tram-object"].words == {"tram": "fire engine"}
    assert tasks["kite-run-object"].source == "A boy runs with a kite in a park."
    assert tasks["kite-run-multiple"].target == "A girl runs with a balloon on a frozen lake, as a fresco."
    assert tasks["kite-run-style"].clip == "DAVIS_480p/480p_frames/kite-run"
    assert tasks["old-tram-style"].clip == "youtube_480p/480p_videos/old-tram.mp4"
    for task in source.tasks()[::4]:
        assert source.clip(task).frames.shape == (2, 3, 16, 16) and source.region(task) is None


def test_tgve_choices(tgve: Path) -> None:
    assert [task.id for task in Tgve(tgve, edits=["object"], clips=["calm-sea"]).tasks()] == [
        "calm-sea-object"
    ]
    with pytest.raises(UserError, match=r"no edit 'objects'[\s\S]*did you mean 'object'"):
        Tgve(tgve, edits=["objects"])
    with pytest.raises(UserError, match="no edit is chosen"):
        Tgve(tgve, edits=[])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Our GT caption", "Caption", "no column 'our gt caption'"),
        ("A boy runs with a balloon in a park.", "", "line 3: field 'target' is missing or empty"),
        ("calm-sea", "kite-run", "already that of line 3"),
        ("old-tram,", "old-trams,", "youtube_480p/480p_frames/old-trams"),
    ],
)
def test_tgve_sheets_that_do_not_fit(tgve: Path, old: str, new: str, message: str) -> None:
    path = tgve / "LOVEU-TGVE-2023_Dataset.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        Tgve(tgve)


def test_tgve_needs_its_sheet(tgve: Path) -> None:
    path = tgve / "LOVEU-TGVE-2023_Dataset.csv"
    path.write_bytes(b"Video name\xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        Tgve(tgve)
    path.rename(tgve / "LOVEU-TGVE_2023_data.xlsx")
    with pytest.raises(UserError, match="Excel[\\s\\S]*save it as CSV"):
        Tgve(tgve)
    (tgve / "LOVEU-TGVE_2023_data.xlsx").unlink()
    with pytest.raises(UserError, match="LOVEU-TGVE-2023_Dataset.csv: there is no such file"):
        Tgve(tgve)


def said(audit: Audit, grave: bool = True) -> str:
    return "\n".join(f"{each.where}: {each.wrong}" for each in audit.findings if each.grave is grave)


def test_tgve_is_inspected(tgve: Path) -> None:
    found = audit_files(Tgve, {"root": tgve, "frames": FrameRange(count=2)})
    assert len(found.tasks) == 12 and found.frames == 6
    assert "kite-run: 4 frames; TGVE's videos have 32 or 128" in said(found)
    assert "kite-run: frames of 32x32; TGVE's are 480x480" in said(found, False)
    assert "names 3 videos; the whole benchmark has 76" in said(found, False)
    for path in (tgve / "DAVIS_480p/480p_frames/kite-run").iterdir():
        path.unlink()
    (tgve / "DAVIS_480p/480p_frames/kite-run").rmdir()
    (tgve / "youtube_480p/480p_videos/old-tram.mp4").write_bytes(b"")
    found = said(audit_files(Tgve, {"root": tgve, "frames": FrameRange(count=2)}))
    assert "1 of 3 clips of the list are not there: DAVIS_480p/480p_frames/kite-run" in found
    assert found.count("the file is empty") == 1


# ---- FiVE-Bench

ENTRIES = {
    1: [
        {
            "video_name": "0001_tram",
            "source_prompt": "A [tram] in a street",
            "target_prompt": "A [bus] in a street",
        },
        {"video_name": "0001_tram", "source_prompt": "A tram", "target_prompt": "A truck"},
    ],
    3: [{"video_name": "0002_cat", "source_prompt": "A grey cat", "target_prompt": "A red cat"}],
    5: [{"video_name": "0002_cat", "source_prompt": "A cat", "target_prompt": "A cat with a hat"}],
    6: [{"video_name": "0002_cat", "source_prompt": "A cat and a ball", "target_prompt": "A cat"}],
}


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """Masks as the benchmark has them: JPEG, and so with values between black and white."""
    (tmp_path / "edit_prompt").mkdir()
    for edit in range(1, 7):
        rows = [entry | {"editing_type_id": edit, "save_dir": "x"} for entry in ENTRIES.get(edit, ENTRIES[3])]
        (tmp_path / f"edit_prompt/edit{edit}_FiVE.json").write_text(json.dumps(rows))
    for name in ("0001_tram", "0002_cat"):
        frames(tmp_path / "images" / name)
        (tmp_path / "bmasks" / name).mkdir(parents=True)
        for index in range(1, 5):
            mask = np.zeros((32, 32), np.uint8)
            mask[4:20, : 4 + index] = 255
            Image.fromarray(mask).save(tmp_path / f"bmasks/{name}/{index:05d}.jpg", quality=60)
    return tmp_path


def test_five(five: Path) -> None:
    source = Five(five, frames=FrameRange(start=1, count=2))
    assert isinstance(source, DataSource)
    tasks = {task.id: task for task in source.tasks()}
    assert {"0001_tram-edit1", "0001_tram-edit1-2", "0002_cat-edit3", "0002_cat-edit6"} <= set(tasks)
    assert not any("edit5" in id for id in tasks)
    tram = tasks["0001_tram-edit1"]
    assert (tram.source, tram.target, tram.kind) == ("A tram in a street", "A bus in a street", "shape")
    assert tram.words == {"tram": "bus"} and tasks["0002_cat-edit3"].words == {"grey": "red"}
    assert tasks["0002_cat-edit3"].kind == "attribute" and tasks["0002_cat-edit6"].words == {"ball": ""}
    with Image.open(five / "bmasks/0001_tram/00002.jpg") as mask:
        assert len(np.unique(np.asarray(mask))) > 2  # the blur is there
    region = source.region(tram)
    assert region is not None and region.shape == (2, 32, 32)
    assert region[:, 8].sum(-1).tolist() == [6, 7]  # those of frames 1 and 2
    assert sorted(source.clip(tram).masks) == ["object", "tram"]
    (added,) = Five(five, edits=[5]).tasks()
    assert (added.kind, dict(added.words)) == ("shape", {})


def test_five_from_videos_and_without_masks(five: Path) -> None:
    (five / "images/0001_tram").rename(five / "unused")
    write_video(five / "videos/0001_tram.mp4", torch.rand(4, 3, 32, 32), 8)
    source = Five(five, clips=["0001_tram.mp4"], frames=FrameRange(count=2))
    region = source.region(source.tasks()[0])
    assert region is not None and region[:, 8].sum(-1).tolist() == [5, 6]
    (five / "bmasks").rename(five / "unpacked")
    assert source.region(source.tasks()[0]) is None and source.clip(source.tasks()[0]).masks == {}
    found = audit_files(Five, {"root": five, "clips": ["0001_tram.mp4"], "frames": FrameRange(count=2)})
    assert said(found) == f"{five / 'bmasks'}: 1 clips have no masks: videos/0001_tram.mp4"


def test_five_masks_that_do_not_fit(five: Path) -> None:
    (five / "bmasks/0001_tram/00003.jpg").unlink()
    Image.new("L", (16, 16)).save(five / "bmasks/0002_cat/00001.jpg")
    source = Five(five, frames=FrameRange(count=2))
    with pytest.raises(UserError, match="3 masks for 4 frames; missing: 00003"):
        source.region(source.tasks()[0])
    found = said(audit_files(Five, {"root": five, "frames": FrameRange(count=2)}))
    assert found.count("missing: 00003") == 1 and found.count("came: 16x16; expected: 32x32") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("{}", "not a list of edits"),
        ("[]", "holds no tasks"),
        ('["x"]', "entry 1: an edit must be an object"),
        ('[{"video_name": "a", "source_prompt": "b"}]', "entry 1: field 'target_prompt'"),
        ('[{"video_name": "a", "source_prompt": "b", "target_prompt": 3}]', "field 'target_prompt'"),
        (
            '[{"video_name": "a", "source_prompt": "b", "target_prompt": "c", "editing_type_id": 9}]',
            "editing_type_id 9 is none of 1 to 6",
        ),
    ],
)
def test_five_prompts_that_do_not_fit(five: Path, text: str, message: str) -> None:
    (five / "edit_prompt/edit1_FiVE.json").write_text(text)
    with pytest.raises(UserError, match=message):
        Five(five, edits=[1])


def test_five_needs_its_files(five: Path) -> None:
    for edits in ([0], [], [7]):
        with pytest.raises(UserError, match="six kinds of edits"):
            Five(five, edits=edits)
    (five / "edit_prompt/edit4_FiVE.json").unlink()
    with pytest.raises(UserError, match="edit4_FiVE.json"):
        Five(five)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("A red car, driving", "a blue car, driving", {"red": "blue"}),
        ("A dog on grass", "An elephant on grass", {"dog": "elephant"}),
        ("a man with a hat", "a man", {"hat": ""}),
        ("a man", "a man with a hat", {}),
        ("a cat and a dog", "a lion and a wolf", {"cat": "lion", "dog": "wolf"}),
        ("a car", "a car", {}),
        ("a car", "an car", {}),
    ],
)
def test_words_read_off_prompts(source: str, target: str, words: dict[str, str]) -> None:
    assert edited_words(source, target) == words
