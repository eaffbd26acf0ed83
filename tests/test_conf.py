"""Every option of every group composes, says what it is, and names something that exists."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
from hydra.utils import get_object

from experiments.cli.app import main
from experiments.cli.verbs import VERBS
from experiments.config import choices
from experiments.config.choices import defaults
from experiments.config.compose import composed, config_of
from experiments.config.fits import accepts, check_arguments
from freemask.errors import UserError

OPTIONS = [(group, option) for group, options in choices.groups().items() for option in options]
VERBS_OF = {
    group: [name for name, verb in VERBS.items() if verb.config and group in defaults(verb.config)]
    for group, _ in OPTIONS
}


# Compositions that each choose from every group that a verb knows, until every option was chosen.
ROUNDS = [
    (verb, [f"{group}={options[k % len(options)].name}" for group, options in known.items()])
    for verb in sorted({verb for verbs in VERBS_OF.values() for verb in verbs})
    for known in [
        {
            group: choices.offered(verb, group)
            for group in choices.groups()
            if group != "experiment" and verb in VERBS_OF[group]
        }
    ]
    for k in range(max(map(len, known.values()), default=0))
]


@pytest.mark.parametrize(
    ("verb", "words"), ROUNDS, ids=[f"{verb}: {' '.join(words)}" for verb, words in ROUNDS]
)
def test_every_option_composes_with_every_verb_that_knows_its_group(verb, words):
    try:
        config_of(verb, words)
    except UserError as error:  # a method that sets up its model composes with its own kind alone
        assert "another kind of model" in error.wrong
        config_of(verb, [word for word in words if not word.startswith(("model=", "what="))])


def test_the_rounds_choose_everything():
    chosen = {(verb, word) for verb, words in ROUNDS for word in words}
    for group, option in OPTIONS:
        assert VERBS_OF[group], f"no verb knows the group {group}"
        for verb in VERBS_OF[group] if group != "experiment" else ():
            if option.facts.get("verb", verb) == verb:
                assert (verb, f"{group}={option.name}") in chosen


@pytest.mark.parametrize("option", choices.groups()["experiment"], ids=lambda option: option.name)
def test_every_experiment_composes_with_its_verb(option):
    verb = option.facts["verb"]
    assert verb in VERBS_OF["experiment"]
    config_of(verb, [f"experiment={option.name}"])


@pytest.mark.parametrize(
    ("group", "option"), OPTIONS, ids=[f"{group}={option.name}" for group, option in OPTIONS]
)
def test_every_option_says_what_it_is(group, option):
    assert option.description, (
        f"the first line of conf/{group}/{option.name}.yaml must be '# description: ...'"
    )


TARGETS = {
    (group, option.name): choices.content(group, option.name).get("_target_") for group, option in OPTIONS
}


@pytest.mark.parametrize("target", sorted({target for target in TARGETS.values() if target}))
def test_every_target_exists(target):
    assert callable(get_object(target))


def test_the_default_of_everything_is_embedded():
    for verb in ("edit", "run"):
        chosen = defaults(verb)
        assert (chosen["model"], chosen["data"]) == ("embedded", "world")
        assert (chosen["method"], chosen["mask"], chosen["fusion"]) == ("freemask", "mmc_by_layer", "paper")


@pytest.mark.parametrize(
    ("annotation", "value", "fits"),
    [
        (int, 3, True),
        (int, 3.0, False),
        (int, True, False),
        (float, 3, True),
        (float, "3", False),
        (float | None, float("inf"), False),
        (list[float], [1.0, float("nan")], False),
        (int | None, None, True),
        (str | None, 5, False),
        (bool, "yes", False),
        (tuple[int, ...], [1, 2], True),
        (list[int], ["a"], False),
        (dict, {}, True),
        (dict, [], False),
        (dict[str, list[int]], {"a": [1]}, True),
        (dict[str, list[int]], {"a": ["1"]}, False),
        (list[list[int]], [[1], [2.0]], False),
        (tuple[int, int], [1, 2], True),
        (tuple[int, int], [1, 2, 3], False),
        (int | list[Literal["all", "none"]] | None, ["all", "nine"], False),
        (Path, 5, False),
    ],
)
def test_what_a_constructor_takes(annotation, value, fits):
    assert accepts(annotation, value) is fits


@pytest.mark.parametrize("value", ["al", ["none", "al"]], ids=str)
def test_an_annotation_names_the_words_to_choose_from(value):
    def maker(keep: Literal["all", "none"] | Sequence[Literal["all", "none"]] | None):
        pass

    check_arguments(maker, {"keep": ["all"]})
    with pytest.raises(UserError, match="keep cannot be 'al'") as refused:
        check_arguments(maker, {"keep": value})
    assert refused.value.expected == "did you mean 'all'?"


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], {"method": "freemask", "mask": "mmc_by_layer", "experiment": None}),
        (["method=fatezero", "mask=mmc"], {"method": "fatezero", "model": "embedded_image", "mask": "mmc"}),
        (["metric=[pixels,clip_text]"], {"metric": None}),
    ],
    ids=str,
)
def test_what_was_chosen_is_known_from_composing(words, chosen):
    made = composed("run", words)
    assert set(made.choices) == set(defaults("run")) and "hydra" not in made.cfg
    assert chosen.items() <= made.choices.items()


def test_every_verb_is_told_what_was_chosen(tmp_path, monkeypatch):
    told = []
    monkeypatch.chdir(tmp_path)
    for verb in ("run", "edit"):
        told_of = f"experiments.commands.{verb}.main"
        monkeypatch.setattr(told_of, lambda cfg, flags: told.append(flags["choices"]) or 0)
    assert main(["run", "method=fatezero"]) == main(["edit", "-m", "mask=mmc", "method=ddim,fatezero"]) == 0
    assert [(each["method"], each["model"]) for each in told] == [
        ("fatezero", "embedded_image"),
        ("ddim", "embedded"),
        ("fatezero", "embedded_image"),
    ]
    assert [each["mask"] for each in told] == ["fatezero", "mmc", "mmc"]
