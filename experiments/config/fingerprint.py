"""What a run is, as parts and their hash, compared with what a folder holds. No torch: `freemask status` reads it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freemask.errors import UserError

FORMAT = 2  # of a run's record; 1 left out settings by their names


@dataclass(frozen=True)
class Identity:
    parts: Mapping[str, Any]

    @property
    def hash(self) -> str:
        return digest(self.parts)

    def record(self) -> dict[str, Any]:
        return {"format": FORMAT, "identity": self.hash, "parts": self.parts}

    def compare(self, stored: Mapping[str, Any], folder: Path) -> None:
        """Refuse a folder whose record says that something else lies in it."""
        refuse_other_version(stored, folder)
        if stored.get("identity") == self.hash:
            return
        there, here = dict(leaves(stored.get("parts") or {})), dict(leaves(self.parts))
        differing = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
        shown = [
            f"{key}: {_typed(there.get(key))} there, {_typed(here.get(key))} here" for key in differing[:5]
        ]
        kept = [path for key in differing for path in _kept(folder, key, there.get(key))]
        own = "".join(f"go on with the codebook that it began with, mask.codebook={path}; " for path in kept)
        raise UserError(
            f"{folder} holds a run with another configuration",
            came="; ".join(shown) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else ""),
            expected="the configuration that began the run: results of two never share a folder",
            todo=f"{own}choose another name=..., undo the change, or delete the folder",
        )


def _kept(folder: Path, key: str, value: object) -> list[Path]:
    """The run's own copy of what a setting named, where it has one (`experiments/runs/books.py`)."""
    name = str(value).rpartition(" ")[2]
    return (
        sorted(folder.glob(f"codebooks/**/{name}.json"))
        if key.endswith("codebook") and name.isalnum()
        else []
    )


def digest(value: object) -> str:
    """Of what JSON can say, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def refuse_other_version(stored: Mapping[str, Any], folder: Path) -> None:
    if stored.get("format") != FORMAT:
        raise UserError(
            f"{folder} was made by another version of freemask",
            came=f"a record of format {stored.get('format', 1)}",
            expected=f"format {FORMAT}",
            todo="choose another name=..., or go on with the version that began it",
        )


def leaves(node: Mapping[str, Any], sign: str = ".") -> Iterator[tuple[str, Any]]:
    """The values in a tree, by the names on the way there."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}{sign}{name}", each) for name, each in leaves(value, sign))
        else:
            yield key, value


def _typed(value: Any) -> Any:
    """As one would type it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else value
