"""Help: what a verb offers is told and nothing else, and every key has its line, read beside it in its YAML."""

import json
from importlib.resources import files
from itertools import zip_longest
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from experiments.cli.app import main
from experiments.cli.verbs import VERBS
from experiments.config import choices, shown
from experiments.config.compose import composed
from experiments.config.explained import Key, chosen_by, keys_of_option, keys_of_verb
from freemask.data.paths import existing
from freemask.data.world.spec import CLASSES, COLORS
from freemask.errors import UserError, nearest

CONFIGURED = [name for name, verb in VERBS.items() if verb.config]
OPTIONS = [
    (group, each.name) for group, found in choices.groups().items() for each in found if group != "experiment"
]
EXPERIMENTS = choices.groups()["experiment"]


def told(capsys, *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def names(keys: tuple[Key, ...]) -> dict[str, str]:
    return {each.name: each.value for each in keys}


@pytest.mark.parametrize("verb", CONFIGURED)
def test_every_key_of_a_verb_is_explained(verb, capsys):
    assert not [each.typed for each in keys_of_verb(verb) if not each.about]
    said = told(capsys, verb, "--help")
    assert all(f"\n  {each.typed}" in said for each in keys_of_verb(verb))


@pytest.mark.parametrize("group", sorted({group for group, _ in OPTIONS}))
def test_every_key_of_every_option_is_explained(group):
    bare = [
        (n, each.typed) for g, n in OPTIONS if g == group for each in keys_of_option(g, n) if not each.about
    ]
    assert not bare, "a comment beside the key in its YAML explains it"


@pytest.mark.parametrize("verb", CONFIGURED)
def test_the_groups_of_a_verb_are_those_that_hydra_finds(verb):
    assert composed(verb, []).choices == choices.defaults(verb)


def plain(value: str) -> Any:
    return OmegaConf.to_container(OmegaConf.create(f"it: {value}"), resolve=False)["it"]


def flat(node: dict, place: str = "") -> dict[str, Any]:
    found = {f"{place}{key}": value for key, value in node.items()}
    inner = [flat(value, f"{key}.") for key, value in found.items() if isinstance(value, dict)]
    return {key: value for each in [found, *inner] for key, value in each.items()}


# A method chooses a model too; all others leave each other alone, and are composed together.
ALONE = [f"{group}={name}" for group, name in OPTIONS if group in ("method", "model")]
TOGETHER = [[f"{g}={n}" for g, n in OPTIONS if g == group] for group in choices.defaults("run")]
ROUNDS = [[word] for word in ALONE] + [
    [word for word in words if word and word not in ALONE] for words in zip_longest(*TOGETHER)
]


@pytest.mark.parametrize("words", [words for words in ROUNDS if words], ids=" ".join)
def test_keys_and_what_they_are_by_default_are_those_that_are_composed(words):
    """Whether written in the option, in one that it is built upon, or placed elsewhere by its package."""
    cfg = flat(OmegaConf.to_container(composed("run", words).cfg, resolve=False))
    for group, name in (word.split("=") for word in words):
        said = names(keys_of_option(group, name))
        assert all(key in cfg and (not value or plain(value) == cfg[key]) for key, value in said.items())
        inner = tuple(f"{key}." for key, value in said.items() if value.startswith("{"))
        here = [
            key for key in cfg if key.startswith(f"{group}.") and not key.endswith(("_target_", "_partial_"))
        ]
        assert not [key for key in here if key not in said and not key.startswith(inner)]


def test_an_option_that_is_built_upon_another_has_its_keys_too():
    assert set(names(keys_of_option("method", "fatezero"))) == set(
        names(keys_of_option("method", "freemask"))
    )
    assert names(keys_of_option("data", "world_train"))["data.split"] == "train"
    assert names(keys_of_option("metric", "st_modulator"))["metric.warp_error_mse.norm"] == "mse"
    assert "method.start" in names(keys_of_option("method", "pnp"))
    assert chosen_by("method", "fatezero") == {
        "model": "embedded_image",
        "mask": "fatezero",
        "fusion": "fatezero",
    }
    assert chosen_by("method", "null_text_p2p")["mask"] == "p2p" and not chosen_by("method", "ddim")


def test_a_list_below_its_key_is_shown_in_one_line_and_about_its_key():
    """The world's words stand one group a line; what `rivals` are is said where the metric itself is described."""
    found = {key.name: key for key in keys_of_option("metric", "world")}["metric.object_seen.rivals"]
    groups = yaml.safe_load(found.value)
    assert "\n" not in found.value and [group[0] for group in groups] == ["car", "red"]
    assert groups == [list(CLASSES), list(COLORS)]
    assert "taken for each other" in found.about


@pytest.mark.parametrize("option", EXPERIMENTS, ids=lambda option: option.name)
def test_an_experiment_says_which_verb_it_is_for_and_no_other_offers_it(option, capsys):
    assert option.facts["verb"] in CONFIGURED
    for verb in CONFIGURED:
        if "experiment" in choices.defaults(verb):
            offered = option.name in [each.name for each in choices.offered(verb, "experiment")]
            assert offered is (verb == option.facts["verb"])


def test_help_offers_the_groups_of_the_verb_alone(capsys):
    for verb in CONFIGURED:
        said = told(capsys, verb, "--help")
        groups = {
            line.strip(" =") for line in said.splitlines() if line.endswith("=") and line.startswith("  ")
        }
        assert groups == {group for group in choices.defaults(verb) if choices.offered(verb, group)}
    assert "freemask/fig1" in told(capsys, "calibrate", "--help")
    assert "freemask/fig1" not in told(capsys, "run", "--help")


def test_help_is_a_word_too(capsys):
    assert told(capsys, "help") == told(capsys, "--help")
    assert told(capsys, "help", "run") == told(capsys, "run", "--help")
    assert main(["help", "rnn"]) == 2
    assert "'run'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hopes", "never"),
    [
        (["mask"], ["mask=", "mmc_by_layer*", "agreement"], ["method=", "examples"]),
        (["method=pnp"], ["model=embedded_image", "method.start=inverted"], ["method.mask", "examples"]),
        (["method=pnp", "method.start"], ["method.start=inverted", "model=embedded_image"], ["examples"]),
        (["method.steps"], ["method.steps="], ["method.guidance", "examples"]),
        (["method.steps=3"], ["method.steps="], ["method.guidance", "examples"]),
        (["mask.binarise"], ["mask.binarise.preset=paper"], ["mask.phrase"]),
        (["experiment"], ["none for 'edit'"], ["demo", "examples"]),
        (["a bear.mp4"], ["examples"], []),
    ],
    ids=str,
)
def test_help_about_one_thing(words, hopes, never, capsys):
    said = told(capsys, "edit", *words, "--help")
    assert all(each in said for each in hopes) and not any(each in said for each in never)
    assert told(capsys, "help", "edit", *words) == said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["help", "edit", "method.stps=3"], "'method.steps'"),
        (["help", "bench", "mothod"], "'method'"),
        (["help", "edit", "method=dim"], "'ddim'"),
        (["edit", "steps=3"], "'method.steps' or 'task.steps'"),
        (["list", "method", "dim"], "'ddim'"),
        (["edit", "device=cuda"], "did you mean 'model.device' or"),
        (["edit", "--help", "sede"], "'seed'"),
    ],
    ids=str,
)
def test_a_wrong_word_names_the_few_that_are_near(words, hint, capsys):
    assert main(words) == 2
    assert hint in capsys.readouterr().err


def test_long_lists_are_never_printed_whole(tmp_path):
    names = [f"name{number}" for number in range(100)]
    assert nearest("name7x", names).startswith("did you mean 'name7")
    assert nearest("zzz", names).count("name") == 9 and "91 more" in nearest("zzz", names)
    assert nearest("zzz", "ab") == "choose one of: a, b"
    for name in names:
        (tmp_path / name).touch()
    for path, said in (
        ("zzz", "one of the 100 names"),
        ("name7x", "did you mean 'name7"),
        ("name1/x", "a folder"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            existing(tmp_path / path)
        assert str(caught.value).count("name") < 5


def test_a_key_like_no_other_prints_no_list(capsys):
    assert main(["edit", "zzzzzz=3"]) == 2
    said = capsys.readouterr().err
    assert len(said) < 300 and "freemask edit --help" in said


def test_list_shows_the_keys_of_a_choice(capsys):
    said = told(capsys, "list", "method", "pnp", "mask=layer")
    assert "method.start=inverted" in said and "mask.layer=null" in said and "agreement" not in said
    assert told(capsys, "list", "method=ddim") == told(capsys, "list", "method", "ddim")
    (found,) = json.loads(told(capsys, "list", "mask", "layer", "--json"))["mask"]
    assert "mask.time" in [each["name"] for each in found["keys"]]


def test_lines_keep_to_the_width_of_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    pairs = [
        ("name=null", "word " * 40),
        ("a.long.name.without.any.explanation", ""),
        ("a.name.that.is.longer.than.the.column.for=names", "word " * 3),
    ]
    assert max(map(len, shown.columns(pairs))) <= 60
    assert all(shown.columns(pairs))
    assert sum(line.count("word") for line in shown.columns(pairs)) == 43
    assert sum(len(shown.columns([pair], short=True)) for pair in pairs[:1]) == 1


def test_every_yaml_of_a_verb_is_found():
    listed = {
        each.name.removesuffix(".yaml") for each in files("conf").iterdir() if each.name.endswith(".yaml")
    }
    assert listed == set(CONFIGURED)
