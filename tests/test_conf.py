"""Every option of every group composes, says what it is, and names something that exists."""

import pytest
from hydra.utils import get_object

from experiments import choices
from experiments.build import accepts
from experiments.compose import config_of, groups_of
from experiments.verbs import VERBS

OPTIONS = [(group, option) for group, options in choices.groups().items() for option in options]
VERBS_OF = {
    group: [name for name, verb in VERBS.items() if verb.config and group in groups_of(verb.config)]
    for group, _ in OPTIONS
}


@pytest.mark.parametrize(
    ("group", "option"), OPTIONS, ids=[f"{group}={option.name}" for group, option in OPTIONS]
)
def test_every_option_composes_with_every_verb_that_knows_its_group(group, option):
    assert option.description, (
        f"the first line of conf/{group}/{option.name}.yaml must be '# description: ...'"
    )
    assert VERBS_OF[group], f"no verb knows the group {group}"
    made_for = option.facts.get("verb", "run")
    for verb in VERBS_OF[group]:
        if group != "experiment" or verb == made_for:
            config_of(verb, [f"{group}={option.name}"])
    assert group != "experiment" or made_for in VERBS_OF[group]


TARGETS = {
    (group, option.name): choices.content(group, option.name).get("_target_") for group, option in OPTIONS
}


@pytest.mark.parametrize("target", sorted({target for target in TARGETS.values() if target}))
def test_every_target_exists(target):
    assert callable(get_object(target))


def test_the_default_of_everything_is_embedded():
    for verb in ("edit", "run"):
        chosen = groups_of(verb)
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
        (int | None, None, True),
        (str | None, 5, False),
        (bool, "yes", False),
        (tuple[int, ...], [1, 2], True),
        (list[int], ["a"], False),
        (dict, {}, True),
        (dict, [], False),
    ],
)
def test_what_a_constructor_takes(annotation, value, fits):
    assert accepts(annotation, value) is fits
