"""Words of a prompt and the text tokens they became: pure, on top of the tokenizer's character offsets.

Words are split at blanks. A word wrapped in punctuation ("car,") is known under both its names: as typed, with the
tokens of the punctuation, and bare ("car"), without them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from freemask.errors import UserError, nearest
from freemask.types import Text

Span = tuple[int, int]


def columns_of_prompt(prompt: str, offsets: Sequence[Span]) -> dict[str, tuple[int, ...]]:
    """Each word of the prompt with its token positions, over all its occurrences.

    `offsets` holds the characters that each token stands for; tokens that stand for none have start = end.
    """
    columns: dict[str, tuple[int, ...]] = {}
    for word, core in _words(prompt):
        for start, end in {word, core}:
            found = tuple(i for i, (a, b) in enumerate(offsets) if a < b and a < end and start < b)
            name = prompt[start:end]
            columns[name] = tuple(sorted({*columns.get(name, ()), *found}))
    return columns


def columns_of(text: Text, phrases: Iterable[str]) -> tuple[int, ...]:
    """Token positions of words or phrases, over all their occurrences. A word that is not there is an error."""
    return tuple(
        sorted({column for phrase in phrases for place in occurrences(text, phrase) for column in place})
    )


def own_columns(text: Text) -> tuple[int, ...]:
    """Token positions of the whole prompt, without begin and end marks and what stands behind them."""
    return tuple(column for column, (start, end) in enumerate(text.spans) if start < end)


def occurrences(text: Text, phrase: str) -> list[tuple[int, ...]]:
    """Token positions of each occurrence of a word or phrase. Case and punctuation around words do not matter."""
    wanted = [bare(word).casefold() for word in phrase.split()]
    words = [text.prompt[start:end] for _, (start, end) in _words(text.prompt)]
    known = [word.casefold() for word in words]
    places = [
        i for i in range(len(known) - len(wanted) + 1) if wanted and known[i : i + len(wanted)] == wanted
    ]
    if not places:
        raise UserError(
            f"'{phrase}' is not in the prompt.",
            came=text.prompt,
            expected="one of its words: " + ", ".join(dict.fromkeys(words)),
            todo=nearest(phrase, set(words)),
        )
    return [_columns_at(text.columns, words, range(i, i + len(wanted))) for i in places]


def check_length(prompt: str, tokens: int, most: int) -> None:
    """Refuse a prompt that the text encoder would cut off."""
    if tokens > most:
        raise UserError(
            "The prompt is too long for the text encoder.",
            came=f"{tokens} tokens, begin and end marks included: {prompt}",
            expected=f"at most {most} tokens",
            todo="use fewer or simpler words",
        )


def bare(word: str) -> str:
    """The word without punctuation around it; punctuation alone stays as it is."""
    return re.sub(r"^[\W_]+|[\W_]+$", "", word) or word


def holds(prompt: str, phrase: str) -> bool:
    """Whether the phrase's words stand side by side in the prompt, whatever their case and punctuation."""
    return bool(places(prompt, phrase))


def places(prompt: str, phrase: str) -> set[int]:
    """Which words of the prompt, counted from 0, are those of the phrase, over all its occurrences."""
    within, asked = ([bare(word).casefold() for word in text.split()] for text in (prompt, phrase))
    starts = range(len(within) - len(asked) + 1) if asked else ()
    found = (range(start, start + len(asked)) for start in starts)
    return {place for some in found if [within[place] for place in some] == asked for place in some}


def _words(prompt: str) -> list[tuple[Span, Span]]:
    """Where each word stands: as typed, and bare."""
    spans = []
    for match in re.finditer(r"\S+", prompt):
        word, start = match.group(), match.start()
        inner = start + word.index(bare(word))
        spans.append(((start, match.end()), (inner, inner + len(bare(word)))))
    return spans


def _columns_at(
    columns: Mapping[str, tuple[int, ...]], words: Sequence[str], places: range
) -> tuple[int, ...]:
    """The columns of the words at these places: a repeated word takes equally many tokens each time."""
    found: list[int] = []
    for i in places:
        every, times = columns[words[i]], words.count(words[i])
        if len(every) % times:
            raise UserError(
                f"The tokenizer splits '{words[i]}' differently at each place.", came=" ".join(words)
            )
        width = len(every) // times
        first = words[:i].count(words[i]) * width
        found += every[first : first + width]
    return tuple(found)
