"""Paths that a user typed: found, or refused with the nearest name that exists."""

import os
from collections.abc import Callable
from pathlib import Path

from freemask.data.names import fault
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


def path_below(value: object, home: tuple[Path, bool], complain: Callable[[str], None]) -> str:
    """A path that a task names, or "" where it is none. `home`: where it begins, and whether it must stay there."""
    base, listed = home
    if not isinstance(value, str) or not value.strip():
        complain(f"a path was expected, not {value!r}")
        return ""
    path = base / value.strip()
    if wrong := (fault(value.strip()) if listed else None) or _unreachable(path, base if listed else None):
        complain(wrong)
    return str(path)


def _unreachable(path: Path, home: Path | None) -> str | None:
    try:
        if not path.exists():
            return f"there is no '{path.relative_to(home) if home else path.name}' (looked for {path})"
        if home and not path.resolve().is_relative_to(home):
            return f"'{path.relative_to(home)}' is a link that leads out of {home}"
    except (OSError, ValueError) as error:
        return f"{ascii(str(path)[:80])} cannot be looked at: {getattr(error, 'strerror', None) or error}"
    return None
