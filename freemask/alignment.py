"""Words of two prompts against each other: which source column a target column takes, how strongly, and how long.

Pure bookkeeping of prompt-to-prompt editing. `official` follows the authors' code to the letter, its oddities
included: prompts are cut at single blanks (so a trailing or a double blank counts as a word), a word must be one of
the pieces exactly, and a word that is not there is passed over. Otherwise words are those of `freemask.words`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from freemask.errors import UserError
from freemask.types import Text
from freemask.words import columns_of

Control = Literal["refine", "replace", "auto"]
# A share of the steps, or the two shares at which it begins and ends.
Window = float | int | Sequence[float | int]
Columns = tuple[int, ...]


@dataclass(frozen=True)
class WordMap:
    """Column l of the fused map is sum_k source[..., k] matrix[k, l] + own[l] edit[..., l]."""

    matrix: Float[Tensor, "k l"]
    own: Float[Tensor, " l"]


def word_map(source: Text, target: Text, *, control: Control, official: bool = False) -> WordMap:
    """`auto` replaces where both prompts have as many words, and refines otherwise.

    The authors' code never refuses: asked to replace, it does as `auto` does; not asked, it refines.
    """
    if control == "refine" or (control == "auto" and official):
        return refine(source, target)
    if control == "replace" and not official:
        return replace(source, target)
    cut = _pieces if official else _words
    equal = len(cut(source)) == len(cut(target))
    return replace(source, target, official=official) if equal else refine(source, target)


def refine(source: Text, target: Text) -> WordMap:
    """Tokens that both prompts share, in order, take the source's column; new ones keep their own.

    Positions behind the target's end mark take the same position of the source.
    """
    size = _size(source, target)
    matrix, own = torch.zeros(size, size), torch.zeros(size)
    for place, partner in enumerate(_partners(source.ids, target.ids)):
        if partner is None:
            own[place] = 1
        else:
            matrix[partner, place] = 1
    tail = torch.arange(len(target.ids), size)
    matrix[tail, tail] = 1
    return WordMap(matrix, own)


def replace(source: Text, target: Text, *, official: bool = False) -> WordMap:
    """Word by word: the columns of a target word share those of the source word at its place.

    As many tokens: one to one. Otherwise each target column takes 1 / (their number) of the source's sum. The
    authors' code goes over to equal positions right behind the last changed word; ours behind the end mark.
    """
    size = _size(source, target)
    cut = _pieces if official else _words
    pairs = list(zip(cut(source), cut(target), strict=False))
    if len(cut(source)) != len(cut(target)):
        raise UserError(
            "Words can be replaced one by one only where both prompts have as many.",
            came=f"{len(cut(source))} in '{source.prompt}', {len(cut(target))} in '{target.prompt}'",
            expected="as many words" + (", cut at single blanks" if official else ""),
            todo="reword the target prompt, or refine instead of replacing",
        )
    if official:
        return WordMap(_walked([(a[1], b[1]) for a, b in pairs if a[0] != b[0]], size), torch.zeros(size))
    matrix, own = torch.zeros(size, size), torch.zeros(size)
    ends = (len(source.ids) - 1,), (len(target.ids) - 1,)
    for old, new in [((0,), (0,)), *((a[1], b[1]) for a, b in pairs), ends]:
        _spread(matrix, old, new)
        own[list(new)] = 0.0 if old else 1.0  # a word without tokens has nothing to give
    tail = torch.arange(len(target.ids), size)
    matrix[tail, tail] = 1
    return WordMap(matrix, own)


def factors(
    target: Text, weights: Mapping[str, float | int], *, official: bool = False
) -> Float[Tensor, " l"]:
    """How much stronger each column of the target is to be: the words' weights, 1 elsewhere."""
    scale = torch.ones(target.tokens.shape[0])
    for word, weight in weights.items():
        scale[list(_named(target, word, official))] = float(weight)
    return scale


def gates(
    target: Text,
    steps: int,
    share: Window,
    by_word: Mapping[str, Window] = {},
    official: bool = False,
) -> Bool[Tensor, "steps l"]:
    """Which columns are fused at which sampling step (row 0 = the first, noisiest); words may have their own window.

    The authors' code counts one step more than there is when it turns shares into steps.
    """
    rows = steps + 1 if official else steps
    begin, end = _bounds(share, rows, official)
    table = torch.zeros(rows, target.tokens.shape[0], dtype=torch.bool)
    table[begin:end] = True
    for word, window in by_word.items():
        columns = list(_named(target, word, official))
        begin, end = _bounds(window, rows, official)
        table[:, columns] = False
        table[begin:end, columns] = True
    return table[:steps]


def official_columns(text: Text, word: str) -> tuple[int, ...]:
    """The columns that the authors' code finds for a word: none where the word is not a piece of the prompt."""
    return tuple(column for piece, columns in _pieces(text) if piece == word for column in columns)


def _named(text: Text, word: str, official: bool) -> Columns:
    return official_columns(text, word) if official else columns_of(text, [word])


def _pieces(text: Text) -> list[tuple[str, Columns]]:
    """The prompt cut at single blanks. Tokens go to a piece until their characters cover it, so that an empty piece
    takes a token of the next word and shifts all that follow."""
    pieces = text.prompt.split(" ")
    found: list[list[int]] = [[] for _ in pieces]
    place = covered = 0
    for column, (start, end) in enumerate(text.spans[1:-1], start=1):
        if place == len(pieces):
            break
        found[place].append(column)
        covered += len(text.prompt[start:end].strip("#"))
        if covered >= len(pieces[place]):
            place, covered = place + 1, 0
    return [(piece, tuple(columns)) for piece, columns in zip(pieces, found, strict=True)]


def _words(text: Text) -> list[tuple[str, Columns]]:
    """The prompt's words as typed, each with the tokens of this one occurrence."""
    found, at = [], 0
    for word in text.prompt.split():
        start = text.prompt.index(word, at)
        at = start + len(word)
        columns = (i for i, (a, b) in enumerate(text.spans) if a < b and a < at and start < b)
        found.append((word, tuple(columns)))
    return found


def _partners(source: Sequence[int], target: Sequence[int]) -> list[int | None]:
    """Needleman-Wunsch with match 1, mismatch -1, gap 0: per target token, the source token it matches.

    At a tie a token of the target is passed over first, then one of the source, and only then are two paired.
    """
    best = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, old in enumerate(source, start=1):
        for j, new in enumerate(target, start=1):
            paired = best[i - 1][j - 1] + (1 if old == new else -1)
            best[i][j] = max(best[i][j - 1], best[i - 1][j], paired)
    partners: list[int | None] = [None] * len(target)
    i, j = len(source), len(target)
    while i and j:
        if best[i][j] == best[i][j - 1]:
            j -= 1
        elif best[i][j] == best[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            partners[j] = i
    return partners


def _walked(changed: Sequence[tuple[Columns, Columns]], size: int) -> Float[Tensor, "k l"]:
    """The authors' walk along both prompts; where the source is longer, the last columns stay empty."""
    if any(not old or not new for old, new in changed):
        raise UserError(
            "A changed word has no tokens of its own, so that it cannot be replaced.",
            came="a prompt with several blanks in a row",
            expected="single blanks between words",
        )
    matrix = torch.zeros(size, size)
    i = j = done = 0
    while i < size and j < size:
        if done < len(changed) and changed[done][0][0] == i:
            old, new = changed[done]
            _spread(matrix, old, new)
            i, j, done = i + len(old), j + len(new), done + 1
        else:
            matrix[i if done < len(changed) else j, j] = 1
            i, j = i + 1, j + 1
    return matrix


def _spread(matrix: Float[Tensor, "k l"], old: Columns, new: Columns) -> None:
    if len(old) == len(new):
        matrix[list(old), list(new)] = 1
    else:
        for row in old:
            matrix[row, list(new)] = 1 / len(new) if new else 0.0


def _bounds(window: Window, rows: int, official: bool) -> tuple[int, int]:
    begin, end = (0, window) if isinstance(window, float | int) else _two(window)
    if not 0 <= begin <= end <= 1:
        raise UserError("A window is a share of the steps.", came=window, expected="0 to 1, begin before end")
    more = 0.0 if official else 1e-9  # undoes binary fractions such as 0.29 * 100
    return int(begin * rows + more), int(end * rows + more)


def _two(window: Sequence[float | int]) -> tuple[float | int, float | int]:
    if len(window) != 2:
        raise UserError("A window has a begin and an end.", came=list(window), expected="such as [0.2, 0.8]")
    return window[0], window[1]


def _size(source: Text, target: Text) -> int:
    """Token positions of the text encoder."""
    size = source.tokens.shape[0]
    if target.tokens.shape[0] != size or not source.ids or not target.ids:
        raise ValueError("both texts must come, with their token ids, from one text encoder")
    return size
