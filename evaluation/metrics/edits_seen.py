"""Edits-seen: does each of several edits of one clip show the right thing in its place, and do the others stay?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from evaluation.backbones import clip
from evaluation.backbones.judge import Judge
from evaluation.case import Case
from evaluation.metric import Column
from evaluation.metrics.object_seen import instead, place_of
from evaluation.ops import closer, cosine
from freemask.types import EditTask
from freemask.words import bare, places

LEAST = 4  # pixels of a region in a frame, below which nothing can be seen there


@dataclass(frozen=True)
class Question:
    """Whether the first prompt, the target as it is, is what is seen `where`, rather than one of the others."""

    where: Bool[Tensor, "f h w"]
    prompts: Sequence[str]


@dataclass(frozen=True)
class EditsSeen(Judge):
    """In the region of each edit stands what the method made, around it the true answer: then only that region tells
    whether the picture shows the target prompt. CLIP looks at a square around it. It is right where that is nearer to
    the target prompt than to the prompt with the source's words in it, and than to those with a rival in the place of
    one of the edit's words. Things that both prompts name and no edit is about are asked for in the same way, where no
    edit may change them.

    `rivals` are groups of words that could be taken for each other, as in `ObjectSeen`; a thing of whose words none has
    rivals is not asked for. Other settings as in `Judge`.
    """

    rivals: Sequence[Sequence[str]] = ()

    def told(self, label: str) -> Iterator[Column]:
        needs = "a counterfactual, and several edits with words and regions"
        right = "share of frames and edits whose region is seen as what the target prompt says"
        kept = "the same of the things that no edit is about"
        whole = "1 where every edit and every other thing is right in more than half of the frames, else 0"
        for name, about in (("edits_right", right), ("others_kept", kept), ("all_right", whole)):
            yield Column(f"{name}[{label}]", "", True, about, needs)

    def __call__(self, case: Case) -> dict[str, float]:
        if case.oracle is None or not case.each:
            return {}
        edits = [share for each in self._edits(case) if (share := self._right(case, each)) is not None]
        others = [share for each in self._others(case) if (share := self._right(case, each)) is not None]
        whole = min((float(share.mean() > 0.5) for share in (*edits, *others)), default=None)
        if silent := len(case.each) - len(edits):
            whole = None
            self.note(
                f"says nothing of {silent} of the edits of '{case.task.id}': no other word, or nothing to see"
            )
        values = [_mean(edits), _mean(others), whole]
        named = zip(self.columns, values, strict=True)
        return {column.name: value for column, value in named if value is not None}

    def _right(self, case: Case, asked: Question) -> Float[Tensor, " k"] | None:
        """1 or 0 for each frame in which there is something to be seen."""
        assert case.oracle is not None
        seen = asked.where.flatten(1).sum(1) >= LEAST
        model = clip.load(self.found, self.device)
        if any(model.truncates(prompt) for prompt in asked.prompts):
            self.note(f"saw only the beginning of the prompt of '{case.task.id}', which is too long")
        texts = torch.cat([clip.prompt(case, each, self.found, self.device) for each in asked.prompts])
        if any(torch.equal(texts[0], each) for each in texts[1:]):
            self.note(f"is left out: words of '{case.task.id}' are the same to CLIP")
            return None
        if not bool(seen.any()):
            return None
        shown = torch.where(asked.where[:, None], case.edited, case.oracle)[seen]
        pairs = zip(shown, asked.where[seen], strict=True)
        images = torch.cat([model.images(closer(*each)[None]) for each in pairs])
        near = torch.stack([cosine(images, text.expand_as(images)) for text in texts]).argmax(dim=0)
        return (near == 0).double().cpu()

    def _edits(self, case: Case) -> Iterator[Question]:
        """Edits whose words say what is to be seen: others come, and they stand in the target prompt."""
        for edit, region in case.each:
            told = bool(edit.words) and all(
                new and new.casefold() != old.casefold() for old, new in edit.words.items()
            )
            if region is not None and told:
                yield Question(region, [edit.target, *self._instead_of(edit)])

    def _instead_of(self, edit: EditTask) -> Iterator[str]:
        """The target prompt with the source's words, at every place and at each alone, and with rivals."""
        whole = edit.target
        for old, new in edit.words.items():
            whole = instead(whole, new, old)
            count = len(place_of(new).findall(edit.target))
            yield from (instead(edit.target, new, old, only=nth) for nth in range(count) if count > 1)
            yield from self._with_rivals(edit.target, new)
        yield whole

    def _with_rivals(self, prompt: str, phrase: str) -> Iterator[str]:
        for word in phrase.split():
            for rival in self._rivals_of(word):
                other = " ".join(rival if each == word else each for each in phrase.split())
                yield instead(prompt, phrase, other)

    def _others(self, case: Case) -> Iterator[Question]:
        """Annotated things that both prompts name, and of whose words none is an edit's."""
        task = case.task
        changing = [region for _, region in case.each if region is not None]
        sides = ((task.source, task.words), (task.target, task.words.values()))
        taken = [{place for phrase in some for place in places(prompt, phrase)} for prompt, some in sides]
        named = {
            name: places(task.target, name)
            for name in case.masks
            if all(
                places(prompt, name) and not places(prompt, name) & some
                for (prompt, _), some in zip(sides, taken, strict=True)
            )
            and any(self._rivals_of(bare(word)) for word in name.split())
        }
        for name, own in named.items():
            if any(own < other for other in named.values()):
                continue  # car, where there is a blue car
            where = case.masks[name] & ~torch.stack(changing).any(dim=0) if changing else case.masks[name]
            yield Question(where, [task.target, *self._with_rivals(task.target, name)])

    def _rivals_of(self, word: str) -> list[str]:
        group = next((each for each in self.rivals if word.casefold() in map(str.casefold, each)), ())
        return [rival for rival in group if rival.casefold() != word.casefold()]


def _mean(shares: Sequence[Tensor]) -> float | None:
    return float(torch.cat(list(shares)).mean()) if shares else None
