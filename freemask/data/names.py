"""Names that come from a file, not from the user's hand: none may lead out of the folder it belongs to."""

import re
import unicodedata
from pathlib import Path

from freemask.errors import UserError

CLIP = "{clip}"  # stands in some paths for the name of each clip
EXPECTED = "a name below the folder, such as clips/bear"
LONGEST = 1000
LONGEST_PART = 200  # bytes of one name, so that a suffix still fits into the 255 of most file systems
LONGEST_ID = 120
# Names that Windows keeps for devices, whatever follows the first dot.
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def fault(name: str) -> str | None:
    """Why this relative path is refused, or None. Only its text is judged; links are the matter of `within`."""
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name):
        return f"{ascii(name[:60])} holds a control character"
    if "\\" in name:
        return f"'{name[:60]}' holds a backslash; write folders with /"
    if name.startswith(("/", "~")) or re.match(r"[A-Za-z]:", name):
        return f"'{name[:60]}' is not a path below the folder: no leading / or ~, no drive"
    if len(name) > LONGEST:
        return f"'{name[:40]}...' is {len(name)} characters long; at most {LONGEST} are allowed"
    parts = name.split("/")
    if ".." in parts:
        return f"'{name[:60]}' leads out of the folder with '..'"
    if not any(part.strip(" .") for part in parts):
        return f"'{name[:60]}' names nothing"
    for part in parts:
        if len(part.encode()) > LONGEST_PART:
            return f"'{part[:40]}...' is longer than {LONGEST_PART} bytes"
        if RESERVED.fullmatch(part):
            return f"'{part}' is a reserved name on some systems"
    return None


def id_fault(id: str) -> str | None:
    """Why an id cannot name a folder, or None. Letters and digits of any script, in the composed form (NFC)."""
    if not id:
        return None  # that it is missing is told elsewhere
    shown = f"id {id[:130]!r}" if id.isprintable() else f"id {ascii(id[:130])}"
    signs = all(sign in "._-" or unicodedata.category(sign)[0] in "LM" or sign.isdecimal() for sign in id)
    if not signs or set(id) == {"."} or unicodedata.category(id[0])[0] == "M":
        return f"{shown} cannot name a folder: only letters, digits and . _ - (at most 120)"
    if len(id) > LONGEST_ID or len(id.encode()) > LONGEST_PART:
        return f"{shown} cannot name a folder: at most {LONGEST_ID} characters and {LONGEST_PART} bytes"
    if RESERVED.fullmatch(unicodedata.normalize("NFKC", id)):
        return f"id '{id}' cannot name a folder: it is a reserved name on some systems"
    return None


def same_name(name: str) -> str:
    """Equal for names that some file system or reader takes for one: of other case, width or composition."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def within(root: Path, name: str) -> Path:
    """`name` below `root`, followed through links; an error where it ends up elsewhere. It need not exist."""
    wrong = fault(name)
    if wrong:
        raise UserError(f"{root}: {wrong}", came=ascii(name[:200]), expected=EXPECTED)
    path = root / name
    try:
        real, home = path.resolve(), root.resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be followed", came=error, expected=EXPECTED) from error
    if not real.is_relative_to(home):
        raise UserError(
            f"{path}: a link leads out of the folder",
            came=real,
            expected=f"a file or folder below {home}",
            todo="copy it there, or name the folder where it really is as the root",
        )
    return path
