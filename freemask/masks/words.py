"""Which words locate an edit, in the source and in the target prompt."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from freemask.attention.record import Words
from freemask.errors import UserError
from freemask.masks.nouns import described, following, objects
from freemask.masks.plan import Subject, same_word
from freemask.types import Clip, EditTask, Text
from freemask.words import bare, columns_of, occurrences, own_columns

# Which tokens of "car" in "a red car" locate it: those of "red car", of the last word alone, of the phrase as it is.
# On the embedded model the heat of "red car" matches the car far better than that of "car".
PHRASE = ("described", "last", "all")
# A word's heat: the attention that falls on it, or the share that it has of what falls on the prompt's own tokens. The
# second leaves out marks and padding, of which Wan's texts mostly consist.
HEATS = ("word", "share")


def located(task: EditTask) -> dict[str, str]:
    """Source phrase -> target phrase of what the edit is about. Without words in the task it is looked for in the
    prompts; for an attribute, red -> blue stands for the noun that both describe (red car -> blue car)."""
    if not task.words:
        word = _object(task)
        return {word: word}
    if task.kind != "attribute":
        return dict(task.words)
    return dict(_with_noun(task, old, new) for old, new in task.words.items())


def source_columns(
    subject: Subject, phrase: str = "described", words: Sequence[str] | None = None
) -> tuple[int, ...]:
    """Token columns of the source prompt that locate the edit. `words` stand in for the task's.

    `described` takes phrases with the describing words before them (car: red car), `last` their last word alone,
    `all` the phrases as they are.
    """
    return _columns(subject.source, located(subject.task) if words is None else words, phrase)


def target_columns(
    subject: Subject, phrase: str = "described", words: Sequence[str] | None = None
) -> tuple[int, ...]:
    """The same for the target prompt; a word that the target leaves out has no columns there."""
    phrases = located(subject.task).values() if words is None else words
    return _columns(subject.target, [each for each in phrases if each], phrase)


def check_phrase(phrase: str) -> None:
    if phrase not in PHRASE:
        raise UserError(f"phrase cannot be '{phrase}'", came=f"phrase={phrase}", expected=", ".join(PHRASE))


def check_heat(heat: str) -> None:
    if heat not in HEATS:
        raise UserError(f"heat cannot be '{heat}'", came=f"heat={heat}", expected=" or ".join(HEATS))


def as_heat(text: Text, columns: Sequence[int], heat: str) -> Words:
    """What to record of these columns of a prompt."""
    check_heat(heat)
    return Words(tuple(columns), own_columns(text) if heat == "share" else ())


def annotated(task: EditTask, clip: Clip) -> Bool[Tensor, "f h w"]:
    """The clip's annotation of what the edit is about: by the task's words, else the only one there is and no other
    edit has brought.

    Where the edit is about a background that is not annotated, or that no word names, it is everything but the objects.
    """
    if not clip.masks:
        raise UserError(
            "these masks need an annotated clip",
            came=f"'{clip.id}' without annotation",
            expected="data with masks (world, davis), regions of the edits (car->truck @ masks/car),"
            " or mask=segmentation mask.folder=...",
        )
    known = {name.casefold(): mask for name, mask in clip.masks.items()}
    union = torch.stack(list(known.values())).any(dim=0)
    if task.kind == "background" and not task.words:
        return ~union
    if len(known) == 1 and not task.words:
        return union
    names = [_name_in(known, phrase) for phrase in located(task)]
    found = [known[name] for name in names if name is not None]
    if len(found) == len(names):
        return torch.stack(found).any(dim=0)
    if not found and task.kind == "background":
        return ~union
    if not found and len(known) == 1 and not clip.brought:
        return union
    missing = [phrase for phrase, name in zip(located(task), names, strict=True) if name is None]
    raise UserError(
        f"'{missing[0]}' is not annotated in '{clip.id}'",
        came=", ".join(located(task)),
        expected="words of the annotation: " + ", ".join(clip.masks),
        todo=f"say where it is: {missing[0]}->... @ FOLDER, as for the others" if clip.brought else "",
    )


def _name_in(known: Iterable[str], phrase: str) -> str | None:
    """`a red car` is annotated as `red car`, or as `car`."""
    words = [bare(word).casefold() for word in phrase.split()]
    names = (" ".join(words[start:]) for start in range(len(words)))
    return next((name for name in names if name in known), None)


def _columns(text: Text, phrases: Iterable[str], phrase: str) -> tuple[int, ...]:
    check_phrase(phrase)
    if phrase == "described":
        return columns_of(
            text, [whole for each in phrases for whole in described(text.prompt, each) or [each]]
        )
    if phrase == "all":
        return columns_of(text, phrases)
    return tuple(sorted({column for each in phrases for column in _last(text, each)}))


def _last(text: Text, phrase: str) -> set[int]:
    """Columns of a phrase's last word, only where the whole phrase stands."""
    places = [set(place) for place in occurrences(text, phrase)]
    ends = [set(place) for place in occurrences(text, phrase.split()[-1])]
    return {column for place in places for column in max((end for end in ends if end <= place), key=max)}


def _with_noun(task: EditTask, old: str, new: str) -> tuple[str, str]:
    if same_word(old, new):
        return old, new
    shared = []
    for a, b in zip(following(task.source, old), following(task.target, new), strict=False):
        if a.casefold() != b.casefold():
            break
        shared.append(a)
    noun = "".join(f" {word}" for word in shared)
    return old + noun, new + noun


def _object(task: EditTask) -> str:
    choices = objects(task.source, task.target)
    if len(choices) == 1:
        return choices[0]
    example = choices[0] if choices else "giraffe"
    raise UserError(
        "Which word is the object that the edit is about?",
        came=f"no words; the prompts are '{task.source}' and '{task.target}'",
        expected=f"one of: {', '.join(choices)}" if choices else "a word of each prompt",
        todo=f"add words={example}:{example}",
    )
