"""What the report page says of its variants: where they differ, and the commands that repeat them."""

import json
import re
import shlex
from pathlib import Path

import pytest

from experiments.cli.app import main
from experiments.report.made import Made, by_rows, made_by
from experiments.report.variants import differing, table
from experiments.runs.record import Record
from experiments.runs.run import Run

SMALL = ["model=random", "metric=pixels", "data.size=16", "data.frames=2", "data.clips=1"]
SAME = {"model": "m", "data": "world", "metric": "default"}
PAPER = {"method": "freemask", "mask": "mmc", "fusion": "paper"}
COUNTS = {"method.steps": 50, "seed": 0, "fusion.self": "masked", "mask.threshold": 0.3}


def made(typed=None, choices=None, **counts) -> Made:
    known = COUNTS | {key.replace("__", "."): value for key, value in counts.items()}
    shown = {key: str(value) for key, value in known.items()}
    return Made(SAME | PAPER | (choices or {}), known, shown, typed or {}, config="x")


OTHER = {"mask": "agreement"}
CASES = {
    "nothing": ([made(), made()], []),
    "an option": ([made(), made(choices=OTHER)], ["mask"]),
    "what follows from an option": ([made(), made(choices=OTHER, mask__threshold=0.5)], ["mask"]),
    "the same option with another setting": ([made(), made(fusion__self="off")], ["fusion.self"]),
    "options come first": ([made(), made(choices=OTHER, fusion__self="off")], ["mask", "fusion.self"]),
    "typed beside another option": (
        [made(), made({"mask.threshold": ".5"}, OTHER, mask__threshold=0.5)],
        ["mask", "mask.threshold"],
    ),
    "typed as a whole": (
        [made(), made({"mask": "{}"}, OTHER, mask__threshold=1)],
        ["mask", "mask.threshold"],
    ),
    "typed twice alike": ([made({"seed": "0"}), made()], []),
    "typed, and in no setting": ([made({"task": "shape"}), made({"task": "style"})], ["task"]),
    "the steps of two methods": (
        [made(), made(choices={"method": "p"}, method__steps=9)],
        ["method", "method.steps"],
    ),
    "not recorded": ([made(), by_rows({"choices": SAME, "steps": 50})], ["method", "mask", "fusion", "seed"]),
    "recorded in part": ([made(), Made(SAME | PAPER, {"seed": 1}), made(x=1)], ["method.steps", "seed", "x"]),
}


@pytest.mark.parametrize(("variants", "keys"), CASES.values(), ids=CASES)
def test_only_what_tells_variants_apart(variants, keys):
    assert differing(variants) == keys


def test_cells_say_what_is_not_there_and_what_is_not_recorded():
    bare = made(choices={"mask": None})
    said = table([made(), bare, by_rows({"choices": SAME | {"method": "ddim"}, "steps": 7})])
    assert dict(zip(said["keys"], zip(*said["cells"], strict=True), strict=True)) == {
        "method": ("freemask", "freemask", "ddim"),
        "mask": ("mmc", "", None),
        "fusion": ("paper", "paper", None),
        "method.steps": ("50", "50", "7"),
        "seed": ("0", "0", None),
    }
    assert table([made(), bare])["same"] == [
        *(("method", "freemask"), ("model", "m"), ("fusion", "paper"), ("data", "world")),
        *(("metric", "default"), ("method.steps", "50"), ("seed", "0")),
    ]
    assert [each["command"] for each in said["each"]] == [""] * 3


def frozen(folder: Path, *words: str) -> Run:
    """A run that was planned and not begun."""
    assert main(["run", *words, f"paths.runs={folder}", "start=false"]) == 0
    return Run.open(folder / "it's mine")


def identity(folder: Path) -> str:
    return Record.read(folder).told["identity"]


WAYS = {
    "typed": [
        *(*SMALL, "mask=average", "reference=two"),
        "variants={one: [method=ddim, method.steps=3], two: ['fusion.masked_for=[shape,style]']}",
    ],
    "experiment": ["experiment=demo", "data.clips=1", "mask.binarise.pool=3"],
    "swept": ["-m", *SMALL, "method=sdedit", "method.steps=2,3"],
}


@pytest.mark.parametrize("way", WAYS)
def test_commands_repeat_each_variant_and_the_whole(tmp_path, monkeypatch, way):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "some runs"
    run = frozen(runs, *WAYS[way], "name=it's mine")
    found = made_by(run)
    assert len(found) == 2
    identities = {name: each.identity for name, each in found.items()}
    for name, each in found.items():
        assert each.command.count("name=") == 1
        assert main([*shlex.split(each.command)[1:], "start=false"]) == 0
        assert identity(runs / f"it's mine-{name}") == identity(run.folder / str(name)) == each.identity
    run.folder.rename(runs / "before")
    assert main(shlex.split(found.popitem()[1].whole)[1:] + ["start=false"]) == 0
    again = Run.open(run.folder)
    assert again.record.variants == run.record.variants and again.record.reference == run.record.reference
    assert {name: each.identity for name, each in made_by(again).items()} == identities


def test_the_whole_configuration_as_it_was_frozen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = frozen(tmp_path / "runs", *SMALL, "mask=average", "name=it's mine")
    (each,) = made_by(run).values()
    assert "mask: ${mask}" in each.config and "\nmask:\n" in each.config and "paths" not in each.config
    assert each.shown["seed"] == "0" and each.whole == ""
    for plan in (run.folder / "plans").iterdir():
        plan.unlink()
    (without,) = made_by(run).values()
    assert without.config.startswith("#") and "mask: ${mask}" in without.config
    assert without.command == each.command


def test_rows_alone_and_a_folder_of_runs_have_a_page_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    row = {"task": "a", "status": "done", "metrics": {"up": 1.0}, "method": "ddim", "steps": 2}
    for name, words in (("x", ["method=ddim"]), ("y", ["method=sdedit", "method.steps=4"])):
        assert main(["run", *SMALL, *words, f"name={name}", f"paths.runs={runs}", "start=false"]) == 0
        (runs / name / "rows" / "w.jsonl").write_text(json.dumps(row) + "\n")
    (runs / "old" / "rows").mkdir(parents=True)
    (runs / "old" / "rows" / "w.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["report", str(runs)]) == 0
    (given,) = re.findall(
        r'^freemask\.give\("made", (.*)\);$', (runs / "index.html").read_text(), re.MULTILINE
    )
    said = json.loads(given)
    assert said["keys"][0] == "method" and "method.steps" in said["keys"]
    commands = sorted(each["command"] for each in said["each"])
    assert commands[0] == "" and commands[1].endswith("name=x-again") and commands[2].endswith("name=y-again")
