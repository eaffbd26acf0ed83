"""Regions with words of their own: which cells of a layer belong to which, and which tokens of the target prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.modulated import shared
from freemask.errors import UserError
from freemask.masks import nouns
from freemask.masks.plan import MaskPlan, Use, Wanted
from freemask.masks.words import located
from freemask.types import Backbone, EditTask, Grid, Text, Time
from freemask.words import occurrences, own_columns

Members = Float[Tensor, "f n r"]  # which regions each cell of a frame belongs to, 1 or 0


@dataclass(frozen=True)
class Phrases:
    """What is said of one region: its phrases as they stand in the target prompt, and their tokens there. No
    phrase: the region is freed, and nothing is said of it."""

    said: tuple[str, ...]
    places: tuple[tuple[int, ...], ...]

    @property
    def columns(self) -> list[int]:
        return sorted({column for place in self.places for column in place})


@dataclass(frozen=True)
class Layout:
    """The regions of an edit. `official`: cells of no region are like no other cell, not even like each other; how
    large a region is counts cells once for each region that they share, and over the square of the frames."""

    plans: Sequence[MaskPlan]
    phrases: Sequence[Phrases]
    official: bool
    holds: bool = True  # the clip outside them
    _known: dict[tuple[Use, Time, Grid], Members] = field(default_factory=dict, compare=False)

    def members(self, use: Use, t: Time, grid: Grid) -> Members:
        """Those of one time are made once."""
        key = (use, t, grid)
        if key not in self._known:
            for old in [each for each in self._known if each[1] != t]:
                del self._known[old]
            masks = [plan(Wanted(use, t, grid)) for plan in self.plans]
            self._known[key] = rearrange(torch.stack(masks), "r f h w -> f (h w) r").float()
        return self._known[key]

    def within(self, t: Time, grid: Grid) -> Members:
        """For self-attention; in the paper, what is in no region is a region too."""
        found = self.members("self", t, grid)
        return found if self.official else torch.cat([found, 1 - found.amax(-1, keepdim=True)], dim=-1)

    def words(self, tokens: int) -> Float[Tensor, "m r"]:
        """Which tokens of a text belong to each region."""
        found = torch.zeros(tokens, len(self.phrases))
        for place, each in enumerate(self.phrases):
            found[each.columns, place] = 1
        return found

    def share_of_clip(self, members: Members) -> Float[Tensor, "f n"]:
        """How large the region of each cell is, as a share of the clip."""
        frames, cells, _ = members.shape
        if self.official:
            return members @ members.sum((0, 1)) / (frames**2 * cells)
        every = rearrange(members, "f n r -> 1 (f n) r")
        return rearrange(shared(every, every), "1 (f n) -> f n", f=frames) / (frames * cells)

    def share_of_frame(self, members: Members) -> Float[Tensor, "f n"]:
        """How large the region of each cell is in its own frame."""
        if self.official:
            return torch.einsum("f n r, f r -> f n", members, members.sum(1)) / members.shape[1]
        return shared(members, members) / members.shape[1]

    def any(self, t: Time, grid: Grid) -> Float[Tensor, "f h w"]:
        """Where any of them is."""
        found = self.members("latent", t, grid).amax(-1)
        return rearrange(found, "f (h w) -> f h w", h=grid.height)


def phrases_of(tasks: Sequence[EditTask], target: Text, *, described: bool, first: bool) -> list[Phrases]:
    """What the target prompt says of each edit. `described`: with the words that describe a thing (truck: red truck).
    `first`: only where it stands first."""
    found, owners = [], {}
    for task in tasks:
        said = [
            name
            for phrase in located(task).values()
            for name in _as_typed(target.prompt, phrase, whole=described)
        ]
        places = [place for name in dict.fromkeys(said) for place in occurrences(target, name)]
        places = sorted(set(places))[: 1 if first else None]
        made = Phrases(tuple(dict.fromkeys(said)), tuple(places))
        for column in made.columns:
            if owners.setdefault(column, task) is not task:
                raise UserError(
                    "Two edits claim the same words of the target prompt.",
                    came=" and ".join(str(dict(each.words)) for each in (owners[column], task)),
                    expected="words for each edit that tell it apart, such as 'red truck' and 'blue truck'",
                )
        found.append(made)
    return found


def spliced(target: Text, phrases: Sequence[Phrases], backbone: Backbone) -> Text:
    """The prompt, in which each region's words are read by themselves: what comes before them does not colour them."""
    tokens = target.tokens.clone()
    for each in phrases:
        for place in each.places:
            words = _typed_at(target, place)
            alone = backbone.embed(words)
            inner = own_columns(alone)
            if len(inner) != len(place):
                raise UserError(
                    f"'{words}' is read differently alone and in the prompt.",
                    came=f"{len(inner)} tokens alone, {len(place)} in '{target.prompt}'",
                    expected="as many",
                )
            tokens[list(place)] = alone.tokens[list(inner)].to(tokens)
    return replace(target, tokens=tokens)


def _as_typed(prompt: str, phrase: str, *, whole: bool) -> list[str]:
    if not phrase.strip():
        return []
    return (nouns.described(prompt, phrase) if whole else []) or [phrase]


def _typed_at(text: Text, place: Sequence[int]) -> str:
    spans = [text.spans[column] for column in place]
    return text.prompt[min(start for start, _ in spans) : max(end for _, end in spans)]
