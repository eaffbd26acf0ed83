"""What a verb's keys may be is read, and is what the verb itself says once it is imported."""

from dataclasses import fields
from importlib import import_module
from typing import Any

import pytest
from hydra.utils import get_object

from experiments.cli.app import main
from experiments.cli.verbs import ROOM, VERBS
from experiments.config import choices
from experiments.config.declared import declared
from experiments.config.early import refuse_misfits
from experiments.config.explained import keys_of_option
from experiments.config.fits import words_of
from freemask.errors import UserError
from freemask.settings import parameters

OPTIONS = [(group, each.name) for group, found in choices.groups().items() for each in found]
HOMES = {key.home for group, name in OPTIONS if group != "experiment" for key in keys_of_option(group, name)}
TARGETS = sorted(HOMES - {""})


def annotations(verb: str) -> dict[str, Any]:
    return declared(f"{ROOM}.{verb}.Options")


@pytest.mark.parametrize("verb", VERBS)
def test_annotations_are_those_of_the_class(verb):
    options = getattr(import_module(f"{ROOM}.{verb}"), "Options", None)
    assert annotations(verb) == ({each.name: each.type for each in fields(options)} if options else {})


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_read_of_a_class_is_what_it_says_once_it_is_imported(target):
    read, said = declared(target), parameters(get_object(target))
    for name, each in said.items() if "workshop" not in target else ():  # recipes take anything
        ours = "Any" in str(read[name]) and "freemask" in str(each.annotation)
        assert ours or read[name] == each.annotation, name


def test_named_words_are_found_where_they_are_from():
    assert "shape" in set(words_of(annotations("run")["kind"]))
    assert "recompute" in set(words_of(annotations("bench")["modes"]))
    assert not set(words_of(annotations("run")["limit"]))


def test_a_word_is_named_once(capsys):
    assert main(["table", "mixed=seed"]) == 2
    assert capsys.readouterr().err.count("commit") == 1


def test_what_a_method_may_have_no_use_for_is_not_looked_at():
    misfit = {"_target_": "freemask.methods.ddim.Ddim", "steps": "few"}
    refuse_misfits({"mask": misfit, "paths": {"steps": "few"}}, "nothing.of.Ours")
    for config in {"method": misfit}, {"data": {"inner": misfit}}:
        with pytest.raises(UserError, match="steps"):
            refuse_misfits(config, "nothing.of.Ours")


def test_an_empty_target_is_taken_as_it_is(capsys, tmp_path, monkeypatch):
    """It asks for anything; an empty source says nothing of the clip."""
    monkeypatch.chdir(tmp_path)
    small = [
        "model=random",
        "method=ddim",
        "method.steps=2",
        "data.size=16",
        "data.frames=2",
        "metric=pixels",
    ]
    assert main(["edit", "--target", "", *small]) == 0
    assert "->  (an empty prompt)" in capsys.readouterr().out
    assert main(["edit", "--source", "", *small]) == 2
