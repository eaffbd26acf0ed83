"""Where codebooks lie: those that ship, those that were installed, and those that calibrations left with their runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from freemask.errors import UserError
from freemask.masks.codebook import BOOK as BOOK
from freemask.masks.codebook import SHIPPED, Codebook

AUTO = "auto"  # instead of a path: the model's own, wherever it is found


class Found(NamedTuple):
    book: Codebook
    path: Path

    @property
    def source(self) -> str:
        """`shipped`, wherever a copy of it lies, or `own`."""
        return "shipped" if any(each.book.digest == self.book.digest for each in books(SHIPPED)) else "own"

    @property
    def about(self) -> str:
        """`shipped, n = 40 of 40, world train`."""
        return f"{self.source}, {of(self.book)}"


def of(book: Codebook) -> str:
    """What a codebook was measured on."""
    data = str(book.data.get("_target_", "")).rpartition(".")[2].lower()
    named = " ".join(str(each) for each in (data, book.data.get("split")) if each)
    return f"n = {book.n} of {book.of}{f', {named}' if named else ''}"


def books(folder: str | Path, broken: list[str] | None = None) -> Iterator[Found]:
    """Those in a folder that can be read; the names of the others go to `broken`."""
    place = Path(folder).expanduser()
    for path in sorted(place.glob("*.json")) if place.is_dir() else ():
        try:
            yield Found(Codebook.read(path), path)
        except UserError:
            if broken is not None:
                broken.append(path.name)


def find(
    identity: str,
    folders: Sequence[str | Path] = (),
    *,
    base: str = "",
    model: str | None = None,
    runs: str | Path | None = None,
) -> Found:
    """The codebook of a backbone: in these folders, the first one first, then among the shipped ones. Where nobody made
    one of it, that of its `base`, the same network without what stands beside it (ControlNets).

    Of several in one folder, the one of most items. `model` only makes the error's advice exact; so does `runs`, below
    which a calibration may have left one that nobody installed: it is offered and never taken.
    """
    broken: list[str] = []
    wanted = own(identity, base)
    for one in wanted:
        for folder in (*folders, SHIPPED):
            found = [each for each in books(folder, broken) if each.book.backbone == one]
            if found:
                return max(found, key=lambda each: (each.book.n, each.book.digest))
    searched = ", ".join(map(str, (*folders, SHIPPED)))
    raise UserError(
        "there is no codebook for this model",
        came=f"identity {' or '.join(wanted)}"
        + "".join(f"; unreadable: {each}" for each in dict.fromkeys(broken)),
        expected=f"a codebook of it in {searched}",
        todo="; or ".join([*(offer for one in wanted for offer in _offers(runs, one)), *_advice(model)]),
    )


def own(identity: str, base: str) -> list[str]:
    """Whose codebooks serve a backbone, the best ones first."""
    return list(dict.fromkeys(each for each in (identity, base) if each))


def _offers(runs: str | Path | None, identity: str) -> list[str]:
    found = [] if runs is None else calibrated(runs, identity)
    return [
        f"take what a calibration left: mask.codebook={each.path} ({of(each.book)})" for each in found[:3]
    ]


def _advice(model: str | None) -> list[str]:
    return [
        f"make one: `freemask calibrate model={model or '...'} install=true` (model=, data= and their settings as for "
        "this run)",
        "choose masks that need none: mask=agreement, mask=average",
    ]


def given(path: str | Path, identity: str, base: str = "") -> Found:
    """The codebook in a file, if it is this backbone's, or its base's."""
    book = Codebook.read(path)
    if book.backbone not in own(identity, base):
        raise UserError(
            "this codebook was made for another model",
            came=f"{path}: {book.model}, identity {book.backbone}",
            expected=f"identity {' or '.join(own(identity, base))}",
            todo="calibrate this model: freemask calibrate model=...",
        )
    return Found(book, Path(path))


def calibrated(runs: str | Path, identity: str) -> list[Found]:
    """What calibrations of this backbone left with their runs, the one of most items first."""
    place, found = Path(runs).expanduser(), []
    for path in sorted([*place.glob(f"*/{BOOK}"), *place.glob(f"*/*/{BOOK}")]):
        found += [each for each in books(path.parent) if each.path == path and each.book.backbone == identity]
    return sorted(found, key=lambda each: -each.book.n)
