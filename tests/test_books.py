"""A run goes on with the codebook it began with, whatever is installed or deleted meanwhile."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.cli.app import main
from experiments.runs.store import RunStore
from freemask.masks.codebook import SHIPPED, Codebook

OUT = ["model=random", "paths.runs=out"]
WORLD = ["data.size=16", "data.frames=2", "data.clips=2"]
RUN = ["run", *OUT, *WORLD, "metric=pixels", "method.steps=1", "method.heat_gb=1", "keep=none"]
INSTALLED = Path("out/codebooks/a.json")


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Codebook:
    """A codebook of the random model."""
    folder = tmp_path_factory.mktemp("calibration")
    words = ["calibrate", "model=random", *WORLD, "data.clips=1", "steps=1", "maps=0", "name=a"]
    assert main([*words, f"paths.runs={folder}"]) == 0
    return Codebook.read(folder / "a" / "codebook.json")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FREEMASK_CODEBOOKS", raising=False)


def used(folder: str = "out/r") -> set[tuple[str, int]]:
    """Source and n, of all rows."""
    facts = [row["facts"] for row in RunStore(Path(folder)).latest().values()]
    return {(each["codebook"], each["codebook_n"]) for each in facts}


def test_a_run_goes_on_with_its_own_codebook_and_says_so(measured, capsys):
    measured.write(INSTALLED)
    assert main([*RUN, "name=r", "limit=1"]) == 0
    assert [path.stem for path in Path("out/r/codebooks").iterdir()] == [measured.digest]
    capsys.readouterr()
    replace(measured, n=30, of=30).write(INSTALLED)
    assert main([*RUN, "name=r"]) == 0
    said = capsys.readouterr()
    assert (
        "as this run began (own, n = 1 of 1" in said.out + said.err
        and "another (own, n = 30" in said.out + said.err
    )
    assert used() == {("own", 1)} and len(RunStore(Path("out/r")).latest()) == 2
    assert main([*RUN, "name=new", "limit=1"]) == 0
    assert used("out/new") == {("own", 30)}


def test_it_needs_no_other_and_each_variant_has_its_own(measured, capsys):
    measured.write(INSTALLED)
    replace(measured, n=5, of=5).write("other/b.json")
    both = "variants={one: [mask=mmc], two: [mask=mmc, 'mask.folders=[other]']}"
    assert main([*RUN, "name=r", "limit=1", both]) == 0
    shutil.rmtree("out/codebooks")
    shutil.rmtree("other")
    assert main([*RUN, "name=r", both]) == 0
    assert "none would be found" in "".join(capsys.readouterr())
    assert (used("out/r/one"), used("out/r/two")) == ({("own", 1)}, {("own", 5)})


def test_what_is_installed_while_a_run_works_does_not_reach_it(measured, monkeypatch):
    from experiments.jobs.edit import Editor

    edit = Editor.edit

    def edit_and_install(self, *given, **named):
        replace(measured, n=30, of=30).write(INSTALLED)
        return edit(self, *given, **named)

    measured.write(INSTALLED)
    monkeypatch.setattr(Editor, "edit", edit_and_install)
    assert main(RUN) == 0  # without a name, too
    (folder,) = Path("out").glob("freemask-*")
    assert used(str(folder)) == {("own", 1)}


def test_one_that_was_named_by_its_path_is_kept_and_another_there_is_refused(measured, capsys):
    named = "mask.codebook=mine.json"
    measured.write("mine.json")
    assert main([*RUN, "name=r", "limit=1", named]) == 0
    replace(measured, n=30, of=30).write("mine.json")
    assert main([*RUN, "name=r", named]) == 2
    said, kept = capsys.readouterr().err, f"out/r/codebooks/given/{measured.digest}.json"
    assert "method.mask.codebook" in said and f"mask.codebook={kept};" in said
    assert main([*RUN, "name=r", f"mask.codebook={kept}"]) == 0
    assert used() == {("mine.json", 1), (kept, 1)}


@pytest.mark.parametrize("verb", ["run", "edit"])
def test_a_codebook_of_another_model_is_refused_before_anything_is_loaded(verb, monkeypatch, capsys):
    monkeypatch.setattr("experiments.jobs.edit.model_of", lambda *a: pytest.fail("the model was loaded"))
    shipped = SHIPPED / "embedded.json"
    assert main([verb, *OUT, f"mask.codebook={shipped}"]) == 2
    assert "made for another model" in capsys.readouterr().err and not Path("out").exists()
