"""Completion: what may come next is offered, of the verb at hand alone, and nothing else is ever printed."""

import shutil
import subprocess

import pytest

from experiments.cli.app import main
from experiments.cli.completion import BASH, candidates
from experiments.cli.verbs import VERBS
from experiments.config import choices
from experiments.runs.record import RECORD

# line, some of what is offered, what must not be
LINES = [
    ("freemask ", ["edit", "run", "help"], ["--help"]),
    ("freemask r", ["run", "report"], ["edit"]),
    ("freemask help ca", ["calibrate"], ["run"]),
    ("freemask help run tas", ["task="], ["table"]),
    ("freemask --", ["--help", "--version"], ["--source"]),
    ("freemask edit --so", ["--source"], ["source="]),
    ("freemask edit --", ["--target", "--cfg", "--multirun", "--help"], ["--json", "--version", "--name"]),
    ("freemask status --", ["--json"], ["--cfg", "--multirun"]),
    ("freemask edit --source ", [], ["clip="]),
    ("freemask edit --source 'a car, metho", [], ["method="]),
    ("freemask edit --source 'a car' --target \"it's\" metho", ["method="], ["metric="]),
    ("freemask run --cfg ", ["job"], ["name="]),
    ("freemask edit cl", ["clip="], ["crop="]),
    ("freemask edit metho", ["method="], ["method.", "metric="]),
    ("freemask edit method", ["method=", "method."], []),
    ("freemask run method=", ["method=ddim", "method=freemask"], ["method="]),
    ("freemask run -m method=ddim,fr", ["method=ddim,freemask"], ["method=ddim,ddim"]),
    ("freemask run experiment=freemask/", ["experiment=freemask/masks"], ["experiment=freemask/fig1"]),
    ("freemask calibrate experiment=", ["experiment=freemask/fig1"], ["experiment=demo"]),
    ("freemask edit exp", [], ["experiment="]),
    ("freemask edit method.st", ["method.steps="], ["method.guidance="]),
    ("freemask edit method=pnp method.st", ["method.steps=", "method.start="], ["method.mask="]),
    ("freemask edit method=fatezero model.", ["model.attention="], []),
    ("freemask edit model.", ["model.path="], ["model.attention="]),
    ("freemask run -m method=pnp,sdedit method.st", ["method.start=", "method.strength="], []),
    ("freemask run keep=", ["keep=all", "keep=sample", "keep=none"], ["keep="]),
    ("freemask evaluate keep=", ["keep=all", "keep=none"], ["keep=sample"]),
    ("freemask run kind=sh", ["kind=shape"], ["kind=style"]),
    ("freemask bench modes=[plain,cache", ["modes=[plain,cache_disk"], ["modes=[plain,plain"]),
    ("freemask edit method=pnp method.start=", ["method.start=renoised"], ["method.start=true"]),
    ("freemask run logger=wandb logger.mode=o", ["logger.mode=offline"], []),
    ("freemask table mixed=[com", ["mixed=[commit"], []),
    ("freemask edit masks=[oracle,ag", ["masks=[oracle,agreement"], []),
    ("freemask run start=", ["start=false"], []),
    ("freemask edit model=zeroscope model.allow", ["model.allow_pickle="], []),
    ("freemask edit model=zeroscope model.allow_pickle=", ["model.allow_pickle=true"], []),
    ("freemask list me", ["method", "metric"], ["mask"]),
    ("freemask list method pn", ["pnp"], ["method"]),
    ("freemask table freemask/", ["freemask/2"], ["freemask/4"]),
    ("freemask figure freemask/", ["freemask/4"], ["freemask/2"]),
    ("freemask edit --zzz", [], ["--source"]),
    ("freemask nosuch ", [], ["run"]),
    ("freemask nosuch method=", [], ["method=ddim"]),
]


@pytest.mark.parametrize(("line", "hopes", "never"), LINES, ids=[line for line, _, _ in LINES])
def test_what_may_come_next(line, hopes, never):
    found = candidates(line)
    typed = line.rpartition(" ")[2]
    assert set(hopes) <= set(found) and not set(never) & set(found)
    assert all(each.startswith(typed) for each in found) and len(found) == len(set(found))
    assert found or not hopes


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_completes_wherever_the_line_ends(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    groups = choices.defaults(VERBS[verb].config) if VERBS[verb].config else {}
    for rest in ("", "-", "name=", "x=[", "=", "[", *groups, *(f"{each}=" for each in groups), "a b", "'"):
        assert isinstance(candidates(f"freemask {verb} {rest}"), list)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    for name in ("first", "second", "sweep/a", "sweep/b", "first/inner"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / RECORD).write_text("{}")
    (tmp_path / "inversions").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "head"),
    [
        ("report ", ""),
        ("report first ", ""),
        ("status ", ""),
        ("evaluate run=", "run="),
        ("run name=", "name="),
        ("figure freemask/4 runs=[", "runs=["),
        ("table freemask/2 runs=[first,", "runs=[first,"),
    ],
)
def test_runs_are_known_by_name(words, head, runs, monkeypatch):
    monkeypatch.setenv("FREEMASK_RUNS", str(runs))
    found = {each for each in candidates(f"freemask {words}") if not each.endswith(("=", "."))}
    assert found == {f"{head}{name}" for name in ("first", "second", "sweep", "sweep/a", "sweep/b")}
    assert candidates(f"freemask report paths.runs={runs}/sweep ")[:2] == ["a", "b"]


def test_the_command_answers_and_never_complains(capsys, monkeypatch, tmp_path):
    for line, hope in (("freemask run method=", "method=sdedit\n"), ("freemask edit --sorce", "\n")):
        monkeypatch.setenv("COMP_LINE", line)
        assert main(["-sc", "query=bash"]) == 0
        said = capsys.readouterr()
        assert hope in said.out and not said.err
        assert "usage" not in said.out


# The line as bash sees it, what freemask answers, what bash is to put in its place
REPLIES = [
    ("freemask run metho", "method=\nmethod.", "[method=][method.]"),
    ("freemask run method=d", "method=ddim", "[ddim ]"),
    (
        "freemask run experiment=freemask/f",
        "experiment=freemask/fig4\nexperiment=freemask/fig5",
        "[freemask/fig4][freemask/fig5]",
    ),
    ("freemask edit words=car:", "words=car:truck\nwords=car:bus", "[truck][bus]"),
    ("freemask edit cl", "clip=", "[clip=]"),
    ("freemask table freemask/2 runs=[fi", "runs=[first", "[[first]"),
    ("freemask edit --source 'a car' me", "method=\nmetric=", "[method=][metric=]"),
    ("freemask edit nothing", "", ""),
]


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_replaces_what_it_takes_for_the_word():
    lines = [BASH]
    for line, answer, _ in REPLIES:
        lines += [
            f'freemask() {{ printf %s "{answer}"; }}',
            f'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}',
        ]
        lines += ["COMPREPLY=(); _freemask; ((${#COMPREPLY[@]})) && printf '[%s]' \"${COMPREPLY[@]}\"; echo"]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.stdout.splitlines() == [reply for _, _, reply in REPLIES], done
    without = "COMP_WORDBREAKS=' '\n" + "\n".join([lines[0], *lines[4:7]])
    assert (
        subprocess.run(["bash", "-c", without], capture_output=True, text=True).stdout == "[method=ddim ]\n"
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell, capsys, monkeypatch):
    monkeypatch.delenv("COMP_LINE", raising=False)
    for action in ("install", "uninstall"):
        assert main(["-sc", f"{action}={shell}"]) == 0
        assert "complete" in capsys.readouterr().out
    assert main(["-sc", "install=dosh"]) == 2
