"""Lists that come along, and the doctor: good data sets pass, each way of breaking one is named precisely."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.cli.app import main
from freemask.data import Davis, FrameRange, Pexels, read_tasks
from freemask.data.audit import Audit
from freemask.data.audit_davis import audit_davis
from freemask.data.audit_files import audit_files
from freemask.data.files import Files
from freemask.data.tasks import read_list
from freemask.data.write import write_video
from freemask.errors import UserError
from freemask.words import holds

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0]
PROMPTS = """\
DAVIS/bear:
  source: a bear is walking
  targets: [{kind: shape, target: a lion is walking, words: {bear: lion}}]
DAVIS/bus:
  source: a bus on the road
  targets: [{kind: attribute, target: a red bus on the road, words: {bus: bus}}]
"""


def ids(*columns: int) -> np.ndarray:
    """Object k covers `columns[k]` columns from 10 k on."""
    values = np.zeros((24, 40), np.uint8)
    for index, count in enumerate(columns):
        values[:, 10 * index : 10 * index + count] = index + 1
    return values


def save_mask(path: Path, values: np.ndarray, palette: list[int] | None = None) -> None:
    image = Image.fromarray(values)
    image.putpalette(palette or PALETTE)
    image.save(path)


def made(root: Path, clips: tuple[str, ...] = ("bear", "bus"), count: int = 8) -> Path:
    for clip in clips:
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / clip).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (40, 24), (9 * index, 60, 90)).save(
                root / f"JPEGImages/480p/{clip}/{index:05d}.jpg"
            )
            save_mask(root / f"Annotations/480p/{clip}/{index:05d}.png", ids(4 + index % 3))
    return root


@pytest.fixture(params=["made", "real"])
def davis(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data set to break: one made here, and a copy of real clips."""
    if request.param == "made":
        return made(tmp_path / "DAVIS")
    shared = request.getfixturevalue("shared")
    return Path(shutil.copytree(shared / "clips/DAVIS", tmp_path / "DAVIS"))


def inspected(place: Path, **arguments: Any) -> Audit:
    prompts = place.parent / "prompts.yaml"
    prompts.write_text(PROMPTS)
    usual: dict[str, Any] = {"root": place, "tasks": prompts}
    return audit_davis(**(usual | arguments))


def said(audit: Audit, grave: bool = True) -> list[str]:
    return [f"{each.where}: {each.wrong}" for each in audit.findings if each.grave is grave]


# ---- the lists


def test_the_twenty_clips_of_davis() -> None:
    listed = read_list("davis20")
    clips = Counter(task.clip for task in listed.tasks)
    assert len(clips) == 20 and set(clips.values()) == {3} and set(listed.objects) == set(clips)
    for clip in clips:
        tasks = [task for task in listed.tasks if task.clip == clip]
        assert {task.kind for task in tasks} == {"style", "attribute", "shape"}
        assert len({task.source for task in tasks}) == 3, "MMC would measure one pair several times"
        (named,) = listed.objects[clip].values()
        for task in tasks:
            (word,) = task.words
            assert word == named and holds(task.source, word) and task.source != task.target
            same = task.words[word] == word
            assert same is (task.kind != "shape")
            assert task.id == f"{clip}-{task.kind}"


def test_davis_finds_its_list_by_name(tmp_path: Path) -> None:
    clips = tuple(dict.fromkeys(task.clip for task in read_tasks("davis20")))
    root = made(tmp_path, clips, count=2)
    source = Davis(root, "davis20", single_instance=True, frames=FrameRange(count=2))
    assert len(source.tasks()) == 60
    for task in source.tasks()[::10]:
        mask, region = source.clip(task).masks, source.region(task)
        assert list(mask) == list(task.words)
        assert (region is None) is (task.kind == "style")
        assert region is None or torch.equal(region, next(iter(mask.values())))
    assert inspected(root, tasks="davis20", frames=FrameRange(count=2)).findings == []


@pytest.mark.parametrize("name", ["davis2", "davis-20", "nothing"])
def test_lists_that_are_not_there(name: str) -> None:
    with pytest.raises(UserError, match=r"no task list[\s\S]*davis20"):
        read_tasks(name)


def test_the_pexels_example(tmp_path: Path) -> None:
    tasks = read_list("pexels20", manifest=True).tasks
    assert len(tasks) == len({task.clip for task in tasks}) == 20
    assert {task.kind for task in tasks} == {"style", "attribute", "shape", "background"}
    assert all(task.words for task in tasks)
    with pytest.raises(UserError, match=r"20 clip\(s\) of the task list are not there"):
        Pexels(tmp_path, "pexels20")
    with pytest.raises(UserError, match=r"no manifest[\s\S]*copy .*pexels20\.yaml there as manifest\.yaml"):
        Pexels(tmp_path)
    for name in ("cat-on-sofa.mp4", "windmill.mp4"):
        write_video(tmp_path / name, torch.rand(3, 3, 16, 16), 8)
    (tmp_path / "dog-on-beach.mp4").write_bytes(b"no video")
    found = said(
        audit_files(Pexels, {"root": tmp_path, "manifest": "pexels20", "frames": FrameRange(count=3)})
    )
    assert len(found) == 2 and "17 of 20 clips" in found[0] and "jellyfish.mp4" in found[0]
    assert "dog-on-beach.mp4: " in found[1] and "cannot be opened as a video" in found[1]


# ---- good data


def test_good_clips_are_accepted(davis: Path) -> None:
    found = inspected(davis, frames=FrameRange(count=8))
    assert found.findings == [] and found.frames == 16 and len(found.tasks) == 2
    found = inspected(davis, tasks="davis20", clips=["bear", "bus"], frames=FrameRange(count=8))
    assert found.findings == [] and len(found.tasks) == 6


def test_masks_of_2016_are_accepted(tmp_path: Path) -> None:
    root = made(tmp_path / "DAVIS")
    for path in (root / "Annotations").rglob("*.png"):
        Image.fromarray(ids(5) * 255).save(path)
    assert inspected(root).findings == []


# ---- one fault each: what is done to bear, and what is said of it


def frame(root: Path, index: int) -> Path:
    return root / f"JPEGImages/480p/bear/{index:05d}.jpg"


def mask(root: Path, index: int) -> Path:
    return root / f"Annotations/480p/bear/{index:05d}.png"


def ids_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def resize(path: Path) -> None:
    with Image.open(path) as image:
        small = image.resize((20, 12), Image.Resampling.NEAREST)
    small.save(path)


def second_object(root: Path) -> None:
    values = ids_of(mask(root, 5))
    values[:2, -3:] = 2
    save_mask(mask(root, 5), values)


def no_object(root: Path, *which: int) -> None:
    for index in which or range(8):
        save_mask(mask(root, index), ids_of(mask(root, index)) * 0)


def blurred(root: Path) -> None:
    with Image.open(mask(root, 1)) as image:
        white = Image.fromarray((np.array(image) > 0).astype(np.uint8) * 255)
    white.resize((60, 36), Image.Resampling.BILINEAR).resize(white.size, Image.Resampling.BILINEAR).save(
        mask(root, 1)
    )


def coloured(root: Path) -> None:
    for index in (2, 3):
        with Image.open(mask(root, index)) as image:
            image.convert("RGB").save(mask(root, index))


def shuffled(root: Path) -> None:
    save_mask(mask(root, 4), ids_of(mask(root, 4)), [128, 0, 0, 0, 0, 0])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def both(root: Path, index: int) -> None:
    frame(root, index).unlink()
    mask(root, index).unlink()


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a mask is missing": (
        lambda root: mask(root, 3).unlink(),
        "bear: 8 frames and 7 annotations; frames without an annotation: 00003",
    ),
    "a frame is missing": (
        lambda root: frame(root, 3).unlink(),
        "bear: 7 frames and 8 annotations; annotations without a frame: 00003",
    ),
    "other names": (
        lambda root: mask(root, 0).rename(mask(root, 9)),
        "bear: 8 frames and 8 annotations; frames without an annotation: 00000; "
        "annotations without a frame: 00009",
    ),
    "no frames": (
        lambda root: shutil.rmtree(root / "JPEGImages/480p/bear"),
        "JPEGImages/480p: 1 of 2 clips of the list have no frames: bear",
    ),
    "no annotations": (
        lambda root: shutil.rmtree(root / "Annotations/480p/bear"),
        "Annotations/480p: 1 of 2 clips of the list have no annotations: bear",
    ),
    "an empty folder": (
        lambda root: [mask(root, index).unlink() for index in range(8)],
        "bear: {root}/Annotations/480p/bear: holds no pictures",
    ),
    "a mask of another size": (
        lambda root: resize(mask(root, 2)),
        "bear: annotation of 20x12 where the frames are {size}: 00002.png",
    ),
    "a frame of another size": (
        lambda root: resize(frame(root, 1)),
        "bear: frames differ in size: 00001.jpg is 20x12, the others {size}",
    ),
    "two instances": (
        second_object,
        "bear: more than one instance is annotated (1, 2), and the list names 1: bear",
    ),
    "no object": (no_object, "bear: its annotations show no object at all"),
    "full colour": (
        coloured,
        "bear: a mask in full colour does not say which colour is which object (mode RGB): 00002.png, 00003.png",
    ),
    "blurred edges": (blurred, "bear: not a clean mask"),
    "a shuffled palette": (shuffled, "bear: the palette is not that of an annotation"),
    "a damaged frame": (lambda root: cut(frame(root, 6)), "00006.jpg: the picture is damaged"),
    "a damaged mask": (lambda root: cut(mask(root, 6)), "bear: the picture is damaged"),
    "something else": (
        lambda root: (root / "JPEGImages/480p/bear/notes.exe").write_bytes(b"x"),
        "holds something that is not a frame",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_each_fault_is_named(davis: Path, spoil: Callable[[Path], object], message: str) -> None:
    with Image.open(frame(davis, 0)) as image:
        size = f"{image.width}x{image.height}"
    spoil(davis)
    listed = "DAVIS/bear:\n  objects: {1: bear}"
    prompts = davis.parent / "own.yaml"
    prompts.write_text(PROMPTS.replace("DAVIS/bear:", listed))
    found = said(audit_davis(davis, prompts))
    assert len(found) == 1, found
    assert message.format(size=size, root=davis) in found[0]
    assert "bus" not in found[0]
    if spoil is second_object:  # the reader goes by the list's name, and takes the one object meant
        task = Davis(davis, prompts).tasks()[0]
        region = Davis(davis, prompts).region(task)
        assert region is not None and int(region[5, 0, -3:].sum()) == 0
        return
    with pytest.raises(UserError):
        source = Davis(davis, prompts, frames=FrameRange(count=8))
        source.clip(source.tasks()[0])


def test_what_is_only_worth_knowing(davis: Path) -> None:
    no_object(davis, 1, 2)
    both(davis, 5)
    Image.fromarray(ids_of(mask(davis, 6)) * 2).save(mask(davis, 6))
    found = inspected(davis, tasks=_listed(davis, "{1: bear, 2: bear}"))
    assert said(found) == []
    notes = said(found, False)
    assert "bear: the frames' numbers jump after 4" in notes
    assert "bear: no object in 2 of 7 annotations: 00001.png, 00002.png" in notes
    assert any("grey numbers, not indexed with a palette" in note and "00006.png" in note for note in notes)


def _listed(root: Path, objects: str) -> Path:
    prompts = root.parent / "own.yaml"
    prompts.write_text(PROMPTS.replace("DAVIS/bear:", f"DAVIS/bear:\n  objects: {objects}"))
    return prompts


def test_every_fault_at_once(davis: Path) -> None:
    mask(davis, 3).unlink()
    resize(mask(davis, 2))
    cut(frame(davis, 6))
    shutil.rmtree(davis / "JPEGImages/480p/bus")
    shutil.rmtree(davis / "Annotations/480p/bus")
    found = said(inspected(davis, frames=FrameRange(count=9)))
    parts = (
        "1 of 2 clips",
        "8 frames and 7 ann",
        "differ in size|annotation of 20x12",
        "damaged",
        "too short",
    )
    assert len(found) == 5
    for part in parts:
        assert any(each in line for line in found for each in part.split("|")), (part, found)


def test_instances_and_names(tmp_path: Path) -> None:
    davis = made(tmp_path / "DAVIS")
    second_object(davis)
    assert "the list names none of them" in said(inspected(davis))[0]
    assert inspected(davis, single_instance=True).findings == []
    assert said(inspected(davis, tasks=_listed(davis, "{1: bear, 2: cub}"))) == []
    missing = said(inspected(davis, tasks=_listed(davis, "{1: bear, 3: cub}")))
    assert missing == ["bear: the list names objects that are not annotated (3: cub); annotated: 1, 2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"root": "nowhere"}, "nowhere: there is no such folder"),
        ({"root": "."}, "not in DAVIS layout"),
        ({"resolution": "1080p"}, "did you mean '480p'"),
        ({"clips": ["wolf"]}, "no clip of the task list fits"),
        ({"clips": "2017/val"}, "there is no such file or folder"),
        ({"tasks": "davis21"}, "there is no task list 'davis21'"),
        ({"frames": FrameRange(count=9)}, "bear: the clip is too short"),
        ({"frames": FrameRange(fps=30)}, "above the clip's own"),
    ],
)
def test_arguments_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    made(tmp_path / "DAVIS")
    monkeypatch.chdir(tmp_path)
    found = inspected(tmp_path / "DAVIS", **arguments)
    assert not found.fine and message in said(found)[0]
    if arguments.get("root") == ".":
        assert found.findings[0].todo == "data.root=DAVIS"


def test_own_clips_are_inspected(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", torch.rand(3, 3, 16, 16), 8)
    Image.new("L", (20, 12)).save(tmp_path / "mask.png")
    (tmp_path / "tasks.yaml").write_text(
        "- {id: a, clip: a.mp4, source: x, target: y, kind: style, region: mask.png}\n"
        "- {id: b, clip: b.mp4, source: x, target: y, kind: style}\n"
    )
    arguments = {"root": tmp_path, "tasks": tmp_path / "tasks.yaml"}
    found = said(audit_files(Files, arguments | {"frames": FrameRange(count=3)}))
    assert len(found) == 2 and "1 of 2 clips of the list are not there: b.mp4" in found[0]
    assert "mask.png: the mask does not have the size of the clip" in found[1]
    assert "the clip is too short" in said(audit_files(Files, arguments | {"frames": FrameRange(count=4)}))[1]


# ---- the command


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict]:
    code = main(["doctor", "--json", *words])
    return code, json.loads(capsys.readouterr().out)["data"]


def test_doctor_tells_what_to_get(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = made(tmp_path / "DAVIS")
    code, told = doctor(capsys, "data=davis", f"data.root={root}")
    assert code == 1 and told["tasks"] == 60 and told["clips"] == 20
    (wrong,) = told["wrong"]
    assert "18 of 20 clips of the list have neither frames nor annotations: blackswan, boat" in wrong["what"]
    assert "DAVIS-2017-trainval-480p.zip" in wrong["do"] and "davischallenge.org" in told["get"]
    code, told = doctor(capsys, "data=davis", f"data.root={root}", "data.clips=[bear,bus]")
    assert code == 0 and told["wrong"] == told["notes"] == [] and "get" not in told
    assert told["state"] == "6 tasks (attribute, shape, style) on 2 clips"


@pytest.mark.parametrize("name", ["davis", "pexels", "tgve", "five"])
def test_doctor_without_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = doctor(capsys, f"data={name}")
    assert code == 1 and told["source"] == name and told["get"]
    assert any("there is no such folder" in each["what"] for each in told["wrong"])


def test_doctor_for_a_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = made(tmp_path / "DAVIS")
    mask(root, 3).unlink()
    assert main(["doctor", "data=davis", f"data.root={root}", "data.clips=[bear]"]) == 1
    text = capsys.readouterr().out
    assert "data         davis: 3 tasks (attribute, shape, style) on 1 clips; 1 thing is wrong" in text
    assert "wrong      bear: 8 frames and 7 annotations" in text and "do next: unpack the clip again" in text
    assert main(["doctor"]) == 0
    assert "data         world: 8 tasks" in capsys.readouterr().out
