"""Word maps, reweighting and word windows: by hand, against slow versions, and against the authors' own tensors."""

import json
import re
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import equal, tensor

from freemask.alignment import factors, gates, official_columns, refine, replace, word_map
from freemask.errors import UserError
from freemask.types import Text
from freemask.words import columns_of_prompt

SIZE = 20
EMBEDDED = Path(__file__).parents[1] / "freemask" / "weights" / "t2v" / "tokenizer"


def text(prompt, ids, spans, size=SIZE):
    columns = columns_of_prompt(prompt, spans)
    return Text(prompt, torch.zeros(size, 2), columns, len(ids), tuple(ids), tuple(spans))


def toy(prompt, most=3):
    """A tokenizer that cuts each word into tokens of at most `most` letters; equal letters are equal tokens."""
    spans = [
        (start, min(start + most, match.end()))
        for match in re.finditer(r"\S+", prompt)
        for start in range(match.start(), match.end(), most)
    ]
    ids = [sum(ord(letter) * 31**i for i, letter in enumerate(prompt[a:b])) + 2 for a, b in spans]
    return text(prompt, [0, *ids, 1], [(0, 0), *spans, (len(prompt), len(prompt))])


@cache
def tokenizer(folder):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


def read(folder, prompt):
    found = tokenizer(folder)(prompt, return_offsets_mapping=True)
    return text(prompt, found["input_ids"], found["offset_mapping"], 77)


# --- refine ---------------------------------------------------------------------------------------------------


def score(source, target):
    """The longest common subsequence, by trying every choice of tokens of the shorter one."""
    few, many = sorted((source, target), key=len)
    for count in range(len(few), 0, -1):
        for places in combinations(range(len(few)), count):
            rest = iter(many)
            if all(any(few[place] == other for other in rest) for place in places):
                return count
    return 0


def partners(source, target):
    """From the back: leave out a token of the target where that costs nothing, else one of the source, else pair."""
    if not source or not target:
        return [None] * len(target)
    best = score(source, target)
    if score(source, target[:-1]) == best:
        return [*partners(source, target[:-1]), None]
    if score(source[:-1], target) == best:
        return partners(source[:-1], target)
    return [*partners(source[:-1], target[:-1]), len(source) - 1]


def slow_refine(source, target):
    matrix, own = torch.zeros(SIZE, SIZE), torch.zeros(SIZE)
    for column in range(SIZE):
        if column >= len(target.ids):
            matrix[column, column] = 1
    for column, partner in enumerate(partners(list(source.ids), list(target.ids))):
        if partner is None:
            own[column] = 1
        else:
            matrix[partner, column] = 1
    return matrix, own


tokens = st.lists(st.integers(2, 5), max_size=6)


def coded(ids):
    return text("", [0, *ids, 1], [(0, 0)] * (len(ids) + 2))


@settings(max_examples=150, deadline=None)
@given(tokens, tokens)
def test_refine_equals_the_slow_version(ids, others):
    source, target = coded(ids), coded(others)
    made, (matrix, own) = refine(source, target), slow_refine(source, target)
    assert equal(made.matrix, matrix)
    assert equal(made.own, own)
    assert equal(made.matrix.sum(0) + made.own, torch.ones(SIZE))


@given(tokens)
def test_refining_a_prompt_into_itself_changes_nothing(ids):
    made = refine(coded(ids), coded(ids))
    assert equal(made.matrix, torch.eye(SIZE))
    assert not made.own.any()


def test_refine_by_hand():
    # begin a cat end -> begin a red cat end: "red" is new, what follows moves one place to the left.
    made = refine(toy("a cat"), toy("a red cat"))
    assert made.own.nonzero().flatten().tolist() == [2]
    assert made.matrix[:, :5].nonzero().tolist() == [[0, 0], [1, 1], [2, 3], [3, 4]]
    assert equal(made.matrix[:, 5:], torch.eye(SIZE)[:, 5:])


def test_the_tie_order_of_refine():
    # One "a" may be paired with either of two; a token of the target is left out first, from the back.
    made = refine(coded([7, 7]), coded([7]))
    assert made.matrix[:, 1].nonzero().flatten().tolist() == [1]
    made = refine(coded([7]), coded([7, 7]))
    assert made.own.nonzero().flatten().tolist() == [2]
    # Crossed tokens: one pair only, and at a tie the target's last token goes, so that 8 pairs with 8.
    made = refine(coded([7, 8]), coded([8, 7]))
    assert made.own.nonzero().flatten().tolist() == [2]
    assert made.matrix[2, 1] == 1


# --- replace --------------------------------------------------------------------------------------------------


def test_replace_by_hand():
    # 1: "cat" -> "kitten" (2 tokens of 1); what follows moves along, and the end mark too.
    made = replace(toy("a cat sat"), toy("a kitten sat"))
    assert not made.own.any()
    wanted = torch.eye(SIZE)
    wanted[:, 2:6] = 0
    wanted[2, 2:4] = 0.5
    wanted[3, 4] = wanted[4, 5] = 1
    assert equal(made.matrix, wanted)


def test_the_authors_replace_goes_over_to_equal_positions():
    made = replace(toy("a cat sat"), toy("a kitten sat"), official=True)
    wanted = torch.eye(SIZE)
    wanted[:, 2:4] = 0
    wanted[2, 2:4] = 0.5
    assert equal(made.matrix, wanted)
    # Two tokens become one: each counts in full, and the walk ends one column early.
    made = replace(toy("a kitten sat"), toy("a cat sat"), official=True)
    wanted = torch.eye(SIZE)
    wanted[2:4, 2] = 1
    wanted[-1, -1] = 0
    assert equal(made.matrix, wanted)


def slow_official_replace(source, target):
    """Per target column, the reason for its weights written out, from places of pieces (single blanks only)."""
    old, new = pieces(source), pieces(target)
    matrix = torch.zeros(SIZE, SIZE)
    changed = [i for i in range(len(old)) if old[i][0] != new[i][0]]
    last = changed[-1] if changed else -1
    kept = [(0, 0)]
    for i in range(last + 1):
        a, b = old[i][1], new[i][1]
        if i not in changed or len(a) == len(b):
            kept += list(zip(a, b, strict=True))
        else:
            for column in b:
                matrix[a, column] = 1 / len(b)
    for a, b in kept:
        matrix[a, b] = 1
    passed = max([0, *(b for i in range(last + 1) for b in new[i][1])])
    shift = sum(len(old[i][1]) - len(new[i][1]) for i in range(last + 1))
    for column in range(passed + 1, SIZE - max(shift, 0)):
        matrix[column, column] = 1
    return matrix


def pieces(made):
    found = []
    for match in re.finditer(r"\S+", made.prompt):
        inside = [i for i, (a, b) in enumerate(made.spans) if a < b and match.start() <= a < match.end()]
        found.append((match.group(), inside))
    return found


words = st.text("abc", min_size=1, max_size=7)
pairs = st.lists(st.tuples(words, words, st.booleans()), max_size=3)


@settings(deadline=None)
@given(pairs)
def test_the_authors_replace_equals_the_slow_version(given_pairs):
    source = toy(" ".join(a for a, _, _ in given_pairs))
    target = toy(" ".join(b if change else a for a, b, change in given_pairs))
    made = replace(source, target, official=True)
    assert equal(made.matrix, slow_official_replace(source, target))
    assert not made.own.any()


@settings(deadline=None)
@given(pairs)
def test_our_replace_takes_every_word_from_the_word_at_its_place(given_pairs):
    source = toy(" ".join(a for a, _, _ in given_pairs))
    target = toy(" ".join(b if change else a for a, b, change in given_pairs))
    made = replace(source, target)
    assert not made.own.any()
    for (_, a), (_, b) in zip(pieces(source), pieces(target), strict=True):
        block = made.matrix[:, b]
        assert set(block.nonzero()[:, 0].tolist()) == set(a)
        expected = torch.eye(len(a)) if len(a) == len(b) else torch.full((len(a), len(b)), 1 / len(b))
        assert equal(block[a], expected)
    assert made.matrix[len(source.ids) - 1, len(target.ids) - 1] == 1
    same = torch.arange(len(target.ids), SIZE)
    assert bool((made.matrix[same, same] == 1).all())


def test_replacing_needs_as_many_words():
    with pytest.raises(UserError, match="a red cat"):
        replace(toy("a cat"), toy("a red cat"))
    with pytest.raises(UserError, match="no tokens of its own"):
        replace(toy("a  cat"), toy("a  dog"), official=True)


def test_which_control_is_chosen():
    source, same, longer, blank = toy("a cat"), toy("a dog"), toy("a red dog"), toy("a dog ")
    changed, refined = replace(source, same), refine(source, longer)

    def chosen(target, control, official=False):
        return word_map(source, target, control=control, official=official)

    assert equal(chosen(same, "auto").matrix, changed.matrix)
    assert equal(chosen(longer, "auto").matrix, refined.matrix)
    assert equal(chosen(same, "refine").own, refine(source, same).own)
    assert equal(chosen(blank, "replace").matrix, replace(source, blank).matrix)
    # The authors' code counts the empty piece behind the trailing blank, and falls back without a word.
    assert equal(chosen(blank, "replace", official=True).own, refine(source, blank).own)
    assert not chosen(same, "replace", official=True).own.any()
    assert chosen(same, "auto", official=True).own.any()
    with pytest.raises(UserError):
        chosen(longer, "replace")


# --- words of odd prompts -------------------------------------------------------------------------------------


def slow_official_columns(made, word):
    """Character by character: a piece lasts until its tokens hold as many characters as it has, at least one."""
    found, rest = [], made.prompt.split(" ")
    left = len(rest[0])
    for column in range(1, len(made.ids) - 1):
        if not rest:
            break
        if rest[0] == word:
            found.append(column)
        left -= made.spans[column][1] - made.spans[column][0]
        if left <= 0:
            rest = rest[1:]
            left = len(rest[0]) if rest else 0
    return tuple(found)


@settings(deadline=None)
@given(st.text("ab ", max_size=14), st.sampled_from(["a", "b", "ab", "ba", "abba", ""]))
def test_official_columns_equal_the_slow_version(prompt, word):
    made = toy(prompt)
    assert official_columns(made, word) == slow_official_columns(made, word)


@given(st.lists(words, max_size=4))
def test_on_tidy_prompts_both_ways_of_finding_words_agree(found):
    made = toy(" ".join(found))
    for word in found:
        assert official_columns(made, word) == made.columns[word]


def test_official_columns_by_hand():
    assert official_columns(toy("a giraffe and a cat"), "a") == (1, 6)
    assert official_columns(toy("a giraffe"), "giraffe") == (2, 3, 4)
    assert official_columns(toy("a giraffe"), "Giraffe") == ()
    assert official_columns(toy("a cat, red"), "cat") == ()
    assert official_columns(toy("a cat, red"), "cat,") == (2, 3)
    # The empty piece between two blanks takes "cat"; "cat" then takes "sat", and "sat" is left without.
    assert official_columns(toy("a  cat sat"), "cat") == (3,)
    assert official_columns(toy("a  cat sat"), "sat") == ()
    assert official_columns(toy(" cat"), "cat") == ()


# --- factors and gates ----------------------------------------------------------------------------------------


def test_factors():
    made = toy("a giraffe, a cat")
    scale = factors(made, {"giraffe": 20, "a": 0.5})
    assert scale[[2, 3, 4]].tolist() == [20, 20, 20]
    assert scale[[1, 5]].tolist() == [0.5, 0.5]
    assert int((scale != 1).sum()) == 5
    assert equal(factors(made, {}), torch.ones(SIZE))
    with pytest.raises(UserError, match="dog"):
        factors(made, {"dog": 2})
    assert equal(factors(made, {"dog": 2, "giraffe": 2}, official=True), torch.ones(SIZE))
    assert factors(made, {"giraffe,": 2}, official=True)[2:5].tolist() == [2, 2, 2]


@given(st.integers(1, 60), st.floats(0, 1), st.booleans())
def test_a_share_of_the_steps(steps, share, official):
    table = gates(toy("a cat"), steps, share, official=official)
    count = min(int(share * (steps + 1)) if official else int(share * steps + 1e-9), steps)
    assert table.shape == (steps, SIZE)
    assert equal(table, (torch.arange(steps) < count)[:, None].expand(steps, SIZE))


def test_words_have_their_own_windows():
    table = gates(toy("a cat sat"), 10, 0.5, {"cat": 0.8, "sat": [0.2, 1.0]})
    assert table[:, 1].nonzero().flatten().tolist() == list(range(5))
    assert table[:, 2].nonzero().flatten().tolist() == list(range(8))
    assert table[:, 3].nonzero().flatten().tolist() == list(range(2, 10))
    # One step more is counted: int(0.8 * 11) = 8 as well, but int(0.95 * 11) = 10 is every step.
    assert bool(gates(toy("a cat"), 10, 0.95, official=True).all())
    assert not bool(gates(toy("a cat"), 10, 0.95).all())
    absent = gates(toy("a cat"), 10, 0.5, {"dog": 0.9}, official=True)
    assert equal(absent, gates(toy("a cat"), 10, 0.5, official=True))
    with pytest.raises(UserError):
        gates(toy("a cat"), 10, 0.5, {"dog": 0.9})
    with pytest.raises(UserError, match="0 to 1"):
        gates(toy("a cat"), 10, 1.5)
    with pytest.raises(UserError, match="begin and an end"):
        gates(toy("a cat"), 10, [0.1, 0.2, 0.3])
    assert int(gates(toy("a"), 100, 0.29)[:, 0].sum()) == 29


# --- real tokenizers and the authors' tensors -----------------------------------------------------------------


def decoded_columns(reader, made, word):
    """As the authors do it: tokens go back to characters one by one, marks of their own vocabulary left out."""
    found, rest, held = [], made.prompt.split(" "), 0
    for column in range(1, len(made.ids) - 1):
        if not rest:
            break
        if rest[0] == word:
            found.append(column)
        held += len(reader.decode([made.ids[column]]).strip().strip("#"))
        if held >= len(rest[0]):
            rest, held = rest[1:], 0
    return tuple(found)


def check_real(folder):
    source = read(folder, "a bear and a Ukiyo-e café on the grassland's #1 road")
    target = read(folder, "a  bear and a watercolor café  on the grassland's #1 road ")
    for made in (source, target):
        for word in [*made.prompt.split(" "), "Bear", "caf"]:
            assert official_columns(made, word) == decoded_columns(tokenizer(folder), made, word), word
    assert official_columns(source, "Ukiyo-e") == source.columns["Ukiyo-e"]
    # The empty piece between two blanks takes a token of "bear", which makes up for it further on.
    assert official_columns(target, "bear") != target.columns["bear"]
    made = refine(source, target)
    for column in range(len(target.ids)):
        rows = made.matrix[:, column].nonzero().flatten().tolist()
        assert len(rows) == 1 - int(made.own[column])
        assert not rows or source.ids[rows[0]] == target.ids[column]
    new = {target.spans[i] for i in made.own.nonzero().flatten().tolist()}
    assert {target.prompt[a:b] for a, b in new} == {
        target.prompt[slice(*target.spans[i])] for i in target.columns["watercolor"]
    }
    ours, theirs = replace(source, target), word_map(source, target, control="replace", official=True)
    assert equal(ours.matrix.sum(0) > 0, torch.ones(77, dtype=torch.bool))
    assert equal(theirs.own, made.own)


def test_with_the_embedded_tokenizer():
    check_real(EMBEDDED)


@pytest.mark.parametrize("model", ["fm_zs_lite", "fz_sd_tiny"])
def test_with_the_tokenizers_of_the_goldens(shared, model):
    check_real(shared / "parity" / "models" / model / "tokenizer")


def controls(shared):
    for path in sorted((shared / "parity" / "golden").glob("*.json")):
        case = json.loads(path.read_text())
        if not case.get("controllers"):
            continue
        folder = shared / "parity" / case["model_dir"] / "tokenizer"
        with safe_open(path.with_suffix(".safetensors"), "pt") as stored:
            for edit in case["controllers"]:
                keys = [key for key in stored.keys() if key.startswith(f"{edit}/ctrl/")]  # noqa: SIM118
                tensors = {key.removeprefix(f"{edit}/ctrl/"): stored.get_tensor(key) for key in keys}
                if not tensors:
                    continue
                place = int(edit.removeprefix("edit"))
                said = case["config"]["editing_config"]["p2p_config"]
                own = said.get(str(place), said.get(place))
                texts = (read(folder, case["source_prompt"]), read(folder, case["editing_prompts"][place]))
                yield f"{path.stem} {edit}", case, own, texts, tensors


def test_the_authors_own_tensors(shared):
    compared = 0
    for name, case, own, (source, target), tensors in controls(shared):
        asked = "replace" if own.get("is_replace_controller", True) else "refine"
        made = word_map(source, target, control=asked, official=True)
        mapper = tensors["mapper"][0]
        if mapper.ndim == 1:
            alphas = tensors["refine_alphas"].flatten()
            matrix = torch.zeros(77, 77)
            matrix[mapper, torch.arange(77)] = 1
            assert equal(made.matrix, matrix * alphas), name
            assert equal(made.own, 1 - alphas), name
        else:
            assert equal(made.matrix, mapper), name
            assert not made.own.any(), name
        windows = dict(own["cross_replace_steps"])
        share = windows.pop("default_", 1.0)
        steps = case["num_inference_steps"]
        table = gates(target, steps, share, windows, official=True)
        assert equal(table.float(), tensors["cross_replace_alpha"].reshape(-1, 77)[:steps]), name
        if "eq_params" in own:
            weights = dict(zip(own["eq_params"]["words"], own["eq_params"]["values"], strict=True))
            assert equal(factors(target, weights, official=True), tensors["equalizer"][0]), name
        for blend in ("attention_blend", "latent_blend"):
            chosen = tensors.get(f"{blend}/alpha_layers", tensor([])).reshape(-1, 77)
            for row, made_text, blend_words in zip(
                chosen, (source, target), own.get("blend_words") or (), strict=False
            ):
                found = {column for word in blend_words for column in official_columns(made_text, word)}
                assert set(row.nonzero().flatten().tolist()) == found, name
        compared += 1
    assert compared >= 4
