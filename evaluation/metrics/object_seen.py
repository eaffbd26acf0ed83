"""Object-seen: does the edited region show the new thing, the old one still, or something else?"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from evaluation.backbones import clip
from evaluation.backbones.judge import Judge
from evaluation.case import Case
from evaluation.metric import Column
from evaluation.ops import cosine


@dataclass(frozen=True)
class ObjectSeen(Judge):
    """Share of frames that CLIP finds nearest to the target prompt, and nearest to that prompt with the source's word
    in it, among all that are asked about. Only the region counts: around it stand the source's own pixels.

    `rivals` are groups of words that could be taken for each other; the group that holds the target's word is asked
    about too, so that a smudge does not count as the new thing only because it is no longer the old one. Other settings
    as in `Judge`.
    """

    rivals: Sequence[Sequence[str]] = ()

    def told(self, label: str) -> Iterator[Column]:
        needs = "an editable region, and one word for another"
        about = "share of frames whose region is seen as what the target prompt says"
        yield Column(f"object_seen[{label}]", "", True, about, needs)
        yield Column(f"object_kept[{label}]", "", False, f"{about} with the source's word in it", needs)

    def __call__(self, case: Case) -> dict[str, float]:
        prompts = self._prompts(case)
        if case.editable is None or prompts is None:
            return {}
        model = clip.load(self.found, self.device)
        if any(model.truncates(prompt) for prompt in prompts):
            self.note(f"saw only the beginning of the prompt of '{case.task.id}', which is too long")
        texts = torch.cat([clip.prompt(case, each, self.found, self.device) for each in prompts])
        if any(torch.equal(texts[0], each) for each in texts[1:]):
            self.note(f"is left out: the words of '{case.task.id}' are the same to CLIP")
            return {}
        images = model.images(torch.where(case.editable[:, None], case.edited, case.source))
        near = torch.stack([cosine(images, text.expand_as(images)) for text in texts]).argmax(dim=0)
        shares = ((near == which).double().mean() for which in (0, 1))
        return {column.name: float(share) for column, share in zip(self.columns, shares, strict=True)}

    def _prompts(self, case: Case) -> list[str] | None:
        """The target prompt as it is, with the source's word, and with each rival. None where it is not clear which
        word of it is the new one."""
        if len(case.task.words) != 1:
            return None
        ((old, new),) = case.task.words.items()
        target = case.task.target
        if old == new or not new.strip() or len(place_of(new).findall(target)) != 1:
            return None
        group = next((group for group in self.rivals if new.casefold() in map(str.casefold, group)), ())
        own = {old.casefold(), new.casefold()}
        others = [old, *(rival for rival in group if rival.casefold() not in own)]
        return [target, *(instead(target, new, each) for each in others)]


def place_of(word: str) -> re.Pattern[str]:
    """The word or phrase, with the article before it. Case does not matter, as elsewhere."""
    return re.compile(rf"\b(an? )?{re.escape(word)}\b", re.IGNORECASE)


def instead(prompt: str, word: str, other: str, *, only: int | None = None) -> str:
    """With the article that the other word wants; of several places at all, or `only` at one of them."""
    article, count = "an " if other[:1].lower() in "aeiou" else "a ", iter(range(len(prompt)))

    def put(found: re.Match[str]) -> str:
        return found[0] if only not in (None, next(count)) else (article if found[1] else "") + other

    return place_of(word).sub(put, prompt)
