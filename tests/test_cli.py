"""The command line: what comes in arrives unchanged, and what is wrong gets one clear message and exit code 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from experiments import commands
from experiments.cli import words as dispatch
from experiments.cli.app import main
from experiments.cli.verbs import VERBS
from experiments.config import choices
from experiments.config.compose import config_of, plain
from experiments.config.from_hydra import parse
from experiments.config.sweep import Start, starts
from freemask.errors import UserError

# command line, a piece of the answer that says what to do instead
WRONG = [
    (["edt"], "did you mean 'edit'?"),
    (["runn", "method=ddim"], "did you mean 'run'?"),
    (["edit", "method=dim"], "did you mean 'ddim'?"),
    (["edit", "model=zeroskope"], "did you mean 'zeroscope'?"),
    (["run", "data=davies"], "did you mean 'davis'?"),
    (["run", "metric=clip_txt"], "did you mean 'clip_text'?"),
    (["run", "logger=wandbb"], "did you mean 'wandb'?"),
    (["run", "experiment=demoo"], "did you mean 'demo'?"),
    (["run", "task=shapes"], "did you mean 'shape'?"),
    (["edit", "methd=ddim"], "did you mean 'method'?"),
    (["edit", "clap=x.mp4"], "did you mean 'clip' or"),
    (["edit", "method.stps=3"], "did you mean 'method.steps'?"),
    (["edit", "mask=mcm"], "did you mean 'mmc'?"),
    (["edit", "mask.codebok=x"], "did you mean 'mask.codebook'?"),
    (["edit", "fusion=papr"], "did you mean 'paper'?"),
    (["edit", "fusion.self=mask"], "masked"),
    (["edit", "mask.codebook=/nowhere.json"], "/nowhere.json"),
    (["edit", "model=random"], "mask=average"),
    (["edit", "model=random"], "freemask calibrate model=random install=true"),
    (["run", "model=random"], "freemask calibrate model=random"),
    (["edit", "experiment=demo"], "freemask run experiment=demo"),
    (["run", "method.steps.more=3"], "method.steps"),
    (["edit", "method=uniedit", "method.features=cach"], "method=fatezero method.features=cache"),
    (["edit", "method=uniedit", "method.features=[up_blocks.1]"], "has it: dmt, fatezero, freemask"),
    (["edit", "method=freemask", "method.features=cach"], "did you mean 'cache'?"),
    (["edit", "runner=local"], "there is no key 'runner' in 'edit'"),
    (["edit", "method=ddim,sdedit"], "freemask edit -m"),
    (["edit", "seed=1,2"], "freemask edit -m"),
    (["edit", "method=[ddim]]"], "cannot read"),
    (["edit", "method={a"], "cannot read"),
    (["edit", "--sorce", "x"], "did you mean '--source'?"),
    (["edit", "--source"], "--source VALUE"),
    (["run", "--cfg", "jop"], "did you mean 'job'?"),
    (["run", "--cfg"], "--cfg VALUE"),
    (["run", "--json"], "a verb with --json"),
    (["list", "-m"], "a verb with -m"),
    (["list", "methods"], "did you mean 'method'?"),
    (["list", "method=dim"], "did you mean 'ddim'?"),
    (["doctor", "zeroscope"], "did you mean 'model=zeroscope'?"),
    (["doctor", "model.dtype=float17"], "did you mean 'float16'?"),
    (["doctor", "frames=-2"], "above 0"),
    (["doctor", "frames=many"], "above 0"),
    (["--source", "x"], "there is no option '--source'"),
    (["edit", "method=pnp", "model=embedded"], "embedded_image"),
    (["edit", "a.mp4", "b.mp4"], "takes one clip, and there are 2"),
    (["edit", "a.mp4", "--source", "a", "red", "car"], "stands in quotes"),
    (["status", "one", "two"], "takes one name"),
    (["run", "-m", "method=pnp", "model=sd15,zeroscope"], "method=pnp is made for another"),
    (["run", "-m", "method=ddim,sdedt"], "did you mean 'sdedit'?"),
    (["run", "-m", "method.steps=interval(1,2)"], "values to choose from"),
    (["run", "data=folder"], "data.root and data.tasks are needed"),
    (["run", "data=folder", "data.root=/nowhere", "data.tasks=x.yaml"], "nowhere"),
    (["run", "limit=0"], "1 or more"),
    (["run", "limit=few"], "a whole number"),
    (["run", "seed=1.5"], "a whole number"),
    (["run", "keep=al"], "did you mean 'all'?"),
    (["run", "retry=fail"], "did you mean 'failed'?"),
    (["run", "kind=shap"], "did you mean 'shape'?"),
    (["run", "runner.worker=3"], "worker from 0 to 0"),
    (["run", "+runner.wrkers=3"], "did you mean 'workers'?"),
    (["run", "data.split=held"], "did you mean 'heldout'?"),
    (["run", "data.clips=many"], "a whole number"),
    (["run", "data.kinds=[shape,stile]"], "did you mean 'style'?"),
    (["run", "data=world", "data.kinds=[shape]", "task=style"], "no task is left"),
    (["run", "name=../out"], "name=WORD"),
    (["edit", "clip=nosuch.mp4"], "there is no such file"),
    (["edit", "clip=world-1000000"], "did you mean 'world-1000000"),
    (["edit", "kind=shap"], "did you mean 'shape'?"),
    (["edit", "size=[1,2,3]"], "size=[320,576]"),
    (["edit", "words=zebra"], "car:truck"),
    (["edit", "words=zebra:horse"], "'zebra' is not in the source prompt"),
    (["edit", "+method.stepz=3", "model=random"], "did you mean 'steps'?"),
    (["edit", "method.steps=abc", "model=random"], "a whole number"),
    (["edit", "method.guidance=strong", "model=random"], "a number"),
    (["edit", "model=random", "+model.sed=1"], "did you mean 'seed'?"),
    (["edit", "model.path=/nowhere/at/all"], "/nowhere/at/all"),
    (["edit", "method._target_=freemask.methods.dim.Ddim"], "freemask.methods.dim"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("words", "hint"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_words_get_one_clear_message(words, hint, capsys):
    code = main([words[0], "metric=pixels", *words[1:]] if words[0] == "edit" else words)
    said = capsys.readouterr()
    assert code == 2
    assert hint in said.err
    assert said.err.startswith("freemask: ") and "Traceback" not in said.err


def test_debug_shows_where(capsys):
    with pytest.raises(UserError, match="'dim' is no method"):
        main(["edit", "method=dim", "--debug"])


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["-h"], *([verb, "--help"] for verb in VERBS)], ids=" ".join
)
def test_help(words, capsys):
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "usage: freemask" in said and "freemask " in said
    assert words[0] in said if len(words) == 2 else all(verb in said for verb in VERBS)


# What a verb imports is seen only in a process of its own: the words in turn, then all that `freemask edit` imports.
IMPORTS = """
import os, sys
from experiments.cli.app import main

HEAVY = {"torch", "pandas", "lightning", "wandb", "diffusers", "transformers"}
MISSING = [["edit", "no.mp4"], ["edit", "--source", " "], ["edit", "mask.codebook=no.json"]]
MISSING += ["edit", ".", "--source", "a"], ["edit", "masks=[mmc,no]"], ["edit", "size=a"], ["run", "data=folder"]
MISSING += ["run", "keep=no"], ["edit", "kind=no"], ["bench", "modes=[no]"], ["calibrate", "steps=no"]
MISSING += ["edit", "method.steps=no"], ["run", "data.clips=no"], ["run", "data.split=[a]"]
MISSING += ["evaluate", "no"], ["report", "no"]
MISSING += ["edit", "-m", "clip=a/b,c/d"], ["edit", "mask=segmentation", "mask.folder=no"]
MISSING += ["run", "data=davis", "data.root=no"], ["run", "data=folder", "data.root=.", "data.tasks=no.yaml"]
TABLES = [["list"], ["list", "method", "pnp"], ["--help"], ["edit", "--help"], ["help", "run", "mask"], ["edt"]]
for words in TABLES:
    main(words)
    assert not (HEAVY | {"hydra"}) & {*sys.modules}, words
for line in "run method=", "run keep=", "report ", "figure ", "table freemask/2 runs=[", "edit method=pnp method.":
    os.environ["COMP_LINE"] = f"freemask {line}"
    main(["-sc", "query=bash"])
    assert not (HEAVY | {"hydra"}) & {*sys.modules}, line
del os.environ["COMP_LINE"]
for words in MISSING:
    assert main(words) == 2
    assert not HEAVY & {*sys.modules}, (words, HEAVY & {*sys.modules})
for words in ["edit", "method=dim"], ["status"]:
    main(words)
    assert not HEAVY & {*sys.modules}, (words, HEAVY & {*sys.modules})
import experiments.commands.edit

rooms = ("engines", "report.page", "report.gather", "report.results", "tables", "figures")
rooms += ("cost", "workshop", "commands.run")
far = [name for name in sys.modules for room in rooms if f"{name}.".startswith(f"experiments.{room}.")]
assert not far + [*{"lightning", "wandb", "scipy"} & {*sys.modules}], far
"""


def test_words_do_not_wait_for_torch_and_an_edit_not_for_runs_and_reports():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_verb_is_a_module_of_its_name():
    assert VERBS["list"].config is None and VERBS["run"].config == "run" and "forecast" not in VERBS
    for name in VERBS:
        assert "\ndef main(" in (Path(commands.__file__).parent / f"{name}.py").read_text(encoding="utf-8")


def test_list_is_json(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {group: [each["name"] for each in options] for group, options in found.items()} == {
        group: [each.name for each in options] for group, options in choices.groups().items()
    }


def test_list_of_one_group(capsys):
    assert main(["list", "model"]) == 0
    said = capsys.readouterr().out
    assert "zeroscope" in said and "CC-BY-NC" in said and "ddim" not in said


@pytest.mark.parametrize(
    "flags", [["--cfg", "job"], ["--cfg=job"], ["--cfg", "job", "--resolve"]], ids=" ".join
)
def test_cfg_shows_the_configuration_and_runs_nothing(flags, capsys, tmp_path):
    assert main(["run", "method=sdedit", *flags]) == 0
    said = OmegaConf.create(capsys.readouterr().out)
    assert said.method._target_ == "freemask.methods.sdedit.SdEdit"
    assert not list(tmp_path.iterdir())


def test_info_is_hydras(capsys):
    assert main(["run", "--info", "defaults"]) == 0
    assert "model/embedded" in capsys.readouterr().out


def test_interrupt_is_quiet(monkeypatch, capsys):
    def stop(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.cli.app._run", stop)
    assert main(["run"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_an_unforeseen_error_names_debug(monkeypatch, capsys):
    def burst(words):
        raise RuntimeError("burst pipe")

    monkeypatch.setattr("experiments.cli.app._run", burst)
    assert main(["run"]) == 1
    assert "burst pipe" in capsys.readouterr().err


NASTY = [
    "a red car, driving (fast)",
    "it's a dog's life",
    'a "quoted" word',
    " blanks on both sides  ",
    "back\\slash \\' \\\" end\\",
    "${oc.env:HOME} ${x} \\${y} $ {}",
    "a=b # c % d",
    "[1,2] {a: b} null true 5 ~x +y",
    "grüne Käse 日本語 🚗",
    "",
]


@pytest.mark.parametrize("text", NASTY)
def test_prompts_arrive_unchanged_in_every_spelling(text):
    spellings = [f"source={text}"], ["--source", text], [f"--source={text}"]
    (overrides,) = {tuple(dispatch.read(["edit", *words]).overrides) for words in spellings}
    assert starts("edit", overrides, joint=False) == [Start("", [*overrides])]
    assert plain(config_of("edit", overrides))["source"] == text


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.one_of(st.sampled_from("\\'\"${}(),=#%:[]~+@ \t?"), st.characters(exclude_categories=["Cs"])))
)
def test_any_prompt_arrives_unchanged(text):
    """Through the dispatcher and both layers that could spoil it, without composing a whole configuration."""
    if text == "???":
        return
    for override in dispatch.read(["edit", "--source", text]).overrides:
        config = OmegaConf.create({"source": None})
        OmegaConf.update(config, "source", parse(override).value())
        assert OmegaConf.to_container(config, resolve=True) == {"source": text}


def test_a_prompt_of_three_question_marks_is_refused(capsys):
    assert main(["edit", "source=???"]) == 2


def test_a_path_is_text_but_can_be_swept():
    assert dispatch.read(["run", "data.root=a,b (c)"]).overrides == ["data.root='a,b (c)'"]
    assert dispatch.read(["run", "-m", "model.path=a,b"]).overrides == ["model.path=a,b"]


def test_a_bare_word_is_the_clip():
    assert dispatch.read(["edit", "my clip's.mp4"]).overrides == ["clip='my clip\\'s.mp4'"]


@pytest.mark.parametrize(
    ("text", "variants"),
    [
        ("{a: [seed=1], b: [method=ddim, seed=2]}", {"a": ["seed=1"], "b": ["method=ddim", "seed=2"]}),
        ("{a:['seed=1'],b: [ seed=2 ]}", {"a": ["seed=1"], "b": ["seed=2"]}),
        (
            "{two: [data.kinds=[shape, style], seed=1], c: [+x={y: [1, 2]}]}",
            {"two": ["data.kinds=[shape, style]", "seed=1"], "c": ["+x={y: [1, 2]}"]},
        ),
        (
            """{"a": ["x='q,[ '", "y=it's"], b: [z="]", ~mask]}""",
            {"a": ["x='q,[ '", "y=it's"], "b": ['z="]"', "~mask"]},
        ),
    ],
)
def test_variants_may_hold_lists(text, variants):
    (word,) = dispatch.read(["run", f"variants={text}"]).overrides
    assert parse(word).value() == variants


@pytest.mark.parametrize(
    "text", ["{a: [x=[1]}", "{a: [x=1]]}", "{a: 3}", "{a: [3]}", "[a]", "{}", "{../x: [y=1]}"]
)
def test_variants_that_cannot_be_read_go_on_as_they_are(text):
    assert dispatch.read(["run", f"variants={text}"]).overrides == [f"variants={text}"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "5000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),  # the user's own word on it
    ],
)
def test_threads_that_wait_soon_sleep_unless_the_user_says_otherwise(before, after, monkeypatch, capsys):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))
        assert main(["--version"]) == 0
        assert os.environ.get("GOMP_SPINCOUNT") == after
    assert capsys.readouterr().out
