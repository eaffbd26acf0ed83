"""Where an edit may change: where its words have heat; in a background edit, everywhere but at the things before it.

A background's word gets heat from nowhere in particular; the words of the things before it get theirs where these are.
"""

from collections.abc import Sequence
from dataclasses import replace

from freemask.attention.record import Words
from freemask.data.lexicon import GROUNDS
from freemask.masks.nouns import JOINS, groups, nouns
from freemask.masks.plan import MaskPlan, Subject
from freemask.masks.words import as_heat, source_columns
from freemask.types import EditTask
from freemask.words import bare

# Where something goes, and no thing: "a car driving left".
WAYS = frozenset(
    {"left", "right", "forward", "forwards", "backward", "backwards", "away", "closer", "fast", "together"}
)


def words(subject: Subject, phrase: str = "described", heat: str = "word") -> Words:
    """What is recorded of them in the source prompt."""
    return as_heat(subject.source, columns(subject, phrase), heat)


def columns(subject: Subject, phrase: str = "described") -> tuple[int, ...]:
    """Token columns of the source prompt whose heat shows where the edit may change, or, of a background that stands
    behind other things, where it may not."""
    return other_columns(subject, phrase) or source_columns(subject, phrase)


def placed(subject: Subject, plan: MaskPlan) -> MaskPlan:
    """The masks of that heat, turned where it is of the things before a background."""
    if not other_columns(subject):
        return plan
    soft = plan.soft
    values = None if soft is None else lambda wanted: 1 - soft(wanted)
    facts = {**plan.facts, **facts_of(subject)}
    return replace(plan, mask=lambda wanted: 1 - plan.mask(wanted), soft=values, facts=facts)


def facts_of(subject: Subject) -> dict[str, str]:
    """What the masks go around, where they do."""
    return {"mask_around": ", ".join(other_phrases(subject))} if other_columns(subject) else {}


def other_phrases(subject: Subject) -> list[str]:
    """The things that the source prompt speaks of besides the edit's words: noun phrases, without articles. No thing
    is another place, time or weather. A phrase whose noun is no word of the edit is still the edit's own where a word
    of the edit describes it, and stands as a noun nowhere (snow: a snow field)."""
    own = _own(subject.task)
    things = [
        thing for group in groups(subject.source.prompt) for phrase in group if (thing := _thing(phrase))
    ]

    def ours(words: Sequence[str]) -> bool:
        return any(word.casefold() in own for word in words)

    named = any(ours(each[-1:]) for each in things)
    others = [each for each in things if not ours(each[-1:] if named else each)]
    return [" ".join(each) for each in others if each[-1].casefold() not in GROUNDS]


def _own(task: EditTask) -> set[str]:
    """Without words in the task, a background is what the target prompt no longer speaks of."""
    if task.words:
        return {bare(word).casefold() for phrase in task.words for word in phrase.split()}
    source, target = ({bare(word).casefold() for word in each.split()} for each in (task.source, task.target))
    return source - target


def _thing(phrase: Sequence[str]) -> list[str]:
    """A noun phrase without articles, without the way that the thing goes and without a verb that is sure to be one."""
    while phrase and phrase[-1].casefold() in WAYS:
        phrase = phrase[:-1]
    words = [word for word in phrase if word.casefold() not in JOINS]
    return words[:-1] if words and nouns(phrase) == words[-2:-1] else words


def other_columns(subject: Subject, phrase: str = "described") -> tuple[int, ...]:
    """Their token columns in the source prompt: of all their words, or with `last` of the last ones. None where it
    speaks of nothing else, and where the edit is about no background."""
    if subject.task.kind != "background":
        return ()
    phrases = [each.split() for each in other_phrases(subject)]
    words = [word for each in phrases for word in (each[-1:] if phrase == "last" else each)]
    found = {column for word in words for column in subject.source.columns.get(word, ())}
    return tuple(sorted(found - set(source_columns(subject, words=list(subject.task.words)))))
