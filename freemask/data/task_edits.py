"""Several edits of one clip in one task: how they are written, and where their words get in each other's way.

In YAML `edits` is a list of `{words: {red car: green truck}, kind: shape, region: masks/left}`, in CSV and on a command
line one text: `red car->green truck @ masks/left; blue car->blue fish [attribute]`. A semicolon ends an edit; several
pairs of words of one edit stand between commas. A style of the whole names no word of the source (`-> oil [style]`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from freemask.data.kinds import ORDER, SURE, UNSURE, kind_of
from freemask.data.pairs import read_pairs
from freemask.errors import nearest
from freemask.types import KINDS, Kind
from freemask.words import bare, places

OWN = ("words", "kind", "region")
FORM = "red car->green truck @ masks/left; blue car->blue fish"


@dataclass(frozen=True)
class Written:
    """One edit as it was written: what was read of it, and what is wrong with the rest. `kind` and `region` are None
    where nothing was said."""

    words: dict[Any, Any] = field(default_factory=dict)
    kind: Any = None
    region: Any = None
    faults: Sequence[str] = ()

    def pairs(self) -> dict[str, str]:
        """The words that are texts. What a style paints the whole in has no word of the source before its arrow, and is
        none of them."""
        good = {old: new for old, new in self.words.items() if isinstance(old, str) and isinstance(new, str)}
        return {old.strip(): new.strip() for old, new in good.items() if old.strip()}

    def looks(self) -> list[str]:
        """What stands behind an arrow that has nothing before it: how a style makes everything look."""
        texts = (
            (old, new) for old, new in self.words.items() if isinstance(old, str) and isinstance(new, str)
        )
        return [new.strip() for old, new in texts if not old.strip()]

    def read(self) -> tuple[Kind, bool]:
        """The kind, as it can be told from the words alone, and whether surely."""
        found = [kind_of(old, new) for old, new in self.pairs().items()]
        kinds: set[Kind] = {kind for kind, _ in found}
        return strongest(kinds), bool(found) and all(sure for _, sure in found)


def written(value: object) -> list[Written]:
    if isinstance(value, str):
        return [_of_text(part.strip()) for part in value.split(";") if part.strip()]
    if isinstance(value, Mapping):
        return [_of_mapping(value)]
    if isinstance(value, Sequence):
        return [_of_text(each) if isinstance(each, str) else _of_mapping(each) for each in value]
    return [Written(faults=[f"a list of edits was expected, or `{FORM}`, not {value!r}"])]


def filled(values: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
    """`kind` and `words` of a task that has `edits` and does not say them, and what of it was guessed. An edit without
    a kind has that of the whole task, where it is said."""
    edits = written(values["edits"])
    read = [each.read() for each in edits if each.kind is None]
    kinds: set[Kind] = {kind for kind in KINDS if any(each.kind == kind for each in edits)}
    kinds |= {kind for kind, _ in read}
    words = {old: new for each in edits for old, new in each.pairs().items()}
    made: dict[str, object] = {"kind": strongest(kinds), "words": words}
    more = {name: value for name, value in made.items() if values.get(name) is None}
    guessed = {"kind": SURE if all(sure for _, sure in read) else UNSURE} if "kind" in more and read else {}
    return more, guessed


def strongest(kinds: set[Kind]) -> Kind:
    """The kind that all have; of several, that which needs the most freedom."""
    return min(kinds, key=ORDER.index) if kinds else "shape"


def clashes(edits: Sequence[Mapping[str, str]], prompts: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Where the words of two edits (source phrase -> target phrase) are the same of a prompt, with the number of the
    later one."""
    for (a, one), (b, other) in combinations(enumerate(edits, 1), 2):
        twice = {old.casefold() for old in one} & {old.casefold() for old in other}
        if twice:
            yield b, f"edits {a} and {b}: '{sorted(twice)[0]}' is there twice; words belong to one edit"
            continue
        sides = {"source": (one.keys(), other.keys()), "target": (one.values(), other.values())}
        for side, phrases in sides.items():
            first, second = (
                {place for phrase in some for place in places(prompts[side], phrase)} for some in phrases
            )
            if shared := sorted(first & second):
                word = bare(prompts[side].split()[shared[0]])
                mine, others = (" and ".join(f"'{each}'" for each in some if each) for some in phrases)
                said = f"edits {a} and {b}: {mine} and {others} share '{word}' of the {side} prompt"
                yield (
                    b,
                    f"{said}; each needs words of its own there, such as a colour that tells the two apart",
                )


def _of_text(text: str) -> Written:
    """`red car->green truck [shape] @ masks/left`."""
    words, at, region = text.partition(" @ ") if " @ " in text else (text.removesuffix(" @"), "", None)
    faults = ["nothing stands behind the @"] if text.endswith(" @") or at and not str(region).strip() else []
    kind = re.search(r"\s*\[([^\[\]]*)\]\s*$", words)
    pairs, wrong = read_pairs(words[: kind.start()] if kind else words)
    return Written({**pairs}, kind[1].strip() if kind else None, region or None, [*faults, *wrong])


def _of_mapping(value: object) -> Written:
    if not isinstance(value, Mapping):
        return Written(faults=[f"an edit is written as {{words: {{red car: green truck}}}}, not {value!r}"])
    unknown = [str(name) for name in value if name not in OWN]
    faults = [f"unknown field '{name}'; {nearest(name, OWN)}" for name in sorted(unknown)]
    words = value.get("words") or {}
    if isinstance(words, str):
        words, wrong = read_pairs(words)
        faults += wrong
    if not isinstance(words, Mapping):
        faults.append(f"words must be a mapping or `a->b`, not {words!r}")
        words = {}
    return Written(dict(words), value.get("kind") or None, value.get("region") or None, faults)
