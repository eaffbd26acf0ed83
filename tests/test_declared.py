"""What a verb's keys may be is read, and is what the verb itself says once it is imported."""

from dataclasses import fields
from importlib import import_module

import pytest

from experiments.cli.app import main
from experiments.cli.declared import annotations
from experiments.cli.verbs import ROOM, VERBS
from experiments.config.fits import check_value, words_of


@pytest.mark.parametrize("verb", VERBS)
def test_annotations_are_those_of_the_class(verb):
    options = getattr(import_module(f"{ROOM}.{verb}"), "Options", None)
    assert annotations(verb) == ({each.name: each.type for each in fields(options)} if options else {})


def test_named_words_are_found_where_they_are_from():
    assert "shape" in set(words_of(annotations("run")["kind"]))
    assert "recompute" in set(words_of(annotations("bench")["modes"]))
    assert not set(words_of(annotations("run")["limit"]))


def test_a_word_is_named_once(capsys):
    assert main(["table", "mixed=seed"]) == 2
    assert capsys.readouterr().err.count("commit") == 1


def test_what_fits_passes():
    check_value("kind", annotations("run")["kind"], None)


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
