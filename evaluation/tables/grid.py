"""A table as text cells, whatever it is of: the one thing that is printed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

BEST, SECOND = 1, 2
DASH = "-"


@dataclass(frozen=True)
class Shown:
    """`place` 1 is marked as the best of its kind, 2 as the second, 0 not at all."""

    text: str
    place: int = 0


@dataclass(frozen=True)
class Part:
    label: str
    cells: Sequence[Shown]


@dataclass(frozen=True)
class Block:
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Grid:
    """Blocks of several labelled parts below each other; or, without labels, of one line each (`plain`)."""

    title: str
    head: Sequence[str]
    blocks: Sequence[Block]
    notes: Sequence[str] = field(default_factory=tuple)
    missing: Sequence[str] = field(default_factory=tuple)
    corner: str = ""

    @property
    def plain(self) -> bool:
        return not any(part.label for block in self.blocks for part in block.parts)


def lines_of(found: dict[str, list[Shown]]) -> list[Block]:
    """Of a plain grid: what stands first in a line, and its cells."""
    return [Block(name, [Part("", cells)]) for name, cells in found.items()]
