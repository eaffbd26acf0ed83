"""A folder of tensors that are made once and kept for every run, each file under a hash of what it was made from."""

import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from freemask.errors import UserError

GB = 10**9


class Kept:
    """`folder` None keeps nothing. Beyond `budget_gb` the files used longest ago go. Trouble with the disk is a
    warning, never an error. `what` names one of them for readers, such as "inversion"."""

    def __init__(self, folder: str | Path | None, budget_gb: float | int, what: str) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()
        self.budget, self.what = int(budget_gb * GB), what
        if budget_gb <= 0:
            raise UserError(f"the budget of stored {what}s is too small", came=budget_gb, expected="above 0")

    def load(self, key: str) -> dict[str, Tensor] | None:
        path = self.path(key)
        if path is None or not path.is_file():
            return None
        try:
            found = load_file(path)
            os.utime(path)
        except (OSError, SafetensorError, ValueError) as error:
            warnings.warn(f"a stored {self.what} cannot be read and is made again: {error}", stacklevel=2)
            return None
        return found

    def facts(self, key: str) -> dict[str, str]:
        """What was said of the tensors when they were stored."""
        path = self.path(key)
        if path is None or not path.is_file():
            return {}
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})

    def save(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> bool:
        """Whether they are stored now: as a whole, or not at all."""
        path = self.path(key)
        if path is None:
            return False
        half = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
            save_file(whole, half, None if facts is None else dict(facts))
            half.replace(path)
            self._make_room(path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                half.unlink()
            warnings.warn(f"the {self.what} could not be stored in {self.folder}: {error}", stacklevel=2)
            return False
        return True

    def drop(self, key: str) -> None:
        path = self.path(key)
        if path is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key}.safetensors"

    def _make_room(self, newest: Path) -> None:
        assert self.folder is not None
        known = []
        for path in self.folder.glob("??/*.safetensors"):
            try:
                facts = path.stat()
            except OSError:  # another process made room at the same time
                continue
            known.append((facts.st_mtime, facts.st_size, path))
        total = sum(size for _, size, _ in known)
        for _, size, path in sorted(known, key=lambda each: each[0]):
            if total <= self.budget:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size
