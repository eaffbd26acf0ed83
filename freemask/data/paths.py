"""Paths that a user typed: found, or refused with the nearest name that exists."""

import os
from pathlib import Path

from freemask.errors import UserError, beside


def existing(path: str | Path) -> Path:
    """The path, or an error that says which part of it is missing and which name there comes nearest."""
    text = str(path)
    try:
        if b"\0" in os.fsencode(text):
            raise ValueError("a zero byte in the name")
        path = Path(path).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{ascii(text[:80])}: cannot be looked at as a path", came=why) from error
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    folder = missing.parent
    raise UserError(
        f"{path}: there is no such file or folder",
        came=f"'{missing.name}' in {folder.resolve()}",
        expected=beside(missing.name, [entry.name for entry in folder.iterdir()])
        if folder.is_dir()
        else "a folder",
    )


def existing_folder(path: str | Path) -> Path:
    path = existing(path)
    if not path.is_dir():
        raise UserError(f"{path}: a file, where a folder was expected")
    return path
