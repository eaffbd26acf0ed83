"""Parts of a model that take turns on the card: those that may leave it do, as soon as another part is used."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch

from freemask.errors import UserError, nearest

Offload = Literal["none", "text", "model"]
REST = torch.device("cpu")


class Turns:
    """`guests` rest in main memory and come to the card when they are used; all others stay there. Nothing moves as
    long as one part is used again and again, as in the steps of a loop. `others` may become guests for a while."""

    def __init__(self, card: torch.device, guests: Sequence[Any] = (), others: Sequence[Any] = ()) -> None:
        self.card, self.guests, self.others = card, list(guests), list(others)
        self._here: Any = None

    def take(self, part: Any) -> Any:
        """The part that is about to run."""
        if self.guests and part is not self._here:
            self._move(self._here, REST)
            self._move(part, self.card)
            self._here = part
        return part

    @contextmanager
    def of_all(self) -> Iterator[dict[str, str]]:
        """While it is entered, all parts that can take turns do; says what that changes."""
        if not self.others or self.card == REST:
            yield {}
            return
        before = self.guests
        self._all_rest([*before, *self.others])
        try:
            yield {"model.offload": f"{'text' if before else 'none'} -> model"}
        finally:
            self._all_rest(before)
            for part in self.others:
                part.to(self.card)

    def _all_rest(self, guests: list[Any]) -> None:
        """Nobody is on the card but those who stay; from now on these take turns."""
        self.take(None)
        for part in guests:
            part.to(REST)
        self.guests = guests

    def _move(self, part: Any, to: torch.device) -> None:
        if not any(part is guest for guest in self.guests):
            return
        part.to(to)
        if to == REST and self.card.type == "cuda":
            torch.cuda.empty_cache()  # or only parts of its size could use the room that it leaves


def checked(offload: str, card: torch.device) -> str:
    """On a machine without a card there is nothing to leave."""
    known = get_args(Offload)
    if offload not in known:
        raise UserError(
            "model.offload says what leaves the card while it is not used.",
            came=offload,
            expected=", ".join(known),
            todo=nearest(offload, known),
        )
    return "none" if card == REST else offload
