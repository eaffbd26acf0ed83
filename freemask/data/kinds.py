"""Which kind of edit two prompts ask for, and which words it is about: read off how the prompts differ.

A noun for a noun is a shape edit, an adjective an attribute, words that go are a removal (a shape edit whose word
becomes nothing), a ground for a ground is a background, words around the whole are a style.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from freemask.data.changed import trimmed
from freemask.data.lexicon import ADJECTIVES, GROUNDS, LIKENESSES, MATERIALS, PLACES, STYLES
from freemask.data.pairs import read_pairs
from freemask.data.phrases import Prompt, unspaced
from freemask.types import EditTask, Kind
from freemask.words import holds

ARTICLES = frozenset({"a", "an", "the"})
SURE, UNSURE = "guessed", "guessed, not sure"
# Of several changes that want different windows, the one that needs the most freedom decides.
ORDER: tuple[Kind, ...] = ("shape", "style", "background", "attribute")


@dataclass(frozen=True)
class Guess:
    """`words` maps source phrases to target phrases, '' where the target leaves one out. Not `sure`: look at it."""

    kind: Kind
    words: dict[str, str] = field(default_factory=dict)
    sure: bool = True


@dataclass(frozen=True)
class Change:
    """Words `a` to `b` of the source prompt became words `c` to `d` of the target prompt."""

    old: Prompt
    new: Prompt
    a: int
    b: int
    c: int
    d: int

    @property
    def words(self) -> dict[str, str]:
        gone, come = (
            trimmed(list(self.old.bare[self.a : self.b])),
            trimmed(list(self.new.bare[self.c : self.d])),
        )
        return {gone: come} if gone else {}

    @property
    def small(self) -> bool:
        """It only follows another: on the rocks, in the snow."""
        return {*self.old.low[self.a : self.b], *self.new.low[self.c : self.d]} <= PLACES | ARTICLES

    @property
    def heads(self) -> tuple[list[str], list[str]]:
        """The nouns that went, and those that came."""
        old, new = self.old.heads(self.a, self.b), self.new.heads(self.c, self.d)
        return [self.old.low[place] for place in old], [self.new.low[place] for place in new]

    def described(self) -> str:
        """The noun of which only describing words changed."""
        old, new = self.old.around(self.a, self.b), self.new.around(self.c, self.d)
        if old is None or new is None or self.old.low[old.head] != self.new.low[new.head]:
            return ""
        return self.old.bare[old.head]


def guess(source: str, target: str) -> Guess:
    """Equal prompts ask for nothing: a style edit, and not sure."""
    steps = changes(Prompt.of(source), Prompt.of(target))
    found = [judged(each) for each in [each for each in steps if not each.small] or steps]
    kinds: set[Kind] = {each.kind for each in found}
    kind = min(kinds, key=ORDER.index) if kinds else ORDER[1]
    words = {old: new for each in found for old, new in each.words.items()}
    kept = {old: new for old, new in words.items() if holds(source, old) and (not new or holds(target, new))}
    mixed = len(kinds) > 1 and kinds != {"shape", "attribute"} or kept != words
    sure = bool(found) and all(each.sure for each in found) and not mixed
    return Guess(kind, kept, sure and not unspaced(source + target))


def completed(fields: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
    """The fields of a task with `kind` and `words` that were left out read off the prompts; and of those two, which
    were guessed, and whether surely."""
    given = {name: value for name, value in fields.items() if value is not None}
    found = guess(str(given.get("source", "")), str(given.get("target", "")))
    made: dict[str, object] = {"kind": found.kind, "words": found.words}
    words = given.get("words")
    words = read_pairs(words)[0] if isinstance(words, str) else words
    if isinstance(words, Mapping) and "" in words.values():
        made["kind"] = "shape"  # a word that goes was named: a removal, whatever the prompts look like
    wordless = given.get("kind", "style") != "style" and not found.words
    said = SURE if found.sure and not wordless else UNSURE
    return {**made, **given}, {name: said for name in made if name not in given}


def kind_of(old: str, new: str) -> tuple[Kind, bool]:
    """What kind of edit turns one phrase into another, and whether that is sure; of a word that stays, how it looks."""
    if not new:
        return "shape", True
    if old.casefold() == new.casefold():
        grounds = {word.casefold() for word in old.split()} & GROUNDS
        return ("background" if grounds else "attribute"), True
    found = guess(old, new)
    return found.kind, found.sure


def unsure(task: EditTask) -> list[str]:
    """What of a task was guessed and had better be said."""
    return [name for name, how in task.guessed.items() if how == UNSURE]


def changes(old: Prompt, new: Prompt) -> list[Change]:
    """Articles that only follow the word behind them (a blue car, an orange car) are no part of a change."""
    steps = difflib.SequenceMatcher(None, old.low, new.low, autojunk=False).get_opcodes()
    found = []
    for step, a, b, c, d in steps:
        if step == "replace":
            a, c = _after_articles(old, a, b), _after_articles(new, c, d)
        if step != "equal" and (a < b or c < d):
            found.append(Change(old, new, a, b, c, d))
    return found


def _after_articles(prompt: Prompt, start: int, end: int) -> int:
    while start < end and prompt.low[start] in ARTICLES:
        start += 1
    return start


def judged(change: Change) -> Guess:
    if _around_all(change.old, change.a, change.b) or _around_all(change.new, change.c, change.d):
        return Guess("style", sure=not set(change.new.low[change.c : change.d]) & LIKENESSES)
    gone, come = change.heads
    if noun := change.described():
        return _described(change, noun)
    if _all_in(change, ADJECTIVES):
        return Guess("attribute", change.words)
    if gone and come:
        return _replaced(change, gone, come)
    if change.a == change.b:
        return _added(change, come)
    if change.c == change.d and gone:
        return _removed(change, gone)
    return Guess("shape", change.words, sure=False)  # a verb for a verb, a noun for a whole sentence


def _described(change: Change, noun: str) -> Guess:
    words = change.words if change.words and change.d > change.c else {noun: noun}
    if noun.casefold() in GROUNDS:
        return Guess("background", {noun: noun})
    if set(change.new.low[change.c : change.d]) & (STYLES - ADJECTIVES):
        return Guess("style", sure=False)
    return Guess("attribute", words)


def _replaced(change: Change, gone: Sequence[str], come: Sequence[str]) -> Guess:
    grounds = [word in GROUNDS for word in (*gone, *come)]
    if all(grounds):
        return Guess("background", change.words)
    before = change.old.low[: change.old.heads(change.a, change.b)[0]]
    place = any(word in PLACES for word in before[-3:])
    if gone[-1] in GROUNDS or come[-1] in GROUNDS and place:
        return Guess("background", change.words, sure=False)
    return Guess("shape", change.words)


def _added(change: Change, come: Sequence[str]) -> Guess:
    """Words that have none to stand for in the source: it is about the noun before them."""
    added = change.new.low[change.c : change.d]
    known = change.old.heads(0, change.a) or change.old.heads(change.a, len(change.old.low))
    noun = change.old.bare[known[-1]] if known else ""
    words = {noun: noun} if noun else {}
    if set(added) & MATERIALS and "of" in added:
        return Guess("attribute", words)
    if come and all(word in GROUNDS for word in come):
        return Guess("background", sure=False)  # no word of the source says where it was before
    if change.c == 0 and added[-1] == "of":
        return Guess("attribute" if set(come) & LIKENESSES else "style", sure=False)
    return Guess("shape", words, sure=False) if come else Guess("style", sure=False)


def _removed(change: Change, gone: Sequence[str]) -> Guess:
    things = [word for word in gone if word not in GROUNDS]
    if not things:
        return Guess("background", {word: "" for word in gone}, sure=False)
    return Guess("shape", dict.fromkeys(things, ""), sure=not set(things) & set(change.new.low))


def _around_all(prompt: Prompt, start: int, end: int) -> bool:
    """Whether these words speak of the whole picture: before "of" or a comma at the beginning, or at the end."""
    if not set(prompt.low[start:end]) & STYLES:
        return False
    leads = not set(prompt.low[:start]) - ARTICLES and (
        "of" in (prompt.low[end - 1], *prompt.low[end : end + 1])
        or prompt.typed[end - 1].endswith((",", ":"))
    )
    return leads or end == len(prompt.low)


def _all_in(change: Change, words: frozenset[str]) -> bool:
    old, new = change.old.low[change.a : change.b], change.new.low[change.c : change.d]
    return bool(old) and bool(new) and set(old) | set(new) <= words
