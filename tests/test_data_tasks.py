"""Task lists: every bad line is named with its number; good ones come back to the last blank."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.config.identity import digest_of
from freemask.data import Files, FrameRange, Geometry, Pexels, read_tasks
from freemask.data.pairs import read_pairs
from freemask.data.tasks import check_task, read_list
from freemask.errors import UserError
from freemask.types import KINDS, DataSource

GOOD = """\
- id: car-truck
  clip: videos/a.mp4
  source: "a red car, driving "
  target: "a red pickup truck, driving "
  words: {car: pickup truck}
  kind: shape
- {id: night, clip: b, source: a car, target: a car at night, kind: style}
"""


def write(folder: Path, text: str | bytes, name: str = "tasks.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaints(path: Path) -> dict[int, list[str]]:
    """Messages by line number of the one error that the list raises."""
    with pytest.raises(UserError) as caught:
        read_tasks(path)
    found: dict[int, list[str]] = {}
    for line in str(caught.value).splitlines()[1:]:
        number, _, message = line.strip().removeprefix("line ").partition(": ")
        found.setdefault(int(number), []).append(message)
    return found


def test_yaml_list(tmp_path: Path) -> None:
    first, second = read_tasks(write(tmp_path, GOOD))
    assert (first.id, first.clip, first.kind) == ("car-truck", "videos/a.mp4", "shape")
    assert first.source == "a red car, driving " and first.target == "a red pickup truck, driving "
    assert first.words == {"car": "pickup truck"} and second.words == {} and first.assets == {}


@pytest.mark.parametrize("change", ["\ufeff{}", "{}\r", "\n\n{}"])
def test_marks_of_editors_do_no_harm(tmp_path: Path, change: str) -> None:
    text = change.format(GOOD) if "\r" not in change else GOOD.replace("\n", "\r\n")
    assert [task.id for task in read_tasks(write(tmp_path, text))] == ["car-truck", "night"]
    rows = "id,clip,source,target,words,kind\nx,b,a car ,a bus ,car->bus,shape\n"
    text = change.format(rows) if "\r" not in change else rows.replace("\n", "\r\n")
    (task,) = read_tasks(write(tmp_path, text, "tasks.csv"))
    assert (task.source, task.target, task.words) == ("a car ", "a bus ", {"car": "bus"})


def test_every_bad_line_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
- {id: a, clip: x, source: a red car, target: a blue car, words: {red: blue}, kind: atribute}
- id: a
  clip: x
  source: a red car
  target: a blue car
  words: {rad: blue}
  kind: attribute
  colour: 3
- id: ../x
  source: 12
  target: ""
  kind: style
- just text
- {id: b, clip: x, source: a no car, target: a big car, words: {no: big}, kind: shape, region: no.png}
- {id: c, clip: x, source: a car, target: a bus, words: "car -> bus -> van"}
- {id: A, clip: x, source: a car, target: a bus, words: {car: van}, kind: shape, id: d}
""",
    )
    found = complaints(path)
    assert "did you mean 'attribute'?" in found[1][0]
    assert found[2] == ["id 'a' is already that of line 1"]
    assert found[6] == ["'rad' is not in the source prompt, whose words are: a, red, car"]
    assert "unknown field 'colour'" in found[8][0]
    assert any("'clip' is missing" in text for text in found[9])
    assert any("cannot name a folder" in text for text in found[9])
    assert "must be text, not a number" in found[10][0] and "empty" in found[11][0]
    assert "field: value" in found[13][0]
    assert any("no 'no.png'" in text for text in found[14]) and any("quotes" in text for text in found[14])
    assert "not of the form a->b" in found[15][0]
    assert any("'id' is there twice" in text for text in found[16])
    assert any("'van' is not in the target prompt" in text for text in found[16])
    assert sorted(found) == [1, 2, 6, 8, 9, 10, 11, 13, 14, 15, 16]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("just words", 1, "expected a list"),
        ("- id: a\n\tclip: b\n", 2, "not YAML"),
        ("- id: a\n- id: b: c\n", 2, "not YAML"),
        (b"- id: a\n  clip: caf\xe9\n", 2, "not UTF-8"),
        ("- id: a\n".encode("utf-16"), 1, "UTF-16"),
        (b"- id: a\n- \x00\n", 2, "zero byte"),
        ("- id: a\n- \x07\n", 2, "not YAML"),
        ("---\n- {}\n---\n- {}\n", 3, "not YAML"),
        ('- {id: a, clip: b, kind: style, target: x, source: "two\\nlines"}', 1, "one line"),
        ("- {id: ., clip: b, kind: style, target: x, source: y}", 1, "cannot name a folder"),
        ("- {id: a, clip: b, kind: style, target: x, source: y, words: [x]}", 1, "must be a mapping"),
        (
            "- {id: a, clip: b, kind: style, target: x, source: y, objects: {0: x}}",
            1,
            "not an object's number",
        ),
        ("x: {source: a}", 1, "needs `target:`"),
        ("x:\n  source: a\n  targets:\n    - {kind: style, target: b, source: c}", 4, "belongs to the clip"),
        ("x:\n  source: a\n  colour: b\n  targets:\n    - {kind: style, target: b}", 3, "does not belong"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str | bytes, line: int, message: str) -> None:
    found = complaints(write(tmp_path, text))
    assert any(message in each for each in found[line]), found


PAIRS: dict[str, dict[str, str]] = {
    "car:truck": {"car": "truck"},
    "car->truck": {"car": "truck"},
    "red car -> blue truck; road->snow": {"red car": "blue truck", "road": "snow"},
    "{car: truck, road: snow}": {"car": "truck", "road": "snow"},
    "car -> truck, road -> snow;": {"car": "truck", "road": "snow"},
    "car:": {"car": ""},
    "car ->": {"car": ""},
    "car:, dog: cat": {"car": "", "dog": "cat"},
    "big, red car -> small, blue car": {"big, red car": "small, blue car"},
    "16:9 frame -> 4:3 frame": {"16:9 frame": "4:3 frame"},
    " ; ": {},
}


@pytest.mark.parametrize(("text", "pairs"), PAIRS.items(), ids=PAIRS.keys())
def test_pairs_of_words(text: str, pairs: dict[str, str]) -> None:
    assert read_pairs(text) == (pairs, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("car-truck", "form a->b or a:b"),
        ("car -> bus -> van", "put ;"),
        ("big, red car -> bus, dog -> cat", "put ;"),
        ("car:bus, car:van", "twice"),
    ],
)
def test_texts_that_are_no_pairs(text: str, message: str) -> None:
    assert message in read_pairs(text)[1][0]


def test_words_and_kind_are_read_off_the_prompts(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """clip,source,target,words,kind
a.mp4,a car on a road,a bus on a road,,
a.mp4,a car on a road,a red car on a road,,shape
a.mp4,a car on a road,a road,car:,
a.mp4,a boat sails,a boat sails in the desert,,
""",
        "t.csv",
    )
    bus, red, gone, desert = read_tasks(path)
    assert (bus.id, bus.kind, bus.words) == ("a-shape", "shape", {"car": "bus"})
    assert bus.guessed == {"kind": "guessed", "words": "guessed"}
    assert (red.id, red.kind, red.words, red.guessed) == (
        "a-shape-2",
        "shape",
        {"car": "car"},
        {"words": "guessed"},
    )
    assert (gone.kind, gone.words, gone.guessed) == ("shape", {"car": ""}, {"kind": "guessed"})
    assert desert.kind == "background" and "not sure" in desert.guessed["kind"]


def test_what_is_said_in_full_is_no_guess(tmp_path: Path) -> None:
    fields = "{id: a, clip: x, source: a car, target: a bus%s}"
    said, guessed = (
        read_tasks(write(tmp_path, f"- {fields % more}")) for more in (", words: {car: bus}, kind: shape", "")
    )
    assert said[0].guessed == {} and guessed[0].guessed
    assert said[0].plain() == guessed[0].plain() and digest_of(said) == digest_of(guessed)


@pytest.mark.parametrize(
    ("name", "digest"),
    [("davis20", "92fb958f52a7c481"), ("pexels20", "dfd5f65f0c6691d2")],
)
def test_runs_of_lists_that_say_all_go_on(name: str, digest: str) -> None:
    assert digest_of(read_list(name).tasks) == digest


def test_csv(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """id,clip,source,target,words,kind,objects
one,x,"a red car, in the sun ","a blue truck, in the sun ",car->truck; red->blue,shape,1->car;2->dog

two,x,a car,oil painting of a car,,style,
""",
        "tasks.csv",
    )
    listed = read_list(path)
    assert listed.tasks[0].words == {"car": "truck", "red": "blue"}
    assert listed.tasks[0].source == "a red car, in the sun " and listed.tasks[1].words == {}
    assert listed.objects == {"x": {1: "car", 2: "dog"}}


def test_bad_csv(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """id,clip,source,target,words,kind
a,x,a car, a bus,car-bus,shape
b,x,a car,in the sun,a bus,car->bus,shape
c,x
"d",x,"a
car",a bus,car->bus,shape
e,x,a car,a bus,car->bus; car->bus,sape
""",
        "tasks.csv",
    )
    found = complaints(path)
    assert "not of the form a->b" in found[2][0]
    assert "7 values" in found[3][0] and "quotes" in found[3][0]
    assert "2 values" in found[4][0] and "one line" in found[5][0]
    assert any("twice" in text for text in found[7]) and any("'shape'" in text for text in found[7])
    assert complaints(write(tmp_path, "id;clip;source\n1;2;3\n", "t.csv")) == {
        1: ["the columns must be separated by commas"]
    }
    assert "unknown column prompt" in str(complaints(write(tmp_path, "id,prompt\nx,a car\n", "t.csv")))
    assert "broken quotes" in str(complaints(write(tmp_path, 'id,clip\n"a"b,c\n', "t.csv"))[2])
    for text, name in (("id,clip\n", "t.csv"), ("", "t.yaml")):
        with pytest.raises(UserError, match="holds no tasks"):
            read_tasks(write(tmp_path, text, name))


def test_a_wrong_header_is_told_once(tmp_path: Path) -> None:
    rows = "\na,a car,a bus\nb,a car,a van\n"
    (said,) = complaints(write(tmp_path, "\nname,prompt,target" + rows, "t.csv"))[2]
    assert "no column clip, source;" in said and "unknown column name, prompt;" in said and "kind" in said
    (said,) = complaints(write(tmp_path, "clip,source,colour" + rows, "t.csv"))[1]
    assert "no column target;" in said and "unknown column colour;" in said
    (said,) = complaints(write(tmp_path, "file,source,titel" + rows, "t.csv"))[1]
    assert "unknown column titel;" in said and "no column target;" in said and "are file," in said
    assert len(read_tasks(write(tmp_path, "file,source,target" + rows, "t.csv"))) == 2


def test_short_forms_of_a_clip_and_its_targets(tmp_path: Path) -> None:
    text = """a.mp4:
  source: a red car on a road
  targets:
    - a blue car on a road
    - {id: gone, target: a road}
b.mp4: {source: a bear walks, target: a lion walks, id: lion}
"""
    blue, gone, lion = read_tasks(write(tmp_path, text))
    assert (blue.clip, blue.target, blue.kind) == ("a.mp4", "a blue car on a road", "attribute")
    assert (gone.clip, gone.id, lion.clip, lion.id) == ("a.mp4", "gone", "b.mp4", "lion")
    found = complaints(
        write(tmp_path, "a:\n  source: b\n  targets:\n  - 3\nb: {source: c, target: d, clip: e}")
    )
    assert "must be text" in found[4][0] and "'clip'" in found[5][0]


def test_clips_with_several_edits(tmp_path: Path) -> None:
    text = """\
DAVIS/two cars:
  source: a car and a dog
  objects: {1: car, 2: dog}
  targets:
    - {kind: shape, target: a bus and a dog, words: {car: bus}}
    - {kind: shape, target: a car and a cat, words: {dog: cat}}
    - {id: own, kind: style, target: a painting of a car and a dog}
"""
    listed = read_list(write(tmp_path, text))
    assert [task.id for task in listed.tasks] == ["DAVIS-two-cars-shape", "DAVIS-two-cars-shape-2", "own"]
    assert {task.clip for task in listed.tasks} == {"DAVIS/two cars"}
    assert listed.objects == {"DAVIS/two cars": {1: "car", 2: "dog"}}
    spoilt = text.replace("{car: bus}", "{cat: bus}")
    assert list(complaints(write(tmp_path, spoilt))) == [5]


def test_objects_that_contradict(tmp_path: Path) -> None:
    base = "clip: x, source: a car, target: b, kind: style"
    text = f"- {{id: a, {base}, objects: {{1: car}}}}\n- {{id: b, {base}, objects: {{1: dog}}}}\n"
    assert "is called 'car' above" in complaints(write(tmp_path, text))[2][0]


def test_phrases_case_and_punctuation() -> None:
    fields = {"id": "a", "clip": "x", "kind": "shape", "source": "A Red Car, at dusk", "target": "a big dog."}
    assert check_task(fields | {"words": {"red car": "big dog"}}).words == {"red car": "big dog"}
    assert check_task(fields | {"words": "red car->dog"}).words == {"red car": "dog"}
    for words in ({"car red": "dog"}, {"ar": "dog"}, {"": "dog"}):
        with pytest.raises(UserError):
            check_task(fields | {"words": words})
    for kind in KINDS:
        assert check_task(fields | {"words": {"car": "dog"}, "kind": kind}).kind == kind


def test_missing_lists(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    for name, words in (("task.yaml", "tasks.yaml"), ("", "folder")):
        with pytest.raises(UserError, match=words):
            read_tasks(tmp_path / name)
    with pytest.raises(UserError, match=r"\.yaml or \.csv"):
        read_tasks(write(tmp_path, GOOD, "tasks.txt"))


# ---- sources made of a task list


def frames(folder: Path, count: int = 6, high: int = 24, wide: int = 40) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (wide, high), (index * 20,) * 3).save(folder / f"{index}.png")


def masks(folder: Path, count: int = 6, high: int = 24, wide: int = 40) -> None:
    """Mask i is white in its first i + 1 columns."""
    folder.mkdir(parents=True)
    for index in range(count):
        values = np.zeros((high, wide), np.uint8)
        values[:, : index + 1] = 255
        Image.fromarray(values).save(folder / f"{index}.png")


LIST = """\
- {id: one, clip: clips/x, source: a car, target: a bus, words: {car: bus}, kind: shape, region: m/x}
- {id: two, clip: clips/x, source: a car, target: a van, words: {car: van}, kind: shape}
- {id: three, clip: y.png, source: a car, target: a van, words: {car: van}, kind: shape}
"""


def test_files_with_regions(tmp_path: Path) -> None:
    frames(tmp_path / "clips/x")
    masks(tmp_path / "m/x")
    masks(tmp_path / "regions/two", 1)
    (tmp_path / "regions/two/0.png").rename(tmp_path / "regions/two.png")
    (tmp_path / "regions/two").rmdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "y.png")
    path = write(tmp_path, LIST)
    choice = FrameRange(start=1, stride=2, count=2)
    source = Files(tmp_path, path, clips=["x"], regions=tmp_path / "regions", frames=choice)
    assert isinstance(source, DataSource) and [task.id for task in source.tasks()] == ["one", "two"]
    one, two = source.tasks()
    assert source.clip(one).frames.shape == (2, 3, 24, 40) and source.clip(one).fps == 4
    region = source.region(one)
    assert region is not None and region[:, 0].sum(-1).tolist() == [2, 4]  # those of frames 1 and 3
    region = source.region(two)
    assert region is not None and region[:, 0].sum(-1).tolist() == [1, 1]
    (last,) = Files(tmp_path, path, clips=["*.png"]).tasks()
    assert Files(tmp_path, path).region(last) is None
    small = Files(tmp_path, path, geometry=Geometry(short_side=12)).region(one)
    assert small is not None and small.shape == (6, 12, 20)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    frames(tmp_path / "clips/x")
    masks(tmp_path / "m/x", 5)
    path = write(tmp_path, LIST)
    with pytest.raises(UserError, match=r"y\.png"):
        Files(tmp_path, path)
    with pytest.raises(UserError, match="no clip of the task list fits"):
        Files(tmp_path, path, clips=["z"])
    source = Files(tmp_path, path, clips=["clips/*"])
    with pytest.raises(UserError, match="5 masks"):
        source.region(source.tasks()[0])
    for old in (tmp_path / "m/x").iterdir():
        old.unlink()
    (tmp_path / "m/x").rmdir()
    masks(tmp_path / "m/x", 6, high=20)
    with pytest.raises(UserError, match="40x24"):
        source.region(source.tasks()[0])


def test_pexels(tmp_path: Path, shared: Path) -> None:
    for name in ("car-turn.mp4", "man-skiing.mp4"):
        (tmp_path / name).write_bytes((shared / "clips/videos" / name).read_bytes())
    manifest = """file,url,source,target,words,kind
car-turn.mp4,https://example.org/1,a car on the road,a car on the snow,road->snow,background
man-skiing.mp4,https://example.org/2,a man is skiing,a man is skiing in cartoon style,,style
"""
    write(tmp_path, manifest, "manifest.csv")
    source = Pexels(tmp_path, geometry=Geometry(short_side=32), frames=FrameRange(count=4, fps=5))
    assert [task.id for task in source.tasks()] == ["car-turn-background", "man-skiing-style"]
    for task in source.tasks():
        clip = source.clip(task)
        assert clip.frames.shape == (4, 3, 32, 32) and clip.fps == 5


def test_pexels_manifests(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no manifest"):
        Pexels(tmp_path)
    frames(tmp_path / "x")
    write(tmp_path, "- {file: x, source: a, target: b, kind: style}\n", "manifest.yaml")
    with pytest.raises(UserError, match="not a video file"):
        Pexels(tmp_path)
    write(tmp_path, "- {file: z.mp4, source: a, target: b, kind: style}\n", "manifest.yaml")
    with pytest.raises(UserError, match=r"z\.mp4"):
        Pexels(tmp_path)


def test_the_prompts_of_the_real_clips(shared: Path) -> None:
    tasks = read_tasks(shared / "clips/prompts.yaml")
    assert len(tasks) == 13 and len({task.id for task in tasks}) == 13
    assert tasks[0].words == {"bear": "lion"}
