"""A finished calibration's codebook where masks find it, on request only: what it replaces, how to undo it, or how to
ask for it."""

from collections.abc import Sequence
from os import replace
from pathlib import Path

from experiments.runs.rows import cannot_write
from freemask.errors import UserError
from freemask.masks.bookshelf import BOOK, Found, books, find, of
from freemask.masks.codebook import Codebook

FEW = 10  # a codebook of fewer items is mostly chance
REPLACED = "replaced"  # folder beside the installed codebooks; nobody looks there


def install(book: Codebook, folder: str | Path) -> list[str]:
    """Puts the codebook into the folder and says so. Others of the same model step aside: none may outvote it."""
    place = Path(folder).expanduser()
    path = place / f"{book.model}-{book.backbone}.json"
    own = [each for each in books(place) if each.book.backbone == book.backbone]
    if [each.book.digest for each in own] == [book.digest]:
        return [f"installed already:      {own[0].path} ({of(book)})"]
    before = _found(book, place)
    aside = [each for each in own if each.book.digest != book.digest]
    moved = [(each.path, place / REPLACED / f"{each.path.stem}-{each.book.digest}.json") for each in aside]
    try:
        for old, kept in moved:
            kept.parent.mkdir(exist_ok=True)
            replace(old, kept)
    except OSError as error:
        raise cannot_write(place, error) from error
    book.write(path)
    undo = [f"rm {path}", *(f"mv {kept} {old}" for old, kept in moved)]
    return [
        f"INSTALLED: every edit with this model looks up masks in {path} from now on ({of(book)})",
        f"  it replaces:          {before.about if before else 'nothing: this model had no codebook'}",
        f"  to undo:              {' && '.join(undo)}",
        "  runs that have begun go on with the codebook they began with",
        *_few(book),
    ]


def how_to_install(book: Codebook, folder: Path, command: str) -> list[str]:
    """`command` is the one that calibrated."""
    return [
        "not installed: edits look up masks where they did before",
        f"  to use it once:       freemask edit ... mask.codebook={folder / BOOK}",
        f"  to install it:        {command} install=true   (nothing is measured again)",
        *_few(book),
    ]


def not_yet(left: int) -> Sequence[str]:
    return [f"not installed: {left} items are left; the same command does the rest, and then installs"]


def _few(book: Codebook) -> list[str]:
    if book.n >= FEW:
        return []
    return [
        f"  warning:              n = {book.n} is few: at least {FEW}, better 40, make a codebook to rely on"
    ]


def _found(book: Codebook, place: Path) -> Found | None:
    try:
        return find(book.backbone, [place])
    except UserError:
        return None
