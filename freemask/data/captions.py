"""Source prompts that nobody wrote: where one says `auto`, somebody who sees the clip says what it shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from freemask.data.frames import Footage
from freemask.errors import UserError

AUTO = "auto"
HERE = "{source}"  # in a target prompt: what was said of the clip


@runtime_checkable
class Captions(Protocol):
    """Says in a few words what a frame shows."""

    def who(self) -> str:
        """Its name, for the record."""
        ...

    def __call__(self, frame: Float[Tensor, "3 h w"]) -> str: ...


def wanted(said: Mapping[str, Any]) -> bool:
    source = said.get("source")
    return isinstance(source, str) and source.strip() == AUTO


def completed(
    said: Mapping[str, Any], captions: Captions, footage: Footage
) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of a task with its source prompt, and how that was found."""
    caption, how = of(footage, captions)
    return _with(said, caption), {"source": how}


def of(footage: Footage, captions: Captions) -> tuple[str, str]:
    """Of the frame in the middle, which FateZero's authors take: what it shows, and who said so."""
    middle = (len(footage.frames) - 1) // 2
    caption = " ".join(captions(footage.frames[middle]).split())
    if not caption:
        raise UserError(
            "nothing was said of the clip", came=f"an empty caption by {captions.who()}", todo='source="..."'
        )
    return caption, f"{captions.who()}, of frame {footage.indices[middle]}"


def _with(said: Mapping[str, Any], caption: str) -> dict[str, Any]:
    target = said.get("target")
    more = {"target": target.replace(HERE, caption)} if isinstance(target, str) else {}
    return {**said, "source": caption, **more}


@dataclass
class Told:
    """What is said of the clips of a list; each is looked at once."""

    captions: Captions
    footage: Callable[[str], Footage]
    _kept: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __call__(self, said: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        clip = str(said.get("clip", ""))
        if clip not in self._kept:
            self._kept[clip] = of(self.footage(clip), self.captions)
        caption, how = self._kept[clip]
        return _with(said, caption), {"source": how}
