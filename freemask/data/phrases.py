"""Where the noun phrases of a prompt stand, and which word is the noun: by word order, endings and short lists."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from freemask.data.lexicon import ADJECTIVES, IRREGULAR_PLURALS, PLACES
from freemask.masks.nouns import JOINS, PLURAL, SINGLE, adverb, closes, ends_phrase
from freemask.words import bare

# Scripts, by the names of their letters, that write words without blanks between them.
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def unspaced(text: str) -> bool:
    """Whether words cannot be told apart by blanks."""
    return any(unicodedata.name(sign, "").startswith(UNSPACED) for sign in text)


@dataclass(frozen=True)
class Phrase:
    """Places of words in the prompt: the describing words from `start` to before the noun at `head`."""

    start: int
    head: int


@dataclass(frozen=True)
class Prompt:
    """A prompt's words as typed, bare, and bare in lower case, and its noun phrases."""

    typed: Sequence[str]
    bare: Sequence[str]
    low: Sequence[str]
    phrases: Sequence[Phrase]

    @classmethod
    def of(cls, text: str) -> "Prompt":
        typed = text.split()
        plain = [bare(word) for word in typed]
        low = [word.casefold() for word in plain]
        return cls(typed, plain, low, phrases(typed, low))

    def heads(self, start: int, end: int) -> list[int]:
        """The nouns among these words."""
        return [each.head for each in self.phrases if start <= each.head < end]

    def around(self, start: int, end: int) -> Phrase | None:
        """The phrase of which these words (none: the gap before `start`) are describing words."""
        for each in self.phrases:
            if each.start <= start and end <= each.head:
                return each
        return None


def phrases(typed: Sequence[str], low: Sequence[str]) -> list[Phrase]:
    found: list[Phrase] = []
    article, words = "", []

    def close() -> None:
        nonlocal article, words
        noun = _noun(article, words, low)
        if noun is not None:
            found.append(Phrase(words[0], noun))
        article, words = "", []

    for place, word in enumerate(low):
        if word in JOINS:
            close()
            article = word
        elif _breaks(word) and not _describes(article, words, place, low):
            close()
        elif re.search(r"\w", word) and not adverb(word):
            words.append(place)
        if closes(typed[place]):
            close()
    close()
    return found


def _describes(article: str, words: Sequence[int], place: int, low: Sequence[str]) -> bool:
    """Whether a word like "running" stands before its noun: a running dog, not a dog running."""
    following = low[place + 1] if place + 1 < len(low) else ""
    inside = bool(article) and article not in ("and", "or") and not words
    return inside and low[place].endswith("ing") and bool(following) and not _breaks(following)


def _breaks(word: str) -> bool:
    return word in JOINS or word in PLACES or ends_phrase(word)


def _noun(article: str, words: Sequence[int], low: Sequence[str]) -> int | None:
    """The last word, or the one before where the last is a verb: a bear walks, the car parked, cows graze."""
    if len(words) < 2:
        return words[0] if words else None
    before, last = low[words[-2]], low[words[-1]]
    verb = last.endswith("ed")
    if before not in ADJECTIVES and last not in ADJECTIVES:
        several = before in IRREGULAR_PLURALS or bool(re.search(r"[^su]s$", before))
        verb |= several and article not in SINGLE
        named = words[-2] == 0 and not before.endswith("y")  # Spider-Man jumps, but not: snowy mountains
        one = named or bool(article) and article not in PLURAL
        verb |= one and bool(re.search(r"[^su]s$", last)) and not several
    return words[-2] if verb else words[-1]
