"""Several edits of a clip one after another: each begins with the frames that the last one has left, as what editors of
a single thing do with several."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from freemask.masks.several import together
from freemask.types import Clip, Edit, EditTask

AFTER = "after edit "  # and its number: what it has left, where others follow
One = Callable[[Clip, EditTask], Edit]


def in_turn(edit: One, clip: Clip, task: EditTask) -> Edit:
    """`edit` does one. Masks are found by the words of the source, wherever in the row an edit stands."""
    done: list[Edit] = []
    for each in steps_of(task):
        done.append(edit(clip, each))
        clip = replace(clip, frames=done[-1].frames.to(clip.frames))
    masks = [each.extras["mask"] for each in done if "mask" in each.extras]
    extras = {f"{AFTER}{place + 1}": each.frames for place, each in enumerate(done[:-1])}
    if len(masks) == len(done):
        extras["mask"] = torch.stack(masks).amax(0)
    said = [f"edit {place + 1}: {line}" for place, each in enumerate(done) for line in each.warnings]
    seconds: dict[str, float] = {}
    for each in done:
        for stage, value in each.seconds.items():
            seconds[stage] = seconds.get(stage, 0) + value
    facts = {**together([each.facts for each in done]), "edits_in_turn": len(done)}
    return Edit(done[-1].frames, extras, seconds, said, facts)


def steps_of(task: EditTask) -> list[EditTask]:
    """The edits as tasks of their own: each from what those before it have made of the source prompt, the last one to
    the target. One without words, such as a style, comes last: only the target says what it makes."""
    found, prompt = [], task.source
    for each in sorted(task.each, key=lambda each: not each.words):
        after = with_words(prompt, each.words)
        found.append(replace(each, source=prompt, target=after))
        prompt = after
    return [*found[:-1], replace(found[-1], target=task.target)]


def with_words(prompt: str, words: Mapping[str, str]) -> str:
    """A prompt with words in place of others, wherever these stand; a or an before them as it sounds. All at once, so
    that two words may change places."""
    new = {old.lower(): word for old, word in words.items()}
    if new:
        any_of = "|".join(map(re.escape, sorted(new, key=len, reverse=True)))  # the longest that fits
        pattern = rf"(?:\b(an?) )?(?<!\w)({any_of})(?!\w)"
        prompt = re.sub(pattern, lambda at: _with_article(at[1], new[at[2].lower()]), prompt, flags=re.I)
    return " ".join(prompt.split())


def _with_article(article: str | None, word: str) -> str:
    if article is None or not word:
        return word
    sound = "an" if word[0].lower() in "aeiou" else "a"
    return f"{sound.capitalize() if article[0] == 'A' else sound} {word}"
