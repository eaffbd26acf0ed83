"""Which kind of edit two prompts ask for, and about which words."""

import pytest
import yaml
from kind_pairs import PAIRS, REMOVAL

from freemask.data.doubts import doubts
from freemask.data.kinds import Guess, completed, guess, unsure
from freemask.data.phrases import Prompt
from freemask.data.tasks import check_task
from freemask.data.world.source import World
from freemask.words import holds

WORDS = [
    ("a car on the road", "a bus on the road", {"car": "bus"}),
    ("a red car", "an orange car", {"red": "orange"}),
    ("a bear walks past a wall", "a white bear walks past a wall", {"bear": "bear"}),
    ("a white boat on a lake", "a boat on a lake", {"boat": "boat"}),
    ("a dog on grass", "grass", {"dog": ""}),
    ("a cat and a dog on a sofa", "a cat on a sofa", {"dog": ""}),
    ("a red car on grass", "a red car on snow", {"grass": "snow"}),
    ("a rhino on dusty ground", "a rhino on snowy ground", {"ground": "ground"}),
    ("a jeep on a road", "watercolor painting of a jeep on a road", {}),
    ("a man riding a horse", "a knight riding a camel", {"man": "knight", "horse": "camel"}),
    ("a cat, A dog", "a CAT, a dog", {}),
    ("a bear on the rocks", "a bear in the snow", {"rocks": "snow"}),
]
# What could be meant otherwise.
UNSURE = [
    ("a dog", "a dog"),
    ("a dog runs", "a dog with a hat runs"),
    ("a man walks", "a man dances"),
    ("a bear in the forest", "a panda in the snow"),
    ("a dog in the snow", "a dog in the flowers"),
    ("a dog on the sofa", "a dog under the sofa"),
    ("a boat sails", "a boat sails in the desert"),
    ("a bear", "a sculpture of a bear"),
    ("a horse and a cart", "watercolor painting of a camel and a cart"),
    ("a dog", "a vaguely odd rendition of a dog"),
    ("a dog runs on grass", "dog on runs a sand"),  # the words of one change are gone by another
    ("", "a dog"),
    ("東京の赤い車", "東京の青い車"),  # no blank says where a word ends
    ("รถสีแดง", "รถสีน้ำเงิน"),
]


@pytest.mark.parametrize(("source", "target", "kind"), PAIRS)
def test_a_person_would_say_the_same(source, target, kind):
    found = guess(source, target)
    gone = found.kind == "shape" and bool(found.words) and not any(found.words.values())
    assert (REMOVAL if gone else found.kind) == kind


def test_the_pairs_are_sixty_and_most_guesses_are_sure():
    assert len(set(PAIRS)) == 60
    assert sum(guess(*pair[:2]).sure for pair in PAIRS) >= 57


def test_tasks_of_the_world():
    for task in World(clips=400).tasks():
        found = guess(task.source, task.target)
        assert (found.kind, found.sure) == (task.kind, True), task


@pytest.mark.parametrize("name", ["davis20", "pexels20"])
def test_lists_that_ship(name, request):
    path = request.config.rootpath / "freemask/data/lists" / f"{name}.yaml"
    for task in yaml.safe_load(path.read_text()):
        assert guess(task["source"], task["target"]).kind == task["kind"], task


@pytest.mark.parametrize(("source", "target", "words"), WORDS)
def test_words(source, target, words):
    assert guess(source, target).words == words


@pytest.mark.parametrize(("source", "target"), UNSURE)
def test_it_says_where_it_is_not_sure(source, target):
    found = guess(source, target)
    assert not found.sure
    assert all(holds(source, old) and (not new or holds(target, new)) for old, new in found.words.items())


def test_a_preposition_follows_the_ground():
    assert guess("a bear walks on the rocks", "a bear walks in the snow") == Guess(
        "background", {"rocks": "snow"}
    )


def test_what_was_given_stays():
    asked = {"source": "a dog on grass", "target": "a cat on grass", "words": None, "kind": None}
    assert completed(asked)[1] == {"kind": "guessed", "words": "guessed"}
    fields, guessed = completed({**asked, "kind": "style"})
    assert (fields["kind"], fields["words"], guessed) == ("style", {"dog": "cat"}, {"words": "guessed"})
    fields, guessed = completed({**asked, "words": {"grass": ""}})
    assert (fields["kind"], guessed) == ("shape", {"kind": "guessed"})


@pytest.mark.parametrize(
    ("source", "target", "given", "said"),
    [
        ("a dog", "a dog", {}, "same prompt"),
        ("a woman, running", "A WOMAN RUNNING !", {}, "punctuation"),
        ("a red car", "a blue car", {"kind": "shape"}, "red -> blue reads as attribute"),
        ("a car", "a bus", {"kind": "attribute"}, "car -> bus reads as shape"),
        ("a red car", "a blue car", {"kind": "shape", "words": "red:blue"}, ""),
        ("a red car", "a blue car", {"kind": "style"}, ""),
        ("a car", "a red car", {"kind": "shape"}, ""),
        ("a red car", "a blue car", {}, ""),
        ("a cat", "a dog", {"kind": "shape"}, ""),
    ],
)
def test_what_had_better_be_said(source, target, given, said):
    found = doubts(check_task({"id": "a", "clip": "x", "source": source, "target": target, **given}))
    assert said in found[0] if said else not found


def test_a_task_remembers_what_was_not_sure():
    asked = {"id": "a", "clip": "x", "source": "a boat sails", "target": "a boat sails in the desert"}
    assert unsure(check_task(asked)) == ["kind", "words"]
    assert unsure(check_task({**asked, "kind": "background"})) == ["words"]
    assert unsure(check_task({**asked, "kind": "style", "words": "boat:boat"})) == []
    assert unsure(check_task({**asked, "target": "a car sails"})) == []
    wordless = {
        **asked,
        "target": "watercolor of a boat sails",
    }  # a style's words are none, another kind has some
    assert unsure(check_task(wordless)) == [] and unsure(check_task({**wordless, "kind": "shape"})) == [
        "words"
    ]


@pytest.mark.parametrize(
    ("prompt", "nouns"),
    [
        ("a bear walks past a stone wall", ["bear", "wall"]),
        ("two cows graze on a meadow", ["cows", "meadow"]),
        ("a car with black wheels", ["car", "wheels"]),
        ("a running dog", ["dog"]),
        ("people walk past a parked car", ["people", "car"]),
        ("snowy mountains", ["mountains"]),
        ("", []),
    ],
)
def test_nouns(prompt, nouns):
    found = Prompt.of(prompt)
    assert [found.low[place] for place in found.heads(0, len(found.low))] == nouns
