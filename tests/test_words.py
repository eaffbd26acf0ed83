"""Words and their token columns, for every tokenizer at hand."""

import os
from pathlib import Path

import pytest
import torch

from freemask.backbones.tiny import tokenizer
from freemask.errors import UserError
from freemask.types import Text
from freemask.words import bare, check_length, columns_of, columns_of_prompt, occurrences


def text(prompt, offsets):
    return Text(prompt, torch.zeros(77, 4), columns_of_prompt(prompt, offsets), len(offsets))


def one_token_a_word(prompt):
    """Offsets of a tokenizer that gives each word and each mark one token, between a begin and an end mark."""
    import re

    return text(prompt, [(0, 0), *(match.span() for match in re.finditer(r"\w+|[^\w\s]", prompt)), (0, 0)])


def read(reader, prompt):
    encoded = reader(prompt, return_offsets_mapping=True)
    return encoded["input_ids"], text(prompt, encoded["offset_mapping"])


def tokenizers():
    shared = os.environ.get("FREEMASK_SHARED", "")
    shared = shared if shared and Path(shared).is_dir() else ""
    names = ["fm_zs_lite", "fz_sd_tiny"]
    return [None] + [
        Path(shared) / "parity" / "models" / name / "tokenizer" if shared else name for name in names
    ]


@pytest.fixture(
    params=tokenizers(), ids=lambda path: "tiny" if path is None else Path(path).parent.name or str(path)
)
def reader(request):
    if request.param is None:
        return tokenizer(77)
    if isinstance(request.param, str):
        pytest.skip("FREEMASK_SHARED is not set: the stored tokenizers are not at hand")
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(request.param)


PROMPT = "  A red Car, on  the Ukiyo-e grassland's car; the RED car café "


def test_columns_decode_to_their_words(reader):
    ids, made = read(reader, PROMPT)
    for word in ("car", "Ukiyo-e", "grassland's", "red", "café", "red car", "the Ukiyo-e"):
        for place in occurrences(made, word):
            said = reader.decode([ids[i] for i in place]).replace(" ", "")
            assert said == word.lower().replace(" ", "")
    assert len(occurrences(made, "car")) == 3 and len(occurrences(made, "red car")) == 2
    assert len(occurrences(made, "the")) == 2


def test_every_token_belongs_to_exactly_one_typed_word(reader):
    prompt = "  A red Car, on  the Ukiyo-e grassland's (café) "
    ids, made = read(reader, prompt)
    typed = [made.columns[word] for word in prompt.split()]
    assert sorted(column for columns in typed for column in columns) == list(range(1, len(ids) - 1))


def test_columns_of_joins_words_and_occurrences():
    made = one_token_a_word("a red car, a blue car")
    assert made.columns == {"a": (1, 5), "red": (2,), "car,": (3, 4), "car": (3, 7), "blue": (6,)}
    assert columns_of(made, ["car", "red"]) == (2, 3, 7)
    assert columns_of(made, ["blue car"]) == (6, 7)
    assert columns_of(made, ["red car, a"]) == (2, 3, 5)
    assert occurrences(made, "CAR,") == [(3,), (7,)]


def test_punctuation_alone_is_a_word():
    made = one_token_a_word("a cat - a dog")
    assert columns_of(made, ["-"]) == (3,)
    assert [bare(word) for word in ("'cat'", "ukiyo-e,", "...", "(a")] == ["cat", "ukiyo-e", "...", "a"]


def test_a_missing_word_is_refused_with_the_prompts_words():
    made = one_token_a_word("a red car, on grass")
    for missing in ("truck", "car red", "ca", "", "cart"):
        with pytest.raises(UserError, match="is not in the prompt") as refusal:
            columns_of(made, [missing])
        assert "a, red, car, on, grass" in str(refusal.value)
    with pytest.raises(UserError, match="did you mean 'car'"):
        columns_of(made, ["cart"])


def test_long_prompts_are_refused():
    check_length("short", 77, 77)
    with pytest.raises(UserError, match="at most 77 tokens"):
        check_length("long", 78, 77)
