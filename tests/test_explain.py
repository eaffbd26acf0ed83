"""What an edit says of itself, and what it says of words that the model cannot know."""

import pytest
import torch

from experiments.jobs.beyond import filmed, remarks, shipped
from experiments.jobs.explain import asked, explained, others
from experiments.jobs.one_clip import Changed
from freemask.data.one import OneClip
from freemask.data.world.source import World
from freemask.data.write import write_frames
from freemask.types import Clip, EditTask
from freemask.words import columns_of_prompt

ROW = {
    "task": "my",
    "source": "a car on the road",
    "target": "a bus on the road",
    "kind": "shape",
    "words": {"car": "bus"},
    "guessed": {"kind": "guessed, not sure", "words": "guessed"},
    "method": "freemask",
    "choices": {"mask": "mmc", "fusion": "paper", "model": "embedded"},
    "model": "0123456789abcdef",
    "frames": [8, 3, 48, 64],
    "facts": {
        "mask_layer": "up.1",
        "mask_time": 499,
        "codebook": "shipped",
        "codebook_n": 40,
        "keeps_object": False,
    },
}
AFTER = {
    "mask_share": 0.25,
    "mask_empty_frames": 0,
    "inversion_passes": 0,
    "features": "recompute",
    "convolutions": 1,
    "useless": False,
    "zero": 0,
}


def test_the_block_before_and_after():
    before = explained(ROW)
    assert list(before) == ["kind", "words", "method", "mask", "codebook", "fusion", "clip", "model"]
    assert "not sure" in before["kind"] and "task=" in before["kind"]
    assert before["words"] == "car -> bus (guessed)"
    assert before["mask"] == "mmc: layer up.1, time 499"
    fraction = explained({**ROW, "facts": {**ROW["facts"], "mask_time": 156.96202087402344}})
    assert fraction["mask"] == "mmc: layer up.1, time 156.962"
    assert before["codebook"].startswith("shipped") and "n = 40" in before["codebook"]
    assert "8 frames of 48 x 64" in before["clip"]
    assert "embedded" in before["model"] and "01234567" in before["model"]
    after = explained({**ROW, "facts": {**ROW["facts"], **AFTER}})
    assert {name: after[name] for name in before} == before
    assert after["covers"] == "25.0% of the clip"
    assert "earlier" in after["inversion"]
    assert others({**ROW["facts"], **AFTER}) == {"convolutions": 1}


def test_each_thing_is_said_where_it_matters():
    given = explained({**ROW, "guessed": {}})
    assert "task=" not in given["kind"] and given["words"] == "car -> bus"
    gone = explained({**ROW, "words": {"car": ""}})
    assert "taken away" in gone["kind"] and "(gone)" in gone["words"]
    kept = explained({**ROW, "facts": {"keeps_object": True}})
    assert "stays" in kept["words"]
    own = explained({"facts": {"codebook": "own", "codebook_folder": "/books", "codebook_n": 2}})
    assert all(part in own["codebook"] for part in ("own", "/books", "n = 2"))
    unused = explained({**ROW, "facts": {"mask_used": False}})
    assert "not used" in unused["mask"]
    assert explained({"task": "x", "status": "failed"}) == {}
    assert "empty" in asked({"source": "a", "target": ""})


class Reader:
    """A tokenizer that knows some words and spells the others."""

    known = ("a", "red", "car")

    def embed(self, prompt):
        spans, start = [], 0
        for word in prompt.split():
            start = prompt.index(word, start)
            ends = [len(word)] if word.strip(",") in self.known else range(1, len(word) + 1)
            begin = 0
            for end in ends:
                spans.append((start + begin, start + end))
                begin = end
            start += len(word)
        return _Text(prompt, columns_of_prompt(prompt, spans))


class _Text:
    def __init__(self, prompt, columns):
        self.prompt, self.columns = prompt, columns


def task_of(source, target):
    return EditTask("t", "c", source, target, {}, "shape")


DRAWN = World(clips=1)


@pytest.mark.parametrize(
    ("source", "target", "strange"),
    [
        ("a red car", "a red zorgon", ["zorgon"]),
        ("a jeep, a jeep", "a lion with a car", ["jeep", "lion"]),
        ("a car", "a red car", []),
    ],
)
def test_words_beyond_the_model(source, target, strange):
    said = remarks(Reader(), "embedded", task_of(source, target), DRAWN)
    assert len(said) == bool(strange)
    for line in said:
        assert f"{', '.join(strange)};" in line and "model=zeroscope" in line
    assert remarks(Reader(), "", task_of(source, target), DRAWN) == []


def test_clips_from_files_and_prompts_that_are_the_same(tmp_path):
    write_frames(tmp_path, torch.zeros(1, 3, 4, 4))
    film = Changed(task_of("a car", "a red car"), Clip("c", torch.zeros(1, 3, 4, 4)), filmed=True)
    said = remarks(Reader(), "embedded_image", film.task, film)
    assert len(said) == 1 and "file" in said[0] and "model=sd15" in said[0]
    assert filmed(OneClip(tmp_path, {"source": "a", "target": "b"}))
    assert not filmed(DRAWN)
    (same,) = remarks(Reader(), "", task_of("a Car", " a car "), film)
    assert "nothing is asked to change" in same


def test_which_models_are_embedded():
    assert shipped({"path": "embedded"}) == "embedded"
    assert shipped({"path": "/some/folder"}) == shipped({}) == ""
