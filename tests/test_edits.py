"""Several edits of one clip: how lists and command lines say them, what is refused, and where their regions go."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.suite import Suite
from experiments.config.identity import digest_of
from experiments.doctor.tasks import lines
from experiments.jobs.evaluate import Sources
from experiments.jobs.explain import explained
from experiments.jobs.job import TOLD
from experiments.jobs.one_clip import Wish
from experiments.jobs.outside import Outsiders
from experiments.jobs.truth import Truth
from freemask.data import Davis, Files, FrameRange, Geometry, read_tasks
from freemask.data.audit_files import audit_files
from freemask.data.regions import remarks
from freemask.data.tasks import check_task
from freemask.data.world.source import World
from freemask.errors import UserError
from freemask.masks.words import annotated
from freemask.types import Clip, EditTask, LocalEdit

PROMPTS = {"source": "a red car and a blue car on grass", "target": "a red fish and a pink car, on sand"}
TWO = (LocalEdit({"red car": "red fish"}, "shape"), LocalEdit({"blue car": "pink car"}, "attribute"))
TEXT = "red car->red fish; blue car -> pink car"
# Ways to say the same.
SAID = [
    TEXT,
    "red car:red fish [shape]; blue car:pink car[attribute];",
    ["red car->red fish", {"words": {"blue car": "pink car"}, "kind": "attribute"}],
    [{"words": "red car->red fish"}, {"words": {" blue car": "pink car "}}],
]
# What is refused, and words of the reason.
BAD = [
    ("red car->red fish; blue car->fish", "share 'fish' of the target"),
    ("red car->red fish; car->pink car", "share 'car' of the source"),
    ("red car->red fish; ->pink car", "nothing stands before the arrow of '-> pink car'"),
    ("red car->red fish; -> oil [style]", "'oil' is not in the target prompt"),
    ("red car->red fish; -> pink car [style] @ masks/left", "a style of a part says which part"),
    ([{"words": {"red car": "red fish"}}, {"kind": "shape"}], "it has no words"),
    ("red car->red fish; Red car->pink car", "there twice"),
    ("red car->red fish; blue van->pink car", "'blue van' is not in the source"),
    ("red car->red fish; blue car->pink van", "'pink van' is not in the target"),
    ("red car->red fish; blue car", "edit 2: 'blue car' is not of the form"),
    ("red car->red fish @ nowhere", "edits: there is no 'nowhere'"),
    ("red car->red fish @", "nothing stands behind the @"),
    ("red car->red fish [shepe]", "did you mean 'shape'?"),
    ([], "at least one was expected"),
    (3, "a list of edits was expected"),
    ([{"kind": "shape"}], "no words"),
    ([{"words": {}, "region": "x"}], "no words"),
    ([None], "an edit is written as"),
    ([{"words": {"red car": 3}}], "words must be text"),
    ([{"words": ["red car"]}], "must be a mapping"),
    ([{"words": {"red car": "red fish"}, "where": "x"}], "unknown field 'where'"),
    ([{"words": {"red car": "red fish"}, "region": 3}], "a path was expected, not 3"),
]


def a_task(**said: object) -> EditTask:
    return check_task({"id": "t", "clip": "c", **PROMPTS, **said})


@pytest.mark.parametrize("said", SAID)
def test_the_same_in_every_form(said: object) -> None:
    task = a_task(edits=said)
    assert task.edits == TWO and task.words == {"red car": "red fish", "blue car": "pink car"}
    assert task.kind == "shape" and [each.kind for each in task.each] == ["shape", "attribute"]
    assert task.plain() == a_task(edits=SAID[0]).plain() and EditTask.of(task.stored()) == task


def test_of_csv_and_yaml(tmp_path: Path) -> None:
    csv, yaml = tmp_path / "t.csv", tmp_path / "t.yaml"
    csv.write_text(
        f'id,clip,source,target,edits,level\nt,c,{PROMPTS["source"]},"{PROMPTS["target"]}",{TEXT},instance\n'
    )
    prompts = f"source: {PROMPTS['source']}, target: '{PROMPTS['target']}'"
    yaml.write_text(
        f"- {{id: t, clip: c, {prompts}, level: instance, edits: [{TEXT.replace('; ', ', ')}]}}\n"
    )
    (one,), (other,) = read_tasks(csv), read_tasks(yaml)
    assert one.plain() == other.plain() and one.level == "instance" and one.edits == TWO
    assert digest_of([one]) == digest_of([other]) != digest_of([EditTask.of({**one.stored(), "edits": ()})])


@pytest.mark.parametrize(("words", "kind"), [
    ("red car->red fish; grass->sand", "shape"),
    ("grass->sand; blue car->pink car", "background"),
    ("blue car->pink car, grass->sand", "background"),
    ("red car->; grass->sand", "shape"),
    ("grass->grass", "background"),
    ("car->car; grass->sand", "background"),
])  # fmt: skip
def test_the_strongest_kind_is_that_of_the_whole(words: str, kind: str) -> None:
    target = "a red fish and a pink car on sand by grass"
    task = a_task(target=target, edits=words)
    assert task.kind == kind and task.guessed == {"kind": "guessed"}


def test_a_kind_that_is_said_once_is_that_of_every_edit() -> None:
    task = a_task(edits=TEXT, kind="background")
    assert (
        task.kind == "background"
        and not task.guessed
        and {each.kind for each in task.edits} == {"background"}
    )
    task = a_task(edits=f"{TEXT} [style]", kind="background")
    assert [each.kind for each in task.edits] == ["background", "style"]


@pytest.mark.parametrize("style", ["-> red fish and a pink car [style]", {"kind": "style"}, "->[style]"])
def test_a_style_of_the_whole_needs_no_words(style: object) -> None:
    first, _ = TEXT.split("; ")
    task = a_task(edits=[first, style])
    assert task.edits == (TWO[0], LocalEdit({}, "style")) and task.kind == "shape"
    assert task.words == {"red car": "red fish"} and EditTask.of(task.stored()) == task


@pytest.mark.parametrize(("said", "message"), BAD)
def test_what_cannot_be_done_is_refused(said: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        a_task(edits=said)
    assert message in str(caught.value) and str(caught.value).count(message) == 1


def test_other_words_than_those_of_the_edits_contradict() -> None:
    assert a_task(edits=TEXT, words="blue car->pink car; red car->red fish").edits == TWO
    with pytest.raises(UserError, match="not those of the edits"):
        a_task(edits=TEXT, words="blue car->pink car")
    with pytest.raises(UserError, match="unknown level 'part of'; did you mean 'part'"):
        a_task(edits=TEXT, level="part of")


def test_each_fault_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        f"- clip: c\n  source: {PROMPTS['source']}\n  target: {PROMPTS['target']}\n  edits:\n"
        "    - red car -> red fish\n    - {words: {car: car}}\n    - words: {blue van: car}\n      region: ../x\n"
    )
    with pytest.raises(UserError) as caught:
        read_tasks(tmp_path / "t.yaml")
    _, *found = str(caught.value).splitlines()
    assert [line.split(":")[0].strip() for line in found] == ["line 6", "line 7", "line 7", "line 7"]
    assert any("leads out" in line for line in found)


def white(path: Path, *boxes: tuple[int, int], high: int = 8, wide: int = 12) -> None:
    """A mask for each frame, white between these columns."""
    path.mkdir(parents=True)
    for index, (left, right) in enumerate(boxes):
        values = np.zeros((high, wide), np.uint8)
        values[:, left:right] = 255
        Image.fromarray(values).save(path / f"{index}.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for index in range(3):
        (tmp_path / "c").mkdir(exist_ok=True)
        Image.new("RGB", (12, 8)).save(tmp_path / f"c/{index}.png")
    white(tmp_path / "m/left", (0, 4), (0, 4), (0, 0))
    white(tmp_path / "m/right", (2, 10), (6, 10), (6, 10))
    white(tmp_path / "m/none", (0, 0), (0, 0), (0, 0))
    white(tmp_path / "m/short", (0, 4), (0, 4))
    white(tmp_path / "m/small", (0, 4), (0, 4), (0, 4), wide=10)
    return tmp_path


def source_of(data: Path, edits: str) -> Files:
    prompts = f'"{PROMPTS["source"]}","{PROMPTS["target"]}"'
    (data / "t.csv").write_text(f"id,clip,source,target,edits\nt,c,{prompts},{edits}\n")
    return Files(data, data / "t.csv")


def test_regions_of_edits_are_annotations_by_their_words(data: Path) -> None:
    source = source_of(data, "red car->red fish @ m/left; blue->pink @ m/right")
    (task,) = source.tasks()
    truth = Truth.of(source, task)
    columns = [mask[:, 0].sum(-1).tolist() for mask in (annotated(each, truth.clip) for each in task.each)]
    assert columns == [[4, 4, 0], [8, 4, 4]] == [each[:, 0].sum(-1).tolist() for each in truth.regions]
    assert truth.region is not None and truth.region[:, 0].sum(-1).tolist() == [10, 8, 4]
    empty, both = remarks(task, truth.clip)
    assert "'red car' is empty in 1 of 3" in empty and "overlap: 25 %" in both.replace("%", " %")
    notes = audit_files(Files, {"root": data, "tasks": data / "t.csv"}).findings
    assert len(notes) == 2 and not any(each.grave for each in notes)
    case = truth.first(2).case(task, torch.zeros(2, 3, 8, 12))
    assert [len(region) for _, region in case.each] == [2, 2] and case.editable is not None


def test_a_region_is_never_that_of_another_edit(data: Path) -> None:
    source = source_of(data, "red car->red fish @ m/left; blue car->pink car")
    (task,) = source.tasks()
    clip, (own, other) = source.clip(task), task.each
    assert annotated(own, clip).any() and clip.brought == {"red car"}
    with pytest.raises(UserError, match="'blue car' is not annotated"):
        annotated(other, clip)
    anyones = Clip(
        "c", clip.frames, {"thing": clip.masks["red car"]}
    )  # the only annotation of a clip is what is meant
    assert annotated(other, anyones).any()


@pytest.mark.parametrize(
    ("name", "message"), [("none", "is empty"), ("short", "2 masks"), ("small", "12x8"), ("left", "")]
)
def test_files_of_regions_that_do_not_fit(data: Path, name: str, message: str) -> None:
    source = source_of(data, f"red car->red fish @ m/{name}; blue car->pink car")
    (task,) = source.tasks()
    if message:
        with pytest.raises(UserError, match=message):
            source.clip(task)
    else:
        assert source.region(task) is None and source.clip(task).masks.keys() == {"red car"}
        assert [each is None for each in source.regions(task)] == [False, True]


def test_a_region_may_vanish_where_a_clip_is_read_small(data: Path) -> None:
    white(data / "m/thin", (1, 2), (1, 2), (1, 2), high=8, wide=12)
    source = source_of(data, "red car->red fish @ m/thin")
    (task,) = source.tasks()
    source.geometry = Geometry(height=2, width=3)
    clip = source.clip(task)
    assert not clip.masks["red car"].any() and "3 of 3 frames" in remarks(task, clip)[0]


def test_a_clip_in_memory_and_a_known_one_take_files_too(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    held = Clip("c", torch.zeros(3, 3, 8, 12))
    edits, cut = "red car->red fish @ m/left", (Geometry(height=16, width=24), FrameRange(start=1, count=2))
    task, source = Wish(held, *PROMPTS.values(), None, None, *cut, edits).task(lambda: World(clips=1))
    assert source.clip(task).masks["red car"].sum((1, 2)).tolist() == [8 * 16, 0]
    world = World(clips=1, frames=3, size=(16, 16))
    white(data / "w", (0, 4), (0, 4), (0, 4), high=16, wide=16)
    whole = (None, *PROMPTS.values(), None, None, Geometry(), FrameRange(), "red car->red fish @ w")
    task, source = Wish(*whole).task(lambda: world)
    assert source.clip(task).masks["red car"].sum() == 3 * 4 * 16


def test_frames_and_size_of_a_file_are_refused_for_a_clip_of_the_data() -> None:
    for cut in ((Geometry(short_side=16), FrameRange()), (Geometry(), FrameRange(count=2))):
        with pytest.raises(UserError, match="for a file"):
            Wish(None, None, None, None, None, *cut).task(lambda: World(clips=1))


def test_objects_of_davis_are_regions_of_edits(tmp_path: Path) -> None:
    root = World(clips=2, kinds=["shape"], seed=3, frames=2, size=32).write_davis(tmp_path)
    clip = sorted((root / "JPEGImages/480p").iterdir())[0].name
    (root / "t.yaml").write_text(
        f"- {{clip: {clip}, source: a car on grass, target: a bus on sand, objects: {{1: car}},\n"
        "   edits: car->bus; grass->sand}\n"
    )
    source = Davis(root, root / "t.yaml")
    (task,) = source.tasks()
    car, grass = source.regions(task)
    assert car is not None and grass is not None and (car ^ grass).all() and source.region(task).all()


def test_rows_and_the_list_that_is_read_back_show_them(data: Path) -> None:
    (task,) = source_of(data, "red car->red fish @ m/left; blue car->pink car").tasks()
    said = explained(task.stored())
    assert said["edits"] == "red car -> red fish [shape] in left; blue car -> pink car [attribute]"
    assert "edit 2: blue car -> pink car [attribute]" in "\n".join(lines([task]))


def test_folders_of_regions_may_move(data: Path) -> None:
    edits = "red car->red fish @ m/left; blue car->pink car"
    (task,) = source_of(data, edits).tasks()
    row = json.loads(
        json.dumps({"task": task.id, "frames": [3, 8, 12], **{key: task.plain().get(key) for key in TOLD}})
    )
    before = digest_of([task])
    moved = data.rename(data.with_name("moved"))
    (again,) = source_of(moved, edits).tasks()
    (other,) = source_of(moved, edits.replace("left", "right")).tasks()
    assert digest_of([again]) == before != digest_of([other])
    config = {"_target_": "freemask.data.files.Files", "root": str(moved), "tasks": str(moved / "t.csv")}
    with pytest.raises(UserError, match="another task"):
        Sources(config).truth(row)
    source_of(moved, edits)
    assert Sources(config).truth(row)[0] == again


def test_videos_of_others_are_measured_edit_by_edit(data: Path) -> None:
    edits = "red car->red fish @ m/left; blue car->pink car @ m/right"
    task = check_task({"id": "t", "clip": "c", **PROMPTS, "edits": edits}, data)
    truth = Outsiders([], Suite({}), None, data, set())._truth(task, True)
    assert [each.any() for each in truth.regions if each is not None] == [True, True]
    assert truth.region is not None and truth.region.sum() == 22 * 8


def test_rows_of_other_edits_are_not_measured_again() -> None:
    config = {
        "_target_": "freemask.data.world.World",
        "levels": ["part"],
        "clips": 1,
        "frames": 2,
        "size": 32,
    }
    (task,) = World(levels=["part"], clips=1, frames=2, size=32).tasks()
    row = json.loads(json.dumps({"task": task.id, **{key: task.plain().get(key) for key in TOLD}}))
    assert len(Sources(config).truth(row)[1].regions) == len(task.edits)
    with pytest.raises(UserError, match="another task"):
        Sources(config).truth({**row, "edits": row["edits"][:1]})
