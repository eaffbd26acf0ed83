"""Paths that a user typed: found, or refused with the nearest name that exists."""

from pathlib import Path

from freemask.errors import UserError, nearest


def existing(path: str | Path) -> Path:
    """The path, or an error that says which part of it is missing and which name there comes nearest."""
    path = Path(path).expanduser()
    if path.exists():
        return path
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    folder = missing.parent
    beside = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    few = nearest(missing.name, beside)
    raise UserError(
        f"{path}: there is no such file or folder",
        came=f"'{missing.name}' in {folder.resolve()}",
        expected=few if len(few) < 300 else f"one of the {len(beside)} names in that folder",
    )


def existing_folder(path: str | Path) -> Path:
    path = existing(path)
    if not path.is_dir():
        raise UserError(f"{path}: a file, where a folder was expected")
    return path
