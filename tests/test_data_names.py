"""Names from lists, sheets and archives stay below the folder they belong to, however they are written."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from experiments.runs.store import file_name
from freemask.data import Davis, Files, Five, Pexels, Tgve, read_tasks
from freemask.data.names import fault, within
from freemask.data.paths import existing
from freemask.data.tasks import check_task, read_list
from freemask.errors import UserError

LONG = "x" * 240
HOSTILE = {
    "up": ("../x", "leads out"),
    "up inside": ("a/../../x", "leads out"),
    "only up": ("..", "leads out"),
    "absolute": ("/etc/passwd", "not a path below"),
    "home": ("~/x", "not a path below"),
    "drive": ("C:/x", "not a path below"),
    "backslash": ("..\\x", "backslash"),
    "nul": ("a\0b", "control character"),
    "line break": ("a\nb", "control character"),
    "surrogate": ("a\ud800", "control character"),
    "long": (LONG, "longer than 200 bytes"),
    "very long": ("a/" * 600 + "b", "1201 characters"),
    "dots": ("./.", "names nothing"),
    "reserved": ("clips/CON", "reserved name"),
    "reserved with an ending": ("nul.mp4", "reserved name"),
}
each_hostile = pytest.mark.parametrize(("name", "message"), HOSTILE.values(), ids=HOSTILE.keys())
EDIT = {"source": "a car", "target": "a bus", "words": {"car": "bus"}, "kind": "shape"}


def listed(folder: Path, **fields: object) -> Path:
    """A JSON list is a YAML list, and can spell any character."""
    path = folder / "tasks.yaml"
    path.write_text(json.dumps([{"id": "one", "clip": "x", **EDIT} | fields]))
    return path


@each_hostile
def test_clips_of_a_list(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_tasks(listed(tmp_path, clip=name))
    assert "line 1: clip" in str(caught.value)
    str(caught.value).encode()


@each_hostile
def test_files_of_a_manifest(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(json.dumps([{"file": name, **EDIT}]))
    with pytest.raises(UserError, match=message):
        Pexels(tmp_path)


@each_hostile
@pytest.mark.parametrize("field", ["region", "assets"])
def test_assets_of_a_list(tmp_path: Path, name: str, message: str, field: str) -> None:
    value = name if field == "region" else {"region": name}
    with pytest.raises(UserError, match=message):
        read_tasks(listed(tmp_path, **{field: value}))


@each_hostile
def test_names_of_benchmarks(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "edit_prompt").mkdir()
    entry = {"video_name": name, "source_prompt": "a car", "target_prompt": "a bus"}
    (tmp_path / "edit_prompt/edit1_FiVE.json").write_text(json.dumps([entry]))
    with pytest.raises(UserError):
        Five(tmp_path, edits=[1])
    columns = "Video name,Our GT caption,Style Change Caption,Object Change Caption"
    sheet = f"{columns},Background Change Caption,Multiple Changes Caption\nDAVIS Videos:\n"
    if message != "control character":  # which a CSV file cannot hold, or holds as a blank
        sheet += f'"{name}",a car,a drawing,a bus,a car at sea,a bus at sea\n'
        (tmp_path / "LOVEU-TGVE-2023_Dataset.csv").write_text(sheet)
        with pytest.raises(UserError, match=message):
            Tgve(tmp_path)


@each_hostile
def test_names_are_judged_alike(tmp_path: Path, name: str, message: str) -> None:
    assert message in (fault(name) or "")
    with pytest.raises(UserError, match=message):
        within(tmp_path, name)


@pytest.mark.parametrize(
    "name",
    ["bear", "videos/a b.mp4", "DAVIS/bear", "Vidéo 2…mov", "a..b", ".hidden", "con-air.mp4", "x" * 200],
)
def test_ordinary_names_pass(tmp_path: Path, name: str) -> None:
    assert fault(name) is None and within(tmp_path, name) == tmp_path / name


BAD_IDS = ["../x", "a/b", "..", ".", "a\\b", "a\0b", "a\nb", "x" * 121, "a b", "CON", "nul.txt", ""]
# ZERO WIDTH JOINER, a lone accent, other kinds of digits and signs, RIGHT-TO-LEFT OVERRIDE, and a name of wide letters
BAD_IDS += ["a\u200db", "\u0301a", "x²", "a b", "a→b", "a\u202eb", "ＣＯＮ", "車" * 70]


@pytest.mark.parametrize("id", BAD_IDS)
def test_ids_name_a_folder(tmp_path: Path, id: str) -> None:
    with pytest.raises(UserError, match="cannot name a folder|missing or empty|is empty"):
        read_tasks(listed(tmp_path, id=id))
    with pytest.raises(UserError):
        check_task({"id": id, "clip": "x", **EDIT})


@given(st.text(st.characters(), max_size=300))
@settings(max_examples=100, deadline=None)
def test_no_text_leaves_the_output_folder(text: str) -> None:
    """Ids are checked where lists are read; what writes files tames whatever reaches it all the same."""
    name = file_name(text)
    assert "/" not in name and "\0" not in name and name not in (".", "..", "") and len(name.encode()) < 120


def test_links_out_of_the_root(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    for folder in (outside, root / "inside"):
        folder.mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(folder / "0.png")
    (root / "link").symlink_to(outside)
    (root / "near").symlink_to(root / "inside")
    (root / "loop").symlink_to(root / "loop")
    (tmp_path / "alias").symlink_to(root)
    assert Files(tmp_path / "alias", listed(root, clip="near")).tasks()
    for clip, message in (("link", "leads out"), ("link/0.png", "leads out"), ("loop", "followed|not there")):
        with pytest.raises(UserError, match=message):
            Files(root, listed(root, clip=clip))
    (root / "mask.png").symlink_to(outside / "0.png")
    with pytest.raises(UserError, match=r"'mask\.png' is a link that leads out"):
        read_tasks(listed(root, region="mask.png"))


def test_links_out_of_davis(tmp_path: Path) -> None:
    for kind in ("JPEGImages", "Annotations"):
        folder = tmp_path / f"root/{kind}/480p"
        folder.mkdir(parents=True)
        (tmp_path / f"outside/{kind}").mkdir(parents=True)
        Image.new("L", (16, 16), 255).save(tmp_path / f"outside/{kind}/00000.png")
        (folder / "bear").symlink_to(tmp_path / f"outside/{kind}")
    with pytest.raises(UserError, match="leads out"):
        Davis(tmp_path / "root", listed(tmp_path, clip="bear"))


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "~nobody-here/x", "a\ud800b"])
def test_paths_that_cannot_be(path: str) -> None:
    with pytest.raises(UserError) as caught:
        existing(path)
    str(caught.value).encode()


def test_a_path_of_the_user_may_lie_anywhere(tmp_path: Path) -> None:
    Image.new("L", (16, 16), 255).save(tmp_path / "mask.png")
    task = check_task({"id": "a", "clip": str(tmp_path / "x"), **EDIT, "region": str(tmp_path / "mask.png")})
    assert task.assets["region"] == str(tmp_path / "mask.png")
    with pytest.raises(UserError, match="cannot be looked at"):
        check_task({"id": "a", "clip": "x", **EDIT, "region": LONG * 20})


@pytest.mark.parametrize(
    "ids",
    [("Bear", "bear"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "straße"), ("ﬁn", "fin"), ("Ａ", "a")],
    ids=ascii,
)
def test_two_ids_of_one_file(tmp_path: Path, ids: tuple[str, str]) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(json.dumps([{"id": id, "clip": "x", **EDIT} for id in ids]))
    with pytest.raises(UserError, match="already that of line 1"):
        read_list(path)


@pytest.mark.parametrize("id", ["été", "红车-1", "машина", "गाड़ी", "سيارة", "cafe\u0301"])
def test_ids_of_any_script(tmp_path: Path, id: str) -> None:
    (task,) = read_tasks(listed(tmp_path, id=id))
    assert task.id == unicodedata.normalize("NFC", id)
    assert file_name(task.id) == task.id
