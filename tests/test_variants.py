"""Runs of several variants: what is composed, what is refused, what is resumed, and how variants are compared."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import get_object

from evaluation.metric import Column
from evaluation.tables.comparison import compare, paired
from experiments.cli import words as dispatch
from experiments.cli.app import main
from experiments.config import choices
from experiments.config.compose import composed as compose
from experiments.config.compose import config_of
from experiments.config.fingerprint import Identity
from experiments.config.sweep import starts
from experiments.engines.start import Order, prepare
from experiments.jobs.edit import Editor
from experiments.jobs.pictures import EDGE, veiled
from experiments.jobs.variants import NAME, Composition, reference_of, variants_of
from experiments.runs.plan import Item, Plan, Variant
from experiments.runs.record import Record
from experiments.runs.store import RunStore
from freemask.errors import UserError
from freemask.methods.sdedit import SdEdit

COMMON = [
    "model=random",
    "metric=pixels",
    "paths.runs=out",
    "data.size=16",
    "data.frames=2",
    "data.clips=2",
    "keep=none",
]
SMALL = [*COMMON, "method=sdedit", "method.steps=2"]
TWO = "variants={weak:['method.strength=0.5'],strong:['method.strength=1.0']}"
RUN = ["run", *SMALL, TWO]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def edits(monkeypatch):
    """Every (variant, task) that is worked on, in order."""
    done = []
    edit = Editor.edit

    def seen(self, row, task, *more):
        done.append((row.get("variant"), task.id))
        return edit(self, row, task, *more)

    monkeypatch.setattr(Editor, "edit", seen)
    return done


def rows(name: str) -> dict[str, dict]:
    return RunStore(Path("out") / name).latest()


def variants(*overrides: str) -> tuple[list[Variant], list[str]]:
    words = dispatch.read(["run", *overrides]).overrides
    made = compose("run", words)
    return variants_of(Composition(made.cfg, made.choices, words), lambda config, choices: Identity({}))


def composed(*overrides: str) -> dict[str | None, Variant]:
    return {each.name: each for each in variants(*overrides)[0]}


def test_a_variant_is_the_run_with_a_few_overrides_more():
    found = composed(*SMALL, "seed=3", TWO)
    assert [(name, each.config["method"]["strength"]) for name, each in found.items()] == [
        ("weak", 0.5),
        ("strong", 1.0),
    ]
    assert {each.config["seed"] for each in found.values()} == {3}
    found = composed(*SMALL, "seed=3", "variants={a:['method=ddim','method.steps=5'],b:['seed=4']}")
    a, b = found["a"].config, found["b"].config
    assert (a["method"]["_target_"], a["method"]["steps"], a["seed"]) == ("freemask.methods.ddim.Ddim", 5, 3)
    assert (b["method"]["_target_"], b["method"]["steps"], b["seed"]) == (
        "freemask.methods.sdedit.SdEdit",
        2,
        4,
    )


def test_only_some_variants():
    assert list(composed(*SMALL, TWO, "only=[strong]")) == ["strong"]
    assert list(composed(*SMALL, TWO, "only=weak")) == ["weak"]
    assert list(composed(*SMALL)) == [None]
    weak = [Variant("weak", (), {}, {}, Identity({}))]
    both = {"weak": [], "strong": []}
    assert (
        reference_of({"variants": both, "reference": "strong"}, weak) == "strong"
    )  # left out by this start alone
    assert reference_of({"variants": both, "reference": None}, weak) == "weak"


WRONG = [
    (["variants=[a]"], "a list of overrides by name"),
    (["variants={a:3}"], "variants.a cannot be read"),
    (["variants={a:[3]}"], "variants.a cannot be read"),
    (["variants={a/b:['seed=1']}"], "a variant's name becomes a folder"),
    (["variants={a:['seed=1'],b:['method=dim']}"], "variant 'b': 'dim' is no method"),
    (["variants={a:['seed=1'],b:['method.stps=3']}"], "did you mean 'method.steps'?"),
    (["variants={a:['seed=1'],b:['method.steps=x']}"], "variant 'b': method.steps is of the wrong kind"),
    (["variants={a:['seed=1'],b:['seed=1,2']}"], "variant 'b': seed has several values"),
    (["variants={a:['seed=1'],b:['data.clips=3']}"], "variant 'b' changes data"),
    (["variants={a:['seed=1'],b:['task=shape']}"], "variant 'b' changes kind"),
    (["variants={a:['seed=1'],b:['metric=paper']}"], "variant 'b' changes metric"),
    ([TWO, "reference=week"], "did you mean 'weak'?"),
    ([TWO, "only=[weak,strnog]"], "did you mean 'strong'?"),
    (["reference=weak"], "for a run of several variants"),
]


@pytest.mark.parametrize(("words", "hint"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_what_does_not_fit_is_refused_before_anything_runs(words, hint, capsys):
    assert main(["run", *SMALL, *words]) == 2
    said = capsys.readouterr().err
    assert hint in said and "Traceback" not in said and not Path("out").exists()


def test_a_run_of_variants_leaves_one_store_each_and_one_table(edits, capsys):
    assert main([*RUN, "name=a", "keep=all", "logger=csv"]) == 0
    assert [name for name, _ in edits] == ["weak", "strong"] * 2
    assert [task for _, task in edits][::2] == [task for _, task in edits][1::2]
    for name in ("weak", "strong"):
        found = rows(f"a/{name}")
        assert len(found) == 2 and {row["variant"] for row in found.values()} == {name}
        assert {row["method"] for row in found.values()} == {"sdedit"}
    page = Path("out/a/index.html").read_text()
    (core,) = re.findall(r'^freemask\.give\("core", (.*)\);$', page, re.MULTILINE)
    told = json.loads(core)
    assert [each["name"] for each in told["variants"]] == ["weak", "strong"]
    assert told["rows"]["variant"] == [0, 0, 1, 1] and told["rows"]["task"] == [0, 1, 0, 1]
    stems = told["tasks"]["stem"]
    linked = [each.replace("{}", stem) for plan in told["files"] for each in plan.values() for stem in stems]
    assert len(linked) == 16 and all((Path("out/a") / each).is_file() for each in linked)
    table = Path("out/a/table.md").read_text()
    assert "| weak | 2 | 0 |" in table and "| strong | 2 | 0 |" in table and "minus weak" in table
    said = capsys.readouterr().out
    assert "4 done, 0 failed, 0 left" in said and "minus weak" in said
    lines = Path("out/a/rows.csv").read_text().splitlines()
    assert len(lines) == 5 and "variant" in lines[0].split(",")
    before = Record.read(Path("out/a"))
    assert before.variants == {"weak": ["method.strength=0.5"], "strong": ["method.strength=1.0"]}
    assert main(["evaluate", "a", "paths.runs=out", "metric=pixels", "redo=true"]) == 0
    assert Record.read(Path("out/a")) == before


def test_the_summary_is_what_the_rows_say_and_variants_equal_runs_of_their_own():
    assert main([*RUN, "name=a", "reference=strong"]) == 0
    found = json.loads(Path("out/a/summary.json").read_text())
    weak, strong = rows("a/weak"), rows("a/strong")
    (line,) = [each for each in found["differences"] if each["column"] == "oracle_psnr"]
    apart = [weak[task]["metrics"]["oracle_psnr"] - strong[task]["metrics"]["oracle_psnr"] for task in weak]
    assert line["variant"] == "weak" and line["n"] == 2 and found["reference"] == "strong"
    assert line["mean"] == pytest.approx(np.mean(apart))
    assert line["low"] <= min(apart) <= line["mean"] <= max(apart) <= line["high"] and not line["clear"]
    assert set(found["kinds"]) == {row["kind"] for row in weak.values()}
    assert main(["run", *SMALL, "method.strength=1.0", "name=b"]) == 0
    alone = rows("b")
    assert {task: row["metrics"] for task, row in strong.items()} == {
        task: row["metrics"] for task, row in alone.items()
    }
    assert Record.read(Path("out/a/strong")).told == Record.read(Path("out/b")).told


def test_a_second_start_does_what_is_missing_in_each_variant(edits):
    assert main([*RUN, "name=a", "limit=1"]) == 0
    assert main([*RUN, "name=a", "limit=2", "only=[weak]"]) == 0
    first = list(edits)
    assert [name for name, _ in first] == ["weak", "strong", "weak"]
    assert main([*RUN, "name=a"]) == 0
    new = edits[3:]
    assert len(new) == 1 and not set(new) & set(first) and new[0][0] == "strong"
    more = TWO.replace("}", ",full:['method.strength=0.75']}")
    assert main(["run", *SMALL, more, "name=a"]) == 0
    assert [name for name, _ in edits[4:]] == ["full"] * 2


def test_a_changed_variant_is_refused_and_the_others_are_not_touched(capsys):
    assert main([*RUN, "name=a", "limit=1"]) == 0
    assert main(["run", *SMALL, TWO.replace("1.0", "0.9"), "name=a"]) == 2
    said = capsys.readouterr().err
    assert "method.strength: 1.0 there, 0.9 here" in said
    assert len(rows("a/weak")) == 1


def test_failures_are_retried_where_they_happened(monkeypatch, edits, capsys):
    call = SdEdit.__call__

    def torn(self, backbone, clip, task, rng, *more):
        if self.strength == 1.0 and task.kind == "shape":
            raise RuntimeError("torn")
        return call(self, backbone, clip, task, rng, *more)

    monkeypatch.setattr(SdEdit, "__call__", torn)
    assert main([*RUN, "name=a"]) == 0
    said = capsys.readouterr().out
    assert "3 done, 1 failed, 0 left" in said and "failed: strong: world-" in said
    assert "| strong | 1 | 1 |" in Path("out/a/table.md").read_text()
    monkeypatch.setattr(SdEdit, "__call__", call)
    assert main([*RUN, "name=a"]) == 0
    assert main([*RUN, "name=a", "retry=failed"]) == 0
    assert len(edits) == 5 and edits[-1][0] == "strong"
    assert "4 done, 0 failed, 0 left" in capsys.readouterr().out


def test_workers_share_the_tasks():
    for worker in (1, 0):
        split = ["runner.workers=2", f"runner.worker={worker}"]
        assert main([*RUN, "name=a", *split]) == 0
    assert len(rows("a/weak")) == len(rows("a/strong")) == 2
    assert len(list(Path("out/a/weak/rows").glob("*.jsonl"))) == 2


def test_one_model_is_loaded_for_all_that_share_it(monkeypatch, edits):
    from freemask.backbones.unet3d import UNet3D

    made = []
    random = UNet3D.random.__func__

    def counted(cls, seed=0, **more):
        made.append(seed)
        return random(cls, seed, **more)

    monkeypatch.setattr(UNet3D, "random", classmethod(counted))
    three = "variants={a:['seed=1'],b:['model.seed=5'],c:['seed=2']}"
    assert main(["run", *SMALL, three, "name=a", "limit=1"]) == 0
    assert made == [0, 5] and [name for name, _ in edits] == ["a", "c", "b"]
    assert rows("a/a").keys() == rows("a/b").keys()


def test_a_plain_run_and_variants_never_share_a_folder():
    def start(folder: str, name: str | None, job: str = "edit") -> None:
        one = Variant(name, (f"variant={name}",), {}, {}, Identity({"seed": 0}))
        prepare(Order(Plan(job, [one], [Item("t")]), Path(folder), name))

    start("one", None)
    with pytest.raises(UserError, match="holds a run of one configuration"):
        start("one", "a")
    start("several", "a")
    start("several", "b")
    found = Record.read(Path("several"))
    assert found.variants == {"a": ["variant=a"], "b": ["variant=b"]} and found.reference == "b"
    with pytest.raises(UserError, match="holds a run of variants"):
        start("several", None)
    with pytest.raises(UserError, match="another kind of run"):
        start("several", "a", "calibrate")
    assert not Path("several/rows").exists() and not Path("one/a").exists()
    for path in (Path("one/run.json"), Path("several/a/run.json")):  # as an earlier version left them
        record = json.loads(path.read_text())
        path.write_text(json.dumps({key: record[key] for key in ("identity", "parts")}))
    for folder, name, job in (("one", None, "edit"), ("one", None, "calibrate"), ("several", "a", "edit")):
        with pytest.raises(UserError, match="another version"):
            start(folder, name, job)


def test_a_sweep_crosses_the_variants_that_are_listed(capsys):
    """What a variant says itself is the last word, as it is without a sweep."""
    sweep = ["-m", "method.steps=1,2", "seed=3,4", "reference=strong", "name=s", "limit=1"]
    assert (
        main([*RUN[:-1], TWO.replace("['method.strength=1.0']", "['method.strength=1.0','seed=5']"), *sweep])
        == 0
    )
    said = capsys.readouterr().out
    assert "Compared with strong+steps-1+seed-3" in said and "open_clip" not in said
    found = {path.parent.parent.name: path for path in Path("out/s").glob("*/rows/*")}
    assert len(found) == 8 and "weak+steps-2+seed-4" in found
    made = {name: next(iter(rows(f"s/{name}").values())) for name in found}
    assert {(row["steps"], row["seed"]) for name, row in made.items() if "weak" in name} == {
        *((1, 3), (1, 4), (2, 3), (2, 4))
    }
    assert {(row["steps"], row["seed"]) for name, row in made.items() if "strong" in name} == {(1, 5), (2, 5)}


SWEPT = [
    (["method=ddim,sdedit", "seed=0,1"], ["ddim+seed-0", "ddim+seed-1", "sdedit+seed-0", "sdedit+seed-1"]),
    (["mask=none,average", "fusion=none,all"], ["mask-none+fusion-none", "mask-none+fusion-all"]),
    (["fusion.self=off,plain", "task.windows.shape.self=0.5"], ["self-off", "self-plain"]),
    (["fusion.self=off,plain", "task.windows.shape.self=0.5,1"], ["fusion-self-off+shape-self-0.5"]),
    (["mask=glob(mmc*)"], ["mmc", "mmc_by_layer"]),
    (["seed=range(1,4)"], ["seed-1", "seed-2", "seed-3"]),
    (["method.negative='a, b','a; b'"], ["negative-a-b"]),
    (["model.path=a,'b/c d.x'"], ["path-a", "path-b-c-d-x"]),
    (["mask.threshold=0.4,.5"], ["threshold-0.4", "threshold-0.5"]),
    (["mask=null,average"], ["null", "average"]),
    ([f"method.negative={'a' * 90},{'a' * 91}"], [f"negative-{'a' * 64}-"]),
]


@pytest.mark.parametrize(("typed", "names"), SWEPT, ids=lambda each: each[0])
def test_combinations_are_named_by_what_differs(typed, names):
    (start,) = starts("run", [*SMALL, *typed], joint=True)
    found = list(start.variants)
    assert all(any(each.startswith(name) for each in found) for name in names)
    assert len(set(found)) == len(found) > 1 and all(NAME.fullmatch(each) for each in found)
    for name, own in start.variants.items():  # as a user would write it down
        assert dispatch.read(["run", f"variants={{{name}: [seed=1]}}"]).overrides == [
            f"variants={{{name}:['seed=1']}}"
        ]
        assert len(own) == sum("," in each or "(" in each for each in typed)


def test_what_variants_share_is_swept_by_runs_of_their_own():
    words = ["task=shape,style", "+experiment=a,b", "method.steps=1,2"]
    found = starts("run", words, joint=True)
    assert [each.name for each in found] == ["shape+a", "shape+b", "style+a", "style+b"]
    assert [list(each.variants) for each in found] == [["steps-1", "steps-2"]] * 4
    assert found[1].overrides == ["task=shape", "+experiment=b"]
    apart = starts("calibrate", ["model=a,b", "steps=1,2"], joint=False)
    assert [each.name for each in apart] == ["a+steps-1", "a+steps-2", "b+steps-1", "b+steps-2"]


def test_an_experiment_may_say_what_it_sweeps(monkeypatch):
    monkeypatch.setattr(
        "experiments.config.sweep.sweep_params", lambda *_: {"seed": "1,2", "method.steps": "3,4"}
    )
    (start,) = starts("run", ["seed=7"], joint=True)
    assert (start.overrides, list(start.variants)) == (["seed=7"], ["steps-3", "steps-4"])


def test_hydras_own_launchers_are_refused(capsys):
    assert main([*RUN, "-m", "seed=0,1", "hydra/launcher=joblib"]) == 2
    assert "runner=" in capsys.readouterr().err


@pytest.mark.parametrize("group", ["mask", "fusion"])
def test_a_group_that_the_method_does_not_use_is_named(group):
    for words in ([f"{group}=none"], [f"{group}=none", TWO]):
        (line,) = variants(*SMALL, *words)[1]
        assert f"no {group}" in line and f"{group}=none" in line
    assert variants(*SMALL)[1] == []
    found, (line,) = variants(*SMALL, f"variants={{a:['{group}=none'],b:['method=freemask','{group}=none']}}")
    assert "variant 'a'" in line
    assert [each.choices[group] for each in found] == [None, "none"]


def test_an_experiment_says_which_verb_it_is_for(monkeypatch, capsys):
    option = choices.Option("fig", "curves", {"verb": "calibrate"})
    monkeypatch.setattr(dispatch, "groups", lambda: {**choices.groups(), "experiment": (option,)})
    assert main(["run", "experiment=fig"]) == 2
    said = capsys.readouterr().err
    assert "freemask calibrate experiment=fig" in said and said.count("\n") == 4


# The comparison itself.

UP, DOWN = Column("psnr", "dB", True, "nearness"), Column("lpips", "", False, "distance")


def row(variant, task, clip, psnr, lpips=0.1, **more):
    base = {"variant": variant, "task": task, "clip": clip, "kind": "shape", "seed": 0, "steps": 5}
    base |= {"status": "done", "metrics": {"psnr": psnr, "lpips": lpips}, "commit": "abc"}
    return base | more


def test_differences_are_taken_task_by_task_where_both_finished():
    rows = [row("a", "1", "x", 20.0), row("a", "2", "y", 30.0), row("a", "3", "z", 99.0)]
    rows += [row("b", "1", "x", 21.0), row("b", "2", "y", 33.0), row("b", "4", "w", 0.0)]
    rows += [row("b", "3", "z", 0.0, status="failed"), row("c", "9", "q", 1.0)]
    found = paired(rows, [UP, DOWN], "a")
    assert found.variants == ["b"]
    line = found.value("b", "psnr")
    assert (line.mean, line.n, line.clips) == (2.0, 2, 2)
    assert line.low < 1.0 and line.high > 3.0 and not line.clear
    assert found.value("b", "lpips").mean == 0.0
    with pytest.raises(UserError, match="did you mean 'a'|choose one of"):
        paired(rows, [UP], "d")


def test_one_clip_gives_no_interval():
    rows = [row(name, task, "x", value) for name, value in (("a", 1.0), ("b", 2.0)) for task in "12"]
    (line,) = paired(rows, [UP], "a").differences
    assert line.n == 2 and line.clips == 1 and np.isnan(line.low) and not line.clear
    assert paired(rows, [UP], "a").record()[0]["low"] is None


def test_kinds_are_compared_apart():
    rows = [row("a", "1", "x", 20.0), row("b", "1", "x", 22.0)]
    rows += [row("a", "2", "y", 20.0, kind="style"), row("b", "2", "y", 19.0, kind="style")]
    found = compare(rows, "a")
    assert list(found.kinds) == ["shape", "style"]
    assert found.paired.value("b", "psnr").mean == 0.5
    assert found.kinds["shape"].paired.value("b", "psnr").mean == 2.0
    assert found.kinds["style"].paired.value("b", "psnr").mean == -1.0
    assert (
        json.loads(json.dumps(found.record(), allow_nan=False))["kinds"]["style"]["means"][0]["low"] is None
    )
    assert compare(rows[:2], "a").kinds == {}
    levels = [
        {**each, "level": level} for each, level in zip(rows, ("part", "part", "class", "class"), strict=True)
    ]
    assert {
        level: each.paired.value("b", "psnr").mean for level, each in compare(levels, "a").kinds.items()
    } == {
        "class": -1.0,
        "part": 2.0,
    }
    assert compare([row("b", "1", "x", 1.0)], "a").paired is None


# Masks in pictures.


def test_a_veil_hides_what_may_not_change_and_leaves_the_rest():
    frames = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 8, 8)
    mask[:, 2:6, 2:6] = 1
    shown = veiled(frames, mask)
    assert torch.equal(shown[:, :, 2:6, 2:6], frames[:, :, 2:6, 2:6])
    assert torch.allclose(shown[:, :, 1, 2:6], torch.tensor(EDGE)[None, :, None].expand(2, 3, 4))
    assert float(shown[:, :, 0].amax()) < 0.5 < float(frames[:, :, 0].amax())
    assert torch.equal(veiled(frames, torch.ones(2, 8, 8)), frames)


@pytest.fixture
def masked(monkeypatch):
    """SDEdit that also hands out a mask and facts, as methods with masks do."""
    call = SdEdit.__call__

    def shows(self, *given):
        edit = call(self, *given)
        mask = torch.linspace(0, 1, 16).expand(len(edit.frames), 16, 16)
        facts = {"mask_layer": "down.0", "mask_time": 61, "mask_share": 0.25}
        return type(edit)(edit.frames, {"mask": mask, "noise": torch.zeros(3)}, edit.seconds, (), facts)

    monkeypatch.setattr(SdEdit, "__call__", shows)


def test_masks_and_facts_are_kept_and_shown(masked):
    assert main(["run", *SMALL, "name=a", "limit=1", "keep=all"]) == 0
    ((_, found),) = rows("a").items()
    assert found["facts"] == {"mask_layer": "down.0", "mask_time": 61, "mask_share": 0.25}
    with np.load(Path("out/a") / found["files"]["frames"]) as kept:
        assert sorted(kept.files) == ["frames", "mask"]
        assert kept["mask"].shape == (2, 16, 16) and kept["mask"][0, 0].tolist() == list(range(0, 256, 17))
    facts = '"facts":{"mask_layer":"down.0","mask_time":61,"mask_share":0.25}'
    assert facts in Path("out/a/index.html").read_text()


def test_edit_prints_facts_and_keeps_masks(masked, capsys):
    words = ["model=random", "metric=pixels", "method=sdedit", "method.steps=2", "data.size=16", "out=done"]
    assert main(["edit", *words]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\n +mask +.*down\.0.*61", said) and re.search(r"\n +covers +25\.0%", said)
    with np.load("done/masks.npz") as kept:
        assert kept["mask"].shape == (8, 16, 16)


def test_a_mask_of_the_wrong_size_is_a_failure(monkeypatch):
    call = SdEdit.__call__

    def shows(self, *given):
        edit = call(self, *given)
        return type(edit)(edit.frames, {"mask": torch.zeros(2, 4, 4)})

    monkeypatch.setattr(SdEdit, "__call__", shows)
    assert main(["run", *SMALL, "name=a", "limit=1"]) == 1
    (found,) = rows("a").values()
    assert "no mask of (2, 16, 16)" in found["message"]


def of(own: list[str]) -> set[tuple]:
    """What may keep these overrides from being composed: each option, and each key, beside the options it depends on.
    Values are tried when a part is built, which the test leaves out."""
    keys = {each: each.partition("=")[0] for each in own}
    chosen = {each: key for each, key in keys.items() if key in choices.groups()}

    def beside(key: str) -> tuple[str, ...]:
        return tuple(
            each for each, group in chosen.items() if group in (key.split(".")[0], "method", "model")
        )

    return {(each if each in chosen else key, beside(key)) for each, key in keys.items()}


def test_experiments_list_variants_that_compose(monkeypatch):
    """Those that have something no variant before them had; that the experiments compose is tested with all options."""
    monkeypatch.setattr("experiments.jobs.variants.build", lambda node, key: None)
    met = set()
    for option in choices.group("experiment"):
        if option.facts.get("verb", "run") != "run":
            continue
        new = []
        for name, own in (choices.content("experiment", option.name).get("variants") or {}).items():
            new += [name] if of(own) - met else []
            met |= of(own)
        if new:
            assert list(composed(f"experiment={option.name}", f"only=[{','.join(new)}]")) == new


def test_a_plan_is_frozen_and_told_without_an_edit(edits, capsys):
    """Variants are written as in YAML, without a quote around each override."""
    words = ["run", *SMALL, "variants={weak: [method.strength=0.5], strong: [method.strength=1.0]}", "name=a"]
    assert main([*words, "start=false"]) == 0
    said = capsys.readouterr().out
    assert "4 edits: 2 tasks x 2 variants, 4 to do" in said and "strong (2 to do)" in said
    plan = re.search(r"plan: +(\S+)", said)
    assert plan and len(Plan.read(Path(plan[1])).items) == 2 and not edits
    assert main(["status", "a", "paths.runs=out"]) == 0
    assert re.search(r"weak +0 +0 +2", capsys.readouterr().out)
    assert main([*words, "limit=1"]) == 0 and len(edits) == 2
    assert main([*words, "start=false"]) == 0
    assert "2 to do" in capsys.readouterr().out and len(edits) == 2
    assert main(words) == 0 and len(edits) == 4


@pytest.mark.parametrize("name", ["weak", "mmc_by-layer+2"])
def test_variants_arrive_as_they_are_written(name):
    text = json.dumps({name: ["fusion.masked_for=[shape, style]", "+x='quo,ted' [a]"]})
    config = config_of("run", dispatch.read(["run", f"variants={text}"]).overrides)
    assert config.variants == {name: ["fusion.masked_for=[shape, style]", "+x='quo,ted' [a]"]}


def test_seeds_of_methods_that_draw_nothing_are_told():
    quiet = [*COMMON, "method.steps=1"]
    assert variants(*quiet, "method=sdedit", "seed=3")[1] == []
    (line,) = variants(*quiet, "method=ddim", "seed=3")[1]
    assert "a seed changes nothing" in line and "the method" in line
    words = dispatch.read(["run", *quiet]).overrides
    (start,) = starts("run", [*words, "method=ddim,sdedit", "seed=0,1"], joint=True)
    made = compose("run", start.overrides)
    command = Composition(made.cfg, made.choices, start.overrides)
    _, notes = variants_of(command, lambda config, choices: Identity({}), None, start.variants)
    assert [line for line in notes if "seed" in line] == [
        "note: a seed changes nothing in what draws no noise: ddim+seed-0, ddim+seed-1"
    ]


@pytest.mark.parametrize("name", [option.name for option in choices.group("method")])
def test_what_says_that_it_draws_nothing_does_not(name):
    """What draws uses the generator that it is given."""
    target = get_object(config_of("run", [f"method={name}"]).method._target_)
    body = inspect.getsource(target.__call__).partition("-> Edit")[2]
    assert getattr(target, "draws", True) is ("rng" in body)
