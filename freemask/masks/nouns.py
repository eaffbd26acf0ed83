"""What a prompt speaks of: its noun phrases, read off word order and endings. It knows no dictionary, and says so
where it would have to guess."""

import re
from collections.abc import Sequence

from freemask.words import bare

# fmt: off
SINGLE = frozenset({"a", "an", "one", "this", "that"})
PLURAL = frozenset({
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "several", "many", "these", "those",
})
JOINS = SINGLE | PLURAL | {"the", "some", "his", "her", "its", "their", "my", "our", "your", "and", "or"}
PREPOSITIONS = frozenset({
    "of", "in", "on", "at", "by", "to", "from", "into", "onto", "over", "under", "above", "below", "behind", "beside",
    "between", "near", "through", "across", "along", "around", "against", "inside", "outside", "after", "before",
    "during", "while", "as", "for", "like", "toward", "towards", "up", "down", "off", "out", "with", "without",
})
VERBS = frozenset({
    "is", "are", "was", "were", "be", "been", "being", "has", "have", "had", "does", "do", "did", "can", "will",
    "who", "which", "stands", "sits", "runs",
})
# "a photo of a bear" is about the bear.
MEDIA = frozenset({
    "photo", "photograph", "picture", "image", "painting", "drawing", "sketch", "video", "clip", "film", "footage",
    "shot", "view", "scene", "cartoon", "comic", "illustration", "render", "art", "animation", "portrait", "style",
})
NOT_VERBS = frozenset({"building", "evening", "morning", "ceiling", "painting", "drawing"})
NOT_ADVERBS = frozenset({
    "family", "fly", "butterfly", "dragonfly", "firefly", "lily", "jelly", "belly", "bully", "italy",
})
# fmt: on


def objects(source: str, target: str) -> list[str]:
    """The nouns that the prompts may be about: those of the first noun phrases of `source` that `target` shares."""
    shared = {bare(word).casefold() for word in target.split()}
    for group in groups(source):
        found = [noun for phrase in group for noun in nouns(phrase) if noun.casefold() in shared]
        if found:
            return list(dict.fromkeys(found))
    return []


def groups(prompt: str) -> list[list[list[str]]]:
    """Noun phrases, their article in front, in groups between prepositions, verb forms and punctuation."""
    found: list[list[list[str]]] = [[]]
    phrase: list[str] = []

    def close(group: bool) -> None:
        if any(word.casefold() not in JOINS for word in phrase):
            found[-1].append(list(phrase))
        phrase.clear()
        if group and found[-1]:
            found.append([])

    for typed in prompt.split():
        word = bare(typed)
        if ends_phrase(word):
            if word.casefold() == "of" and phrase and phrase[-1].casefold() in MEDIA:
                phrase.clear()
            close(group=True)
            continue
        if word.casefold() in JOINS:
            close(group=False)
        if not adverb(word) and re.search(r"\w", word):
            phrase.append(word)
        if closes(typed):
            close(group=True)
    close(group=True)
    return [group for group in found if group]


def nouns(phrase: Sequence[str]) -> list[str]:
    """The noun of a noun phrase; two candidates where the last word may be a verb ("the giraffe walks")."""
    article = phrase[0].casefold()
    words = [word for word in phrase if word.casefold() not in JOINS]
    if _verb_ends(words) and article not in PLURAL:
        sure = article in SINGLE or words[-1].casefold().endswith("ed")
        return [words[-2]] if sure else words[-2:]
    return words[-1:]


def following(prompt: str, phrase: str) -> list[str]:
    """The words that go on after `phrase` within its noun phrase."""
    typed, low = _read(prompt)
    asked = [bare(word).casefold() for word in phrase.split()]
    begin = next((i for i in range(len(low)) if asked and low[i : i + len(asked)] == asked), len(low))
    found: list[str] = []
    for i in range(begin + len(asked), len(low)):
        if closes(typed[i - 1]) or ends_phrase(low[i]) or low[i] in JOINS:
            break
        found.append(bare(typed[i]))
    return found[:-1] if _verb_ends(found) else found


def described(prompt: str, phrase: str) -> list[str]:
    """Each occurrence of `phrase` with the describing words directly before it: car -> red car."""
    typed, low = _read(prompt)
    asked = [bare(word).casefold() for word in phrase.split()]
    found = []
    for end in range(len(asked), len(low) + 1) if asked else ():
        begin = end - len(asked)
        if low[begin:end] != asked:
            continue
        while begin and not (
            closes(typed[begin - 1]) or low[begin - 1] in JOINS or ends_phrase(low[begin - 1])
        ):
            begin -= 1
        found.append(" ".join(typed[begin:end]))
    return found


def _read(prompt: str) -> tuple[list[str], list[str]]:
    """The words as typed, and bare in lower case."""
    typed = prompt.split()
    return typed, [bare(word).casefold() for word in typed]


def _verb_ends(words: Sequence[str]) -> bool:
    """Whether the last of several words looks like a verb: the car parked, the bear walks."""
    if len(words) < 2:
        return False
    before, last = words[-2].casefold(), words[-1].casefold()
    return last.endswith("ed") or bool(re.search(r"[^su]s$", last)) and not before.endswith("s")


def ends_phrase(word: str) -> bool:
    """Whether a word ends a noun phrase: a preposition or a verb form."""
    low = word.casefold()
    if low in PREPOSITIONS or low in VERBS:
        return True
    return len(low) > 5 and low.endswith("ing") and low not in NOT_VERBS


def adverb(word: str) -> bool:
    return word.casefold().endswith("ly") and word.casefold() not in NOT_ADVERBS


def closes(typed: str) -> bool:
    return bool(re.search(r"[,.;:!?)]$", typed))
